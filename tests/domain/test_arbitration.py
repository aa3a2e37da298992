"""Arbitration: weight, confidence, expected return and liquidity; opposite proposals cancel out."""

import random
from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.trading.arbitration import (
    DEFAULT_EDGE,
    HIGHEST_EDGE,
    THRESHOLD,
    Arbitration,
    Standing,
    arbitrate,
    liquidity_of,
)
from domain.trading.instructions import Side
from domain.trading.market import TopOfBook
from domain.trading.proposals import Proposal
from tests.domain.builders import BTC, ETH

OPPOSITE = {Side.BUY: Side.SELL, Side.SELL: Side.BUY}


def says(
    agent_id: str, side: Side, confidence: float, symbol: str = BTC, expected_return: float | None = None
) -> Proposal:
    return Proposal(
        proposal_id=f"sig_{agent_id}_{symbol}_{side}_{confidence}_{expected_return!r}",
        agent_id=agent_id,
        symbol=symbol,
        side=side,
        confidence=confidence,
        expected_return=expected_return,
    )


def settle(
    *proposals: Proposal, weights: Mapping[str, float] | None = None, liquidity: Mapping[str, float] | None = None
) -> Arbitration:
    return arbitrate(proposals, weights or {}, liquidity or {})


def standing(arbitration: Arbitration, symbol: str = BTC) -> Standing:
    return next(standing for standing in arbitration.standings if standing.symbol == symbol)


def chosen(arbitration: Arbitration) -> Proposal:
    assert arbitration.chosen is not None
    return arbitration.chosen


def test_without_proposals_nothing_is_chosen_and_nothing_is_said() -> None:
    assert settle() == Arbitration()


def test_a_lone_proposal_is_chosen_with_its_own_confidence() -> None:
    result = settle(says("a", Side.SELL, 0.6))
    assert standing(result).net == -0.6
    assert chosen(result).side is Side.SELL
    assert result.notes == []


def test_opposite_proposals_of_one_strength_cancel_out() -> None:
    result = settle(says("a", Side.BUY, 0.7), says("b", Side.SELL, 0.7))
    assert (result.chosen, standing(result).net) == (None, 0)
    assert result.notes == ["opposite proposals cancel out on BTCUSDT"]


def test_the_heavier_side_wins_by_what_is_left() -> None:
    result = settle(says("a", Side.BUY, 0.6), says("b", Side.SELL, 0.6), weights={"a": 3})
    assert standing(result).net == pytest.approx((3 * 0.6 - 0.6) / 4)
    assert chosen(result).agent_id == "a"


def test_at_the_threshold_something_is_chosen_and_below_it_nothing() -> None:
    assert settle(says("a", Side.BUY, THRESHOLD)).chosen is not None
    weak = settle(says("a", Side.BUY, THRESHOLD - 0.001))
    assert (weak.chosen, weak.notes) == (None, ["the proposals on BTCUSDT are too weak"])


def test_an_agent_of_weight_0_has_no_influence() -> None:
    result = settle(says("loud", Side.SELL, 1.0), says("a", Side.BUY, 0.2), weights={"loud": 0})
    assert (chosen(result).agent_id, standing(result).net) == ("a", 0.2)
    silenced = settle(says("loud", Side.SELL, 1.0), weights={"loud": 0})
    assert (silenced.chosen, silenced.notes) == (None, ["none of the proposals has a weight"])


def test_of_one_agent_only_its_strongest_proposal_for_a_symbol_counts() -> None:
    many = [says("a", Side.BUY, 0.1 * n) for n in range(1, 6)]
    assert standing(settle(*many, says("b", Side.SELL, 0.5))).net == 0


def test_symbols_are_ranked_by_net_confidence_expected_return_and_liquidity() -> None:
    btc, eth = says("a", Side.BUY, 0.5, BTC, 0.004), says("a", Side.BUY, 0.9, ETH, 0.002)
    assert chosen(settle(btc, eth)).symbol == BTC
    assert chosen(settle(btc, eth, liquidity={BTC: 0.5})).symbol == ETH
    assert standing(settle(btc, eth, liquidity={BTC: 0.5})).score == pytest.approx(0.5 * 0.004 * 0.5)


def test_the_edge_is_that_of_the_winning_side_by_weight() -> None:
    result = settle(
        says("a", Side.BUY, 0.8, expected_return=0.004),
        says("b", Side.BUY, 0.8),
        says("c", Side.SELL, 0.1, expected_return=0.05),
        weights={"a": 2},
    )
    assert standing(result).edge == pytest.approx((2 * 0.004 + DEFAULT_EDGE) / 3)


@pytest.mark.parametrize(
    ("stated", "counts"),
    [
        (1e9, HIGHEST_EDGE),
        (-1.0, 0.0),
        (float("nan"), DEFAULT_EDGE),
        (float("inf"), DEFAULT_EDGE),
        (None, DEFAULT_EDGE),
    ],
)
def test_a_stated_return_counts_within_reason(stated: float | None, counts: float) -> None:
    assert standing(settle(says("a", Side.BUY, 0.5, expected_return=stated))).edge == counts


@pytest.mark.parametrize("confidence", [float("nan"), float("inf"), -0.5, 1.5, 0.0])
def test_a_proposal_with_a_confidence_outside_0_to_1_is_ignored(confidence: float) -> None:
    assert settle(says("a", Side.BUY, confidence)).chosen is None
    assert chosen(settle(says("a", Side.BUY, confidence), says("b", Side.SELL, 0.3))).agent_id == "b"


