"""Reads what the server's tools answer.

The text of a failed call holds the URL that was asked, with its signature. So no text of the server's ever leaves this
module: of an error the HTTP status alone is taken, and every sentence is our own.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from mcp_types import CallToolResult, TextContent

from activities.venues.port import VenueError, VenueMisconfigured, VenueRefused, VenueUnavailable

# How `requests` and `httpx` begin the text of a bad status; a bare number may be anything.
_STATUS = re.compile(r"\b([45]\d\d) (?:Client|Server) Error\b|(?:Client|Server) error '([45]\d\d)\b")
_RATE_LIMIT = (418, 429)
_SETTING = (401, 403)
_BAD_REQUEST = 400
_TIMED_OUT = 408
# The official server's own words for an account that it does not have, and for one of the kind (v3) that has no spot tools.
_NO_SUCH_ACCOUNT = re.compile(r"账户 \S+ (?:不存在|为 V3 密钥签名)")
# Tools without a schema of results, of which fastmcp leaves nothing for `[]`, and nothing for `null`: for whoever compares what
# they list with a second reading.
_SAY_NOTHING_OF_NONE = ("get_income",)


class Unreadable(VenueUnavailable):
    """The venue answered something that cannot be read, so what it did is not known."""

    retryable = True

    def __init__(self, call: str, what: str) -> None:
        super().__init__(f"{call}: the answer cannot be read: {what}")


class BadRequest(VenueRefused):
    """HTTP 400: the call is wrong, or its signature or time; the server does not say which."""

    retryable = False

    def __init__(self, call: str) -> None:
        super().__init__(f"{call}: HTTP {_BAD_REQUEST}")


class TooManyRequests(Exception):
    """HTTP 429 or 418; how long to wait for is the rate limit's own to say."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


def payload(call: str, result: CallToolResult) -> object:
    """What a tool answered, bare. Raises VenueError or TooManyRequests for what it flagged as an error."""
    if result.is_error:
        raise error_of(call, _text(result))
    answer = _from_text(call, result) if result.structured_content is None else result.structured_content
    # Lists come wrapped, since structured content has to be an object.
    if isinstance(answer, Mapping) and set(answer) == {"result"}:
        return answer["result"]
    return answer


def error_of(call: str, text: str) -> VenueError | TooManyRequests:
    """The error behind a flagged text."""
    found = _STATUS.search(text)
    if found is None and _NO_SUCH_ACCOUNT.search(text):
        return VenueMisconfigured(
            f"{call}: the MCP server has no such account that may trade both markets: look at AIS_ASTER_ACCOUNT_ID"
        )
    if found is None:
        return VenueUnavailable(
            f"{call}: the MCP server failed and names no HTTP status (does it reach the exchange? does it know the account?)"
        )
    return _of_status(call, int(found[1] or found[2]))


def _of_status(call: str, status: int) -> VenueError | TooManyRequests:
    if status in _RATE_LIMIT:
        return TooManyRequests(status)
    if status in _SETTING:
        return VenueMisconfigured(f"{call}: HTTP {status}: the exchange does not accept the MCP server's key for this")
    if status >= 500 or status == _TIMED_OUT:
        return VenueUnavailable(f"{call}: HTTP {status}")
    return BadRequest(call) if status == _BAD_REQUEST else VenueRefused(f"{call}: HTTP {status}")


def _texts(result: CallToolResult) -> list[str]:
    return [block.text for block in result.content if isinstance(block, TextContent)]


def _text(result: CallToolResult) -> str:
    return "\n".join(_texts(result))


def _from_text(call: str, result: CallToolResult) -> object:
    """Older servers answer in text alone: one block, or one for each element of a list."""
    try:
        found = [json.loads(text, parse_float=Decimal) for text in _texts(result)]
    except ValueError:
        raise Unreadable(call, "it is no JSON") from None
    if not found and call in _SAY_NOTHING_OF_NONE:
        return []
    if not found:
        # Not even an empty list: nothing was said, and nothing is taken for "none".
        raise Unreadable(call, "it is empty")
    return found if len(found) > 1 else found[0]


class Row:
    """One object of an answer. Whatever is missing, or no number, is an error: nothing is filled in."""

    def __init__(self, call: str, fields: object) -> None:
        if not isinstance(fields, Mapping):
            raise Unreadable(call, "an object was expected")
        self.call = call
        self._fields = fields

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise Unreadable(self.call, f"{name} is missing")
        return str(value)

    def words(self, name: str) -> str:
        """A text that may be empty or missing."""
        return self.text(name) if self._fields.get(name) not in (None, "") else ""

    def number(self, name: str) -> Decimal:
        """Strings and numbers both occur; NaN, infinity and truth values are no numbers."""
        value = self._fields.get(name)
        found = (
            None if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal) else _decimal(value)
        )
        if found is None:
            raise Unreadable(self.call, f"{name} is missing or not a number")
        return found

    def positive(self, name: str) -> Decimal | None:
        """A price or size; None where there is none: zero stands for that."""
        if not self.has(name):
            return None
        found = self.number(name)
        return found if found > 0 else None

    def flag(self, name: str) -> bool:
        return str(self._fields.get(name)).lower() == "true"

    def moment(self, name: str) -> datetime | None:
        """A time in milliseconds; None where the venue does not tell it."""
        milliseconds = self.positive(name)
        return None if milliseconds is None else moment_of(self.call, milliseconds)

    def listed(self, name: str) -> list[object]:
        value = self._fields.get(name)
        if not isinstance(value, list):
            raise Unreadable(self.call, f"{name} is not a list")
        return value


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


def _decimal(value: object) -> Decimal | None:
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None
