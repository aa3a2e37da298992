"""The paper venue on a real PostgreSQL: exactly once, with several workers, and never too late."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from activities.market.build import build_market
from activities.market.port import MarketSource
from activities.venues.paper import FINISHED, NO_DATA, PaperVenue
from activities.venues.port import VenueRefused, VenueUnavailable
from domain.accounting import HoldingKey, LedgerKind, folded
from domain.paper.advance import advance
from domain.paper.book import Book, Exchange, OrderStatus, PaperOrder, Terms
from domain.paper.matching import place
from domain.paper.view import Times, observation_of, report_of
from domain.risk.reducing import plan
from domain.trading.instructions import Side, Tool
from domain.trading.market import Bar, Market, SymbolRules
from domain.trading.orders import Fate, Order
from storage import paper, totals
from storage.database import Database
from storage.desks import is_killed
from tests.venues.builders import (
    START,
    D,
    FixedFunding,
    WrittenMarket,
    make_bar,
    make_order,
    make_paper_order,
    still_bar,
)
from tests.venues.variants import THOROUGH

SYMBOLS = ["BTCUSDT"]
CRASH = Path(__file__).parents[3] / "shared/data/btc_perp_1m_2022-01-20_24_crash.csv"
FUTURES, SPOT = Tool.CANCEL_ALL_ORDERS, Tool.CANCEL_SPOT_ALL_ORDERS


TERMS = Terms(fee_bps=D(4), slippage_bps=D(0))


def make_venue(
    database: Database, desk: str, market: MarketSource | None = None, funding: str | None = None
) -> PaperVenue:
    still = WrittenMarket({"BTCUSDT": [100] * 20})
    rates = FixedFunding(None if funding is None else D(funding))
    return PaperVenue(database, market or still, desk, balance=D(10_000), terms=TERMS, funding=rates)


async def opened(
    database: Database, desk: str, market: MarketSource | None = None, funding: str | None = None
) -> PaperVenue:
    """A venue that has seen its first bar."""
    venue = make_venue(database, desk, market, funding)
    await venue.observe(SYMBOLS, "cycle_0")
    return venue


async def fills_of(database: Database, desk: str) -> list[paper.StoredFill]:
    return await database.run(partial(paper.list_fills, desk=desk))


async def rest(venue: PaperVenue, desk: str, market: str = "futures", **changes: Any) -> Order:
    order = make_order(desk=desk, order_type="LIMIT", price="90", **changes)
    assert (await venue.create(order, market)).fate is Fate.OPEN
    return order


# --- observing -------------------------------------------------------------------------------------------------------


async def test_before_the_first_cycle_nothing_is_known_and_nothing_is_guessed(database: Database, desk: str) -> None:
    venue = make_venue(database, desk)
    assert await venue.markets(SYMBOLS, 5) == {}
    seen = await venue.observe(SYMBOLS, None)
    assert (seen.marks, seen.rules, seen.positions, seen.bar_time) == ({}, {}, [], None)
    assert seen.account.nav == D(10_000)


async def test_each_cycle_moves_the_market_one_bar_and_a_retry_none(database: Database, desk: str) -> None:
    venue = make_venue(database, desk, WrittenMarket({"BTCUSDT": [100, 101, 102]}))
    first = await venue.observe(SYMBOLS, "a")
    again = await venue.observe(SYMBOLS, "a")
    read = await venue.observe(SYMBOLS, None)
    second = await venue.observe(SYMBOLS, "b")
    assert [seen.marks["BTCUSDT"] for seen in (first, again, read, second)] == [100, 100, 100, 101]
    assert first.data_time == again.data_time < second.data_time <= second.observed_at
    assert first.bar_time
    assert second.bar_time == first.bar_time + timedelta(minutes=1)
    assert [bar.close for bar in (await venue.markets(SYMBOLS, 5))["BTCUSDT"].bars] == [100, 101]
    assert [bar.close for bar in (await venue.markets(SYMBOLS, 1))["BTCUSDT"].bars] == [101]


async def test_totals_that_cannot_be_made_undo_no_bar(
    database: Database, desk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(connection: Connection, desk: str) -> None:
        connection.execute(text("UPDATE paper.clocks SET bar_no = 99"))
        connection.execute(text("SELECT 1/0"))

    monkeypatch.setattr(totals, "extend_if_behind", broken)
    venue = make_venue(database, desk, WrittenMarket({"BTCUSDT": [100, 101]}))
    with capture_logs() as logs:
        seen = [(await venue.observe(SYMBOLS, cycle)).marks["BTCUSDT"] for cycle in "ab"]
    assert seen == [100, 101]
    assert [("totals were not brought" in entry["event"], entry["desk"]) for entry in logs] == [(True, desk)] * 2
    clock = await database.run(partial(paper.read_clock, desk=desk))
    assert clock
    assert clock.bar_no == 1


async def test_workers_that_observe_one_cycle_at_once_move_one_bar(database: Database, desk: str) -> None:
    market = build_market("simulated", SYMBOLS, seed=1)
    venues = [make_venue(database, desk, market) for _ in range(2)]
    for number in range(10):
        seen = await asyncio.gather(*(venue.observe(SYMBOLS, f"cycle_{number}") for venue in venues * 2))
        assert len({reading.bar_time for reading in seen}) == 1
    clock = await database.run(partial(paper.read_clock, desk=desk))
    assert clock
    assert clock.bar_no == market.warm_up - 1 + 10


async def test_a_new_desk_has_a_past_to_judge_by(database: Database, desk: str) -> None:
    venue = make_venue(database, desk, build_market("simulated", SYMBOLS, seed=1))
    await venue.observe(SYMBOLS, "a")
    assert len((await venue.markets(SYMBOLS, 60))["BTCUSDT"].bars) == 60


async def test_a_finished_replay_grows_old_and_says_so(database: Database, desk: str) -> None:
    venue = make_venue(database, desk, WrittenMarket({"BTCUSDT": [100]}))
    last = await venue.observe(SYMBOLS, "a")
    done = await venue.observe(SYMBOLS, "b")
    assert (last.note, done.note) == (None, FINISHED)
    assert done.marks == last.marks
    assert done.data_time == last.data_time
    assert done.observed_at > last.observed_at


async def test_a_symbol_without_data_has_neither_price_nor_rules(database: Database, desk: str) -> None:
    venue = make_venue(database, desk)
    seen = await venue.observe(["BTCUSDT", "ETHUSDT"], "a")
    assert (list(seen.marks), list(seen.rules)) == (["BTCUSDT"], ["BTCUSDT"])
    report = await venue.create_order(make_order(desk=desk, symbol="ETHUSDT"))
    assert (report.fate, report.detail) == (Fate.REJECTED, "-1121: Invalid symbol. (no market data for ETHUSDT)")
    assert list(await venue.markets(["BTCUSDT", "ETHUSDT"], 5)) == ["BTCUSDT"]
    assert (await venue.observe(["ETHUSDT"], "b")).note == NO_DATA


async def test_a_position_that_has_no_price_is_not_valued_but_can_be_canceled(database: Database, desk: str) -> None:
    venue = await opened(database, desk)
    await venue.create_order(make_order(desk=desk))
    elsewhere = make_venue(database, desk, WrittenMarket({"ETHUSDT": [5, 5, 5]}))
    with pytest.raises(VenueRefused, match="BTCUSDT"):
        await elsewhere.observe(SYMBOLS, "b")
    await elsewhere.cancel_all(FUTURES, "BTCUSDT")


# --- orders ----------------------------------------------------------------------------------------------------------


async def test_a_market_order_fills_at_once_and_the_account_shows_it(database: Database, desk: str) -> None:
    venue = await opened(database, desk, WrittenMarket({"BTCUSDT": [100, 110]}))
    report = await venue.create_order(make_order(desk=desk, quantity="2"))
    assert (report.fate, report.filled_quantity, report.average_price) == (Fate.FILLED, D(2), D(100))
    seen = await venue.observe(SYMBOLS, "b")
    (position,) = seen.positions
    assert (position.quantity, position.entry_price, position.mark_price) == (D(2), D(100), D(110))
    assert (seen.account.balance, seen.account.unrealised_profit) == (D("9999.92"), D(20))


async def test_an_order_that_is_sent_again_is_executed_once(database: Database, desk: str) -> None:
    venues = [await opened(database, desk) for _ in range(2)]
    order = make_order(desk=desk)
    reports = await asyncio.gather(*(venue.create_order(order) for venue in venues * 4))
    assert {report.fate for report in reports} == {Fate.FILLED}
    assert len(await fills_of(database, desk)) == 1
    assert await venues[0].find_order(order) == reports[0]


async def test_a_refused_order_stays_refused(database: Database, desk: str) -> None:
    venue = await opened(database, desk)
    order = make_order(desk=desk, side="SELL", reduce_only=True)
    first = await venue.create_order(order)
    assert (first.fate, first.detail) == (
        Fate.REJECTED,
        "-2022: ReduceOnly Order is rejected. (there is no position)",
    )
    await venue.create_order(make_order(desk=desk))
    assert await venue.create_order(order) == first == await venue.find_order(order)


async def test_an_order_that_the_venue_never_saw_is_not_found(database: Database, desk: str) -> None:
    assert await make_venue(database, desk).find_order(make_order(desk=desk)) is None


async def test_an_order_of_another_desk_is_not_ours(database: Database, desk: str) -> None:
    order = make_order(desk=desk)
    await (await opened(database, desk)).create_order(order)
    with pytest.raises(VenueRefused):
        await (await opened(database, f"{desk}-other")).create_order(order)


@pytest.mark.parametrize("reduce_only", [False, True])
async def test_no_order_begins_after_its_time(database: Database, desk: str, reduce_only: bool) -> None:
    venue = await opened(database, desk)
    await venue.create_order(make_order(desk=desk))
    order = make_order(desk=desk, seconds=-0.001, side="SELL", reduce_only=reduce_only)
    report = await venue.create_order(order)
    assert report.fate is Fate.NOT_SENT
    assert "too late" in report.detail
    assert await venue.find_order(order) is None


@pytest.mark.parametrize("status", ["open", "filled", "expired", "canceled"])
async def test_a_commit_that_comes_too_late_undoes_the_order(database: Database, desk: str, status: str) -> None:
    """As a PostgreSQL does that was stopped with the commit in its inbox and continues after a kill."""

    def work(connection: Connection) -> None:
        soon = paper.now(connection) + timedelta(milliseconds=50)
        paper.insert_order(connection, make_paper_order(order_id=desk, desk=desk, status=status), soon, 0)
        connection.execute(text("SELECT pg_sleep(0.06)"))

    with pytest.raises(DBAPIError, match="too late"):
        await database.run(work)
    assert await database.run(lambda connection: paper.find_order(connection, desk)) is None


@pytest.mark.parametrize(("status", "seconds"), [("rejected", -1), ("filled", None)])
async def test_a_refusal_and_a_liquidation_are_written_whenever_they_come(
    database: Database, desk: str, status: str, seconds: int | None
) -> None:
    def work(connection: Connection) -> None:
        not_after = None if seconds is None else paper.now(connection) + timedelta(seconds=seconds)
        paper.insert_order(connection, make_paper_order(order_id=desk, desk=desk, status=status), not_after, 0)

    await database.run(work)
    assert await database.run(lambda connection: paper.find_order(connection, desk))


async def test_the_venue_reports_a_late_commit_as_not_sent(
    database: Database, desk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = await opened(database, desk)
    order = make_order(desk=desk, seconds=0.3)
    insert = paper.insert_order

    def insert_and_wait(connection: Connection, *args: Any) -> None:
        insert(connection, *args)
        connection.execute(
            text("SELECT pg_sleep_until(:moment)"), {"moment": order.not_after + timedelta(seconds=0.01)}
        )

    monkeypatch.setattr(paper, "insert_order", insert_and_wait)
    assert (await venue.create_order(order)).fate is Fate.NOT_SENT
    assert await fills_of(database, desk) == []
    assert (await venue.observe(SYMBOLS, None)).account.balance == D(10_000)


async def test_a_server_that_hung_at_the_commit_executes_nothing_when_it_continues(
    database_url: str, desk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The COMMIT lies in the inbox of a stopped server, the kill comes, the server continues."""
    # Patient, so that the server's own idle time-out does not do what the trigger is here for.
    patient = Database(database_url, timeout_seconds=30, application_name="ais-paper-test")
    venue = await opened(patient, desk)
    order = make_order(desk=desk, seconds=1.5)
    backend: list[psutil.Process] = []

    def look_and_hang(connection: Connection, desk: str) -> bool:
        killed = is_killed(connection, desk)
        backend.append(psutil.Process(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()))
        backend[0].suspend()
        return killed

    # The last statement of the order's transaction.
    monkeypatch.setattr("activities.venues.paper.is_killed", look_and_hang)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(venue.create_order(order), 1.2)
    assert backend, "the order did not get as far as its commit"
    await asyncio.sleep((order.not_after - datetime.now(UTC)).total_seconds() + 0.01)
    backend[0].resume()
    assert await venue.find_order(order) is None
    assert await fills_of(patient, desk) == []
    patient.close()


