"""Base classes of every value that crosses a boundary, and the number types that they use."""

import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import ROUND_DOWN, Context, Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict


class Value(BaseModel):
    """A frozen value. Unknown fields are dropped, so that an older process can read a newer one's message."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Record(BaseModel):
    """A part of the carried state: mutable, changed only by the functions of `domain`."""

    model_config = ConfigDict(extra="ignore", validate_assignment=False)

    if not TYPE_CHECKING:
        # A cycle assigns a dozen fields. Pydantic's own record of which fields were ever set, which nobody reads, costs
        # five times as much as the assignment. The type checker still refuses a name that is not a field.
        __setattr__ = object.__setattr__


T = TypeVar("T")
V = TypeVar("V", bound=BaseModel)
_new = object.__new__
# The slots themselves: `object.__setattr__` looks each of them up, and takes twice as long.
_set_fields, _set_names, _set_extra, _set_private = (
    vars(BaseModel)[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


def assembled(kind: type[V], fields: dict[str, Any]) -> V:
    """A value from facts for all its fields that are already valid: validating them again would take most of a cycle's
    time.

    Never use it for anything from outside. A test makes each value a second time, with validation, and compares.
    """
    value = _new(kind)
    _set_fields(value, fields)
    _set_names(value, _names[kind])
    _set_extra(value, None)
    _set_private(value, None)
    return value


class _Names(dict[type[BaseModel], set[str]]):
    """The names of each kind's fields, which `cache` would find half as fast."""

    def __missing__(self, kind: type[BaseModel]) -> set[str]:
        return self.setdefault(kind, set(kind.model_fields))


_names = _Names()


Moment = AwareDatetime

# Wide enough that no product or sum of prices, quantities and fees is ever rounded.
EXACT = Context(prec=100)
ZERO = Decimal(0)
BPS = Decimal("0.0001")
_BREAKS = "\n\r\t\v\f\x85\u2028\u2029"
_MOST_CHARACTERS = 5_000
# 600 digits: more than any text that is kept has characters.
_MOST_BITS = 2_000
_SIX_PLACES = Decimal("0.000001")


def has(items: Iterable[object], wanted: object) -> bool:
    """Whether this very one is among the items. `in` compares values field by field: 200 orders of unknown fate were all compared
    with each other whenever the venue was asked about them."""
    return any(item is wanted for item in items)


def without(items: Iterable[T], gone: object) -> list[T]:
    """The items without this very one. `list.remove` compares values too."""
    return [item for item in items if item is not gone]


def no_truth(value: Any) -> Any:
    """Refuses a boolean, which pydantic would take for 0 or 1."""
    if value is True or value is False:
        raise ValueError("must be a number, not true or false")
    return value


def floor_to_step(quantity: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of `step` not above `quantity` (both positive), written without an exponent."""
    return plain((quantity / step).to_integral_value(rounding=ROUND_DOWN) * step)


def is_endless(value: Any) -> bool:
    """Whether this is a whole number that is too long to be written out: 4,000 digits take longer than a signal may cost."""
    return isinstance(value, int) and value.bit_length() > _MOST_BITS


def encodable(value: Any) -> Any:
    """A text, and every text within lists and objects, without the lone surrogates that UTF-8 refuses. A terminal with
    another encoding makes one of each byte that it does not know."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [encodable(each) for each in value]
    return {encodable(key): encodable(each) for key, each in value.items()} if isinstance(value, dict) else value


def clean(text: str) -> str:
    """Without lone surrogates and NUL, which UTF-8 and PostgreSQL refuse, and without leading and trailing blanks."""
    return str(encodable(text)).replace("\x00", "").strip()


def plain(number: Decimal) -> Decimal:
    """The same number without trailing zeros and exponent: `1E+2` becomes `100`. A number too long to be written out keeps
    its exponent: raising an error here would fail the workflow task that shows it."""
    shortest = number.normalize(EXACT)
    if shortest.adjusted() < 0:
        # Below 1, so its exponent is below 0.
        return shortest
    has_exponent = shortest.as_tuple().exponent > 0  # type: ignore[operator]
    may_be_written = shortest.adjusted() < EXACT.prec
    return shortest.quantize(Decimal(1), context=EXACT) if has_exponent and may_be_written else shortest


def places(number: Decimal, step: Decimal) -> Decimal:
    """The number rounded to `step`, such as 0.01; as it is if it is too long for that."""
    return number.quantize(step, context=EXACT) if number.adjusted() - step.adjusted() < EXACT.prec else number


def digits(number: Decimal) -> str:
    """A fraction for people: at most six decimal places."""
    return str(plain(places(number, _SIX_PLACES)))


class _Shown(dict[int, str | None]):
    """What is shown of each character. Looked up once: 10,000 texts of such characters may queue together with a kill."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        # Control characters, format characters (bidirectional and zero-width ones among them), and lone surrogates.
        is_left_out = unicodedata.category(character) in ("Cc", "Cf", "Cs")
        shown = " " if character in _BREAKS else None if is_left_out else character
        if len(self) >= _MOST_CHARACTERS:
            self.clear()
        self[code] = shown
        return shown


_SHOWN = _Shown()


def printable(text: str) -> str:
    """The text as a terminal may show it: one line, without anything that controls the terminal or reverses the reading
    order.

    The incident behind it: an escape sequence in a kill's reason reached the operator's terminal through `ais status`.
    """
    return text if text.isprintable() else text.translate(_SHOWN)


def printable_lines(text: str) -> str:
    """The same for a text whose line breaks are our own."""
    return "\n".join(map(printable, text.split("\n")))


def printable_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a log line, as a terminal may show them."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}


def iso(moment: datetime) -> str:
    """A moment for people: to the second, with its offset."""
    return moment.isoformat(timespec="seconds")