def test_the_choice_is_named_after_the_strongest_voice_of_the_winning_side_and_ties_go_by_name() -> None:
    voices = [says("b", Side.BUY, 0.5), says("a", Side.BUY, 0.5), says("c", Side.BUY, 0.4), says("d", Side.SELL, 0.9)]
    assert chosen(settle(*voices)).agent_id == "a"
    assert chosen(settle(*voices, weights={"c": 1.5})).agent_id == "c"


def test_symbols_of_one_score_go_by_name() -> None:
    assert chosen(settle(says("a", Side.BUY, 0.5, ETH), says("a", Side.BUY, 0.5, BTC))).symbol == BTC


def test_what_cancels_out_is_reported_beside_what_is_chosen() -> None:
    result = settle(says("a", Side.BUY, 0.5, BTC), says("b", Side.SELL, 0.5, BTC), says("a", Side.BUY, 0.5, ETH))
    assert (chosen(result).symbol, result.notes) == (ETH, ["opposite proposals cancel out on BTCUSDT"])


def test_the_worked_example_of_the_page() -> None:
    """docs/agents.md, "How one is chosen"."""
    result = settle(
        says("momentum", Side.BUY, 0.8, BTC, 0.002),
        says("mean_reversion", Side.SELL, 0.6, BTC, 0.004),
        says("funding_rate", Side.SELL, 0.5, ETH, 0.0006),
        weights={"mean_reversion": 0.5},
        liquidity={ETH: 0.8},
    )
    assert round(standing(result, BTC).net, 3) == 0.333
    assert standing(result, BTC).score == pytest.approx(0.000667, abs=1e-6)
    assert standing(result, ETH).score == pytest.approx(0.00024)
    assert (chosen(result).agent_id, chosen(result).symbol) == ("momentum", BTC)


# --- properties -------------------------------------------------------------------------------------------------------

proposals = st.lists(
    st.builds(
        says,
        st.sampled_from("abcde"),
        st.sampled_from(Side),
        st.floats(0, 1),
        st.sampled_from([BTC, ETH, "SOLUSDT"]),
        st.none() | st.floats(-0.1, 0.1),
    ),
    max_size=12,
)
weights = st.dictionaries(st.sampled_from("abcde"), st.floats(0, 1000))
shares = st.dictionaries(st.sampled_from([BTC, ETH]), st.floats(0, 1))


@given(proposals, weights, shares, st.randoms(use_true_random=False))
def test_the_order_in_which_proposals_come_changes_nothing(
    said: list[Proposal], weight: dict[str, float], liquid: dict[str, float], chance: random.Random
) -> None:
    shuffled = chance.sample(said, len(said))
    assert arbitrate(shuffled, weight, liquid) == arbitrate(said, weight, liquid)


@given(proposals, weights, shares)
def test_every_number_is_within_bounds(
    said: list[Proposal], weight: dict[str, float], liquid: dict[str, float]
) -> None:
    result = arbitrate(said, weight, liquid)
    for one in result.standings:
        assert -1 <= one.net <= 1
        assert 0 <= one.score <= one.edge <= HIGHEST_EDGE
        assert (one.proposal is None) == (abs(one.net) < THRESHOLD)
    if result.chosen:
        net = standing(result, result.chosen.symbol).net
        assert (net > 0) == (result.chosen.side is Side.BUY)
        assert weight.get(result.chosen.agent_id, 1) > 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.01, 1)), max_size=3, unique_by=lambda p: p[0]))
def test_a_side_and_its_mirror_image_always_cancel_out(voices: list[tuple[str, float]]) -> None:
    mirrored = [
        proposal
        for agent, confidence in voices
        for proposal in (says(agent, Side.BUY, confidence), says(f"not-{agent}", Side.SELL, confidence))
    ]
    result = settle(*mirrored)
    assert result.chosen is None
    assert all(one.net == 0 for one in result.standings)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Side), st.floats(0.01, 1)), unique_by=lambda p: p[0]))
def test_turning_every_proposal_around_turns_the_choice_around(voices: list[tuple[str, Side, float]]) -> None:
    one = settle(*(says(*voice) for voice in voices))
    other = settle(*(says(agent, OPPOSITE[side], confidence) for agent, side, confidence in voices))
    assert [s.net for s in one.standings] == [-s.net for s in other.standings]
    assert (one.chosen is None) == (other.chosen is None)
    if one.chosen and other.chosen:
        assert (one.chosen.agent_id, one.chosen.side) == (other.chosen.agent_id, OPPOSITE[other.chosen.side])


# --- liquidity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bid_quantity", "ask_quantity", "factor"),
    [("100", "100", 1.0), ("2", "100", 0.198), ("100", "2", 0.202), ("0", "5", 0.0)],
)
def test_a_symbol_is_as_liquid_as_the_thinner_side_of_its_book(
    bid_quantity: str, ask_quantity: str, factor: float
) -> None:
    book = TopOfBook(
        bid=Decimal(99), ask=Decimal(101), bid_quantity=Decimal(bid_quantity), ask_quantity=Decimal(ask_quantity)
    )
    assert liquidity_of(book, Decimal(1000)) == pytest.approx(factor)


def test_a_symbol_without_a_book_is_not_held_back() -> None:
    assert liquidity_of(None, Decimal(1000)) == 1.0
