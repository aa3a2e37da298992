"""Activities that read: the venue, the latch, and what the agents make of it."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from temporalio import activity

from activities.agents.port import Agent, analyse
from activities.calls import CycleSummary, DecideCall, ObserveCall, Scope
from activities.failures import failure
from activities.instruments import Instruments
from activities.scope import refuse_other
from activities.tape import correlations_of, tape_of
from activities.venues.port import Venue, VenueError
from domain.assessing import assess
from domain.assessment import Assessment
from domain.deciding import Choice
from domain.deciding import decide as choose
from domain.market import Bar, LatchRow, Observation
from domain.risk import Circumstances
from storage.database import Database, DatabaseUnavailable
from storage.desks import read_desk

LATCH_SECONDS = 2.0
BARS_FOR_AGENTS = 60


class ObserveActivities:
    """Reads venue and latch at the same time, and runs the agents on the venue's bars."""

    def __init__(
        self,
        scope: Scope,
        venue: Venue,
        database: Database,
        agents: Sequence[Agent],
        instruments: Instruments,
        new_id: Callable[[str], str],
    ) -> None:
        self._scope = scope
        self._venue = venue
        self._database = database
        self._agents = agents
        self._instruments = instruments
        self._new_id = new_id

    @activity.defn(name="observe")
    async def observe(self, call: ObserveCall) -> Observation:
        """One reading. A database that does not answer leaves the latch unknown, which allows no new risk."""
        refuse_other(self._scope, call.scope)
        seen, (latch, error) = await asyncio.gather(self._see(call), self._latch(call.scope.desk))
        watched = {"latch": latch, "latch_error": error, "assessment": await self._watch(call, seen)}
        observation = seen.model_copy(update=watched)
        self._instruments.observed(observation)
        self._tell(call.previous)
        return observation

    @activity.defn(name="decide")
    async def decide(self, call: DecideCall) -> Choice:
        """What the agents propose, chosen, sized and weighed."""
        refuse_other(self._scope, call.scope)
        bars = {symbol: await self._bars(symbol) for symbol in call.symbols}
        analysis = await asyncio.to_thread(analyse, self._agents, bars, self._new_id)
        for proposal in analysis.proposals:
            self._instruments.signals.labels(proposal.agent_id, proposal.side.value).inc()
        return choose(analysis, self._circumstances(call, bars))

    def _circumstances(self, call: DecideCall, bars: Mapping[str, Sequence[Bar]]) -> Circumstances:
        return Circumstances(
            observation=call.observation,
            limits=call.limits,
            symbols=call.symbols,
            now=datetime.now(UTC),
            blocked=call.blocked,
            tapes={symbol: tape_of(found) for symbol, found in bars.items()},
            correlations=correlations_of(bars),
            sent=call.sent,
        )

    async def _watch(self, call: ObserveCall, seen: Observation) -> Assessment | None:
        """The reading against the limits; what is held moves together as its newest bars did."""
        if call.limits is None:
            return None
        held = sorted({p.symbol for p in seen.positions if p.quantity})
        bars = {symbol: await self._bars(symbol) for symbol in held} if len(held) > 1 else {}
        found = assess(seen, call.limits, call.risk, correlations_of(bars))
        self._instruments.limits_used(found.measures, call.limits)
        return found

    async def _bars(self, symbol: str) -> list[Bar]:
        try:
            return await self._venue.bars(symbol, BARS_FOR_AGENTS)
        except VenueError as error:
            raise failure(error, "the venue gave no bars: ") from None

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
