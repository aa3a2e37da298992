"""One round: collects the answers of a desk's agents and the proposals from outside."""

from collections.abc import Callable, Mapping, Sequence

from activities.agents.port import Suggestion
from activities.agents.runner import AgentAnswer
from domain.trading.proposals import Analysis, Proposal, vote_of
from domain.values import assembled

NewId = Callable[[str], str]


def analyse(
    answers: Sequence[AgentAnswer], new_id: NewId, quarantined: Mapping[str, int], outside: Sequence[Proposal] = ()
) -> Analysis:
    """Collects all answers. `outside` are proposals of agents that run elsewhere; one that uses the name of ours is not taken."""
    proposals = [
        _proposal(new_id("sig"), answer.agent_id, suggestion) for answer in answers for suggestion in answer.suggestions
    ]
    not_taken: dict[str, str] = {}
    if outside:
        ours = {answer.agent_id for answer in answers}.union(quarantined)
        not_taken = {
            p.proposal_id: f"{p.agent_id} is an agent of this desk's own" for p in outside if p.agent_id in ours
        }
        proposals += [proposal for proposal in outside if proposal.agent_id not in ours]
    said: dict[str, list[Proposal]] = {answer.agent_id: [] for answer in answers if answer.failure is None}
    for proposal in proposals:
        said.setdefault(proposal.agent_id, []).append(proposal)
    return assembled(
        Analysis,
        {
            "proposals": proposals,
            "votes": {name: vote_of(its) if its else 0.0 for name, its in said.items()},
            "failures": [answer.failure for answer in answers if answer.failure],
            "quarantined": dict(quarantined),
            "not_taken": not_taken,
            "notes": [f"a proposal from outside was not taken: {why}" for why in dict.fromkeys(not_taken.values())],
        },
    )


def _proposal(proposal_id: str, agent_id: str, suggestion: Suggestion) -> Proposal:
    # A suggestion was validated when it was received.
    return assembled(
        Proposal,
        {
            "price": suggestion.price,
            "time_in_force": suggestion.time_in_force,
            "post_only": suggestion.post_only,
            "proposal_id": proposal_id,
            "agent_id": agent_id,
            "symbol": suggestion.symbol,
            "side": suggestion.side,
            "confidence": suggestion.confidence,
            "expected_return": suggestion.expected_return,
            "rationale": suggestion.rationale,
            "expires_at": None,
        },
    )
