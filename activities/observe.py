"""Activities that read: the venue, the latch, and what the agents make of it."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.agents.port import MAX_BARS, arguments_of
from activities.agents.room import AgentRoom
from activities.agents.round import analyse
from activities.calls import CycleSummary, DecideCall, ObserveCall, Scope
from activities.instruments import Instruments
from activities.scope import refuse_other
from activities.tape import correlations_of, tape_of
from activities.venues.port import Venue, VenueError
from domain.agents import judged, quarantined, to_ask
from domain.arbitration import liquidity_of
from domain.assessing import assess
from domain.assessment import Assessment
from domain.deciding import Choice
from domain.deciding import decide as choose
from domain.market import Bar, LatchRow, MarketView, Observation
from domain.proposals import Analysis
from domain.risk import Circumstances
from storage.database import Database, DatabaseUnavailable
from storage.desks import read_desk

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
    ) -> None:
        self._scope = scope
        self._venue = venue
        self._database = database
        self._agents = agents
        self._instruments = instruments
        self._new_id = new_id
        self._weights = weights

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
        views = await self._views(call.symbols)
        analysis = await self._consult(call, views)
        order_value = call.limits.order_fraction * call.observation.account.nav
        liquidity = {symbol: liquidity_of(view.book, order_value) for symbol, view in views.items()}
        given = _circumstances(call, views)
        choice = choose(analysis, given, weights=self._weights, liquidity=liquidity)
        asked = dict.fromkeys(analysis.votes, True) | {failure.agent_id: False for failure in analysis.failures}
        return choice.model_copy(update={"agents": judged(call.agents, call.cycle, asked, self._agents.names)})

    async def _watch(self, call: ObserveCall, seen: Observation) -> Assessment | None:
        """The reading against the limits; what is held moves together as its newest bars did."""
        if call.limits is None:
            return None
        held = sorted({p.symbol for p in seen.positions if p.quantity})
        views = await self._views(held) if len(held) > 1 else {}
        found = assess(seen, call.limits, call.risk, correlations_of(_bars_of(views)))
        self._instruments.limits_used(found.measures, call.limits)
        return found

    async def _consult(self, call: DecideCall, views: Mapping[str, MarketView]) -> Analysis:
        """All agents' answers, but for those in quarantine, and with the proposals from outside."""
        names = self._agents.names
        away = {name: cycle for name, cycle in quarantined(call.agents, call.cycle).items() if name in names}
        arguments = arguments_of(views, call.observation.positions)
        answers = await self._agents.ask(to_ask(names, call.agents, call.cycle), arguments)
        for answer in answers:
            self._instruments.agent_answered(answer.agent_id, answer.seconds, answer.failure)
            self._instruments.proposed(answer.agent_id, [s.side for s in answer.suggestions])
        self._instruments.quarantine(names, away)
        return analyse(answers, self._new_id, away, call.proposals)

    async def _views(self, symbols: Sequence[str]) -> dict[str, MarketView]:
        try:
            known = await self._venue.markets(symbols, MAX_BARS)
        except VenueError as error:
            raise ApplicationError(f"the venue gave no bars: {error}", type=type(error).__name__) from None
        # Agents are told what they hold of every symbol, also of one that the venue has no data for.
        return {symbol: known.get(symbol, MarketView(bars=[])) for symbol in symbols}

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


def _circumstances(call: DecideCall, views: Mapping[str, MarketView]) -> Circumstances:
    bars = _bars_of(views)
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


def _bars_of(views: Mapping[str, MarketView]) -> dict[str, list[Bar]]:
    return {symbol: view.bars for symbol, view in views.items()}
