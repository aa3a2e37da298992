"""Proposals: what trading agents suggest, and the choice among them."""

from collections.abc import Sequence

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


class AgentFailure(Value):
    """An agent that gave no answer; it costs its own vote and nothing else."""

    agent_id: str
    error: str


class Analysis(Value):
    """What all agents said in one cycle. A vote is signed: positive buys, negative sells, 0 abstains."""

    proposals: list[Proposal] = Field(default_factory=list)
    votes: dict[str, float] = Field(default_factory=dict)
    failures: list[AgentFailure] = Field(default_factory=list)


def best_proposal(proposals: Sequence[Proposal]) -> Proposal | None:
    """The most confident one; ties go to the first symbol and agent by name, so that a replay chooses alike."""
    ranked = sorted(proposals, key=lambda p: (-p.confidence, p.symbol, p.agent_id))
    return ranked[0] if ranked else None
