"""Keeps a live desk's books: reads what the exchange lists for its account, stores it once, and compares.

It runs beside the activities, in the worker that holds the desk's lease. No cycle or kill ever waits for it: it has its own
connection, database threads and back-off, and it pauses while a kill has cancels to send. Its progress is in the database.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

import structlog
from sqlalchemy import Connection

from activities.metrics import WorkerMetrics
from activities.venues.aster.statements import StatementPage, Statements, fill_of, income_of
from activities.venues.port import VenueError, VenueRefused
from domain.books import (
    INCOME,
    BooksState,
    Gap,
    books_seen,
    compare,
    look_again,
    must_reread,
    not_read,
    read_again,
    read_on,
    with_gap,
)
from domain.health.books_seen import warnings_of
from storage import books, claims, totals
from storage.books import BooksLease, BooksReader
from storage.database import Database, DatabaseUnavailable

T = TypeVar("T")

# The time of one round of calls; the next round does what is left.
ROUND_SECONDS = 45.0
LEASE_SECONDS = ROUND_SECONDS + 15.0
DATABASE_SECONDS = 20.0
# Rows may appear later than their time stamps say, and clocks differ.
OVERLAP = timedelta(minutes=10)
# How long the exchange may take to list a fill that it has already booked.
LISTED_WITHIN = timedelta(minutes=2)
OPENING_SECONDS = 5.0
ACCOUNT = "account"
MOST_SECONDS = 600.0

# Batches of 2,000 records that one round adds up.
TOTALS_BATCHES = 5

log = structlog.get_logger("books")


class Bookkeeper:
    """Reads one desk's account at regular intervals."""

    def __init__(
        self, reader: BooksReader, statements: Statements, database: Database, every: float, instruments: WorkerMetrics
    ) -> None:
        self._reader = reader
        self._statements = statements
        self._database = database
        self._every = every
        self._instruments = instruments
        self._failures = 0
        self._logged: list[str] = []

    async def run(self) -> None:
        """Round after round, until it is cancelled. A bug in it ends no worker: a kill needs one."""
        while True:
            try:
                delay = await self.round()
            except Exception:
                log.exception("the books could not be read: a bug")
                delay = self._pause_after_failure(None)
            await asyncio.sleep(delay)

    async def close(self) -> None:
        """Closes the connections."""
        await self._statements.close()
        self._database.close()

    async def round(self) -> float:
        """Reads what is new, once. Returns the seconds to wait until the next round."""
        state: BooksState | None = None
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                state = await self._round()
        except (VenueError, DatabaseUnavailable) as error:
            log.info("the books could not be read", why=str(error))
            return self._pause_after_failure(error.retry_after if isinstance(error, VenueError) else None)
        except TimeoutError:
            log.info("the books are behind; the next round reads on")
        self._failures = 0
        return min(self._every, OPENING_SECONDS) if state and state.opening is None else self._every

    async def _round(self) -> BooksState | None:
        lease = await self._run(self._lease)
        if lease is None:
            return None
        reading = _Reading(self._statements, self._reader, lease, self._run)
        try:
            await reading.everything()
        except VenueError:
            self._show(reading.state)
            raise
        self._show(reading.state)
        return reading.state

    def _show(self, state: BooksState) -> None:
        """Logs each fact once, and once more when it is over."""
        warnings = [text for text in warnings_of(books_seen(state, None, self._reader.desk)).values() if text]
        for text in warnings:
            if text not in self._logged:
                log.warning(text)
        if self._logged and not warnings:
            log.info("the books agree with the exchange again")
        self._logged = warnings
        self._instruments.books_read(state.read_at, len(state.facts), len(state.strangers))

    def _lease(self, connection: Connection) -> BooksLease | None:
        """Takes the right to read the account, unless another desk holds it. A killed desk may have given its account back."""
        holder = claims.holder(connection, self._reader.key)
        if holder and holder.desk != self._reader.desk:
            return None
        lease = books.lease(connection, self._reader, LEASE_SECONDS)
        if lease and not holder and not lease.killed:
            claims.take(connection, self._reader.key, self._reader.desk)
        return lease

    def _pause_after_failure(self, asked: timedelta | None) -> float:
        self._failures += 1
        pause = min(self._every * 2.0 ** min(self._failures - 1, 10), max(self._every, MOST_SECONDS))
        return max(pause, asked.total_seconds() if asked else 0.0)

    async def _run(self, work: Callable[[Connection], T]) -> T:
        return await self._database.run(work, DATABASE_SECONDS)


class _Run(Protocol):
    async def __call__(self, work: Callable[[Connection], T], /) -> T:
        """Runs `work` in a transaction and returns its result."""


