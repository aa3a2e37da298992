"""Choice, size and guards: allowed at the limit, refused one step past it."""

from datetime import timedelta
from decimal import Decimal

from domain.deciding import decide, size
from domain.instructions import Side
from domain.market import Account
from domain.proposals import AgentFailure, Analysis, Proposal
from domain.risk import Candidate, Limits, data_stale, gross_exposure_exceeded, position_too_large, symbol_unknown
from tests.domain.builders import BTC, ETH, NOW, a_position, an_observation, an_order, some_rules


def a_proposal(confidence: float = 0.5, symbol: str = BTC, side: Side = Side.BUY) -> Proposal:
    return Proposal(proposal_id=f"sig_{symbol}", agent_id="momentum", symbol=symbol, side=side, confidence=confidence)


def a_candidate(quantity: str, **changes: object) -> Candidate:
    return Candidate(instruction=an_order(quantity), observation=an_observation(**changes), limits=Limits(), now=NOW)


def test_an_order_is_sized_from_net_asset_value_and_rounded_down_to_the_lot() -> None:
    instruction = size(a_proposal(), an_observation(marks={BTC: Decimal("333")}), Limits())
    assert instruction is not None
    assert instruction.quantity == Decimal("1.501")


def test_below_the_minimum_notional_there_is_no_order() -> None:
    poor = an_observation(account=Account(balance=Decimal(90)))
    assert size(a_proposal(), poor, Limits()) is None


def test_a_position_may_be_as_large_as_its_limit_and_not_larger() -> None:
    assert position_too_large(a_candidate("25")) is None
    assert position_too_large(a_candidate("25.001")) == "position_too_large"


def test_gross_exposure_may_be_as_large_as_its_limit_and_not_larger() -> None:
    held = [a_position(-80, ETH)]
    assert gross_exposure_exceeded(a_candidate("20", positions=held)) is None
    assert gross_exposure_exceeded(a_candidate("20.001", positions=held)) == "gross_exposure_exceeded"


def test_data_may_be_as_old_as_its_limit_and_not_older() -> None:
    assert data_stale(a_candidate("1", data_time=NOW - timedelta(seconds=180))) is None
    old = a_candidate("1", data_time=NOW - timedelta(seconds=180.1))
    assert data_stale(old) == "data_stale: 180.1s > 180.0s"


def test_a_symbol_without_price_or_rules_is_refused() -> None:
    assert symbol_unknown(a_candidate("1", marks={})) == "symbol_unknown: BTCUSDT"
    assert symbol_unknown(a_candidate("1", rules={})) == "symbol_unknown: BTCUSDT"


def test_an_approved_choice_carries_its_order() -> None:
    choice = decide(Analysis(proposals=[a_proposal()], votes={"momentum": 0.5}), an_observation(), Limits(), {}, NOW)
    assert (choice.risk_passed, choice.risk_reasons) == (True, ["approved"])
    assert choice.summary == "Selected BTCUSDT from momentum"
    assert choice.instruction is not None


def test_a_refused_choice_carries_none() -> None:
    full = an_observation(positions=[a_position(25)])
    choice = decide(Analysis(proposals=[a_proposal()]), full, Limits(), {}, NOW)
    assert (choice.risk_passed, choice.risk_reasons, choice.instruction) == (False, ["position_too_large"], None)


def test_an_unread_latch_allows_no_order() -> None:
    choice = decide(Analysis(proposals=[a_proposal()]), an_observation(latch_error="away"), Limits(), {}, NOW)
    assert choice.instruction is None
    assert "away" in choice.summary


def test_a_blocked_symbol_takes_no_order() -> None:
    choice = decide(Analysis(proposals=[a_proposal()]), an_observation(), Limits(), {BTC: "order_unknown: o"}, NOW)
    assert (choice.instruction, choice.risk_reasons) == (None, ["order_unknown: o"])


def test_a_failed_agent_is_named() -> None:
    failed = Analysis(failures=[AgentFailure(agent_id="x", error="ZeroDivisionError")])
    choice = decide(failed, an_observation(rules={BTC: some_rules()}), Limits(), {}, NOW)
    assert "agent x failed: ZeroDivisionError" in choice.summary


def test_weights_and_liquidity_decide_among_the_proposals() -> None:
    both = Analysis(proposals=[a_proposal(0.5), a_proposal(0.6, ETH)])
    assert decide(both, an_observation(), Limits(), {}, NOW).summary == "Selected ETHUSDT from momentum"
    thin = decide(both, an_observation(), Limits(), {}, NOW, liquidity={ETH: 0.5})
    assert thin.summary == "Selected BTCUSDT from momentum"
    unheard = decide(both, an_observation(), Limits(), {}, NOW, weights={"momentum": 0})
    assert unheard.summary == "Nothing was chosen; none of the proposals has a weight"


def test_proposals_that_cancel_out_choose_nothing_and_it_is_told() -> None:
    opposite = a_proposal(side=Side.SELL).model_copy(update={"agent_id": "funding_rate"})
    choice = decide(Analysis(proposals=[a_proposal(), opposite]), an_observation(), Limits(), {}, NOW)
    assert (choice.instruction, choice.decision_type) == (None, "no_action")
    assert choice.summary == "Nothing was chosen; opposite proposals cancel out on BTCUSDT"


def test_an_agent_in_quarantine_is_named_beside_a_choice() -> None:
    analysis = Analysis(proposals=[a_proposal()], quarantined={"y": 42}, notes=["a note"])
    choice = decide(analysis, an_observation(), Limits(), {}, NOW)
    assert choice.summary == "Selected BTCUSDT from momentum; a note; agent y is quarantined until cycle 42"
