"""An order on paper and a kill: the latch is read in the order's own transaction, and the answer is fresh at the commit."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import psutil
import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from activities.clearance import FRESH_SECONDS, ClockPair, FreshClearance, read_clocks
from activities.venues.paper import PaperVenue
from activities.venues.port import AlwaysCleared, StateTooOld, VenueUnavailable
from domain.trading.orders import Fate
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


class HeldAtTheEnd(AlwaysCleared):
    """A clearance whose last check, right before the commit, lasts as long as the test wants."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()
        self._checks = 0

    def check(self) -> None:
        self._checks += 1
        if self._checks == 2:
            self.reached.set()
            assert self.release.wait(20)


class HeldClearance(FreshClearance):
    """The real clearance, held likewise."""

    def __init__(self, *answers: str | None, clocks: Callable[[], ClockPair] = read_clocks) -> None:
        self.held = HeldAtTheEnd()
        self.too_old: list[StateTooOld] = []
        self._left = iter(answers)
        super().__init__([self._answer], on_too_old=self.too_old.append, clocks=clocks)

    async def _answer(self) -> str | None:
        return next(self._left)

    def check(self) -> None:
        self.held.check()
        super().check()


class AgeingClearance(HeldClearance):
    """A clearance that is fresh up to its last check, on however slow a machine, and too old from then on."""

    def __init__(self, *answers: str | None) -> None:
        self._now = 0.0
        super().__init__(*answers, clocks=lambda: ClockPair(self._now, self._now))
        self.held.release.set()

    def check(self) -> None:
        super().check()
        if self.held.reached.is_set():
            self._now += FRESH_SECONDS


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(180):
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
    """The server ends the transaction once the answer has become too old; cancels and latch are free."""
    clearance = HeldClearance(None, "the coordinator is killed")
    order = asyncio.create_task(venue.create_order(make_order(desk=desk), clearance))
    await asyncio.to_thread(clearance.held.reached.wait, 20)
    async with asyncio.timeout(3):
        await kill(latch, desk)
    clearance.held.release.set()
    report = await order
    assert (report.fate, report.detail) == (Fate.NOT_SENT, "the coordinator is killed")
    assert (len(clearance.too_old), await fills(database, desk)) == (1, 0)
    # The pool has lost a connection and goes on.
    assert (await venue.observe(SYMBOLS, None)).positions == []


async def test_an_answer_that_is_fresh_at_the_last_check_and_too_old_at_the_commit_commits_nothing(
    database_url: str, desk: str, venue: PaperVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was stopped with the COMMIT in its inbox: its own clock refuses it, by the age of the answer."""
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
    clearance = AgeingClearance(None, "the coordinator is killed")
    report = await slow.create_order(make_order(desk=desk), clearance)
    assert (report.fate, report.detail) == (Fate.NOT_SENT, "the coordinator is killed")
    assert [str(error) for error in clearance.too_old] == [
        "the coordinator's answer was too old before the order could be committed"
    ]
    assert await fills(patient, desk) == 0
    patient.close()


@pytest.mark.parametrize("stands", [False, True])
async def test_a_connection_that_is_lost_at_the_commit_proves_nothing_about_the_order(
    database: Database, desk: str, venue: PaperVenue, monkeypatch: pytest.MonkeyPatch, stands: bool
) -> None:
    """Three times of ten psycopg loses what the server said when it ended the transaction. So the order is looked for."""
    commit, lost = Connection.commit, list[Connection]()

    def commit_and_lose(connection: Connection) -> None:
        if clearance.held.reached.is_set() and not lost:
            lost.append(connection)
            driver: Any = connection.connection.dbapi_connection
            if stands:
                # It is the answer that was lost.
                driver.commit()
                raise OperationalError("COMMIT", None, psycopg.OperationalError("lost"), connection_invalidated=True)
            with socket.socket(fileno=os.dup(driver.fileno())) as held:
                held.shutdown(socket.SHUT_RDWR)
        commit(connection)

    clearance = AgeingClearance(None, "the coordinator is killed")
    monkeypatch.setattr(Connection, "commit", commit_and_lose)
    with pytest.raises(VenueUnavailable) if stands else contextlib.nullcontext():
        report = await venue.create_order(make_order(desk=desk), clearance)
        assert (report.fate, report.detail) == (Fate.NOT_SENT, "the coordinator is killed")
    assert (len(lost), await fills(database, desk)) == (1, int(stands))


async def waits_for_a_lock(database: Database) -> bool:
    def waits(connection: Connection) -> bool:
        return bool(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    return await database.run(waits)