async def test_a_resting_order_fills_in_the_bar_that_reaches_it(database: Database, desk: str) -> None:
    market = WrittenMarket({"BTCUSDT": [100, make_bar(open=95, high=96, low=90, close=92), 92]})
    venue = await opened(database, desk, market)
    order = await rest(venue, desk)
    (resting,) = (await venue.observe(SYMBOLS, None)).open_orders
    assert (resting.order_id, resting.market, resting.price) == (order.order_id, "futures", D(90))
    seen = await venue.observe(SYMBOLS, "b")
    assert seen.open_orders == []
    assert seen.positions[0].entry_price == D(90)
    report = await venue.find_order(order)
    assert report
    assert (report.fate, report.average_price) == (Fate.FILLED, D(90))
    await venue.observe(SYMBOLS, "b")
    assert len(await fills_of(database, desk)) == 1


async def test_cancel_all_takes_one_symbol_on_one_market(database: Database, desk: str) -> None:
    venue = await opened(database, desk, WrittenMarket({"BTCUSDT": [100, 100], "ETHUSDT": [100, 100]}))
    futures = await rest(venue, desk)
    spot = await rest(venue, desk, "spot")
    other = await rest(venue, desk, symbol="ETHUSDT")

    async def resting() -> set[str]:
        return {order.order_id for order in (await venue.observe(SYMBOLS, None)).open_orders}

    await venue.cancel_all(FUTURES, "BTCUSDT")
    assert await resting() == {spot.order_id, other.order_id}
    await venue.cancel_all(SPOT, "BTCUSDT")
    await venue.cancel_all(SPOT, "BTCUSDT")
    assert await resting() == {other.order_id}
    report = await venue.find_order(futures)
    assert report
    assert (report.fate, report.detail, report.filled_quantity) == (Fate.CANCELED, "canceled on request", D(0))
    with pytest.raises(VenueRefused):
        await venue.cancel_all(Tool.CREATE_ORDER, "BTCUSDT")


