"""An error's text holds the signed query string. Of it the HTTP status is read, and nothing of it goes anywhere."""

import json
import logging
import traceback
from typing import Any

import pytest
from mcp_types import CallToolResult, TextContent

from activities.failures import failure
from activities.venues.aster.answers import BadRequest, TooManyRequests, error_of, payload
from activities.venues.aster.results import Row, Unreadable, rows
from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueError, VenueMisconfigured, VenueRefused, VenueUnavailable
from domain.trading.instructions import Tool
from domain.trading.orders import OrderReport
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.faults import SECRET, error_text
from tests.venues.aster.running import make_venue
from tests.venues.builders import D, make_order
from tests.venues.variants import THOROUGH

# One of each kind, and those that are told apart from none of them (`test_errors_differ_by_their_http_status_alone`).
STATUSES, LIKE_THEM = [0, 400, 401, 404, 429, 503], [403, 408, 418, 500]


async def outcome(call: Any) -> OrderReport | VenueError | None:
    try:
        found: OrderReport | None = await call
    except VenueError as error:
        return error
    return found


def everything(found: OrderReport | VenueError | None) -> str:
    """All that could be written down of an outcome: text, report, traceback with its causes, and what Temporal is told."""
    if not isinstance(found, VenueError):
        return repr(found)
    told = failure(found, "the venue cannot be observed: ")
    return "".join([str(found), repr(found), *traceback.format_exception(found), *traceback.format_exception(told)])


@pytest.mark.parametrize("status", [*STATUSES, *map(THOROUGH, LIKE_THEM)])
async def test_neither_secret_nor_signature_reaches_a_text_a_report_or_a_log(
    fake: FakeServer,
    venue: AsterVenue,
    status: int,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    order = make_order(quantity="0.1")
    with caplog.at_level(logging.DEBUG):
        fake.faults.errors = {"create_order": status}
        written = everything(await outcome(venue.create_order(order)))
        fake.faults.errors = {"*": status}
        for call in (
            venue.observe(["BTCUSDT"], None),
            venue.markets(["BTCUSDT"], 2),
            venue.cancel_all(Tool.CANCEL_ALL_ORDERS, "BTCUSDT"),
            venue.find_order(order),
            venue.ping(),
        ):
            written += everything(await outcome(call))
    out, err = capfd.readouterr()
    for place in (written, caplog.text, out, err):
        assert SECRET not in place
        assert "signature=" not in place
        assert "timestamp=" not in place
    assert "venue call" in caplog.text or "venue call" in out + err


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (404, VenueRefused),
        (401, VenueMisconfigured),
        (403, VenueMisconfigured),
        (408, VenueUnavailable),
        (429, TooManyRequests),
        (418, TooManyRequests),
        (500, VenueUnavailable),
        (503, VenueUnavailable),
        (0, VenueUnavailable),
    ],
)
def test_errors_differ_by_their_http_status_alone(status: int, kind: type[Exception]) -> None:
    error = error_of("create_order BTCUSDT", error_text("create_order", status))
    assert type(error) is kind
    if status and kind is not TooManyRequests:
        assert str(error).startswith(f"create_order BTCUSDT: HTTP {status}")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Client error '429 Too Many Requests' for url 'https://x'", 429),
        ("Max retries exceeded with url: /fapi/v1/order?timestamp=1795503404400&quantity=503", None),
        ("1 validation error for call[get_positions]", None),
        ("", None),
    ],
)
def test_a_number_in_the_text_is_no_status(text: str, status: int | None) -> None:
    error = error_of("ping", text)
    assert getattr(error, "status", None) == status


@pytest.mark.parametrize("value", ["1e150", "-1e61", "1e-999999", "NaN", "1e400", True, "", None])
def test_what_no_exchange_has_is_no_number(value: object) -> None:
    with pytest.raises(Unreadable):
        Row("get_positions", {"positionAmt": value}).number("positionAmt")
    with pytest.raises(Unreadable):
        Row("get_positions", {"positionAmt": 10**5000}).number("positionAmt")


