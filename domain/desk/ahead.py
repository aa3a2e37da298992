"""A choice made ahead: the activity that reads the venue also makes the choice, so a quiet cycle needs no second activity.

The hazard behind this file: commands arrive while the venue is read, and the reading itself changes the state. A choice
made from older facts must never be used. So the coordinator notes what the choice is made from, and uses it only if a
decision made now would be made from exactly the same facts. An old choice is not used either: the age of its data was
judged when it was made, and while no worker is up the answer just waits. Adding a field to the comparison needs a schema
version of its own (`domain/desk/versions.py`): an older run may then treat a recorded choice differently.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import Field

from domain.deciding import Choice
from domain.desk import ordering, requoting
from domain.desk.carried import Carried
from domain.health import books_seen
from domain.trading.agents import AgentHealth
from domain.trading.instructions import OrderInstruction
from domain.trading.market import Observation
from domain.trading.proposals import Proposal, WaitingProposal
from domain.trading.quotes import AgentQuote
from domain.values import Moment, Value

# From the request to the use. The same as the activities' own time limits (`activities/options.py`): an older answer has
# been waiting for a worker.
READING_LASTS = timedelta(seconds=12)
DECISION_LASTS = timedelta(seconds=24)


class DecisionFacts(Value):
    """What a decision is made from, besides the reading, the limits and the symbols.

    `blocked` says why a symbol takes no new order. `sent` holds the times of the newest orders, by the market's clock.
    `agents` is the agents' health after the last cycle (`Choice.agents`), `proposals` come from agents outside the worker,
    `quotes` are the agents' resting orders at the venue, and `unsettled` orders that are on their way or of unknown fate.
    """

    blocked: dict[str, str]
    sent: list[Moment] = Field(default_factory=list)
    cycle: int = 0
    agents: dict[str, AgentHealth] = Field(default_factory=dict)
    proposals: list[Proposal] = Field(default_factory=list)
    quotes: list[AgentQuote] = Field(default_factory=list)
    unsettled: list[OrderInstruction] = Field(default_factory=list)


class ObservedAndChosen(NamedTuple):
    """A reading, and the choice made from it; None if the activity left the choice to a separate decision."""

    observation: Observation
    choice: Choice | None


def blocked_symbols(c: Carried) -> dict[str, str]:
    """Symbols that take no new order, and why."""
    return requoting.blocked(c) | ordering.blocked(c)


def facts_of(c: Carried, blocked: Mapping[str, str], waiting: Sequence[WaitingProposal]) -> DecisionFacts:
    """The facts for a decision requested now."""
    return DecisionFacts(
        blocked=dict(blocked),
        sent=c.recent_orders,
        cycle=c.cycle_number,
        agents=c.agents,
        proposals=[w.proposal for w in waiting],
        quotes=list(c.quotes.values()),
        unsettled=[pending.order.instruction for pending in c.orders],
    )


def may_choose(observation: Observation) -> bool:
    """Whether the desk may decide straight from this reading. If not, the coordinator has to act on it first."""
    found, latch = observation.assessment, observation.latch
    if found is None or found.breaches or found.cuts or observation.doubts or observation.latch_error:
        return False
    return not (latch and latch.killed) and books_seen.hold(observation.books) is None


class ChoiceAhead:
    """The choice that comes with a reading, and the facts that it was requested with."""

    def __init__(self, c: Carried, now: datetime) -> None:
        self._asked_at = now
        self.facts = facts_of(c, blocked_symbols(c), c.proposals)
        # As text: the state's own objects change while the venue is read, and would always equal themselves.
        self._made_from = _everything(c, self.facts)
        self._came: ObservedAndChosen | None = None

    def take(self, came: ObservedAndChosen) -> Observation:
        """Keeps the choice that came with the reading, and returns the reading."""
        self._came = came
        return came.observation

    def choice(
        self,
        c: Carried,
        observation: Observation,
        blocked: Mapping[str, str],
        waiting: Sequence[WaitingProposal],
        now: datetime,
    ) -> Choice | None:
        """The choice, if a decision on this reading would be made from the same facts now."""
        if self._came is None or self._came.observation is not observation or now - self._asked_at > READING_LASTS:
            return None
        is_same = _everything(c, facts_of(c, blocked, waiting)) == self._made_from
        return self._came.choice if is_same else None


def _everything(c: Carried, facts: DecisionFacts) -> tuple[str, ...]:
    """Everything that a choice depends on. The account and the database determine which workers may decide.

    `blocked` names each unsettled order, so comparing these too would change nothing but older runs."""
    return (
        facts.model_dump_json(exclude={"unsettled"}),
        c.limits.model_dump_json(),
        " ".join([c.mode, str(c.account), str(c.database_id), *c.symbols]),
    )