async def test_spot_is_paid_in_full_and_shown_behind_the_futures(database: Database, desk: str) -> None:
    venue = await opened(database, desk)
    assert (await venue.create(make_order(desk=desk, quantity="3"), "spot")).fate is Fate.FILLED
    assert (await venue.create_order(make_order(desk=desk, quantity="1", side="SELL"))).fate is Fate.FILLED
    seen = await venue.observe(SYMBOLS, None)
    assert [(p.market, p.quantity) for p in seen.positions] == [(Market.FUTURES, D(-1)), (Market.SPOT, D(3))]
    assert seen.account.nav == D("9999.84")
    deleverage = plan(seen, "BTCUSDT", D(1)).instruction
    assert deleverage
    assert (deleverage.side, deleverage.quantity) == (Side.BUY, D(1))
    assert (await venue.create(make_order(desk=desk, side="SELL", quantity="4"), "spot")).fate is Fate.REJECTED
    assert (await venue.create(make_order(desk=desk, side="SELL", quantity="3"), "spot")).fate is Fate.FILLED


# --- parts of orders, funding, liquidation ---------------------------------------------------------------------------


def thin_market(*volumes: str, price: int = 100) -> WrittenMarket:
    return WrittenMarket({"BTCUSDT": [still_bar(price, volume=volume) for volume in volumes]})


