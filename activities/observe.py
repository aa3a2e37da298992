"""Activities that read: the venue, the latch, and what the agents make of it."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import Connection
from temporalio import activity

from activities.agents.port import MAX_BARS, arguments_of
from activities.agents.room import AgentRoom
from activities.calls import CycleSummary, DecideCall, ObserveCall, ReadLatchCall, Scope
from activities.choosing import Round, Situation, choose
from activities.clocks import Clocks
from activities.failures import failure
from activities.instruments import Instruments
from activities.scope import refuse_other
from activities.tape import correlations_of
from activities.venues.port import Venue, VenueError
from domain.assessing import assess
from domain.assessment import Assessment
from domain.books import EXCHANGE
from domain.books import seen as books_seen
from domain.books_seen import BooksSeen
from domain.clocks import ClockReading, OtherClock
from domain.deciding import Choice
from domain.disks import DiskSpace, low
from domain.market import DatabaseSeen, LatchReading, LatchRow, MarketView, Observation
from domain.states import Mode
from storage import claims
from storage.books import find_books
from storage.claims import AccountKey
from storage.database import Database, DatabaseUnavailable
from storage.desks import DeskRecord, read_desk
from storage.disks import DiskWatch
from storage.installation import expected, expecting, given_id, stranger_text

LATCH_SECONDS = 2.0
# What a reading of the account leaves of its activity's time.
CORRELATION_SECONDS = 2.0


class _Row(NamedTuple):
    """What one look at the database has told, by the names of an observation's fields."""

    latch: LatchRow | None = None
    latch_error: str | None = None
    database: DatabaseSeen | None = None
    books: BooksSeen | None = None


class _Found(NamedTuple):
    """What the database holds of a desk."""

    database_id: str | None
    record: DeskRecord | None
    books: BooksSeen | None