class LeaseLost(DatabaseUnavailable):
    """This worker no longer holds the lease, so it writes nothing more."""

    def __init__(self) -> None:
        super().__init__("another worker reads these books now, or a kill is under way")


class _Reading:
    """One round: reads every source from where the last round ended, then compares."""

    def __init__(self, statements: Statements, reader: BooksReader, lease: BooksLease, run: _Run) -> None:
        self.state = lease.books.state
        self._statements = statements
        self._reader = reader
        self._lease = lease
        self._run = run

    async def everything(self) -> None:
        """Reads all sources. Raises VenueError if the exchange cannot be read; what was read until then is stored."""
        now = await self._keeping_failure(self._now())
        await self._source(INCOME, now)
        desk = self._reader.desk
        traded = await self._run(lambda connection: books.traded_symbols(connection, desk))
        held = self.state.opening.held if self.state.opening else {}
        for symbol in dict.fromkeys([*self._lease.symbols, *traded, *held, *self.state.until]):
            # A symbol that the exchange refuses, because it is delisted for example, must not hold up the others.
            if symbol != INCOME:
                with suppress(VenueRefused):
                    await self._source(symbol, now)
        await self._compare(now)

    async def _now(self) -> datetime:
        """The exchange's clock, which stamps the rows that it lists."""
        try:
            return await self._statements.now(self._lease.symbols[0]) or datetime.now(UTC)
        except VenueRefused:
            return datetime.now(UTC)

    async def _source(self, source: str, now: datetime) -> None:
        opened_at = self._lease.books.opened_at
        since = max(opened_at, self.state.until.get(source, opened_at) - OVERLAP)
        listed = self._statements
        listing = listed.income(since, now) if source == INCOME else listed.trades(source, since, now)
        try:
            async with aclosing(listing) as pages:
                async for page in pages:
                    await self._write(source, page)
        except VenueError as error:
            await self._save(not_read(self.state, source, str(error), now))
            raise

    async def _write(self, source: str, page: StatementPage) -> None:
        state = read_on(self.state, source, page.until)
        if not page.whole:
            why = "more rows at one moment than the exchange lists"
            state = with_gap(state, Gap(source=source, since=page.since, until=page.until, why=why))
        opened_at, desk, account = self._lease.books.opened_at, self._reader.desk, self._reader.key.account
        fills = [fill_of(row, desk, account) for row in page.rows] if source != INCOME else []
        income = [income_of(row) for row in page.rows] if source == INCOME else []
        fills = [fill for fill in fills if fill.filled_at >= opened_at]
        income = [row for row in income if row.at >= opened_at]
        reader = self._reader
        if not await self._run(lambda connection: books.write_page(connection, reader, state, fills, income)):
            raise LeaseLost
        self.state = state

    async def _compare(self, now: datetime) -> None:
        account = await self._keeping_failure(self._statements.account())
        resting = await self._keeping_failure(self._statements.resting())
        desk = self._reader.desk

        def work(connection: Connection) -> BooksState:
            state = compare(self.state, account, books.sums(connection, desk), now)
            state = look_again(state, books.foreign_orders(connection, desk, now, resting))
            unlisted = books.unlisted(connection, desk, now - LISTED_WITHIN)
            failing = {name: it for name, it in state.failing.items() if name != ACCOUNT}
            return state.model_copy(update={"unlisted": unlisted, "read_at": now, "failing": failing})

        state = await self._run(work)
        await self._save(read_again(state, now) if must_reread(state, now) else state)
        await self._add_up()

    async def _add_up(self) -> None:
        """Brings the totals up to date, in transactions of their own.

        A round must not fail because of its totals, nor wait until a long history is added up.
        """
        if self.state.opening is None:
            return
        account = totals.live_account(self._lease.books.model_copy(update={"state": self.state}))
        try:
            for _ in range(TOTALS_BATCHES):
                if not await self._run(lambda connection: totals.extend(connection, account)):
                    return
        except Exception as error:
            log.warning("totals were not brought up to date; reports take longer", why=str(error)[:200])

    async def _keeping_failure(self, asked: Coroutine[None, None, T]) -> T:
        try:
            return await asked
        except VenueError as error:
            await self._save(not_read(self.state, ACCOUNT, str(error), datetime.now(UTC)))
            raise

    async def _save(self, state: BooksState) -> None:
        reader = self._reader
        if not await self._run(lambda connection: books.write_state(connection, reader, state)):
            raise LeaseLost
        self.state = state


def reader_of(desk: str, key: claims.AccountKey) -> BooksReader:
    """This worker as a reader, under a name that no other worker has."""
    return BooksReader(desk, key, secrets.token_hex(8))