async def test_an_order_is_filled_in_parts_and_always_says_how_much(database: Database, desk: str) -> None:
    venue = await opened(database, desk, thin_market("20", "10", "0", "90"))
    order = make_order(desk=desk, quantity="5", order_type="LIMIT", price="100")
    reports = [await venue.create_order(order)]
    for cycle in "bcd":
        seen = await venue.observe(SYMBOLS, cycle)
        again = await venue.observe(SYMBOLS, cycle)
        assert again.fills == []
        reports.append(await venue.find_order(order) or reports[0])
        assert sum(o.filled_quantity for o in seen.open_orders) == (0 if cycle == "d" else 3)
    assert [(report.fate, report.filled_quantity) for report in reports] == [
        (Fate.OPEN, D(2)),
        (Fate.OPEN, D(3)),
        (Fate.OPEN, D(3)),
        (Fate.FILLED, D(5)),
    ]
    assert [(f.quantity, f.maker, f.whole) for f in seen.fills] == [(D(2), True, True)]
    assert [fill.fill_id for fill in await fills_of(database, desk)] == [f"{order.order_id}:{n}" for n in (1, 2, 3)]


async def test_a_remainder_that_never_comes_is_told_as_canceled(database: Database, desk: str) -> None:
    venue = await opened(database, desk, thin_market("20", "20"))
    expired = await venue.create_order(make_order(desk=desk, quantity="5"))
    assert (expired.fate, expired.filled_quantity, expired.average_price) == (Fate.CANCELED, D(2), D(100))
    resting = make_order(desk=desk, quantity="5", order_type="LIMIT", price="100")
    await venue.observe(SYMBOLS, "b")
    assert (await venue.create_order(resting)).fate is Fate.OPEN
    await venue.cancel_all(FUTURES, "BTCUSDT")
    report = await venue.find_order(resting)
    assert report
    assert (report.fate, report.filled_quantity) == (Fate.CANCELED, D(2))


