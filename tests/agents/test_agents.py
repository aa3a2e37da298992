"""Agents: a fixed window of bars in, a proposal out; and one that fails costs its own vote alone."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.agents.build import built_in_agents
from activities.agents.momentum import LOOKBACK_BARS, Momentum
from activities.agents.port import Agent, AgentOpinion, Bars, Suggestion, analyse
from activities.market.simulated import SimulatedMarket
from domain.instructions import Side
from domain.market import Bar
from domain.proposals import Analysis

START = datetime(2026, 1, 1, tzinfo=UTC)
NOISE = [100, 100.1, 99.9, 100.05, 99.95, 100.1, 99.9, 100, 100.1, 99.95, 100.05, 100]


def make_bars(closes: Sequence[float]) -> list[Bar]:
    moments = (START + n * timedelta(minutes=1) for n in range(len(closes)))
    return [
        Bar.model_validate({"open_time": moment, "open": c, "high": c, "low": c, "close": c, "volume": 1})
        for moment, c in zip(moments, (str(close) for close in closes), strict=True)
    ]


def drifting(step: float) -> list[Bar]:
    """Noise on a straight line."""
    return make_bars([round(close + n * step, 4) for n, close in enumerate([*NOISE, *NOISE])])


def ask(agents: Sequence[Agent], bars: Bars) -> Analysis:
    numbers = itertools.count()
    return analyse(agents, bars, lambda prefix: f"{prefix}_{next(numbers)}")


@pytest.mark.parametrize(("step", "side", "sign"), [(0.15, Side.BUY, 1), (-0.15, Side.SELL, -1)])
def test_momentum_follows_a_move_beyond_the_noise(step: float, side: Side, sign: int) -> None:
    analysis = ask([Momentum()], {"BTCUSDT": drifting(step)})
    (proposal,) = analysis.proposals
    assert (proposal.symbol, proposal.side, proposal.agent_id) == ("BTCUSDT", side, "momentum")
    assert proposal.proposal_id == "sig_0"
    assert 0 < proposal.confidence <= 1
    assert analysis.votes == {"momentum": sign * proposal.confidence}


@pytest.mark.parametrize(
    "closes",
    [[], [100] * LOOKBACK_BARS, [100] * 30, [*NOISE, 100.1], [100, 200]],
    ids=["none", "few", "still", "noise", "two"],
)
def test_momentum_abstains_without_a_move_or_without_a_past(closes: list[float]) -> None:
    assert ask([Momentum()], {"BTCUSDT": make_bars(closes)}) == Analysis(votes={"momentum": 0.0})


def test_a_move_without_any_noise_is_certain() -> None:
    rising = make_bars([round(100 * 1.01**n, 8) for n in range(20)])
    analysis = ask([Momentum()], {"BTCUSDT": rising})
    assert [p.confidence for p in analysis.proposals] == [1.0]


def test_the_vote_is_the_strongest_of_the_symbols() -> None:
    analysis = ask([Momentum()], {"AUSDT": drifting(0.12), "BUSDT": drifting(-0.16)})
    assert len(analysis.proposals) == 2
    assert analysis.votes["momentum"] == -max(p.confidence for p in analysis.proposals if p.side is Side.SELL)


@given(st.lists(st.floats(0.01, 1e6).map(lambda price: round(price, 4)), max_size=40))
def test_momentum_always_answers_within_bounds(closes: list[float]) -> None:
    analysis = ask([Momentum()], {"BTCUSDT": make_bars(closes)})
    assert analysis.failures == []
    assert -1 <= analysis.votes["momentum"] <= 1


def test_on_the_simulated_market_momentum_trades_now_and_then() -> None:
    market = SimulatedMarket(["BTCUSDT", "ETHUSDT"], 1)
    past = {s: [bar for n in range(1000) if (bar := market.bar(s, n))] for s in ("BTCUSDT", "ETHUSDT")}
    windows = ({symbol: bars[n - 60 : n] for symbol, bars in past.items()} for n in range(60, 1000))
    proposed = [bool(ask(built_in_agents(), window).proposals) for window in windows]
    assert 0.05 < sum(proposed) / len(proposed) < 0.5


class Scripted:
    """Answers, or raises, what it is told to."""

    def __init__(self, agent_id: str, answer: Any) -> None:
        self.agent_id = agent_id
        self._answer = answer

    def propose(self, bars: Bars) -> AgentOpinion:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def test_an_agent_that_fails_costs_its_own_vote_alone() -> None:
    good = AgentOpinion(proposals=[Suggestion(symbol="BTCUSDT", side=Side.BUY, confidence=0.5)], vote=0.5)
    broken = [
        Scripted("raises", ZeroDivisionError("division\nby zero" + "!" * 500)),
        Scripted("silent", None),
        Scripted("nan", AgentOpinion.model_construct(proposals=[], vote=float("nan"))),
        Scripted("loud", AgentOpinion.model_construct(proposals=[], vote=3.0)),
    ]
    analysis = ask([*broken, Scripted("good", good)], {})
    assert analysis.votes == {"good": 0.5}
    assert [p.agent_id for p in analysis.proposals] == ["good"]
    assert [failure.agent_id for failure in analysis.failures] == ["raises", "silent", "nan", "loud"]
    assert analysis.failures[0].error.startswith("ZeroDivisionError: division by zero!")
    assert all(len(failure.error) <= 200 and "\n" not in failure.error for failure in analysis.failures)