@pytest.mark.parametrize("value", ["0", "0E-40", 1788000000000, 2**63, "0.000000001", -1.5])
def test_numbers_are_read_as_they_are(value: object) -> None:
    assert Row("get_positions", {"positionAmt": value}).number("positionAmt") == D(str(value))


async def test_a_ping_that_fails_without_a_flag_fails(fake: FakeServer, venue: AsterVenue) -> None:
    await venue.ping()
    fake.faults.ping_fails = True
    with pytest.raises(VenueUnavailable, match="does not reach the exchange"):
        await venue.ping()


async def test_codes_may_be_strings_or_numbers_since_nobody_reads_them(fake: FakeServer, venue: AsterVenue) -> None:
    for tool, code in ((Tool.CANCEL_ALL_ORDERS, "200"), (Tool.CANCEL_SPOT_ALL_ORDERS, 200)):
        await venue.cancel_all(tool, "BTCUSDT")
        fake.faults.answers = {tool.value: {"code": str(code), "msg": "?"}}
        await venue.cancel_all(tool, "BTCUSDT")
        fake.faults.answers = {tool.value: {"code": -1, "msg": "nothing was done"}}
        fake.exchange.rest("BTCUSDT", spot=tool is Tool.CANCEL_SPOT_ALL_ORDERS)
        fake.exchange.habits.ignores_cancels = True
        with pytest.raises(VenueUnavailable, match="1 order is still open"):
            await venue.cancel_all(tool, "BTCUSDT")
        fake.exchange.habits.ignores_cancels = False
        fake.faults.answers = {}


async def test_answers_in_text_alone_are_read(fake: FakeServer, address: str) -> None:
    """As older servers give them, which promise no structure."""
    promised, fake.faults.text_only = fake._schemas, True
    fake._schemas = {name: {k: v for k, v in tool.items() if k != "outputSchema"} for name, tool in promised.items()}
    venue = make_venue(address)
    try:
        fake.exchange.positions["BTCUSDT"] = D("0.5")
        (position,) = (await venue.observe(["BTCUSDT"], None)).positions
        assert position.quantity == D("0.5")
        assert (await venue.create_order(make_order(quantity="0.1"))).filled_quantity == D("0.1")
    finally:
        fake._schemas = promised
        await venue.close()


def test_a_list_may_come_as_one_block_an_element() -> None:
    blocks = [TextContent(text=json.dumps({"orderId": number, "price": 0.1})) for number in (1, 2)]
    found = rows("get_open_orders", payload("get_open_orders", CallToolResult(content=[*blocks])))
    assert [(row.text("orderId"), row.number("price")) for row in found] == [("1", D("0.1")), ("2", D("0.1"))]


@pytest.mark.parametrize("texts", [[], ["no JSON"], ["<html>"]])
def test_an_answer_that_says_nothing_is_not_taken_for_none(texts: list[str]) -> None:
    with pytest.raises(Unreadable):
        payload("get_open_orders", CallToolResult(content=[TextContent(text=text) for text in texts]))


@pytest.mark.parametrize(
    ("tool", "answer"),
    [
        ("get_account_v4", {}),
        ("get_account_v4", {"totalMarginBalance": "NaN", "totalUnrealizedProfit": "0"}),
        ("get_account_v4", {"totalMarginBalance": True, "totalUnrealizedProfit": "0"}),
        ("get_positions", [{"symbol": "BTCUSDT"}]),
        ("get_positions", [{"symbol": "BTCUSDT", "positionAmt": "Infinity"}]),
        ("get_positions", [{"symbol": "XUSDT", "positionAmt": "1", "markPrice": "0"}]),
        ("get_positions", ["BTCUSDT"]),
        ("get_open_orders", [{"symbol": "BTCUSDT", "orderId": 1, "side": "HOLD", "origQty": "1"}]),
    ],
)
async def test_what_is_missing_or_no_number_is_an_error_and_never_a_guess(
    fake: FakeServer, venue: AsterVenue, tool: str, answer: Any
) -> None:
    fake.faults.answers = {tool: answer}
    with pytest.raises(VenueUnavailable):
        await venue.observe(["BTCUSDT"], None)
