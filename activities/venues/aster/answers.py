"""Unwraps a tool's answer, or turns the error that it flagged into one of ours.

The text of a failed call contains the requested URL with its signature. So no text of the server ever leaves this module: it
takes only an error's HTTP status, and words every message itself.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal

from mcp_types import CallToolResult, TextContent

from activities.venues.aster.results import Unreadable
from activities.venues.port import VenueError, VenueMisconfigured, VenueRefused, VenueUnavailable

# How `requests` and `httpx` report a bad status; a bare number could be anything.
_STATUS = re.compile(r"\b([45]\d\d) (?:Client|Server) Error\b|(?:Client|Server) error '([45]\d\d)\b")
_RATE_LIMIT = (418, 429)
_SETTING = (401, 403)
_BAD_REQUEST = 400
_TIMED_OUT = 408
# The official server's messages for an account that it does not have, and for one of a kind (v3) without spot tools.
_NO_SUCH_ACCOUNT = re.compile(r"账户 \S+ (?:不存在|为 V3 密钥签名)")
# Tools without a result schema: fastmcp sends nothing at all for `[]`, and for `null` too. Their callers compare the list with a
# second reading.
_SAY_NOTHING_OF_NONE = ("get_income",)


class BadRequest(VenueRefused):
    """HTTP 400: the call is wrong, or its signature or time; the server does not say which."""

    retryable = False

    def __init__(self, call: str) -> None:
        super().__init__(f"{call}: HTTP {_BAD_REQUEST}")


class TooManyRequests(Exception):
    """HTTP 429 or 418; `backoff.py` decides how long to wait."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


def payload(call: str, result: CallToolResult) -> object:
    """A tool's bare answer. Raises VenueError or TooManyRequests if the tool flagged an error."""
    texts = [block.text for block in result.content if isinstance(block, TextContent)]
    if result.is_error:
        raise error_of(call, "\n".join(texts))
    answer: object = result.structured_content
    if answer is None:
        # Older servers answer only in text: one block, or one for each element of a list.
        try:
            found = [json.loads(text, parse_float=Decimal) for text in texts]
        except ValueError:
            raise Unreadable(call, "it is not JSON") from None
        if not found and call not in _SAY_NOTHING_OF_NONE:
            # Not even an empty list. No answer must not pass for "none".
            raise Unreadable(call, "it is empty")
        answer = found[0] if len(found) == 1 else found
    # Lists come wrapped, because structured content has to be an object.
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
    status = int(found[1] or found[2])
    if status in _RATE_LIMIT:
        return TooManyRequests(status)
    if status in _SETTING:
        return VenueMisconfigured(f"{call}: HTTP {status}: the exchange does not accept the MCP server's key for this")
    if status >= 500 or status == _TIMED_OUT:
        return VenueUnavailable(f"{call}: HTTP {status}")
    return BadRequest(call) if status == _BAD_REQUEST else VenueRefused(f"{call}: HTTP {status}")
