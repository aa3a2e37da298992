"""Paper on the real market: the built-in venue in PostgreSQL, on bars that the fake MCP server tells."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from activities.venues.aster import market as aster
from activities.venues.aster.caller import Caller
from activities.venues.aster.market import AsterMarket
from activities.venues.aster.market_data import MarketData
from activities.venues.aster.markets import length_of
from activities.venues.aster.rules import RuleBook
from activities.venues.aster.transports import session_for
from activities.venues.paper import NO_DATA, PaperVenue
from activities.venues.port import VenueUnavailable
from cli.dev.ports import free_port
from domain.trading.instructions import Tool
from domain.trading.market import Bar, SymbolRules
from domain.trading.orders import Fate
from storage import paper
from storage.database import Database
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import PATIENT, Heard, serving
from tests.venues.builders import RULES, START, TERMS, D, make_bar, make_order, still_bar

MINUTE = timedelta(minutes=1)
BTC = "BTCUSDT"
SYMBOLS = [BTC]


class Now:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time


class Desk:
    """A desk on the fake server's market."""

    def __init__(self, database: Database, name: str, fake: FakeServer, base: str) -> None:
        self.name, self.fake, self.now = name, fake, Now()
        self._database, self._base = database, base
        self.venue = self.a_venue()

    def a_venue(self, base: str | None = None) -> PaperVenue:
        """The venue as another process has it, or one whose server is elsewhere."""
        heard = Heard()
        caller = Caller(session_for(f"{base or self._base}/mcp", PATIENT), "", PATIENT, heard)
        market = AsterMarket(
            MarketData(caller, heard, "1m"), RuleBook(caller, public=True), MINUTE, caller.close, self.now
        )
        return PaperVenue(self._database, market, self.name, balance=D(10_000), terms=TERMS, funding=market)

    def shows(self, *bars: int | tuple[int, ...], first: int = 0) -> None:
        """What the exchange lists: prices that stand still, or (open, high, low, close), a minute each."""
        self.fake.faults.answers["get_klines"] = [_kline(first + number, bar) for number, bar in enumerate(bars)]
        self.now.time = START + (first + len(bars)) * MINUTE

    async def fills(self) -> list[paper.StoredFill]:
        return await self._database.run(lambda connection: paper.list_fills(connection, self.name))

    async def ledger(self) -> list[paper.StoredEntry]:
        return await self._database.run(lambda connection: paper.list_entries(connection, self.name))

    async def rest(self, price: str = "98") -> Any:
        order = make_order(desk=self.name, order_type="LIMIT", price=price, quantity="0.1")
        assert (await self.venue.create_order(order)).fate is Fate.OPEN
        return order


def _kline(number: int, bar: int | tuple[int, ...]) -> list[Any]:
    prices = [str(price) for price in (bar if isinstance(bar, tuple) else (bar,) * 4)]
    opened = int((START + number * MINUTE).timestamp() * 1000)
    return [opened, *prices, "1000", opened + 59_999]


@pytest.fixture
async def on_market(database: Database, desk: str) -> AsyncIterator[Desk]:
    fake = FakeServer()
    async with serving(fake) as base:
        made = Desk(database, desk, fake, base)
        yield made
        await made.venue.close()


async def test_it_begins_at_the_newest_finished_bar_with_the_exchanges_rules_and_needs_no_account(
    on_market: Desk,
) -> None:
    on_market.shows(100, 101, 102)
    seen = await on_market.venue.observe([BTC, "NEVERUSDT"], "c1")
    assert (seen.marks, seen.bar_time) == ({BTC: D(102)}, START + 2 * MINUTE)
    assert (seen.rules[BTC].tick_size, seen.rules[BTC].max_quantity) == (D("0.1"), D(1000))
    views = await on_market.venue.markets(SYMBOLS, 2)
    assert [bar.close for bar in views[BTC].bars] == [D(101), D(102)]
    assert views[BTC].funding_rate == D("0.0001")
    assert not {"get_positions", "get_account_v4", "get_leverage_bracket", "create_order"} & on_market.fake.calls.keys()


async def test_a_symbol_that_does_not_trade_there_says_so_on_paper_too(on_market: Desk) -> None:
    on_market.fake.exchange.habits.statuses = {BTC: "SETTLING"}
    on_market.shows(100)
    assert (await on_market.venue.observe(SYMBOLS, "c1")).rules[BTC].halted == "SETTLING"