async def test_a_bar_is_shared_by_every_order_and_every_worker(database: Database, desk: str) -> None:
    market = thin_market("50")
    venues = [await opened(database, desk, market) for _ in range(2)]
    sent = [make_order(desk=desk, quantity="2", side=side) for side in ("BUY", "SELL") * 3]
    reports = await asyncio.gather(*(venues[n % 2].create_order(order) for n, order in enumerate(sent)))
    assert sum(report.filled_quantity for report in reports) == 5
    view = (await venues[0].markets(SYMBOLS, 1))["BTCUSDT"]
    assert view.book
    assert (view.book.bid, view.book.ask, view.book.bid_quantity) == (D(100), D(100), D(0))


async def test_post_only_and_fill_or_kill_reach_the_venue(database: Database, desk: str) -> None:
    venue = await opened(database, desk, thin_market("20"))
    kinds = {"GTX": "-5022", "FOK": "-5021"}
    for time_in_force, code in kinds.items():
        order = make_order(desk=desk, quantity="5", order_type="LIMIT", price="100", time_in_force=time_in_force)
        report = await venue.create_order(order)
        assert (report.fate, report.detail[:5]) == (Fate.REJECTED, code)
        stored = await database.run(partial(paper.find_order, order_id=order.order_id))
        assert stored
        assert (stored.code, stored.time_in_force) == (int(code), time_in_force)


