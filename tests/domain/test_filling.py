"""Guards of a limit order: its own price, the venue's band, and all that rests, so that limits hold if everything fills."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from domain.risk.filling import Leg, Reach, legs_of, reaches, together, unlisted_legs, unsettled_legs
from domain.risk.guards import (
    Candidate,
    concentration_exceeded,
    gross_exposure_exceeded,
    leverage_breached,
    liquidity_insufficient,
    net_exposure_exceeded,
    position_too_large,
    price_outside_band,
    refusals,
)
from domain.risk.measures import pair
from domain.trading.instructions import OrderInstruction, OrderType, Side
from domain.trading.market import OpenOrder
from domain.trading.quotes import AgentQuote
from tests.domain.builders import BTC, ETH, NOW, a_context, a_position, an_observation, an_open_order, some_rules

D = Decimal
BUY, SELL = Side.BUY, Side.SELL


def a_limit(quantity: str, price: str, side: Side = BUY) -> OrderInstruction:
    return OrderInstruction(
        symbol=BTC, side=side, order_type=OrderType.LIMIT, quantity=D(quantity), price=D(price), reduce_only=False
    )


def candidate(order: OrderInstruction, **seen: Any) -> Candidate:
    """On an account of 10,000, where BTC and ETH are at 100."""
    rules = {BTC: some_rules(multiplier_up=D("1.05"), multiplier_down=D("0.95")), ETH: some_rules(ETH)}
    facts = {"marks": {BTC: D(100), ETH: D(100)}, "rules": rules}
    return Candidate(order, a_context(an_observation(**(facts | seen))))


def rests(symbol: str, quantity: str, side: Side = BUY, price: str = "100", **changes: Any) -> OpenOrder:
    facts = {"quantity": D(quantity), "side": side, "price": D(price)}
    return an_open_order(symbol).model_copy(update=facts | changes)


def test_a_limit_order_in_a_calm_market_is_approved() -> None:
    assert refusals(candidate(a_limit("1", "99"))) == []


def test_it_is_weighed_at_its_own_price_or_the_mark_whichever_is_higher() -> None:
    """Once filled it counts at the mark, and a sale below the mark fills there."""
    assert position_too_large(candidate(a_limit("25", "100"))) is None
    assert position_too_large(candidate(a_limit("25", "100.1"))) == "position_too_large"
    for side in (BUY, SELL):
        assert position_too_large(candidate(a_limit("25", "80", side))) is None
        assert position_too_large(candidate(a_limit("25.01", "80", side))) == "position_too_large"
    assert liquidity_insufficient(candidate(a_limit("1000", "100"))) is None
    assert liquidity_insufficient(candidate(a_limit("1000", "100.1"))) is not None


@pytest.mark.parametrize(("alike", "held", "side", "price"), [(0.99, 24, SELL, "200"), (-0.99, -24, BUY, "10")])
def test_an_order_that_may_not_fill_hedges_nothing(alike: float, held: int, side: Side, price: str) -> None:
    """What is held moves together. An order on the twin that rests far away made room for more of it."""
    for resting in ([], [rests(ETH, "65", side, price)]):
        given = a_context(
            an_observation(
                marks={BTC: D(100), ETH: D(100)}, positions=[a_position(24), a_position(held, ETH)], open_orders=resting
            ),
            correlations={pair(BTC, ETH): alike},
        )
        assert str(concentration_exceeded(Candidate(a_limit("5", "100"), given))).startswith("concentration_exceeded")


@pytest.mark.parametrize(("side", "held", "rests_as"), [(BUY, -20, BUY), (SELL, 20, SELL)])
def test_a_symbol_that_moves_against_two_others_counts_with_both(side: Side, held: int, rests_as: Side) -> None:
    """Only its own group holds all three. Orders that would turn both twins round hedge nothing until they fill."""
    others = (ETH, "XRPUSDT")
    given = a_context(
        an_observation(
            marks=dict.fromkeys((BTC, *others), D(100)),
            positions=[a_position(-held // 2), *(a_position(held, other) for other in others)],
            open_orders=[rests(other, "25", rests_as) for other in others],
        ),
        correlations={pair(BTC, other): -0.99 for other in others},
    )
    refused = concentration_exceeded(Candidate(a_limit("5", "100", side), given))
    assert refused == "concentration_exceeded: 0.55 > 0.5"


def test_an_order_that_no_reading_lists_yet_counts() -> None:
    quote = AgentQuote(
        order_id="ord_1", agent_id="maker", symbol=BTC, side=BUY, price=D(100), quantity=D(20), since=NOW
    )
    for listed in ([], [rests(BTC, "20").model_copy(update={"order_id": "ord_1"})]):
        given = a_context(an_observation(marks={BTC: D(100)}, open_orders=listed), quotes=[quote])
        assert position_too_large(Candidate(a_limit("5", "100"), given)) is None
        assert position_too_large(Candidate(a_limit("5.01", "100"), given)) == "position_too_large"
    assert unlisted_legs([quote.model_copy(update={"canceled": True})], [], {}) == []


def test_an_order_of_unknown_fate_counts_as_one_that_may_fill() -> None:
    """On another symbol: on its own, all orders are refused anyway."""
    lost = a_limit("80", "100", SELL).model_copy(update={"symbol": ETH})
    for unsettled, fits in (([], "20"), ([lost], "10")):
        given = a_context(an_observation(marks={BTC: D(100), ETH: D(100)}), unsettled=unsettled)
        given = replace(given, limits=given.limits.model_copy(update={"max_gross_exposure_fraction": D("0.9")}))
        order, over = (Candidate(a_limit(quantity, "100"), given) for quantity in (fits, f"{fits}.1"))
        assert (gross_exposure_exceeded(order), order.only_share is None) == (None, bool(unsettled))
        assert gross_exposure_exceeded(over) == ("gross_exposure_exceeded" if unsettled else None)
    only_reduces = lost.model_copy(update={"reduce_only": True})
    assert unsettled_legs([only_reduces], {ETH: D(120)}) == [Leg(ETH, SELL, D(80), D(120), reduces=True)]


@pytest.mark.parametrize(
    ("side", "price", "refusal"),
    [
        (BUY, "105", None),
        (BUY, "105.1", "price_outside_band: 105.1 > 105"),
        (BUY, "1", None),
        (SELL, "95", None),
        (SELL, "94.9", "price_outside_band: 94.9 < 95"),
        (SELL, "1000", None),
    ],
)
def test_a_price_is_within_the_venues_band(side: Side, price: str, refusal: str | None) -> None:
    assert price_outside_band(candidate(a_limit("1", price, side))) == refusal


def test_a_venue_without_a_band_and_an_order_at_market_have_none() -> None:
    free = candidate(a_limit("1", "1000"), rules={BTC: some_rules()})
    assert price_outside_band(free) is None
    assert price_outside_band(candidate(a_limit("1", "100").model_copy(update={"price": None}))) is None


def test_leverage_holds_if_all_that_rests_fills() -> None:
    resting = [rests(ETH, "100"), rests(BTC, "40")]
    assert leverage_breached(candidate(a_limit("60", "100"), open_orders=resting)) is None
    assert leverage_breached(candidate(a_limit("60.1", "100"), open_orders=resting)) == "leverage_breached: 2.001 > 2"
    # Spot lends nothing.
    spot = [rests(ETH, "500", market="spot")]
    assert leverage_breached(candidate(a_limit("60", "100"), open_orders=spot)) is None


def test_gross_exposure_holds_whichever_side_of_another_symbol_fills() -> None:
    resting = [rests(ETH, "80", SELL), rests(ETH, "50", BUY)]
    assert gross_exposure_exceeded(candidate(a_limit("20", "100"), open_orders=resting)) is None
    assert gross_exposure_exceeded(candidate(a_limit("20.1", "100"), open_orders=resting)) == "gross_exposure_exceeded"


def test_net_exposure_counts_of_other_symbols_what_goes_the_same_way() -> None:
    resting = [rests(ETH, "80", BUY), rests(ETH, "500", SELL)]
    assert net_exposure_exceeded(candidate(a_limit("20", "100"), open_orders=resting)) is None
    refused = net_exposure_exceeded(candidate(a_limit("20.1", "100"), open_orders=resting))
    assert refused == "net_exposure_exceeded: 1.001 > 1"


def test_what_filled_of_an_order_and_what_only_reduces_does_not_count_twice() -> None:
    resting = [rests(BTC, "20", filled_quantity=D(15)), rests(BTC, "100", reduce_only=True)]
    assert position_too_large(candidate(a_limit("20", "100"), open_orders=resting)) is None
    assert position_too_large(candidate(a_limit("20.1", "100"), open_orders=resting)) == "position_too_large"


def test_a_sale_above_the_mark_that_closes_a_position_turns_nothing() -> None:
    """By values it would: 26 at 100 are worth less than 26 at 150."""
    held = [a_position(26)]
    assert candidate(a_limit("26", "150", SELL), positions=held).reduces
    assert not candidate(a_limit("26.1", "150", SELL), positions=held).reduces
    resting = [rests(BTC, "20", SELL)]
    assert not candidate(a_limit("10", "150", SELL), positions=held, open_orders=resting).reduces
    assert candidate(a_limit("26", "150", SELL), positions=held).after[BTC] == 0


def test_an_order_reduces_nothing_that_another_one_may_close_first() -> None:
    """Found to be false: beside an agent's quote that no reading listed yet, and beside a reduce-only order, a sale passed every
    limit and turned the position around.
    """
    held, order = [a_position(26)], a_limit("20", "150", SELL)
    closing = [rests(BTC, "20", SELL, reduce_only=True)]
    assert not candidate(order, positions=held, open_orders=closing).reduces
    quote = AgentQuote(order_id="ord_1", agent_id="a", symbol=BTC, side=SELL, price=D(101), quantity=D(20), since=NOW)
    seen = an_observation(marks={BTC: D(100)}, rules={BTC: some_rules()}, positions=held)
    assert not Candidate(order, a_context(seen, quotes=[quote])).reduces
    assert Candidate(order, a_context(seen, quotes=[quote.model_copy(update={"side": BUY})])).reduces


@pytest.mark.parametrize("quantity", ["10", "90", "0"], ids=["as much", "more", "whatever is held"])
def test_what_a_reduce_only_order_closes_no_other_order_closes(quantity: str) -> None:
    """Found to be false: reduce-only orders counted nowhere, so room was left to sell 35 against 10 that were sold already."""
    closes = rests(BTC, quantity, SELL, "101", reduce_only=True)
    seen = {"positions": [a_position(10)], "open_orders": [closes]}
    assert position_too_large(candidate(a_limit("25", "100", SELL), **seen)) is None
    assert position_too_large(candidate(a_limit("25.01", "100", SELL), **seen)) == "position_too_large"
    assert not candidate(a_limit("5", "100", SELL), **seen).reduces
    # By itself it adds nothing, on either side, and hedges nothing.
    assert position_too_large(candidate(a_limit("15", "100"), **seen)) is None
    assert position_too_large(candidate(a_limit("15.01", "100"), **seen)) == "position_too_large"
    assert legs_of([closes], {})[0].reduces
    assert reaches([], legs_of([closes], {}), {}) == {}


def test_an_order_that_closes_a_whole_position_may_not_say_that_it_reduces() -> None:
    closes = rests(BTC, "0", SELL, "101", reduce_only=False)
    assert reaches([a_position(10)], legs_of([closes], {}), {BTC: D(100)}) == {BTC: Reach(D(0), D(1000))}
    filled = rests(BTC, "5", SELL, "101", reduce_only=True, filled_quantity=D(5))
    assert reaches([a_position(10)], legs_of([filled], {}), {BTC: D(100)}) == {BTC: Reach(D(1000), D(1000))}


def test_what_closes_is_worth_the_mark_and_what_opens_its_price() -> None:
    legs = [
        Leg(BTC, BUY, D(3), D(90)),
        Leg(BTC, BUY, D(1), D(80)),
        Leg(BTC, SELL, D(1), D(110)),
        Leg(ETH, BUY, D(2), D(9)),
    ]
    found = reaches([a_position(-2)], legs, {BTC: D(100), ETH: D(10)})
    assert found == {BTC: Reach(D(-310), D(170)), ETH: Reach(D(0), D(18))}


@pytest.mark.parametrize(("low", "high"), [(-5, 3), (-3, 5), (2, 5), (-5, -2)])
def test_of_one_symbol_the_worse_end_counts_as_in_a_group(low: int, high: int) -> None:
    alone = {BTC: Reach(D(low), D(high))}
    assert together(alone, {}, 0.8) == 5
    assert together(alone | {ETH: Reach(D(0), D(0))}, {}, 0.8) == 5
