"""Cancel-all is per symbol, safe to repeat, and judged by what is left; reduce-only orders are sized exactly."""

import pytest

from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueRefused, VenueUnavailable
from domain.trading.instructions import Tool
from domain.trading.orders import Fate
from tests.venues.aster.fake_server import FakeServer
from tests.venues.builders import D, make_order
from tests.venues.variants import THOROUGH

FUTURES, SPOT = Tool.CANCEL_ALL_ORDERS, Tool.CANCEL_SPOT_ALL_ORDERS
both_markets = pytest.mark.parametrize("tool", [FUTURES, SPOT])


@both_markets
async def test_it_is_confirmed_by_a_reading_that_shows_nothing_open(
    fake: FakeServer, venue: AsterVenue, tool: Tool
) -> None:
    spot = tool is SPOT
    for symbol in ("BTCUSDT", "BTCUSDT", "ETHUSDT"):
        fake.exchange.rest(symbol, spot=spot)
    await venue.cancel_all(tool, "BTCUSDT")
    assert [order.symbol for order in fake.exchange.open_orders(spot=spot)] == ["ETHUSDT"]
    names = [name for name, _ in fake.arguments]
    assert names == [tool.value, "get_spot_open_orders" if spot else "get_open_orders"]


@both_markets
async def test_a_good_answer_with_orders_left_is_no_confirmation(
    fake: FakeServer, venue: AsterVenue, tool: Tool
) -> None:
    fake.exchange.habits.ignores_cancels = True
    for _ in range(2):
        fake.exchange.rest("BTCUSDT", spot=tool is SPOT)
    with pytest.raises(VenueUnavailable, match="2 orders are still open"):
        await venue.cancel_all(tool, "BTCUSDT")


@both_markets
@pytest.mark.parametrize("status", [400, 503, THOROUGH(500), THOROUGH(0)])
async def test_an_error_after_which_nothing_is_open_is_a_confirmation(
    fake: FakeServer, venue: AsterVenue, tool: Tool, status: int
) -> None:
    fake.exchange.rest("BTCUSDT", spot=tool is SPOT)
    fake.faults.errors, fake.faults.executes = {tool.value: status}, True
    await venue.cancel_all(tool, "BTCUSDT")


async def test_an_error_with_orders_left_tells_both(fake: FakeServer, venue: AsterVenue) -> None:
    fake.exchange.rest("BTCUSDT")
    fake.faults.errors = {"cancel_all_orders": 503}
    with pytest.raises(VenueUnavailable, match=r"1 order is still open \(cancel_all_orders BTCUSDT: HTTP 503\)"):
        await venue.cancel_all(FUTURES, "BTCUSDT")


async def test_a_reading_that_fails_confirms_nothing(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"get_open_orders": 503}
    with pytest.raises(VenueUnavailable):
        await venue.cancel_all(FUTURES, "BTCUSDT")


async def test_a_cancel_that_was_given_up_is_confirmed_by_what_is_left(fake: FakeServer, hasty: AsterVenue) -> None:
    await hasty.ping()
    fake.exchange.rest("BTCUSDT")
    fake.faults.late = {"cancel_all_orders": 5}
    await hasty.cancel_all(FUTURES, "BTCUSDT")
    assert fake.exchange.open_orders() == []


async def test_an_order_that_is_listed_a_moment_longer_is_looked_at_again(fake: FakeServer, venue: AsterVenue) -> None:
    order = fake.exchange.rest("BTCUSDT")
    fake.faults.answers = {"get_open_orders": [order.row()]}
    with pytest.raises(VenueUnavailable):
        await venue.cancel_all(FUTURES, "BTCUSDT")
    assert fake.calls["get_open_orders"] == 3


async def test_a_symbol_that_only_the_other_market_has_can_be_quiet(fake: FakeServer, venue: AsterVenue) -> None:
    with pytest.raises(VenueRefused):
        # The fake's two markets list the same symbols: the whole list is asked, and it has none of this one.
        await venue._caller.call("get_spot_open_orders", "ONLYFUTURES")
    await venue.cancel_all(SPOT, "ONLYFUTURES")


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_reduction_that_is_sized_exactly_works_whatever_the_exchange_does_to_oversized_ones(
    fake: FakeServer, venue: AsterVenue, refuses: bool
) -> None:
    fake.exchange.habits.refuses_oversized = refuses
    fake.exchange.positions["ETHUSDT"] = D("-0.333")
    report = await venue.create_order(make_order(symbol="ETHUSDT", quantity="0.333", reduce_only=True))
    assert (report.fate, report.filled_quantity) == (Fate.FILLED, D("0.333"))
    assert fake.exchange.position("ETHUSDT") == 0
    if refuses:
        fake.exchange.positions["ETHUSDT"] = D("-0.333")
        with pytest.raises(VenueRefused):
            await venue.create_order(make_order(symbol="ETHUSDT", quantity="0.5", reduce_only=True))
