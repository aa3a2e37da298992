"""Activities that read venue and latch, and that ask the agents."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import structlog
from sqlalchemy import Connection
from temporalio import activity

from activities import options
from activities.agents.port import MAX_BARS, arguments_of
from activities.agents.runner import AgentRunner
from activities.bar_summaries import correlations_of
from activities.calls import DecideCall, ObserveAnswer, ObserveCall, ReadLatchCall, Scope
from activities.choosing import CycleContext, Round, choose
from activities.clocks import of_database, of_exchange
from activities.failures import failure
from activities.metrics import WorkerMetrics
from activities.scope import refuse_other
from activities.venues.port import Venue, VenueError
from domain.books import EXCHANGE, books_seen
from domain.deciding import Choice
from domain.desk.ahead import may_choose
from domain.desk.states import Mode
from domain.health.books_seen import BooksSeen
from domain.health.clocks import ClockReading
from domain.health.disks import DiskSpace, low
from domain.risk.assessing import assess
from domain.trading.market import DatabaseSeen, LatchReading, LatchRow, MarketView, Observation
from domain.values import iso
from storage import claims
from storage.books import find_books
from storage.claims import AccountKey
from storage.database import Database, DatabaseUnavailable
from storage.desks import DeskRecord, read_desk
from storage.disks import DiskWatch
from storage.equity import EquityPoint, write_point
from storage.installation import expected, expecting, given_id, wrong_database_text

log = structlog.get_logger("observe")

LATCH_SECONDS = 2.0
CURVE_SECONDS = 5.0
# For the correlations: what is left of the activity's time after the account is read.
CORRELATION_SECONDS = 2.0
# How long a reading waits for the choice beside it, and by when both must be done: slow agents must neither hold up a
# reading nor make it fail.
AHEAD_SECONDS, ANSWERED_BY_SECONDS = 2.0, options.OBSERVE["start_to_close_timeout"].total_seconds() - 2.0


# An order takes some 200 bytes, and Temporal takes no result of more than 2 MB.
MOST_OPEN_ORDERS = 7_000
_DAY_SECONDS = 86_400.0


class _Row(NamedTuple):
    """What one look at the database found, named like the fields of an observation."""

    latch: LatchRow | None = None
    latch_error: str | None = None
    database: DatabaseSeen | None = None
    books: BooksSeen | None = None
    clocks: tuple[ClockReading, ...] = ()


def _bounded(seen: Observation) -> Observation:
    """The reading with no more open orders than an activity's result can hold: of each symbol and market at least one, so that a
    kill cancels them all. With fewer than there are, it is no fact."""
    if len(seen.open_orders) <= MOST_OPEN_ORDERS:
        return seen
    firsts = {(order.market, order.symbol): order for order in reversed(seen.open_orders)}
    shown = list({id(order): order for order in [*firsts.values(), *seen.open_orders]}.values())[:MOST_OPEN_ORDERS]
    doubt = f"{len(seen.open_orders) - len(shown)} more orders are open"
    return seen.model_copy(update={"open_orders": shown, "doubts": [*seen.doubts, doubt]})


def _day_of(call: ObserveCall, seen: Observation, clocks: Sequence[ClockReading]) -> datetime:
    """The time by which a reading belongs to a day. A new one begins once every clock says so, since a clock that is ahead
    would forget the day's loss; and never with a second reading, which has to confirm a loss of the first one's day. A clock
    that is more than a day behind all others has no say: each of its readings would begin a day that is long over."""
    if call.cycle_id is None and call.risk.day is not None:
        return datetime.combine(call.risk.day, datetime.min.time(), UTC)
    ahead = max((clock.ahead_seconds for clock in clocks), default=0.0)
    ahead = ahead if ahead < -_DAY_SECONDS else max(ahead, 0.0)
    return seen.bar_time or seen.observed_at - timedelta(seconds=ahead)


def _tell_failure(choosing: asyncio.Task[Choice]) -> None:
    """Logs the failure of a decision that nobody may ask for any more."""
    if not choosing.cancelled() and (error := choosing.exception()):
        log.info("the decision beside a reading failed", error=str(error)[:200])


class _EarlyDecision(NamedTuple):
    """A decision begun beside its reading."""

    call: DecideCall
    choosing: asyncio.Task[Choice]

    @property
    def has_answer(self) -> bool:
        """Whether it ended without an error."""
        return self.choosing.done() and not self.choosing.cancelled() and self.choosing.exception() is None

    def is_of(self, call: DecideCall) -> bool:
        """Whether the coordinator now asks for exactly this decision."""
        return self.call == call.model_copy(update={"scope": self.call.scope})


class ObserveActivities:
    """Reads venue and latch at the same time, and asks the agents for proposals. `weights` are by agent id."""

    def __init__(
        self,
        scope: Scope,
        venue: Venue,
        database: Database,
        agents: AgentRunner,
        instruments: WorkerMetrics,
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
        self._low: list[DiskSpace] = []
        self._keeping: asyncio.Task[None] | None = None
        self._early: _EarlyDecision | None = None

    @activity.defn(name="observe")
    async def observe(self, call: ObserveCall) -> ObserveAnswer:
        """One reading. A database that does not answer leaves the latch unknown, which allows no new risk."""
        refuse_other(self._scope, call.scope)
        began = time.monotonic()
        if call.previous:
            self._instruments.cycle_completed(call.previous)
        in_cycle = call.cycle_id is not None
        seen, row, disks, clock = await asyncio.gather(
            self._observe_venue(call), self._row(call.scope, in_cycle), self._low_disks(), self._exchange_clock(call)
        )
        if isinstance(seen, VenueError):
            # A clock that is off explains why a venue refuses everything signed; empty if the clocks agree.
            why = f"{clock.text}; " if clock and clock.differs else ""
            # A paper venue is down with its database. The coordinator must learn which database it is all the same.
            details = [row.database] if row.database else []
            raise failure(seen, f"the venue cannot be observed: {why}", *details)
        seen = _bounded(seen)
        watched = row._asdict() | {"venue_account": self._scope.account, "low_disks": disks}
        watched["clocks"] = [*row.clocks, *([clock] if clock else [])]
        # A doubtful reading is not measured against any limit.
        if call.limits is not None and not seen.doubts:
            reading = seen.reading._replace(market_time=_day_of(call, seen, watched["clocks"]))
            found = assess(reading, call.limits, call.risk, await self._correlations(seen))
            self._instruments.limits_used(found.measures, call.limits)
            watched["assessment"] = found
        observation = seen.model_copy(update=watched)
        if in_cycle and row.latch_error is None:
            self._keep(observation)
        if observation.doubts:
            self._instruments.doubtful_readings.labels(self._scope.desk).inc()
        else:
            self._instruments.observed(observation)
        left = min(AHEAD_SECONDS, began + ANSWERED_BY_SECONDS - time.monotonic())
        return ObserveAnswer.of(observation, await self._ahead(call, observation, left))

    async def _ahead(self, call: ObserveCall, observation: Observation, seconds: float) -> Choice | None:
        """The choice from this reading, if it is ready in time. Otherwise None, whatever the cause: the coordinator then
        asks for a decision."""
        if call.decides is None or call.limits is None or seconds <= 0 or not may_choose(observation):
            return None
        if self._early and not self._early.choosing.done():
            # The early decision of a cycle that never asked for it is still running. `decide` waits until its agents are
            # free.
            return None
        facts = vars(call.decides)
        decision = DecideCall(
            scope=call.scope, symbols=call.symbols, observation=observation, limits=call.limits, **facts
        )
        choosing = asyncio.create_task(self._choose(decision))
        choosing.add_done_callback(_tell_failure)
        self._early = early = _EarlyDecision(decision, choosing)
        # If it takes longer, it keeps running, so that no agent is asked twice: `decide` waits for it.
        await asyncio.wait({choosing}, timeout=seconds)
        return choosing.result() if early.has_answer else None

    def _keep(self, observation: Observation) -> None:
        """Stores a point of the equity curve. Nothing waits for it and nothing depends on it, so a curve may have gaps."""
        if observation.assessment is None or (self._keeping and not self._keeping.done()):
            return
        measures = observation.assessment.measures.model_dump(include=set(EquityPoint.model_fields))
        point = EquityPoint(
            time=observation.observed_at, balance=observation.account.balance, prices=observation.marks, **measures
        )
        self._keeping = asyncio.create_task(self._write(point))

    async def _write(self, point: EquityPoint) -> None:
        try:
            await self._database.run(partial(write_point, desk=self._scope.desk, point=point), CURVE_SECONDS)
        except Exception as error:
            log.warning("a point of the equity curve was not stored", time=iso(point.time), error=repr(error)[:200])

    async def _low_disks(self) -> list[DiskSpace]:
        """Disks with little space left. If a file system does not answer, those of the last look: nothing says that there is room
        again."""
        try:
            disks = await self._disks.look()
        except TimeoutError:
            return self._low
        self._instruments.disks_seen(disks)
        self._low = low(disks)
        return self._low

    async def _exchange_clock(self, call: ObserveCall) -> ClockReading | None:
        """Only in a cycle: the readings that verify a kill stay light."""
        if call.cycle_id is None or not call.symbols:
            return None
        return await of_exchange(self._scope, self._venue, call.symbols[0])

    @activity.defn(name="read_latch")
    async def read_latch(self, call: ReadLatchCall) -> LatchReading:
        """Reads only the latch, quickly; or says why it could not."""
        refuse_other(self._scope, call.scope)
        row = await self._row(call.scope)
        return LatchReading(latch=row.latch, error=row.latch_error)

    @activity.defn(name="decide")
    async def decide(self, call: DecideCall) -> Choice:
        """Asks the agents, then chooses, sizes and checks one of the proposals."""
        refuse_other(self._scope, call.scope)
        early, self._early = self._early, None
        if early and not early.choosing.done():
            # The agents are busy, each in its one process. If they got another question now, their time would run out.
            await asyncio.wait({early.choosing})
            if early.has_answer and early.is_of(call):
                return early.choosing.result()
        # A decision that ended before this call is not used either: the age of its data was judged back then.
        return await self._choose(call)

    async def _choose(self, call: DecideCall) -> Choice:
        try:
            known = await self._venue.markets(call.symbols, MAX_BARS)
        except VenueError as error:
            raise failure(error, "the venue gave no bars: ") from None
        if self._scope.mode is Mode.PAPER and any(view.book for view in known.values()):
            # The real venue reports the age of its books itself.
            self._instruments.venue_data("book", call.observation.data_time)
        # Agents see the desk's position in every symbol, even if the venue has no data for it.
        views = {symbol: known.get(symbol, MarketView(bars=[])) for symbol in call.symbols}
        round_ = Round(self._agents.names, call.agents, call.cycle)
        answers = await self._agents.ask(round_.asked, arguments_of(views, call.observation.positions))
        self._instruments.agents_answered(answers, (call.cycle, call.observation.observed_at))
        self._instruments.quarantine(round_.names, round_.away)
        context = CycleContext(
            observation=call.observation,
            limits=call.limits,
            symbols=call.symbols,
            bars={symbol: view.bars for symbol, view in views.items()},
            books={symbol: view.book for symbol, view in views.items()},
            blocked=call.blocked,
            sent=call.sent,
            weights=self._weights,
            now=datetime.now(UTC),
            quotes=call.quotes,
            unsettled=call.unsettled,
        )
        return choose(round_, answers, context, call.proposals, self._new_id)

    async def _correlations(self, seen: Observation) -> dict[str, float]:
        """How the held symbols move together, from their newest bars. Empty if the venue gives no bars: the other limits
        must be checked all the same."""
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

    async def _observe_venue(self, call: ObserveCall) -> Observation | VenueError:
        started, outcome = time.monotonic(), "ok"
        try:
            return await self._venue.observe(call.symbols, call.cycle_id, call.known)
        except VenueError as error:
            outcome = type(error).__name__
            return error
        finally:
            if not self._venue.counts_its_calls:
                self._instruments.venue_called("observe", time.monotonic() - started, outcome)

    async def _row(self, asked: Scope, with_clock: bool = False) -> _Row:
        """Reads the latch, and which database this is. What another desk's database says about the latch does not count.
        For a live desk, also reads its books and who holds its account."""
        clocks: list[ClockReading] = []

        def work(connection: Connection) -> tuple[str | None, DeskRecord | None, BooksSeen | None]:
            database_id, record = given_id(connection, asked.database_id), read_desk(connection, asked.desk)
            clocks[:] = [of_database(connection)] if with_clock else []
            if self._scope.mode is not Mode.LIVE:
                return database_id, record, None
            holder = claims.holder(connection, AccountKey(EXCHANGE, self._scope.account or ""))
            found = find_books(connection, self._scope.desk)
            seen = books_seen(found.state if found else None, holder.desk if holder else None, self._scope.desk)
            return database_id, record, seen

        try:
            with expecting(None):
                database_id, record, books = await self._database.run(work, LATCH_SECONDS)
        except DatabaseUnavailable as error:
            return _Row(latch_error=f"the database cannot be reached: {error}")
        except Exception as error:
            # Whatever is wrong with the row, the venue's part of the reading is what verifies a kill.
            log.exception("the desk's row cannot be read: a bug, or somebody has changed the tables")
            return _Row(latch_error=f"the desk's row cannot be read: {type(error).__name__}")
        seen = DatabaseSeen(database_id=database_id, knows_desk=record is not None) if database_id else None
        if asked.database_id not in (None, database_id):
            if wanted := expected():
                wanted.others.append(database_id or "")
            return _Row(latch_error=wrong_database_text(database_id, asked.database_id), database=seen)
        return _Row(latch=record.latch if record else None, database=seen, books=books, clocks=tuple(clocks))