class ObserveActivities:
    """Reads venue and latch at the same time, and asks the agents of what the venue shows. `weights` are by agent id."""

    def __init__(
        self,
        scope: Scope,
        venue: Venue,
        database: Database,
        agents: AgentRoom,
        instruments: Instruments,
        new_id: Callable[[str], str],
        weights: Mapping[str, float] = MappingProxyType({}),
        disks: DiskWatch | None = None,
    ) -> None:
        self._scope = scope
        self._venue = venue
        self._database = database
        self._agents = agents
        self._instruments = instruments
        self._new_id = new_id
        self._weights = weights
        self._disks = disks or DiskWatch(())
        self._clocks = Clocks(scope, venue, database)

    @activity.defn(name="observe")
    async def observe(self, call: ObserveCall) -> Observation:
        """One reading. A database that does not answer leaves the latch unknown, which allows no new risk."""
        refuse_other(self._scope, call.scope)
        seen, row, disks, clocks = await asyncio.gather(
            self._see(call), self._row(call.scope), self._low_disks(), self._read_clocks(call)
        )
        if isinstance(seen, VenueError):
            # A paper venue is away with its database: which one that is has to be told all the same.
            details = [row.database] if row.database else []
            raise failure(seen, f"the venue cannot be observed: {_clock_text(clocks)}", *details)
        watched = {
            **row._asdict(),
            "venue_account": self._scope.account,
            "assessment": await self._watch(call, seen),
            "low_disks": disks,
            "clocks": clocks,
        }
        observation = seen.model_copy(update=watched)
        if observation.doubts:
            self._instruments.doubtful_readings.labels(self._scope.desk).inc()
        else:
            self._instruments.observed(observation)
        self._tell(call.previous)
        return observation

    async def _low_disks(self) -> list[DiskSpace]:
        """A file system that does not answer says nothing here; the gauges keep what they had."""
        try:
            disks = await self._disks.look()
        except TimeoutError:
            return []
        self._instruments.disks_seen(disks)
        return low(disks)

    async def _read_clocks(self, call: ObserveCall) -> list[ClockReading]:
        """Once a cycle: what a kill reads again is kept light."""
        if call.cycle_id is None:
            return []
        of_exchange = (self._clocks.of_exchange(symbol) for symbol in call.symbols[:1])
        read = await asyncio.gather(self._clocks.of_database(), *of_exchange)
        return [reading for reading in read if reading]

    @activity.defn(name="read_latch")
    async def read_latch(self, call: ReadLatchCall) -> LatchReading:
        """The latch alone, quickly, or why not."""
        refuse_other(self._scope, call.scope)
        row = await self._row(call.scope)
        return LatchReading(latch=row.latch, error=row.latch_error)

    @activity.defn(name="decide")
    async def decide(self, call: DecideCall) -> Choice:
        """What the agents propose, chosen, sized and weighed."""
        refuse_other(self._scope, call.scope)
        views = await self._views(call.symbols)
        round_ = Round(self._agents.names, call.agents, call.cycle)
        answers = await self._agents.ask(round_.asked, arguments_of(views, call.observation.positions))
        self._instruments.agents_answered(answers)
        self._instruments.quarantine(round_.names, round_.away)
        return choose(round_, answers, self._situation(call, views), call.proposals, self._new_id)

    def _situation(self, call: DecideCall, views: Mapping[str, MarketView]) -> Situation:
        return Situation(
            observation=call.observation,
            limits=call.limits,
            symbols=call.symbols,
            bars={symbol: view.bars for symbol, view in views.items()},
            books={symbol: view.book for symbol, view in views.items()},
            blocked=call.blocked,
            sent=call.sent,
            weights=self._weights,
            now=datetime.now(UTC),
        )

    async def _watch(self, call: ObserveCall, seen: Observation) -> Assessment | None:
        """The reading against the limits; one that is no fact is held against none."""
        if call.limits is None or seen.doubts:
            return None
        found = assess(seen.reading, call.limits, call.risk, await self._correlations(seen))
        self._instruments.limits_used(found.measures, call.limits)
        return found

    async def _correlations(self, seen: Observation) -> dict[str, float]:
        """What is held moves together as its newest bars did. A venue that gives no bars must not end the watch over all
        other limits: then nothing counts as moving together in this reading."""
        held = sorted({p.symbol for p in seen.positions if p.quantity})
        if len(held) < 2:
            return {}
        try:
            async with asyncio.timeout(CORRELATION_SECONDS):
                views = await self._venue.markets(held, MAX_BARS)
        except (VenueError, TimeoutError):
            self._instruments.venue_errors.labels("markets").inc()
            return {}
        return correlations_of({symbol: view.bars for symbol, view in views.items()})

    async def _views(self, symbols: Sequence[str]) -> dict[str, MarketView]:
        try:
            known = await self._venue.markets(symbols, MAX_BARS)
        except VenueError as error:
            raise failure(error, "the venue gave no bars: ") from None
        # Agents are told what they hold of every symbol, also of one that the venue has no data for.
        return {symbol: known.get(symbol, MarketView(bars=[])) for symbol in symbols}

    async def _see(self, call: ObserveCall) -> Observation | VenueError:
        started, failed = time.monotonic(), False
        try:
            return await self._venue.observe(call.symbols, call.cycle_id, call.known)
        except VenueError as error:
            failed = True
            return error
        finally:
            if not self._venue.counts_its_calls:
                self._instruments.venue_called("observe", time.monotonic() - started, failed)

    async def _row(self, asked: Scope) -> _Row:
        """What the database says, and which one it is: a stranger's word on the latch is none."""

        def work(connection: Connection) -> _Found:
            database_id = given_id(connection, asked.database_id)
            return _Found(database_id, read_desk(connection, asked.desk), self._books(connection))

        try:
            with expecting(None):
                database_id, record, books = await self._database.run(work, LATCH_SECONDS)
        except DatabaseUnavailable as error:
            return _Row(latch_error=f"the database cannot be reached: {error}")
        seen = DatabaseSeen(database_id=database_id, knows_desk=record is not None) if database_id else None
        if asked.database_id not in (None, database_id):
            if wanted := expected():
                wanted.strangers.append(database_id or "")
            return _Row(latch_error=stranger_text(database_id, asked.database_id), database=seen)
        return _Row(latch=record.latch if record else None, database=seen, books=books)

    def _books(self, connection: Connection) -> BooksSeen | None:
        """What a live desk's books say, and who holds its account."""
        if self._scope.mode is not Mode.LIVE:
            return None
        holder = claims.holder(connection, AccountKey(EXCHANGE, self._scope.account or ""))
        found = find_books(connection, self._scope.desk)
        return books_seen(found.state if found else None, holder.desk if holder else None, self._scope.desk)

    def _tell(self, previous: CycleSummary | None) -> None:
        if previous:
            age = (datetime.now(UTC) - previous.ended_at).total_seconds()
            self._instruments.cycle_completed(previous.number, previous.seconds, age, previous.open_instructions)


def _clock_text(clocks: Sequence[ClockReading]) -> str:
    """Why a venue may refuse whatever is signed; nothing where the clocks agree."""
    return "".join(f"{clock.text}; " for clock in clocks if clock.differs and clock.clock is OtherClock.EXCHANGE)
