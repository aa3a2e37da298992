"""Limit orders of agents: what may be asked for, at what price it goes out, and when a quote stands."""

import json
from decimal import Decimal
from typing import Any

import pytest

from domain.deciding import decide, size
from domain.desk.applying import apply
from domain.desk.carried import Outcome
from domain.desk.payloads import RawPayload, read_command
from domain.desk.states import CommandKind
from domain.risk.limits import Limits
from domain.trading.decisions import DecisionType
from domain.trading.instructions import OrderType, Side, TimeInForce
from domain.trading.market import Account
from domain.trading.proposals import Analysis, Proposal, read_request
from domain.trading.quotes import AgentQuote, passive_price
from tests.domain.builders import BTC, ETH, NOW, a_context, a_desk, a_tick, an_observation, some_rules

D = Decimal
ASKED: dict[str, Any] = {"agent_id": "maker", "symbol": BTC, "side": "BUY", "confidence": 0.5}
TWO_SYMBOLS: dict[str, Any] = {
    "marks": {BTC: D(100), ETH: D(100)},
    "rules": {BTC: some_rules(), ETH: some_rules(ETH)},
}


def a_proposal(price: str | None = "99", symbol: str = BTC, side: Side = Side.BUY, **more: Any) -> Proposal:
    limit = {} if price is None else {"price": D(price)}
    facts = {"proposal_id": f"sig_{symbol}", "agent_id": "maker", "symbol": symbol, "side": side, "confidence": 0.5}
    return Proposal.model_validate(facts | limit | more)


def a_quote(price: str = "99", quantity: str = "5.05", **changes: Any) -> AgentQuote:
    facts: dict[str, Any] = {
        "order_id": "ord_1",
        "agent_id": "maker",
        "symbol": BTC,
        "side": Side.BUY,
        "price": D(price),
        "quantity": D(quantity),
        "since": NOW,
    }
    return AgentQuote(**(facts | changes))


# --- what may be asked for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "refusal"),
    [
        ({"post_only": True}, "post_only needs a price"),
        ({"time_in_force": "IOC"}, "time_in_force needs a price; an order at market has none"),
        ({"price": 99, "time_in_force": "IOC", "post_only": True}, "which IOC never does"),
        ({"price": 99, "time_in_force": "FOK", "post_only": True}, "which FOK never does"),
        ({"price": 99, "time_in_force": "GTX"}, "must be GTC, IOC or FOK; for GTX set post_only"),
        ({"price": 99, "time_in_force": "DAY"}, "must be GTC, IOC or FOK"),
        ({"price": 0}, "price: Input should be greater than 0"),
        ({"price": -1}, "price: Input should be greater than 0"),
        ({"price": "NaN"}, "price: Input should be a finite number"),
        ({"price": float("inf")}, "price: Input should be a finite number"),
        ({"price": True}, "price: must be a number, not true or false"),
        ({"price": "9" * 60_000}, "price: Decimal input should have no more than 40 digits"),
        ({"price": "1e999999"}, "price: Decimal input should have no more than 40 digits"),
        ({"price": 10_000_000_000}, "price: Decimal input should have no more than 10 digits before the decimal point"),
        ({"price": "1e-31"}, "price: Decimal input should have no more than 30 decimal places"),
    ],
)
def test_terms_that_do_not_go_together_are_refused_in_clear_words(terms: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z_ ]+: ") as told:
        read_request(ASKED | terms)
    assert refusal in str(told.value)


@pytest.mark.parametrize(
    ("terms", "sent_as"),
    [
        ({}, None),
        ({"price": 99}, "GTC"),
        ({"price": "99", "time_in_force": "gtc"}, "GTC"),
        ({"price": 99, "time_in_force": "IOC"}, "IOC"),
        ({"price": 99, "time_in_force": "FOK"}, "FOK"),
        ({"price": 99, "post_only": True}, "GTX"),
        ({"price": 99, "post_only": True, "time_in_force": "GTC"}, "GTX"),
    ],
)
def test_terms_say_how_the_order_is_sent(terms: dict[str, Any], sent_as: str | None) -> None:
    assert read_request(ASKED | terms).proposal("sig", NOW).sent_as == sent_as


def test_over_the_signal_they_are_a_refusal_in_the_same_words() -> None:
    c, body = a_desk(), ASKED | {"price": 99, "post_only": True, "time_in_force": "IOC"}
    command = read_command(CommandKind.PROPOSE, [RawPayload("json/plain", json.dumps(body).encode())], "c1")
    apply(c, command, a_tick())
    assert (c.commands["c1"].outcome, c.proposals) == (Outcome.REFUSED, [])
    assert "post_only waits in the book, which IOC never does" in (c.commands["c1"].detail or "")
    fine = ASKED | {"price": 99.5, "post_only": True}
    apply(c, read_command(CommandKind.PROPOSE, [RawPayload("json/plain", json.dumps(fine).encode())], "c2"), a_tick())
    assert (c.proposals[0].proposal.price, c.proposals[0].proposal.post_only) == (D("99.5"), True)


