"""Reads the values in the answers of the server's tools.

It does not import MCP: that SDK is a third of all that a worker would import, and a paper desk reads no server's answers.
"""

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from activities.venues.port import VenueUnavailable
from domain.values import ZERO

# No price, amount or time has more digits before or after its point. A longer one could take minutes to compute with:
# `1e999999999` is finite, and as an integer it fills the memory.
MOST_DIGITS = 60


class Unreadable(VenueUnavailable):
    """The venue's answer cannot be read, so it is not known what the venue did."""

    retryable = True

    def __init__(self, call: str, what: str) -> None:
        super().__init__(f"{call}: the answer cannot be read: {what}")


class Row:
    """One object of an answer. A missing or malformed value is an error: nothing gets a default."""

    def __init__(self, call: str, fields: object) -> None:
        if not isinstance(fields, Mapping):
            raise Unreadable(call, "an object was expected")
        self.call = call
        self._fields = fields

    def of_order(self, order_id: int) -> "Row":
        """This row; raises Unreadable if it is not the order that was asked for."""
        if self.number("orderId") != order_id:
            raise Unreadable(self.call, "it is about another order")
        return self

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise Unreadable(self.call, f"{name} is missing")
        return str(value)

    def order_id(self) -> str:
        """An order's id. The tools take a whole number for it."""
        found = self.text("orderId")
        if not (found.isascii() and found.isdigit() and len(found) < MOST_DIGITS):
            raise Unreadable(self.call, "orderId is not a whole number")
        return found

    def words(self, name: str) -> str:
        """A text that may be empty or missing."""
        return self.text(name) if self._fields.get(name) not in (None, "") else ""

    def number(self, name: str) -> Decimal:
        """A number, written as a number or a string. NaN, infinity and booleans are refused."""
        value = self._fields.get(name)
        if isinstance(value, str | int | float | Decimal) and not isinstance(value, bool):
            with contextlib.suppress(InvalidOperation, ValueError):
                found = Decimal(str(value))
                if found.is_finite() and _is_reasonable(found):
                    return found
        raise Unreadable(self.call, f"{name} is missing or not a number")

    def positive(self, name: str) -> Decimal | None:
        """A price or size; None if it is missing or zero, which means the same."""
        if not self.has(name):
            return None
        found = self.number(name)
        return found if found > 0 else None

    def filled(self, name: str, quantity: Decimal) -> Decimal:
        """How much of an order's quantity is filled; 0 if it is missing. Less than nothing, or more than all, is unreadable."""
        found = self.number(name) if self.has(name) else ZERO
        if not ZERO <= found <= quantity:
            raise Unreadable(self.call, f"{name} is {found} of {quantity}")
        return found

    def flag(self, name: str) -> bool:
        return str(self._fields.get(name)).lower() == "true"

    def moment(self, name: str) -> datetime | None:
        """A time in milliseconds; None if the venue does not tell it."""
        milliseconds = self.positive(name)
        return None if milliseconds is None else moment_of(self.call, milliseconds)

    def listed(self, name: str) -> list[object]:
        value = self._fields.get(name)
        if not isinstance(value, list):
            raise Unreadable(self.call, f"{name} is not a list")
        return value


def _is_reasonable(number: Decimal) -> bool:
    return number.adjusted() < MOST_DIGITS and -number.as_tuple().exponent < MOST_DIGITS  # type: ignore[operator]


def rows(call: str, answer: object) -> list[Row]:
    """Every object of a list."""
    if not isinstance(answer, list):
        raise Unreadable(call, "a list was expected")
    return [Row(call, fields) for fields in answer]


def moment_of(call: str, milliseconds: Decimal) -> datetime:
    """A time as the exchange writes it."""
    try:
        return datetime.fromtimestamp(float(milliseconds) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        raise Unreadable(call, "a time is out of range") from None


def decimal_at(call: str, values: object, index: int) -> Decimal:
    """One number of a list such as a bar or a level of the book."""
    if not isinstance(values, list) or len(values) <= index:
        raise Unreadable(call, "a longer list was expected")
    return Row(call, {"value": values[index]}).number("value")
