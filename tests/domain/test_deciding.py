"""A cycle's choice, and the size of its order."""

from decimal import Decimal

from domain.deciding import decide, size
from domain.instructions import Side
from domain.limits import Limits
from domain.market import Account
from domain.proposals import AgentFailure, Analysis, Proposal, best_proposal
from tests.domain.builders import BTC, ETH, a_position, an_observation, circumstances, some_rules


def a_proposal(confidence: float = 0.5, symbol: str = BTC, side: Side = Side.BUY) -> Proposal:
    return Proposal(proposal_id=f"sig_{symbol}", agent_id="momentum", symbol=symbol, side=side, confidence=confidence)


def test_the_most_confident_proposal_is_chosen_and_ties_go_by_name() -> None:
    proposals = [a_proposal(0.4), a_proposal(0.9, ETH), a_proposal(0.9)]
    chosen = best_proposal(proposals)
    assert chosen is not None
    assert chosen.symbol == BTC


def test_an_order_is_sized_from_net_asset_value_and_rounded_down_to_the_lot() -> None:
    instruction = size(a_proposal(), an_observation(marks={BTC: Decimal("333")}), Limits())
    assert instruction is not None
    assert instruction.quantity == Decimal("1.501")


def test_below_the_minimum_notional_there_is_no_order() -> None:
    poor = an_observation(account=Account(balance=Decimal(90)))
    assert size(a_proposal(), poor, Limits()) is None


def test_an_approved_choice_carries_its_order() -> None:
    choice = decide(Analysis(proposals=[a_proposal()], votes={"momentum": 0.5}), circumstances())
    assert (choice.risk_passed, choice.risk_reasons) == (True, ["approved"])
    assert choice.summary == "Selected BTCUSDT from momentum"
    assert choice.instruction is not None


def test_a_refused_choice_carries_none() -> None:
    full = an_observation(positions=[a_position(25)])
    choice = decide(Analysis(proposals=[a_proposal()]), circumstances(full))
    assert (choice.risk_passed, choice.risk_reasons, choice.instruction) == (False, ["position_too_large"], None)


def test_an_unread_latch_allows_no_order() -> None:
    choice = decide(Analysis(proposals=[a_proposal()]), circumstances(an_observation(latch_error="away")))
    assert choice.instruction is None
    assert "away" in choice.summary


def test_a_blocked_symbol_takes_no_order() -> None:
    choice = decide(Analysis(proposals=[a_proposal()]), circumstances(blocked={BTC: "order_unknown: o"}))
    assert (choice.instruction, choice.risk_reasons) == (None, ["order_unknown: o"])


def test_a_failed_agent_is_named() -> None:
    failed = Analysis(failures=[AgentFailure(agent_id="x", error="ZeroDivisionError")])
    choice = decide(failed, circumstances(an_observation(rules={BTC: some_rules()})))
    assert "agent x failed: ZeroDivisionError" in choice.summary
