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

from activities.market.build import build_market
from activities.market.port import MarketSource
from activities.venues.paper import FINISHED, NO_DATA, PaperVenue
from activities.venues.port import Venue, VenueRefused, VenueUnavailable
from domain.instructions import Side, Tool
from domain.orders import Fate, Order
from domain.paper import Fill
from storage import paper
from storage.database import Database
from tests.venues.builders import D, WrittenMarket, make_bar, make_order, make_paper_order

SYMBOLS = ["BTCUSDT"]
CRASH = Path(__file__).parents[3] / "shared/data/btc_perp_1m_2022-01-20_24_crash.csv"
FUTURES, SPOT = Tool.CANCEL_ALL_ORDERS, Tool.CANCEL_SPOT_ALL_ORDERS


def make_venue(database: Database, desk: str, market: MarketSource | None = None) -> PaperVenue:
    still = WrittenMarket({"BTCUSDT": [100] * 20})
    return PaperVenue(database, market or still, desk, balance=D(10_000), fee_bps=D(4), slippage_bps=D(0))


async def opened(database: Database, desk: str, market: MarketSource | None = None) -> PaperVenue:
    """A venue that has seen its first bar."""
    venue = make_venue(database, desk, market)
    await venue.observe(SYMBOLS, "cycle_0")
    return venue


async def fills_of(database: Database, desk: str) -> list[Fill]:
    return await database.run(partial(paper.list_fills, desk=desk))


async def rest(venue: PaperVenue, desk: str, market: str = "futures", **changes: Any) -> Order:
    order = make_order(desk=desk, order_type="LIMIT", price="90", **changes)
    assert (await venue.create(order, market)).fate is Fate.OPEN
    return order


def test_it_is_a_venue(database: Database) -> None:
    venues: list[Venue] = [make_venue(database, "main")]
    assert venues


# --- observing -------------------------------------------------------------------------------------------------------


async def test_before_the_first_cycle_nothing_is_known_and_nothing_is_guessed(database: Database, desk: str) -> None:
    venue = make_venue(database, desk)
    assert await venue.bars("BTCUSDT", 5) == []
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
    assert [bar.close for bar in await venue.bars("BTCUSDT", 5)] == [100, 101]
    assert [bar.close for bar in await venue.bars("BTCUSDT", 1)] == [101]


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
    assert len(await venue.bars("BTCUSDT", 60)) == 60


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
    assert (report.fate, report.detail) == (Fate.REJECTED, "no market data for ETHUSDT")
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
    assert (first.fate, first.detail) == (Fate.REJECTED, "reduce-only: no position")
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


async def test_a_commit_that_comes_too_late_undoes_the_order(database: Database, desk: str) -> None:
    """As a PostgreSQL does that was stopped with the commit in its inbox and continues after a kill."""

    def work(connection: Connection) -> None:
        soon = paper.now(connection) + timedelta(milliseconds=50)
        paper.insert_order(connection, make_paper_order(order_id=desk, desk=desk, status="filled"), soon, 0)
        connection.execute(text("SELECT pg_sleep(0.06)"))

    with pytest.raises(DBAPIError, match="too late"):
        await database.run(work)
    assert await database.run(lambda connection: paper.find_order(connection, desk)) is None


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
    write = paper.write_book

    def write_and_hang(connection: Connection, *args: Any) -> None:
        write(connection, *args)
        backend.append(psutil.Process(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()))
        backend[0].suspend()

    monkeypatch.setattr(paper, "write_book", write_and_hang)
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
    assert (report.fate, report.detail) == (Fate.REJECTED, "canceled on request")
    with pytest.raises(VenueRefused):
        await venue.cancel_all(Tool.CREATE_ORDER, "BTCUSDT")


async def test_spot_is_paid_in_full_and_is_no_futures_position(database: Database, desk: str) -> None:
    venue = await opened(database, desk)
    assert (await venue.create(make_order(desk=desk, quantity="3"), "spot")).fate is Fate.FILLED
    seen = await venue.observe(SYMBOLS, None)
    assert (seen.positions, seen.account.nav) == ([], D("9999.88"))
    assert (await venue.create(make_order(desk=desk, side="SELL", quantity="4"), "spot")).fate is Fate.REJECTED
    assert (await venue.create(make_order(desk=desk, side="SELL", quantity="3"), "spot")).fate is Fate.FILLED


# --- several workers -------------------------------------------------------------------------------------------------


async def test_workers_at_once_lose_no_update(database: Database, desk: str) -> None:
    """Orders, cancels and cycles from two workers at once: fills, position and balance agree to the last digit."""
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


@pytest.mark.parametrize("source", ["the crash of 2022", "generated"])
async def test_an_account_agrees_with_its_fills_through_a_crash(database: Database, desk: str, source: str) -> None:
    if source == "generated":
        market = build_market("simulated", SYMBOLS, seed=3)
    elif CRASH.is_file():
        market = build_market(f"replay:{CRASH}", SYMBOLS, seed=0)
    else:
        pytest.skip("../shared/data is not beside the project; the twin on generated data runs")
    venue, sent = make_venue(database, desk, market), 0
    for number in range(40):
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
        venue.bars("BTCUSDT", 1),
        venue.cancel_all(FUTURES, "BTCUSDT"),
        venue.create_order(order),
        venue.find_order(order),
    ]
    for call in calls:
        with pytest.raises(VenueUnavailable, match="paper venue's database"):
            await call
    nowhere.close()
