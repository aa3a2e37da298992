"""A cycle's choice, and the size of its order."""

from decimal import Decimal

from domain.deciding import decide, nothing, size
from domain.desk.ordering import decision_of
from domain.desk.outbox import MAX_BATCH_ROWS, next_batch, queue_row
from domain.risk.limits import Limits
from domain.trading.instructions import Side
from domain.trading.market import Account
from domain.trading.proposals import AgentFailure, Analysis, Proposal
from tests.domain.builders import BTC, ETH, a_context, a_desk, a_position, a_tick, an_observation, some_rules


def a_proposal(confidence: float = 0.5, symbol: str = BTC, side: Side = Side.BUY) -> Proposal:
    return Proposal(proposal_id=f"sig_{symbol}", agent_id="momentum", symbol=symbol, side=side, confidence=confidence)


def a_quote(price: int) -> Proposal:
    return a_proposal().model_copy(update={"price": Decimal(price)})


def test_an_order_is_sized_from_net_asset_value_and_rounded_down_to_the_lot() -> None:
    instruction = size(a_proposal(), an_observation(marks={BTC: Decimal("333")}), Limits())
    assert instruction is not None
    assert instruction.quantity == Decimal("1.501")


def test_an_order_is_no_larger_than_the_venue_takes() -> None:
    """It was refused there, and sent again in every cycle. At market it takes less than of a limit order."""
    rules = {BTC: some_rules(max_quantity=Decimal("3.0005"), market_max_quantity=Decimal(2))}
    sized = [size(asked, an_observation(rules=rules), Limits()) for asked in (a_proposal(), a_quote(100))]
    assert [order and order.quantity for order in sized] == [Decimal(2), Decimal(3)]


def test_below_the_minimum_notional_there_is_no_order() -> None:
    poor = an_observation(account=Account(balance=Decimal(90)))
    assert size(a_proposal(), poor, Limits()) is None


def test_an_approved_choice_carries_its_order() -> None:
    choice = decide(Analysis(proposals=[a_proposal()], votes={"momentum": 0.5}), a_context())
    assert (choice.risk_passed, choice.risk_reasons) == (True, ["approved"])
    assert choice.summary == "Selected BTCUSDT from momentum"
    assert choice.instruction is not None


def test_a_refused_choice_carries_none() -> None:
    full = an_observation(positions=[a_position(25)])
    choice = decide(Analysis(proposals=[a_proposal()]), a_context(full))
    assert (choice.risk_passed, choice.risk_reasons, choice.instruction) == (False, ["position_too_large"], None)


def test_an_unread_latch_allows_no_order() -> None:
    choice = decide(Analysis(proposals=[a_proposal()]), a_context(an_observation(latch_error="away")))
    assert choice.instruction is None
    assert "away" in choice.summary


def test_a_blocked_symbol_takes_no_order() -> None:
    choice = decide(Analysis(proposals=[a_proposal()]), a_context(blocked={BTC: "order_unknown: o"}))
    assert (choice.instruction, choice.risk_reasons) == (None, ["order_unknown: o"])


def test_a_failed_agent_is_named() -> None:
    failed = Analysis(failures=[AgentFailure(agent_id="x", error="ZeroDivisionError")])
    choice = decide(failed, a_context(an_observation(rules={BTC: some_rules()})))
    assert "agent x failed: ZeroDivisionError" in choice.summary


def test_weights_and_liquidity_decide_among_the_proposals() -> None:
    both = Analysis(proposals=[a_proposal(0.5), a_proposal(0.6, ETH)])
    assert decide(both, a_context()).summary == "Selected ETHUSDT from momentum"
    thin = decide(both, a_context(), liquidity={ETH: 0.5})
    assert thin.summary == "Selected BTCUSDT from momentum"
    unheard = decide(both, a_context(), weights={"momentum": 0})
    assert unheard.summary == "Nothing was chosen; none of the proposals has a weight"


def test_proposals_that_cancel_out_choose_nothing_and_it_is_reported() -> None:
    opposite = a_proposal(side=Side.SELL).model_copy(update={"agent_id": "funding_rate"})
    choice = decide(Analysis(proposals=[a_proposal(), opposite]), a_context())
    assert (choice.instruction, choice.decision_type) == (None, "no_action")
    assert choice.summary == "Nothing was chosen; opposite proposals cancel out on BTCUSDT"


def test_an_agent_in_quarantine_is_named_beside_a_choice() -> None:
    analysis = Analysis(proposals=[a_proposal()], quarantined={"y": 42}, notes=["a note"])
    choice = decide(analysis, a_context())
    assert choice.summary == "Selected BTCUSDT from momentum; a note; agent y is quarantined until cycle 42"


def test_a_batch_of_rows_fits_into_a_payload_however_much_there_is_to_say() -> None:
    """A payload of more than 2 MB fails the workflow task, and every later one: the rows still have to be written."""
    desk, many = a_desk(), [f"{'x' * 60}{number:04}" for number in range(200)]
    for _ in range(MAX_BATCH_ROWS):
        choice = nothing("\u20bf" * 100_000).model_copy(update={"votes": dict.fromkeys(many, 0.123456789)})
        queue_row(desk, decision_of(desk, choice, a_tick()))
        desk.records_attempted += 1
    assert len(next_batch(desk).decisions) == MAX_BATCH_ROWS
    assert len(next_batch(desk).model_dump_json().encode()) < 1_900_000