def test_an_order_at_market_keeps_the_fingerprint_that_it_had_before_there_were_prices() -> None:
    def fingerprint(**terms: Any) -> str:
        body = json.dumps(ASKED | terms).encode()
        return read_command(CommandKind.PROPOSE, [RawPayload("json/plain", body)], "c").fingerprint

    assert fingerprint() == "3ce2bbaa85151d76"
    assert fingerprint(price=99) not in (fingerprint(), fingerprint(price=98), fingerprint(price=99, post_only=True))


# --- price and size ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "asked", "sent"),
    [
        (Side.BUY, "99.19", "99.1"),
        (Side.SELL, "99.11", "99.2"),
        (Side.BUY, "99.1", "99.1"),
        (Side.SELL, "99.1", "99.1"),
    ],
)
def test_a_price_is_rounded_to_the_tick_never_against_the_desk(side: Side, asked: str, sent: str) -> None:
    assert passive_price(side, D(asked), D("0.1")) == D(sent)


def test_no_digit_of_a_long_price_is_lost_before_it_is_rounded() -> None:
    long = D("123456789012345678901234567.19999999999")
    assert passive_price(Side.BUY, long, D("0.1")) == D("123456789012345678901234567.1")


def test_a_limit_order_is_sized_at_its_price() -> None:
    order = size(a_proposal("80.05", post_only=True), an_observation(), Limits())
    assert order
    assert (order.order_type, order.price, order.time_in_force) == (OrderType.LIMIT, D(80), TimeInForce.GTX)
    assert order.quantity == D("6.25"), "5 % of 10,000 at 80"
    at_market = size(a_proposal(None), an_observation(), Limits())
    assert at_market
    assert (at_market.order_type, at_market.price, at_market.time_in_force) == (OrderType.MARKET, None, None)


def test_a_price_below_a_tick_and_an_order_below_the_minimum_have_no_size() -> None:
    assert size(a_proposal("0.09"), an_observation(), Limits()) is None
    poor = an_observation(account=Account(balance=D(99)))
    assert size(a_proposal("99"), poor, Limits()) is None


def test_the_summary_tells_price_and_time_in_force() -> None:
    choice = decide(Analysis(proposals=[a_proposal("99.05", post_only=True)]), a_context())
    assert choice.summary == "Selected BTCUSDT from maker; BUY 5.05 at 99 GTX"
    assert choice.instruction
    assert choice.instruction.price == D(99)
    refused = decide(Analysis(proposals=[a_proposal("99")]), a_context(sent=[NOW] * 1000))
    assert refused.summary == "Selected BTCUSDT from maker; BUY 5.05 at 99 GTC"
    assert refused.instruction is None


# --- a quote that stands ---------------------------------------------------------------------------------------------------


def chosen(proposals: list[Proposal], *quotes: AgentQuote, **changes: Any) -> Any:
    given = a_context(an_observation(**TWO_SYMBOLS), quotes=quotes, **changes)
    return decide(Analysis(proposals=proposals), given)


def test_a_quote_that_stands_is_left_alone() -> None:
    choice = chosen([a_proposal("99.04")], a_quote())
    assert (choice.decision_type, choice.instruction) == (DecisionType.NO_ACTION, None)
    assert choice.summary == "The quote of maker on BTCUSDT stands: BUY 5.05 at 99 GTC"
    assert (choice.proposal.proposal_id, choice.risk_reasons) == ("sig_BTCUSDT", ["quote_unchanged"])


@pytest.mark.parametrize(
    "quote",
    [
        a_quote("98.9"),
        a_quote(quantity="5"),
        a_quote(quantity="6", filled=D("0.9")),
        a_quote(side=Side.SELL),
        a_quote(agent_id="other"),
        a_quote(symbol=ETH),
        a_quote(canceled=True),
    ],
)
def test_a_quote_that_differs_is_not(quote: AgentQuote) -> None:
    assert chosen([a_proposal("99")], quote).instruction is not None


def test_what_may_still_fill_is_compared_and_not_what_was_sent() -> None:
    assert chosen([a_proposal("99")], a_quote(quantity="6", filled=D("0.95"))).instruction is None


def test_an_order_that_would_not_wait_is_no_quote() -> None:
    assert chosen([a_proposal("99", time_in_force="IOC")], a_quote()).instruction is not None
    assert chosen([a_proposal(None)], a_quote()).instruction is not None


def test_two_resting_orders_of_an_agent_are_both_replaced_even_if_one_matches() -> None:
    assert chosen([a_proposal("99")], a_quote(), a_quote(order_id="ord_2")).instruction is not None


def test_where_a_quote_stands_the_next_symbol_has_its_turn() -> None:
    choice = chosen([a_proposal("99"), a_proposal("99", ETH, confidence=0.4)], a_quote())
    assert choice.instruction is not None
    assert choice.instruction.symbol == ETH


def test_a_symbol_that_is_blocked_is_refused_and_passes_its_turn_to_nobody() -> None:
    both = [a_proposal("99"), a_proposal("99", ETH, confidence=0.4)]
    choice = chosen(both, a_quote(), blocked={BTC: "cancel_open: ord_1"})
    assert (choice.risk_passed, choice.risk_reasons) == (False, ["cancel_open: ord_1"])
