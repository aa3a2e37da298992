"""Limit orders of agents rest, are followed by the exchange's id, and are canceled one by one."""

from typing import Any

import pytest

from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueRateLimited, VenueUnavailable
from domain.trading.instructions import Tool
from domain.trading.orders import Fate, OrderReport
from tests.venues.aster.exchange import FakeOrder
from tests.venues.aster.fake_server import FakeServer
from tests.venues.builders import D, make_order
from tests.venues.variants import THOROUGH


@pytest.fixture
def venue(direct: AsterVenue) -> AsterVenue:
    """What it makes of answers, whatever they travel over."""
    return direct


async def placed(venue: AsterVenue, **changes: Any) -> OrderReport:
    facts = {"order_type": "LIMIT", "price": "59000", "quantity": "0.5"}
    return await venue.create_order(make_order(**(facts | changes)))


@pytest.mark.parametrize("time_in_force", ["GTC", "GTX"])
async def test_an_order_that_rests_is_open_under_the_exchanges_id(
    fake: FakeServer, venue: AsterVenue, time_in_force: str
) -> None:
    report = await placed(venue, time_in_force=time_in_force)
    (order,) = fake.exchange.open_orders()
    assert (report.fate, report.filled_quantity, report.venue_order_id) == (Fate.OPEN, D(0), str(order.order_id))
    (sent,) = fake.sent("create_order")
    assert (sent["order_type"], sent["price"], sent["time_in_force"]) == ("LIMIT", 59000.0, time_in_force)
    (shown,) = (await venue.observe(["BTCUSDT"], None)).open_orders
    assert (shown.order_id, shown.price) == (report.venue_order_id, D(59000))


@pytest.mark.parametrize("time_in_force", ["IOC", "FOK"])
async def test_an_order_that_may_not_rest_ends_at_once(fake: FakeServer, venue: AsterVenue, time_in_force: str) -> None:
    assert (await placed(venue, time_in_force=time_in_force)).fate is Fate.CANCELED
    filled = await placed(venue, time_in_force=time_in_force, price="60000")
    assert (filled.fate, filled.filled_quantity) == (Fate.FILLED, D("0.5"))
    assert [call["time_in_force"] for call in fake.sent("create_order")] == [time_in_force] * 2


async def test_post_only_that_would_take_is_not_left_open(fake: FakeServer, venue: AsterVenue) -> None:
    report = await placed(venue, time_in_force="GTX", price="60001")
    assert (report.fate, fake.exchange.position("BTCUSDT")) == (Fate.CANCELED, D(0))


# --- the cancel of one order -----------------------------------------------------------------------------------------


async def rested(fake: FakeServer) -> tuple[FakeOrder, FakeOrder]:
    return fake.exchange.rest("BTCUSDT"), fake.exchange.rest("BTCUSDT")


async def test_a_cancel_takes_one_order_and_is_confirmed_by_two_sources(fake: FakeServer, venue: AsterVenue) -> None:
    mine, other = await rested(fake)
    await venue.cancel_order("BTCUSDT", str(mine.order_id))
    assert fake.exchange.open_orders() == [other]
    assert [name for name, _ in fake.arguments] == ["cancel_order", "get_open_orders"]


@pytest.mark.parametrize("status", [400, 503, THOROUGH(500), THOROUGH(0)])
@pytest.mark.parametrize("ended", ["FILLED", "CANCELED", "EXPIRED"])
async def test_an_order_that_had_ended_before_is_as_good_as_canceled(
    fake: FakeServer, venue: AsterVenue, ended: str, status: int
) -> None:
    mine, _ = await rested(fake)
    mine.status, fake.faults.errors = ended, {"cancel_order": status}
    await venue.cancel_order("BTCUSDT", str(mine.order_id))


@pytest.mark.parametrize("status", [503, 400])
async def test_an_error_after_which_it_rests_confirms_nothing(fake: FakeServer, venue: AsterVenue, status: int) -> None:
    mine, _ = await rested(fake)
    fake.faults.errors = {"cancel_order": status}
    with pytest.raises(VenueUnavailable, match=f"still listed as open .*HTTP {status}"):
        await venue.cancel_order("BTCUSDT", str(mine.order_id))


async def test_a_good_answer_with_the_order_left_confirms_nothing(fake: FakeServer, venue: AsterVenue) -> None:
    mine, _ = await rested(fake)
    fake.exchange.habits.ignores_cancels = True
    with pytest.raises(VenueUnavailable, match="still listed as open"):
        await venue.cancel_order("BTCUSDT", str(mine.order_id))


async def test_an_order_that_a_list_leaves_out_and_that_says_it_is_open_is_open(
    fake: FakeServer, venue: AsterVenue
) -> None:
    mine, _ = await rested(fake)
    fake.faults.errors, fake.faults.answers = {"cancel_order": 503}, {"get_open_orders": []}
    with pytest.raises(VenueUnavailable, match=f"order {mine.order_id} is NEW"):
        await venue.cancel_order("BTCUSDT", str(mine.order_id))


@pytest.mark.parametrize("tool", ["get_open_orders", "get_order"])
async def test_what_cannot_be_read_back_confirms_nothing(fake: FakeServer, venue: AsterVenue, tool: str) -> None:
    mine, _ = await rested(fake)
    mine.status, fake.faults.errors = "CANCELED", {"cancel_order": 503, tool: 503}
    with pytest.raises(VenueUnavailable):
        await venue.cancel_order("BTCUSDT", str(mine.order_id))


async def test_an_exchange_that_asks_for_a_pause_does_so_of_no_cancel_of_a_kill(
    fake: FakeServer, venue: AsterVenue
) -> None:
    mine, _ = await rested(fake)
    fake.faults.errors = {"cancel_order": 429}
    with pytest.raises(VenueRateLimited):
        await venue.cancel_order("BTCUSDT", str(mine.order_id))
    fake.faults.errors = {}
    with pytest.raises(VenueRateLimited):
        await venue.cancel_order("BTCUSDT", str(mine.order_id))
    await venue.cancel_all(Tool.CANCEL_ALL_ORDERS, "BTCUSDT")
    assert fake.exchange.open_orders() == []
