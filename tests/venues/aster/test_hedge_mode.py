"""The account is read with get_account_v4, and one in hedge mode is refused."""

from decimal import Decimal

import pytest

from activities.venues.aster.venue import AsterVenue
from activities.venues.port import HedgeMode
from domain.trading.market import Market
from domain.trading.orders import Fate
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import Heard
from tests.venues.builders import D, make_order


@pytest.fixture
def venue(direct: AsterVenue) -> AsterVenue:
    """What it makes of answers, whatever they travel over."""
    return direct


async def test_the_net_asset_value_is_the_exchanges_margin_balance_to_the_last_digit(
    fake: FakeServer, venue: AsterVenue
) -> None:
    seen = await venue.observe(["BTCUSDT"], None)
    assert seen.account.nav == D("10000.5") - D("12.34567891")
    assert seen.account.unrealised_profit == D("-12.34567891")
    assert fake.calls["get_balance"] == 0


async def test_the_reading_covers_the_whole_account(fake: FakeServer, venue: AsterVenue, heard: Heard) -> None:
    fake.exchange.positions |= {"BTCUSDT": D("-0.5"), "DOGEUSDT": D(70)}
    fake.exchange.rest("ETHUSDT", side="SELL", quantity=D(2), price=D(4000), reduce_only=True)
    fake.exchange.rest("BTCUSDT", spot=True)
    seen = await venue.observe(["BTCUSDT", "ETHUSDT"], "cycle_1")
    assert [(p.symbol, p.quantity, p.mark_price) for p in seen.positions] == [
        ("BTCUSDT", D("-0.5"), D(60_000)),
        ("DOGEUSDT", D(70), D("0.2")),
    ]
    futures, spot = seen.open_orders
    assert (futures.symbol, futures.market, futures.side, futures.reduce_only) == ("ETHUSDT", "futures", "SELL", True)
    assert (spot.symbol, spot.market) == ("BTCUSDT", Market.SPOT)
    assert sorted(seen.marks) == ["BTCUSDT", "DOGEUSDT", "ETHUSDT"]
    assert (seen.rules["BTCUSDT"].maintenance_ratio, seen.rules["ETHUSDT"].maintenance_ratio) == (
        D("0.004"),
        D("0.005"),
    )
    assert {"ticker", "positions"} <= heard.kinds


async def test_a_price_is_as_old_as_the_venue_says(fake: FakeServer, venue: AsterVenue) -> None:
    fresh = await venue.observe(["BTCUSDT"], None)
    assert (fresh.observed_at - fresh.data_time).total_seconds() < 5
    fake.faults.answers = {"get_funding_rate": {"symbol": "BTCUSDT", "markPrice": "1", "time": 1_600_000_000_000}}
    stale = await venue.observe(["BTCUSDT"], None)
    assert stale.data_time.year == 2020


async def test_a_mark_price_that_is_not_reported_comes_from_elsewhere(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"get_funding_rate": 503}
    assert (await venue.observe(["BTCUSDT"], None)).marks == {"BTCUSDT": D(60_000)}
    fake.faults.answers = {"get_positions": []}
    assert (await venue.observe(["BTCUSDT"], None)).marks == {"BTCUSDT": D(60_000)}
    fake.faults.errors = {"get_funding_rate": 503, "get_ticker": 503}
    seen = await venue.observe(["BTCUSDT"], None)
    assert (seen.marks, seen.note) == ({}, "no price: get_ticker BTCUSDT: HTTP 503")


async def test_rules_are_read_once_an_hour_and_prices_each_time(fake: FakeServer, venue: AsterVenue) -> None:
    for _ in range(3):
        await venue.observe(["BTCUSDT"], None)
    assert (fake.calls["get_exchange_info"], fake.calls["get_funding_rate"]) == (1, 3)


async def test_the_marks_of_many_symbols_are_one_call(fake: FakeServer, venue: AsterVenue) -> None:
    fake.exchange.marks |= {symbol: Decimal(7) for symbol in ("AUSDT", "BUSDT", "CUSDT")}
    seen = await venue.observe(["BTCUSDT", "AUSDT", "BUSDT", "NEVERUSDT"], None)
    assert (set(seen.marks), seen.marks["BUSDT"]) == ({"BTCUSDT", "AUSDT", "BUSDT"}, Decimal(7))
    assert fake.sent("get_funding_rate") == [{}]
    fake.faults.errors = {"get_funding_rate": 503}
    assert (await venue.observe(["BTCUSDT", "AUSDT", "BUSDT", "CUSDT"], None)).marks["AUSDT"] == Decimal(7)


async def test_bars_book_and_funding_come_for_all_symbols_at_once(
    fake: FakeServer, venue: AsterVenue, heard: Heard
) -> None:
    views = await venue.markets(["BTCUSDT", "ETHUSDT", "NEVERUSDT"], 5)
    assert sorted(views) == ["BTCUSDT", "ETHUSDT"]
    view = views["BTCUSDT"]
    assert [len(view.bars), view.bars == sorted(view.bars, key=lambda bar: bar.open_time)] == [5, True]
    assert view.book
    assert (view.book.bid, view.book.ask, view.book.bid_quantity) == (D(59_999), D(60_001), D(2))
    # ETHUSDT pays every four hours, so that eight hours cost twice the rate.
    assert (view.funding_rate, views["ETHUSDT"].funding_rate) == (D("0.0001"), D("0.0002"))
    assert fake.sent("get_klines")[0] == {"symbol": "BTCUSDT", "interval": "1m", "limit": 6}
    assert "book" in heard.kinds


async def test_an_account_in_hedge_mode_is_refused_and_nothing_is_traded(fake: FakeServer, venue: AsterVenue) -> None:
    fake.exchange.habits.hedge = True
    with pytest.raises(HedgeMode, match="switch it to one-way; nothing is traded"):
        await venue.observe(["BTCUSDT"], None)
    with pytest.raises(HedgeMode):
        await venue.check()
    report = await venue.create_order(make_order(quantity="0.5"))
    assert (report.fate, fake.calls["create_order"]) == (Fate.NOT_SENT, 0)
    assert "hedge mode" in report.detail
    fake.exchange.habits.hedge = False
    await venue.check()
