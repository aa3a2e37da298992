"""One round: what the agents of a desk, and those outside, said together."""

from collections.abc import Callable, Mapping, Sequence

from activities.agents.room import Answer
from domain.proposals import Analysis, Proposal, vote_of

NewId = Callable[[str], str]


def analyse(
    answers: Sequence[Answer], new_id: NewId, quarantined: Mapping[str, int], outside: Sequence[Proposal] = ()
) -> Analysis:
    """All that was said. `outside` are proposals of agents that run elsewhere; one under a name of ours is not taken."""
    votes = {answer.agent_id: 0.0 for answer in answers if answer.failure is None}
    proposals: list[Proposal] = []
    for answer in answers:
        if answer.suggestions:
            said = _proposals(answer, new_id)
            votes[answer.agent_id] = vote_of(said)
            proposals += said
    analysis = Analysis(
        proposals=proposals,
        votes=votes,
        failures=[answer.failure for answer in answers if answer.failure],
        quarantined=dict(quarantined),
    )
    return (
        _joined(analysis, outside, {answer.agent_id for answer in answers} | set(quarantined)) if outside else analysis
    )


def _joined(analysis: Analysis, outside: Sequence[Proposal], ours: set[str]) -> Analysis:
    strangers = [proposal for proposal in outside if proposal.agent_id not in ours]
    not_taken = {p.proposal_id: f"{p.agent_id} is an agent of this desk's own" for p in outside if p.agent_id in ours}
    heard = {
        "proposals": [*analysis.proposals, *strangers],
        "votes": analysis.votes | _votes(strangers),
        "not_taken": not_taken,
        "notes": [f"a proposal from outside was not taken: {why}" for why in dict.fromkeys(not_taken.values())],
    }
    return analysis.model_copy(update=heard)


def _proposals(answer: Answer, new_id: NewId) -> list[Proposal]:
    return [
        Proposal(proposal_id=new_id("sig"), agent_id=answer.agent_id, **suggestion.model_dump())
        for suggestion in answer.suggestions
    ]


def _votes(proposals: Sequence[Proposal]) -> dict[str, float]:
    names = dict.fromkeys(proposal.agent_id for proposal in proposals)
    return {name: vote_of(p for p in proposals if p.agent_id == name) for name in names}
