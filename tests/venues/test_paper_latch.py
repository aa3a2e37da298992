"""An order on paper and a kill: the latch is read in the order's own transaction, and the word is fresh at the commit."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeVar

import psutil
import pytest
from sqlalchemy import Connection, text

from activities.venues.paper import PaperVenue
from activities.venues.port import Cleared, WordTooOld
from activities.word import FreshWord
from domain.orders import Fate
from storage import paper
from storage.database import Database
from storage.desks import is_killed, write_desk
from tests.storage.builders import make_desk_row
from tests.venues.builders import TERMS, D, FixedFunding, WrittenMarket, make_order

T = TypeVar("T")
SYMBOLS = ["BTCUSDT"]


@pytest.fixture
async def venue(database: Database, desk: str) -> PaperVenue:
    """A running desk that has seen its first bar."""
    market = WrittenMarket({"BTCUSDT": [100] * 20})
    made = PaperVenue(database, market, desk, balance=D(10_000), terms=TERMS, funding=FixedFunding())
    await made.observe(SYMBOLS, "cycle_0")
    await database.run(lambda connection: write_desk(connection, make_desk_row(desk)))
    return made


@pytest.fixture
def latch(database_url: str) -> Iterator[Database]:
    """The kill's own way to the database."""
    database = Database(database_url, application_name="ais-latch-test")
    yield database
    database.close()


async def kill(latch: Database, desk: str) -> None:
    await latch.run(lambda connection: write_desk(connection, make_desk_row(desk, killed=True, number=1)))


async def fills(database: Database, desk: str) -> int:
    return len(await database.run(partial(paper.list_fills, desk=desk)))


class HeldAtTheEnd(Cleared):
    """Leave whose last check, immediately before the commit, lasts as long as the test wants."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()
        self._checks = 0

    def check(self) -> None:
        self._checks += 1
        if self._checks == 2:
            self.reached.set()
            assert self.release.wait(20)


class Word(FreshWord):
    """A true word, held likewise."""

    def __init__(self, *answers: str | None) -> None:
        self.held = HeldAtTheEnd()
        self.told: list[WordTooOld] = []
        self._left = iter(answers)
        super().__init__([self._answer], told=self.told.append)

    async def _answer(self) -> str | None:
        return next(self._left)

    def check(self) -> None:
        self.held.check()
        super().check()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_a_killed_desk_takes_no_order_and_still_lets_positions_be_closed(
    database: Database, latch: Database, desk: str, venue: PaperVenue
) -> None:
    assert (await venue.create_order(make_order(desk=desk))).fate is Fate.FILLED
    await kill(latch, desk)
    report = await venue.create_order(make_order(desk=desk))
    assert (report.fate, report.detail) == (Fate.NOT_SENT, "the database says killed")
    closing = await venue.create_order(make_order(desk=desk, side="SELL", reduce_only=True))
    assert (closing.fate, await fills(database, desk)) == (Fate.FILLED, 2)


async def test_a_kill_that_is_being_written_is_waited_for_and_stops_the_order(
    database: Database, latch: Database, desk: str, venue: PaperVenue
) -> None:
    written, may_end = threading.Event(), threading.Event()

    def kill_slowly(connection: Connection) -> None:
        write_desk(connection, make_desk_row(desk, killed=True, number=1))
        written.set()
        assert may_end.wait(20)

    killing = asyncio.create_task(latch.run(kill_slowly, 20))
    await asyncio.to_thread(written.wait, 20)
    order = asyncio.create_task(venue.create_order(make_order(desk=desk)))
    await eventually(partial(waits_for_a_lock, latch))
    may_end.set()
    await killing
    assert ((await order).fate, await fills(database, desk)) == (Fate.NOT_SENT, 0)


async def test_a_kill_waits_for_no_more_than_an_orders_own_transaction(
    database: Database, latch: Database, desk: str, venue: PaperVenue
) -> None:
    leave = HeldAtTheEnd()
    order = asyncio.create_task(venue.create_order(make_order(desk=desk), leave))
    await asyncio.to_thread(leave.reached.wait, 20)
    killing = asyncio.create_task(kill(latch, desk))
    await eventually(partial(waits_for_a_lock, database))
    leave.release.set()
    assert (await order).fate is Fate.FILLED
    await killing
    assert await latch.run(partial(is_killed, desk=desk))


async def test_a_worker_that_is_stopped_before_its_commit_holds_up_no_kill_and_commits_nothing(
    database: Database, latch: Database, desk: str, venue: PaperVenue
) -> None:
    """The server ends the transaction once the word has become too old; cancels and latch are free."""
    word = Word(None, "the coordinator is killed")
    order = asyncio.create_task(venue.create_order(make_order(desk=desk), word))
    await asyncio.to_thread(word.held.reached.wait, 20)
    async with asyncio.timeout(3):
        await kill(latch, desk)
    word.held.release.set()
    report = await order
    assert (report.fate, report.detail) == (Fate.NOT_SENT, "the coordinator is killed")
    assert (len(word.told), await fills(database, desk)) == (1, 0)
    # The pool has lost a connection and goes on.
    assert (await venue.observe(SYMBOLS, None)).positions == []


async def test_a_word_that_is_fresh_at_the_last_check_and_old_at_the_commit_commits_nothing(
    database_url: str, desk: str, venue: PaperVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was stopped with the COMMIT in its inbox: its own clock refuses it, by the age of the word."""
    patient = Database(database_url, timeout_seconds=30, application_name="ais-paper-test")
    market = WrittenMarket({"BTCUSDT": [100] * 20})
    slow = PaperVenue(patient, market, desk, balance=D(10_000), terms=TERMS, funding=FixedFunding())
    backends: list[psutil.Process] = []

    def look_and_hang(connection: Connection, desk: str) -> bool:
        killed = is_killed(connection, desk)
        if not backends:
            backends.append(psutil.Process(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()))
            backends[0].suspend()
            threading.Timer(1.0, backends[0].resume).start()
        return killed

    monkeypatch.setattr("activities.venues.paper.is_killed", look_and_hang)
    # So that the server's own idle time-out does not do what its clock is here for.
    monkeypatch.setattr(paper, "end_where_idle", lambda connection, seconds: None)
    word = Word(None, "the coordinator is killed")
    word.held.release.set()
    report = await slow.create_order(make_order(desk=desk), word)
    assert (report.fate, report.detail) == (Fate.NOT_SENT, "the coordinator is killed")
    assert [str(error) for error in word.told] == [
        "the coordinator's answer was too old before the order could be committed"
    ]
    assert await fills(patient, desk) == 0
    patient.close()


async def waits_for_a_lock(database: Database) -> bool:
    def waits(connection: Connection) -> bool:
        return bool(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    return await database.run(waits)
