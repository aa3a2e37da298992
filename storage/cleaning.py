"""Text as PostgreSQL can hold it.

The failure behind this file: JSON can express a reason with a NUL or half a surrogate pair in it. PostgreSQL refuses such a
text on every try, and the rows that wait behind it are never written. A kill's row must not depend on what somebody typed as
the reason.
"""

from collections.abc import Mapping
from typing import Any

REPLACEMENT = "\ufffd"


def clean(value: str) -> str:
    """The same text, with a replacement character for what PostgreSQL refuses."""
    return value.encode("utf-8", "replace").decode().replace("\x00", REPLACEMENT)


def clean_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row's values with every text in them cleaned, in lists and dicts too."""
    return {name: _cleaned(value) for name, value in values.items()}


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case list():
            return [_cleaned(item) for item in value]
        case dict():
            return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return value