async def test_every_bar_since_the_last_cycle_is_seen_once_and_in_order(on_market: Desk) -> None:
    on_market.shows(100)
    await on_market.venue.observe(SYMBOLS, "c1")
    await on_market.rest()
    on_market.shows(100, (100, 100, 97, 99), 99, 99)
    seen = await on_market.venue.observe(SYMBOLS, "c2")
    again = await on_market.venue.observe(SYMBOLS, "c2")
    later = await on_market.venue.observe(SYMBOLS, "c3")
    assert [fill.quantity for fill in seen.fills] == [D("0.1")]
    assert (again.fills, later.fills, later.open_orders) == ([], [], [])
    (fill,) = await on_market.fills()
    (held,) = later.positions
    assert (fill.price, fill.market_time, held.mark_price) == (D(98), START + MINUTE, D(99))


async def test_without_a_new_bar_nothing_moves_and_what_is_old_is_reported_to_be_old(on_market: Desk) -> None:
    on_market.shows((100, 100, 97, 99))
    first = await on_market.venue.observe(SYMBOLS, "c1")
    # What came after the bar is not filled by it.
    await on_market.rest()
    second = await on_market.venue.observe(SYMBOLS, "c2")
    assert (second.bar_time, len(second.open_orders), await on_market.fills()) == (first.bar_time, 1, [])
    # The exchange has listed no newer bar for months.
    assert second.data_time == START + 2 * MINUTE


async def test_a_minute_that_the_exchange_left_out_stands_still_and_fills_nothing(on_market: Desk) -> None:
    on_market.shows((100, 100, 97, 99))
    await on_market.venue.observe(SYMBOLS, "c1")
    await on_market.rest()
    on_market.fake.faults.answers["get_klines"] = [_kline(0, (100, 100, 97, 99)), _kline(3, 101)]
    seen = await on_market.venue.observe(SYMBOLS, "c2")
    assert (seen.marks[BTC], len(seen.open_orders), seen.bar_time) == (D(101), 1, START + 3 * MINUTE)
    assert [bar.close for bar in (await on_market.venue.markets(SYMBOLS, 4))[BTC].bars] == [99, 99, 99, 101]


async def test_what_is_caught_up_on_is_bounded_and_what_is_left_out_is_logged(
    on_market: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aster, "MOST_CAUGHT_UP", 3)
    on_market.shows(100)
    await on_market.venue.observe(SYMBOLS, "c1")
    await on_market.rest()
    on_market.shows(100, (100, 100, 97, 100), *[100] * 8)
    with structlog.testing.capture_logs() as logs:
        seen = await on_market.venue.observe(SYMBOLS, "c2")
    assert (len(seen.open_orders), seen.bar_time) == (1, START + 9 * MINUTE)
    assert [(entry["left_out"], entry["caught_up"]) for entry in logs if "left_out" in entry] == [(6, 3)]


async def test_an_account_that_no_bar_can_change_goes_to_the_newest_at_once(on_market: Desk) -> None:
    on_market.shows(100)
    await on_market.venue.observe(SYMBOLS, "c1")
    on_market.shows(*range(100, 150))
    with structlog.testing.capture_logs() as logs:
        assert (await on_market.venue.observe(SYMBOLS, "c2")).marks == {BTC: D(149)}
    assert not [entry for entry in logs if "left_out" in entry]


