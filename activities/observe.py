"""Activities that read: the venue, the latch, and what the agents make of it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.agents.port import Agent, analyse
from activities.calls import CycleSummary, DecideCall, ObserveCall, Scope
from activities.instruments import Instruments
from activities.scope import refuse_other
from activities.venues.port import Venue, VenueError
from domain.deciding import Choice
from domain.deciding import decide as choose
from domain.market import LatchRow, MarketView, Observation
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
        observation = seen.model_copy(update={"latch": latch, "latch_error": error})
        self._instruments.observed(observation)
        self._tell(call.previous)
        return observation

    @activity.defn(name="decide")
    async def decide(self, call: DecideCall) -> Choice:
        """What the agents propose, chosen, sized and weighed."""
        refuse_other(self._scope, call.scope)
        bars = {symbol: view.bars for symbol, view in (await self._markets(call.symbols)).items()}
        analysis = await asyncio.to_thread(analyse, self._agents, bars, self._new_id)
        for proposal in analysis.proposals:
            self._instruments.signals.labels(proposal.agent_id, proposal.side.value).inc()
        return choose(analysis, call.observation, call.limits, call.blocked, datetime.now(UTC))

    async def _markets(self, symbols: Sequence[str]) -> dict[str, MarketView]:
        try:
            return await self._venue.markets(symbols, BARS_FOR_AGENTS)
        except VenueError as error:
            raise ApplicationError(f"the venue gave no bars: {error}", type=type(error).__name__) from None

    async def _see(self, call: ObserveCall) -> Observation:
        started = time.monotonic()
        try:
            return await self._venue.observe(call.symbols, call.cycle_id)
        except VenueError as error:
            self._instruments.venue_errors.labels("observe").inc()
            raise ApplicationError(f"the venue cannot be observed: {error}", type=type(error).__name__) from None
        finally:
            self._instruments.venue.labels("observe").observe(time.monotonic() - started)

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