def hours(*prices: int | Bar) -> WrittenMarket:
    """A bar every four hours from midnight."""
    market = WrittenMarket({"BTCUSDT": list(prices)})
    bars = market.listed["BTCUSDT"]
    market.listed["BTCUSDT"] = [
        bar.model_copy(update={"open_time": bar.open_time.replace(minute=0) + n * timedelta(hours=4)})
        for n, bar in enumerate(bars)
    ]
    return market


async def test_funding_is_paid_once_and_stands_in_the_ledger(database: Database, desk: str) -> None:
    venue = await opened(database, desk, hours(100, 100, 110, 110, 120), funding="0.0001")
    await venue.create_order(make_order(desk=desk, quantity="2"))
    for cycle in "bccdd":
        seen = await venue.observe(SYMBOLS, cycle)
    entries = await database.run(partial(paper.list_entries, desk=desk))
    assert [(e.kind, e.amount, e.market_time.hour) for e in entries] == [(LedgerKind.FUNDING, D("-0.022"), 8)]
    assert seen.account.balance == D("10000") - D("0.08") - D("0.022")
    assert (await venue.markets(SYMBOLS, 1))["BTCUSDT"].funding_rate == D("0.0001")


async def test_a_liquidation_is_written_told_and_not_repeated(database: Database, desk: str) -> None:
    crash = make_bar(open="95", high="95", low="50", close="60")
    venue = await opened(database, desk, WrittenMarket({"BTCUSDT": [100, crash, 60]}))
    await venue.create_order(make_order(desk=desk, quantity="480"))
    order = make_order(desk=desk, quantity="1", order_type="LIMIT", price="55")
    await venue.create_order(order)
    seen = await venue.observe(SYMBOLS, "b")
    # 10000 - 19.2 + 480 (p - 100) = 2.4 p, so p = 38019.2 / 477.6 = 79.60…
    assert seen.note == "liquidated: BTCUSDT SELL 480 at 79.6"
    assert (seen.positions, seen.open_orders) == ([], [])
    assert [(f.symbol, f.quantity, f.maker, f.whole) for f in seen.fills] == [("BTCUSDT", D(480), False, True)]
    again = await venue.observe(SYMBOLS, "b")
    assert (again.note, again.fills) == (None, [])
    assert seen.account.balance == again.account.balance >= 0
    canceled = await venue.find_order(order)
    assert canceled
    assert (canceled.fate, canceled.detail) == (Fate.CANCELED, "canceled: liquidation")
    own = await database.run(partial(paper.find_order, order_id=f"liq_{desk}_1_BTCUSDT"))
    assert own
    assert (own.status, own.reason, own.filled_quantity) == (OrderStatus.FILLED, "liquidation", D(480))
    (entry,) = await database.run(partial(paper.list_entries, desk=desk))
    assert entry.kind is LedgerKind.LIQUIDATION_FEE


async def test_two_desks_may_be_liquidated_in_one_bar(database: Database, desk: str) -> None:
    for name in (desk, f"{desk}-2"):
        venue = await opened(database, name, WrittenMarket({"BTCUSDT": [100, 50]}))
        await venue.create_order(make_order(desk=name, quantity="400"))
        assert "liquidated" in ((await venue.observe(SYMBOLS, "b")).note or "")


class Falling(MarketSource):
    """The simulated market with half-hour bars, whole prices, and a crash that comes to stay."""

    crash = 60 + 24

    def __init__(self, symbols: list[str]) -> None:
        self._market = build_market("simulated", symbols, seed=11)

    @property
    def warm_up(self) -> int:
        return 60

    def rules(self, symbol: str) -> SymbolRules | None:
        return self._market.rules(symbol)

    def bar(self, symbol: str, number: int) -> Bar | None:
        bar = self._market.bar(symbol, number)
        fallen = {"low": self.crash, "close": self.crash, "open": self.crash + 1, "high": self.crash + 1}
        factors = {name: D("0.6") if number >= first else D(1) for name, first in fallen.items()}
        prices = {name: round(getattr(bar, name) * factor) for name, factor in factors.items()}
        moment = START + number * timedelta(minutes=30)
        return make_bar(**prices, open_time=moment, volume=bar.volume) if bar else None


