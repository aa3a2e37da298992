"""Shadow: it sees what the real venue shows, and nothing of what it prepares gets there."""

import pytest

from activities.venues.aster.venue import AsterVenue
from activities.venues.port import HedgeMode, Venue
from activities.venues.shadow import ShadowVenue
from domain.desk.outbox import NOT_SENT_IN_SHADOW
from domain.trading.instructions import CANCEL_TOOLS
from domain.trading.orders import Fate
from tests.venues.aster.fake_server import FakeServer
from tests.venues.builders import D, make_order


async def test_shadow_reads_what_the_real_venue_reads(fake: FakeServer, venue: AsterVenue) -> None:
    shadow: Venue = ShadowVenue(venue)
    fake.exchange.positions["BTCUSDT"] = D("0.5")
    seen, real = await shadow.observe(["BTCUSDT"], "cycle_1"), await venue.observe(["BTCUSDT"], "cycle_1")
    assert (seen.positions, seen.account, seen.marks, seen.rules) == (
        real.positions,
        real.account,
        real.marks,
        real.rules,
    )
    assert len((await shadow.markets(["BTCUSDT"], 3))["BTCUSDT"].bars) == 3
    fake.exchange.habits.hedge = True
    with pytest.raises(HedgeMode):
        await shadow.observe(["BTCUSDT"], None)


async def test_orders_are_prepared_and_cancels_call_nothing(fake: FakeServer, venue: AsterVenue) -> None:
    shadow = ShadowVenue(venue)
    fake.exchange.rest("BTCUSDT")
    order = make_order(quantity="0.5")
    report = await shadow.create_order(order)
    assert (report.order_id, report.fate, report.detail) == (order.order_id, Fate.PREPARED, NOT_SENT_IN_SHADOW)
    assert await shadow.find_order(order) is None
    for tool in CANCEL_TOOLS:
        await shadow.cancel_all(tool, "BTCUSDT")
    assert fake.calls.total() == 0
    assert len(fake.exchange.open_orders()) == 1
