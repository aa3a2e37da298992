"""What the coordinator's activities want of an agent, and the round in which all of them are asked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Protocol

from pydantic import ConfigDict, Field

from domain.instructions import Side
from domain.market import Bar
from domain.proposals import AgentFailure, Analysis, Proposal
from domain.values import Value

MAX_ERROR_CHARS = 200

Bars = Mapping[str, Sequence[Bar]]
NewId = Callable[[str], str]

# NaN is refused: it passes every comparison and cannot be written to the decision log.
Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Vote = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


# Checked again when it is taken in, and not only when it was made: an agent may come from another package.
_CHECKED = ConfigDict(revalidate_instances="always")


class Suggestion(Value):
    """What an agent would do. `confidence` is a fraction of 1."""

    model_config = _CHECKED

    symbol: str
    side: Side
    confidence: Confidence
    rationale: str = ""


class AgentOpinion(Value):
    """An agent's answer. `vote` is its strongest view, signed: positive buys, negative sells, 0 abstains."""

    model_config = _CHECKED

    proposals: Sequence[Suggestion] = ()
    vote: Vote = 0.0


class Agent(Protocol):
    """A trading agent. Pure: the same bars give the same opinion."""

    @property
    def agent_id(self) -> str:
        """Its name in the decision log."""

    def propose(self, bars: Bars) -> AgentOpinion:
        """Its opinion of the newest bars of each symbol, oldest first. May raise: that costs its vote alone."""


def analyse(agents: Sequence[Agent], bars: Bars, new_id: NewId) -> Analysis:
    """Asks every agent. One that raises is named in `failures` and costs nothing but its own vote."""
    proposals: list[Proposal] = []
    votes: dict[str, float] = {}
    failures: list[AgentFailure] = []
    for agent in agents:
        opinion = ask(agent, bars)
        if isinstance(opinion, AgentFailure):
            failures.append(opinion)
        else:
            votes[agent.agent_id] = opinion.vote
            proposals += _proposals(agent.agent_id, opinion, new_id)
    return Analysis(proposals=proposals, votes=votes, failures=failures)


def ask(agent: Agent, bars: Bars) -> AgentOpinion | AgentFailure:
    """One agent's opinion, or why there is none."""
    try:
        return AgentOpinion.model_validate(agent.propose(bars))
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return AgentFailure(agent_id=agent.agent_id, error=text[:MAX_ERROR_CHARS])


def _proposals(agent_id: str, opinion: AgentOpinion, new_id: NewId) -> list[Proposal]:
    return [
        Proposal(proposal_id=new_id("sig"), agent_id=agent_id, **suggestion.model_dump())
        for suggestion in opinion.proposals
    ]