async def test_the_venue_in_the_database_and_the_one_in_memory_are_one(database: Database, desk: str) -> None:
    """The same bars and orders, once through PostgreSQL and once through the pure functions."""
    symbols = ["BTCUSDT", "ETHUSDT"]
    market = Falling(symbols)
    venue, exchange = (
        make_venue(database, desk, market, "0.001"),
        Exchange(TERMS, market.rules, FixedFunding(D("0.001"))),
    )
    book = Book(desk, D(10_000), bar_no=market.warm_up - 1)
    # The venue looks back at the bar before its first; so does the book.
    book = book._replace(bars=bars_of(market, symbols, book.bar_no))
    for number in range(30):
        seen = await venue.observe(symbols, f"cycle_{number}")
        book, events = advance(book, bars_of(market, symbols, book.bar_no + 1), exchange)
        times = Times(seen.observed_at, seen.data_time, seen.bar_time)
        assert seen == observation_of(in_order(book), exchange, times, events)
        for order in some_orders(desk, number, book):
            report = await venue.create_order(order)
            asked = PaperOrder.asked(order.order_id, desk, Market.FUTURES, order.instruction)
            step = place(asked, book, exchange)
            book = step.book
            assert report == report_of(step.order)
    assert await database.run(lambda connection: stored_book(connection, desk, book)) == in_order(book)
    entries = await database.run(partial(paper.list_entries, desk=desk))
    assert {entry.kind for entry in entries} == {LedgerKind.FUNDING, LedgerKind.LIQUIDATION_FEE}
    assert {fill.maker for fill in await fills_of(database, desk)} == {True, False}


def in_order(book: Book) -> Book:
    """As PostgreSQL gives it back; the order of a dict is nothing that an account has."""
    return book._replace(holdings=dict(sorted(book.holdings.items())))


def bars_of(market: MarketSource, symbols: list[str], number: int) -> dict[str, Any]:
    return {symbol: bar for symbol in symbols if (bar := market.bar(symbol, number))}


def some_orders(desk: str, number: int, book: Book) -> list[Order]:
    symbol = ("BTCUSDT", "ETHUSDT")[number % 2]
    side, mark = ("BUY", "SELL")[number % 3 % 2], book.bars[symbol].close
    tick = D("0.1") if symbol == "BTCUSDT" else D("0.01")
    order_id = f"{desk}_{number}"
    return [
        make_order(desk=desk, order_id=f"{order_id}_m", symbol=symbol, side=side, quantity="0.15"),
        make_order(
            desk=desk,
            order_id=f"{order_id}_l",
            symbol=symbol,
            side="BUY",
            quantity="0.02",
            order_type="LIMIT",
            price=mark - 400 * tick * (number % 4),
        ),
    ]


def stored_book(connection: Connection, desk: str, like: Book) -> Book:
    clock = paper.read_clock(connection, desk)
    assert clock
    return paper.load_book(connection, clock, like.bars)


async def test_a_desk_is_audited_from_its_records(database: Database, desk: str) -> None:
    crash = make_bar(open="110", high="110", low="60", close="70")
    venue = await opened(database, desk, hours(100, 100, 110, crash, 70), funding="0.0001")
    await venue.create_order(make_order(desk=desk, quantity="300"))
    for cycle in "bcde":
        seen = await venue.observe(SYMBOLS, cycle)
        await venue.create(make_order(desk=desk, quantity="0.5"), "spot")

    def audit(connection: Connection) -> tuple[Any, Any]:
        account = paper.find_account(connection, desk)
        assert account
        return account, folded(desk, account.opening_balance, paper.list_records(connection, desk))

    account, portfolio = await database.run(audit)
    assert (account.balance, account.opening_balance) == (portfolio.balance, 10_000)
    assert {entry.kind for entry in await database.run(partial(paper.list_entries, desk=desk))} >= {
        LedgerKind.FUNDING,
        LedgerKind.LIQUIDATION_FEE,
    }
    (spot,) = seen.positions
    assert (spot.market, spot.quantity) == (
        Market.SPOT,
        portfolio.holdings[HoldingKey(Market.SPOT, "BTCUSDT")].quantity,
    )
    assert portfolio.marked(seen.market_time, seen.marks).equity == seen.account.nav


