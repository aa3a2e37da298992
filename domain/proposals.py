"""Proposals: what trading agents suggest, and what all of them said in one cycle."""

from collections.abc import Iterable
from enum import StrEnum

from pydantic import Field

from domain.instructions import Side
from domain.values import Moment, Value


class Proposal(Value):
    """One suggestion. `confidence` is a fraction of 1, `expected_return` a fraction of the price, before costs.

    `expires_at` is set where it came from outside.
    """

    proposal_id: str
    agent_id: str
    symbol: str
    side: Side
    confidence: float
    expected_return: float | None = None
    rationale: str = ""
    expires_at: Moment | None = None


class FailureKind(StrEnum):
    """Why an agent gave no answer."""

    RAISED = "raised"
    TIMED_OUT = "timed_out"
    NONSENSE = "nonsense"
    DIED = "died"
    UNLOADABLE = "unloadable"


class AgentFailure(Value):
    """An agent that gave no answer; it costs its own vote and nothing else."""

    agent_id: str
    error: str
    kind: FailureKind = FailureKind.RAISED


class Analysis(Value):
    """What all agents said in one cycle. A vote is signed: positive buys, negative sells, 0 abstains.

    `quarantined` maps an agent that was not asked to the cycle in which it is tried again; `notes` are for the summary.
    """

    proposals: list[Proposal] = Field(default_factory=list)
    votes: dict[str, float] = Field(default_factory=dict)
    failures: list[AgentFailure] = Field(default_factory=list)
    quarantined: dict[str, int] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


def vote_of(proposals: Iterable[Proposal]) -> float:
    """An agent's vote: its strongest proposal, signed; 0 where it proposed nothing."""
    votes = (p.confidence if p.side is Side.BUY else -p.confidence for p in proposals)
    return max(votes, key=abs, default=0.0)
