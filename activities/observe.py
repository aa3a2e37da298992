"""Activities that read: the venue, the latch, and what the agents make of it."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

from temporalio import activity

from activities.agents.port import MAX_BARS, arguments_of
from activities.agents.room import AgentRoom
from activities.calls import CycleSummary, DecideCall, ObserveCall, ReadLatchCall, Scope
from activities.choosing import Round, Situation, choose
from activities.failures import failure
from activities.instruments import Instruments
from activities.scope import refuse_other
from activities.tape import correlations_of
from activities.venues.port import Venue, VenueError
from domain.assessing import assess
from domain.assessment import Assessment
from domain.deciding import Choice
from domain.disks import DiskSpace, low
from domain.market import LatchReading, LatchRow, MarketView, Observation
from storage.database import Database, DatabaseUnavailable
from storage.desks import read_desk
from storage.disks import DiskWatch

LATCH_SECONDS = 2.0


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

    @activity.defn(name="observe")
    async def observe(self, call: ObserveCall) -> Observation:
        """One reading. A database that does not answer leaves the latch unknown, which allows no new risk."""
        refuse_other(self._scope, call.scope)
        seen, (latch, error), disks = await asyncio.gather(
            self._see(call), self._latch(call.scope.desk), self._low_disks()
        )
        watched = {
            "latch": latch,
            "latch_error": error,
            "assessment": await self._watch(call, seen),
            "low_disks": disks,
        }
        observation = seen.model_copy(update=watched)
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

    @activity.defn(name="read_latch")
    async def read_latch(self, call: ReadLatchCall) -> LatchReading:
        """The latch alone, quickly, or why not."""
        refuse_other(self._scope, call.scope)
        latch, error = await self._latch(call.scope.desk)
        return LatchReading(latch=latch, error=error)

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
        """The reading against the limits."""
        if call.limits is None:
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
            views = await self._venue.markets(held, MAX_BARS)
        except VenueError:
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

    async def _see(self, call: ObserveCall) -> Observation:
        started, failed = time.monotonic(), False
        try:
            return await self._venue.observe(call.symbols, call.cycle_id)
        except VenueError as error:
            failed = True
            raise failure(error, "the venue cannot be observed: ") from None
        finally:
            if not self._venue.counts_its_calls:
                self._instruments.venue_called("observe", time.monotonic() - started, failed)

    async def _latch(self, desk: str) -> tuple[LatchRow | None, str | None]:
        try:
            row = await self._database.run(lambda connection: read_desk(connection, desk), LATCH_SECONDS)
        except DatabaseUnavailable as error:
            return None, f"the database cannot be reached: {error}"
        return (row.latch if row else None), None

    def _tell(self, previous: CycleSummary | None) -> None:
        if previous:
            age = (datetime.now(UTC) - previous.ended_at).total_seconds()
            self._instruments.cycle_completed(previous.number, previous.seconds, age, previous.open_instructions)