# --- several workers -------------------------------------------------------------------------------------------------


async def test_workers_at_once_lose_no_update(database_url: str, desk: str) -> None:
    """Orders, cancels and cycles from two workers at once: fills, position and balance agree to the last digit."""
    # Fifty of them wait for each other.
    database = Database(database_url, timeout_seconds=60, application_name="ais-test")
    market = build_market("simulated", SYMBOLS, seed=7)
    venues = [await opened(database, desk, market) for _ in range(2)]
    orders = [make_order(desk=desk, quantity="0.01", side=side) for side in ("BUY", "BUY", "SELL") * 8]
    reports, *_ = await asyncio.gather(
        asyncio.gather(*(venue.create_order(order) for order in orders for venue in venues)),
        asyncio.gather(*(venues[n % 2].observe(SYMBOLS, f"c{n}") for n in range(8))),
        asyncio.gather(*(venue.cancel_all(FUTURES, "BTCUSDT") for venue in venues)),
    )
    assert {report.fate for report in reports} == {Fate.FILLED}
    await check_account(database, venues[0], desk, len(orders))
    database.close()


async def check_account(database: Database, venue: PaperVenue, desk: str, fills: int) -> None:
    """What the account says is what its fills add up to."""
    seen, done = await venue.observe(SYMBOLS, None), await fills_of(database, desk)
    signed = [(fill.quantity if fill.side is Side.BUY else -fill.quantity, fill) for fill in done]
    assert len(done) == fills
    assert sum((p.quantity for p in seen.positions), D(0)) == sum(quantity for quantity, _ in signed)
    moved = sum((fill.realised_profit - fill.fee for fill in done), D(0))
    assert seen.account.balance == D(10_000) + moved
    cash = D(10_000) - sum((quantity * fill.price + fill.fee for quantity, fill in signed), D(0))
    assert seen.account.nav == cash + sum((p.quantity * p.mark_price for p in seen.positions), D(0))


@pytest.mark.parametrize("source", [THOROUGH("the crash of 2022"), "generated"])
async def test_an_account_agrees_with_its_fills_through_a_crash(database: Database, desk: str, source: str) -> None:
    if source == "generated":
        market = build_market("simulated", SYMBOLS, seed=3)
    elif CRASH.is_file():
        market = build_market(f"replay:{CRASH}", SYMBOLS, seed=0)
    else:
        pytest.skip("../shared/data is not beside the project; the twin on generated data runs")
    venue, sent = make_venue(database, desk, market), 0
    for number in range(24):
        await venue.observe(SYMBOLS, f"cycle_{number}")
        side = "SELL" if number % 3 else "BUY"
        report = await venue.create_order(make_order(desk=desk, quantity="0.013", side=side))
        sent += report.fate is Fate.FILLED
    assert sent > 10
    await check_account(database, venue, desk, sent)


# --- a database that does not answer ---------------------------------------------------------------------------------


async def test_without_a_database_every_call_says_so(desk: str, tmp_path: Path) -> None:
    nowhere = Database(f"postgresql://postgres@/none?host={tmp_path}", application_name="ais-test")
    venue = make_venue(nowhere, desk)
    order = make_order(desk=desk)
    calls = [
        venue.observe(SYMBOLS, "a"),
        venue.markets(SYMBOLS, 1),
        venue.cancel_all(FUTURES, "BTCUSDT"),
        venue.create_order(order),
        venue.find_order(order),
    ]
    for call in calls:
        with pytest.raises(VenueUnavailable, match="paper venue's database"):
            await call
    nowhere.close()