async def test_while_the_server_is_away_no_cycle_reads_and_cancels_and_readings_for_a_kill_work(
    on_market: Desk,
) -> None:
    on_market.shows(100)
    await on_market.venue.observe(SYMBOLS, "c1")
    await on_market.venue.create_order(make_order(desk=on_market.name, quantity="0.5"))
    order = await on_market.rest()
    # A worker that has just started, and has never seen the market.
    away = on_market.a_venue(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(VenueUnavailable, match="the MCP server cannot be reached"):
        await away.observe(SYMBOLS, "c2")
    seen = await away.observe(SYMBOLS, None)
    (held,) = seen.positions
    assert (held.quantity, held.mark_price, len(seen.open_orders)) == (D("0.5"), D(100), 1)
    await away.cancel_all(Tool.CANCEL_ALL_ORDERS, BTC)
    assert (await away.observe(SYMBOLS, None)).open_orders == []
    found = await away.find_order(order)
    assert found
    assert found.fate is Fate.CANCELED
    await away.close()
    on_market.shows(100, 99)
    assert (await on_market.venue.observe(SYMBOLS, "c2")).marks == {BTC: D(99)}


async def test_a_server_that_fails_in_between_moves_nothing_and_the_next_cycle_catches_up(on_market: Desk) -> None:
    on_market.shows(100)
    await on_market.venue.observe(SYMBOLS, "c1")
    await on_market.rest()
    on_market.fake.faults.errors = {"get_klines": 503}
    on_market.shows(100, (100, 100, 97, 99), 99)
    with pytest.raises(VenueUnavailable):
        await on_market.venue.observe(SYMBOLS, "c2")
    on_market.fake.faults.errors = {}
    assert len((await on_market.venue.observe(SYMBOLS, "c3")).fills) == 1


async def test_a_funding_hour_is_paid_at_the_rate_that_was_foretold(on_market: Desk) -> None:
    before = 8 * 60 - 2
    on_market.shows(100, first=before)
    await on_market.venue.observe(SYMBOLS, "c1")
    await on_market.venue.create_order(make_order(desk=on_market.name, quantity="1"))
    on_market.shows(100, 100, 100, 100, first=before)
    await on_market.venue.observe(SYMBOLS, "c2")
    (entry,) = await on_market.ledger()
    assert (entry.rate, entry.amount, entry.market_time) == (D("0.0001"), D("-0.01"), START + timedelta(hours=8))


async def test_symbols_that_the_exchange_does_not_trade_have_no_data(on_market: Desk) -> None:
    seen = await on_market.venue.observe(["NEVERUSDT"], "c1")
    assert (seen.marks, seen.note) == ({}, NO_DATA)


async def test_a_symbol_that_lags_by_a_bar_is_waited_for_and_one_that_is_silent_is_not(on_market: Desk) -> None:
    on_market.shows(100, 100, 100, 100)
    await on_market.venue.observe([BTC, "ETHUSDT"], "c1")
    market: Any = on_market.venue._market
    newest = max(market._series[BTC])
    for behind, expected in ((1, newest - 1), (2, newest)):
        lagging = {number: bar for number, bar in market._series[BTC].items() if number <= newest - behind}
        market._series = {BTC: market._series[BTC], "ETHUSDT": lagging}
        assert market.due(newest - 3, idle=False) == range(newest - 2, expected + 1)


class Tape:
    """The exchange's bars until now: it stands still at 100."""

    def __init__(self, now: Now) -> None:
        self._now = now

    async def bars(self, symbol: str, limit: int) -> list[Bar]:
        return [still_bar(100, minutes) for minutes in range((self._now() - START) // MINUTE)]

    async def funding(self, symbols: list[str]) -> dict[str, None]:
        return dict.fromkeys(symbols)

    async def rules(self) -> dict[str, SymbolRules]:
        return {BTC: RULES}


class Unread:
    """A database of which nothing is read."""

    async def run(self, work: Callable[[None], Any]) -> Any:
        return work(None)


async def test_agents_see_the_accounts_newest_bar_though_this_worker_has_read_the_market_before_it_was_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another worker's reading has moved the account on to it. Here it seemed to be one that the exchange had left out, at the
    price of the bar before."""
    now = Now()
    now.time = START + 3 * MINUTE
    tape: Any = Tape(now)
    market = AsterMarket(tape, tape, MINUTE, tape.rules, now)
    database: Any = Unread()
    venue = PaperVenue(database, market, "main", balance=D(10_000), terms=TERMS, funding=market)
    newest = make_bar(open_time=now.time, open="100", high="110", low="100", close="110")
    number = (now.time - datetime(1970, 1, 1, tzinfo=UTC)) // MINUTE
    facts = {"desk": "main", "bar_no": number, "cycle_id": "c", "advanced_at": now.time, "bar_time": now.time}
    clock = paper.MarketClock(**facts, bars={BTC: newest})
    monkeypatch.setattr(paper, "read_clock", lambda connection, desk: clock)
    monkeypatch.setattr(paper, "taken", lambda connection, clock: {})
    view = (await venue.markets(SYMBOLS, 3))[BTC]
    assert [bar.close for bar in view.bars] == [D(100), D(100), D(110)]
    assert view.book
    assert (view.book.bid > 109, view.book.bid_quantity > 0) == (True, True)


@pytest.mark.parametrize(("interval", "minutes"), [("1m", 1), ("15m", 15), ("4h", 240), ("1d", 1440)])
def test_an_interval_has_a_length(interval: str, minutes: int) -> None:
    assert length_of(interval) == minutes * MINUTE
