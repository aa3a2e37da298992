"""What all agents said in one round: proposals, votes, failures."""

import itertools
from collections.abc import Mapping, Sequence

from activities.agents.port import Suggestion
from activities.agents.round import analyse
from activities.agents.runner import AgentAnswer
from domain.trading.instructions import Side
from domain.trading.proposals import AgentFailure, Analysis, Proposal
from tests.agents.builders import BTC, ETH, a_proposal


def answered(agent_id: str, *said: tuple[str, Side, float]) -> AgentAnswer:
    return AgentAnswer(agent_id, [Suggestion(symbol=s, side=side, confidence=c) for s, side, c in said], None, 0.001)


def failed(agent_id: str) -> AgentAnswer:
    return AgentAnswer(agent_id, [], AgentFailure(agent_id=agent_id, error="ValueError"), 0.001)


def round_of(
    *answers: AgentAnswer, quarantined: Mapping[str, int] | None = None, outside: Sequence[Proposal] = ()
) -> Analysis:
    numbers = itertools.count()
    return analyse(answers, lambda prefix: f"{prefix}_{next(numbers)}", quarantined or {}, outside)


def test_every_suggestion_becomes_a_proposal_with_an_id_and_its_agents_name() -> None:
    analysis = round_of(
        answered("a", (BTC, Side.BUY, 0.4), (ETH, Side.SELL, 0.3)), answered("b", (BTC, Side.SELL, 0.2))
    )
    assert [(p.proposal_id, p.agent_id, p.symbol) for p in analysis.proposals] == [
        ("sig_0", "a", BTC),
        ("sig_1", "a", ETH),
        ("sig_2", "b", BTC),
    ]


def test_all_that_answered_have_a_vote_their_strongest_and_0_abstains() -> None:
    analysis = round_of(answered("a", (BTC, Side.BUY, 0.4), (ETH, Side.SELL, 0.5)), answered("b"), failed("c"))
    assert analysis.votes == {"a": -0.5, "b": 0.0}
    assert [failure.agent_id for failure in analysis.failures] == ["c"]


def test_agents_outside_vote_and_take_part() -> None:
    there = [a_proposal("llm", ETH, Side.SELL, 0.9), a_proposal("llm", BTC, Side.BUY, 0.2)]
    analysis = round_of(answered("a", (BTC, Side.BUY, 0.4)), outside=there)
    assert analysis.votes == {"a": 0.4, "llm": -0.9}
    assert analysis.proposals[1:] == there
    assert analysis.notes == []


def test_nobody_outside_speaks_under_the_name_of_an_agent_of_the_desk() -> None:
    pretended = [a_proposal("a", side=Side.SELL), a_proposal("away", side=Side.SELL)]
    analysis = round_of(answered("a", (BTC, Side.BUY, 0.4)), quarantined={"away": 7}, outside=pretended)
    assert analysis.votes == {"a": 0.4}
    assert [p.side for p in analysis.proposals] == [Side.BUY]
    assert analysis.notes == [
        "a proposal from outside was not taken: a is an agent of this desk's own",
        "a proposal from outside was not taken: away is an agent of this desk's own",
    ]
    assert list(analysis.not_taken.values()) == [
        "a is an agent of this desk's own",
        "away is an agent of this desk's own",
    ]
    assert list(analysis.not_taken) == [proposal.proposal_id for proposal in pretended]
