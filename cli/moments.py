"""Moments as a person types them."""

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment_of(text: str) -> datetime:
    """A moment `90s`, `10m`, `2h` or `1d` ago, or an ISO 8601 time, in UTC if it has no offset. Raises ValueError."""
    ago = re.fullmatch(r"(\d{1,6})([smhd])", text)
    try:
        found = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])}) if ago else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time: give 10m, 2h, 1d or 2026-03-12T14:30:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
