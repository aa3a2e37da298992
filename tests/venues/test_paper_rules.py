"""The paper venue's rules, pure: prices, money to the last digit, and orders that only reduce."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.instructions import OrderType, Side
from domain.market import Market
from domain.paper import (
    Book,
    Fill,
    Holding,
    HoldingKey,
    OrderStatus,
    Terms,
    fee,
    limit_price,
    market_price,
    match,
    place,
    reducible,
    trade,
)
from tests.venues.builders import RULES, TERMS, D, make_bar, make_book, make_paper_order

LONG = HoldingKey(Market.FUTURES, "BTCUSDT")


def held(quantity: str, cost: str) -> dict[HoldingKey, Holding]:
    return {LONG: Holding(quantity=D(quantity), cost=D(cost))}


@pytest.mark.parametrize(
    ("side", "bps", "price"),
    [
        ("BUY", "0", "100.0"),
        ("SELL", "0", "100.0"),
        ("BUY", "2", "100.1"),
        ("SELL", "2", "99.9"),
        ("BUY", "15", "100.2"),
    ],
)
def test_a_market_order_slips_against_the_trader_to_a_whole_tick(side: Side, bps: str, price: str) -> None:
    assert market_price(Side(side), D("100"), D(bps), D("0.1")) == D(price)


def test_a_sale_never_gets_less_than_one_tick() -> None:
    assert market_price(Side.SELL, D("0.1"), D("9999"), D("0.1")) == D("0.1")


@pytest.mark.parametrize(
    ("side", "limit", "price"),
    [
        ("BUY", "99", "99"),  # the bar passes through it
        ("BUY", "98", "98"),  # just reached
        ("BUY", "97.9", None),
        ("BUY", "105", "100"),  # the bar opened below it
        ("SELL", "101", "101"),
        ("SELL", "102", "102"),
        ("SELL", "102.1", None),
        ("SELL", "95", "100"),
    ],
)
def test_a_resting_order_fills_at_its_price_or_at_a_better_open(side: str, limit: str, price: str | None) -> None:
    bar = make_bar(open="100", high="102", low="98", close="101")
    assert limit_price(Side(side), D(limit), bar) == (None if price is None else D(price))


@pytest.mark.parametrize(
    ("before", "side", "quantity", "price", "after", "profit"),
    [
        (("0", "0"), "BUY", "2", "100", ("2", "200"), "0"),
        (("2", "200"), "BUY", "1", "130", ("3", "330"), "0"),
        (("3", "330"), "SELL", "1", "120", ("2", "220"), "10"),
        (("2", "220"), "SELL", "2", "100", ("0", "0"), "-20"),
        (("2", "220"), "SELL", "3", "100", ("-1", "-100"), "-20"),
        (("-1", "-100"), "BUY", "1", "90", ("0", "0"), "10"),
        (("-2", "-200"), "BUY", "5", "110", ("3", "330"), "-20"),
    ],
)
def test_a_fill_moves_position_and_profit(
    before: tuple[str, str], side: str, quantity: str, price: str, after: tuple[str, str], profit: str
) -> None:
    start = Holding(quantity=D(before[0]), cost=D(before[1]))
    end, realised = trade(start, Side(side), D(quantity), D(price))
    assert (end.quantity, end.cost, realised) == (D(after[0]), D(after[1]), D(profit))


def test_the_entry_price_is_the_average_paid() -> None:
    assert Holding(quantity=D(-3), cost=D(-330)).entry_price == D(110)
    assert Holding().entry_price == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantity": "0.0005"}, "is not a multiple of 0.001"),
        ({"quantity": "0.0015"}, "is not a multiple of 0.001"),
        ({"quantity": "0"}, "is not a multiple of 0.001"),
        ({"quantity": "-1"}, "is not a multiple of 0.001"),
        ({"quantity": "0.001", "symbol": "CHEAPUSDT"}, "less than the minimum"),
        ({"symbol": "NEVERUSDT"}, "no market data for NEVERUSDT"),
        ({"order_type": "LIMIT"}, "a limit order needs a price"),
        ({"price": "100"}, "a market order has none"),
        ({"order_type": "LIMIT", "price": "100.05"}, "tick size 0.1"),
        ({"order_type": "LIMIT", "price": "-100"}, "tick size 0.1"),
        ({"reduce_only": True}, "reduce-only: no position"),
        ({"quantity": "600"}, "insufficient margin"),
        ({"market": "spot", "quantity": "100"}, "insufficient balance"),
        ({"market": "spot", "side": "SELL"}, "insufficient balance: 0 BTCUSDT free to sell"),
    ],
)
def test_the_venue_says_why_it_refuses(changes: dict[str, Any], reason: str) -> None:
    order, book = make_paper_order(**changes), make_book()
    rules = None if order.symbol == "NEVERUSDT" else RULES
    step = place(order, book, rules, TERMS)
    assert (step.order.status, step.fill, step.book) == (OrderStatus.REJECTED, None, book)
    assert reason in step.order.reason


def test_a_reduce_only_order_may_be_worth_less_than_the_minimum_and_is_cut_to_the_position() -> None:
    book = make_book(holdings={HoldingKey(Market.FUTURES, "CHEAPUSDT"): Holding(quantity=D(2), cost=D(2))})
    step = place(make_paper_order(symbol="CHEAPUSDT", side="SELL", quantity="5", reduce_only=True), book, RULES, TERMS)
    assert step.fill
    assert (step.fill.quantity, step.order.filled_quantity, step.order.status) == (D(2), D(2), OrderStatus.FILLED)
    assert step.order.reason == "reduce-only: cut to the position of 2"
    assert step.book.held(HoldingKey(Market.FUTURES, "CHEAPUSDT")).quantity == 0


def test_a_position_may_be_closed_without_margin_and_not_grown() -> None:
    """The balance is gone: what reduces is allowed, what adds is not."""
    book = make_book(balance="-1", holdings=held("1", "100"))
    assert place(make_paper_order(side="SELL", quantity="1"), book, RULES, TERMS).fill
    assert place(make_paper_order(side="BUY", quantity="1"), book, RULES, TERMS).fill is None
    assert place(make_paper_order(side="SELL", quantity="3"), book, RULES, TERMS).fill is None


def test_resting_orders_count_towards_margin_and_cash() -> None:
    futures = make_paper_order(order_id="a", order_type="LIMIT", price="90", quantity="500")
    book = place(futures, make_book(), RULES, TERMS).book
    assert "insufficient margin" in place(make_paper_order(quantity="100"), book, RULES, TERMS).order.reason
    spot = make_paper_order(order_id="b", market="spot", order_type="LIMIT", price="90", quantity="100")
    book = place(spot, make_book(), RULES, TERMS).book
    order = make_paper_order(market="spot", quantity="20")
    assert "insufficient balance" in place(order, book, RULES, TERMS).order.reason


def test_an_unpriced_position_stops_new_risk_and_no_reduction() -> None:
    gone = {HoldingKey(Market.FUTURES, "GONEUSDT"): Holding(quantity=D(1), cost=D(1))}
    book = make_book(holdings=gone | held("1", "100"))
    assert "GONEUSDT" in place(make_paper_order(quantity="1"), book, RULES, TERMS).order.reason
    assert place(make_paper_order(side="SELL", quantity="1", reduce_only=True), book, RULES, TERMS).fill


def test_a_limit_order_beyond_the_price_fills_at_once_at_what_the_book_offers() -> None:
    step = place(make_paper_order(order_type="LIMIT", price="101", quantity="1"), make_book(), RULES, TERMS)
    assert step.fill
    assert step.fill.price == D("100.1")
    at_mark = place(make_paper_order(order_type="LIMIT", price="100", quantity="1"), make_book(), RULES, TERMS)
    assert at_mark.fill
    assert at_mark.fill.price == D("100")


def test_a_resting_reduce_only_order_is_canceled_when_nothing_is_left_to_reduce() -> None:
    order = make_paper_order(side="SELL", order_type="LIMIT", price="101", quantity="1", reduce_only=True)
    step = place(order, make_book(holdings=held("1", "100")), RULES, TERMS)
    assert step.order.status is OrderStatus.OPEN
    flat = step.book._replace(holdings={})
    matched = match(step.order, make_bar(high="102"), flat, TERMS)
    assert (matched.order.status, matched.fill) == (OrderStatus.CANCELED, None)
    assert list(matched.book.open_orders) == []


# --- money, over any flow --------------------------------------------------------------------------------------------

sides = st.sampled_from(Side)
lots = st.integers(1, 10**9).map(lambda n: D(n) * RULES.lot_step)
prices = st.integers(1, 10**9).map(lambda n: D(n) * RULES.tick_size)
bps = st.decimals(0, 9999, places=4)
flows = st.lists(
    st.tuples(sides, lots, prices, st.booleans(), st.sampled_from(Market), st.sampled_from(OrderType)), max_size=25
)


@settings(max_examples=200, deadline=None)
@given(flow=flows, fee_bps=bps, slippage_bps=bps)
def test_money_is_conserved_to_the_last_digit(flow: list[Any], fee_bps: Decimal, slippage_bps: Decimal) -> None:
    terms = Terms(fee_bps=fee_bps, slippage_bps=slippage_bps, max_leverage=D(10**9))
    opening = D("100000.01")
    book = make_book(balance=str(opening))
    fills: list[Fill] = []
    for number, (side, quantity, price, reduce_only, market, order_type) in enumerate(flow):
        book = book._replace(marks={"BTCUSDT": price})
        order = make_paper_order(
            order_id=f"ord_{number}",
            side=side,
            quantity=str(quantity),
            reduce_only=reduce_only and market is Market.FUTURES,
            market=market,
            order_type=order_type,
            price=None if order_type is OrderType.MARKET else price + D(number) - 12,
        )
        step = place(order, book, RULES, terms)
        book, fills = step.book, fills + [f for f in [step.fill] if f]
        book, more = let_rest(book, price, terms)
        fills += more
    check_money(opening, book, fills)


def let_rest(book: Book, price: Decimal, terms: Terms) -> tuple[Book, list[Fill]]:
    """A wide bar around the price: some of what rests fills."""
    low = max(price / 2, RULES.tick_size)
    bar = make_bar(open=str(price), high=str(price * 2), low=str(low), close=str(price))
    fills: list[Fill] = []
    for order in book.open_orders:
        step = match(order, bar, book, terms)
        book, fills = step.book, fills + [f for f in [step.fill] if f]
    return book, fills


def check_money(opening: Decimal, book: Book, fills: list[Fill]) -> None:
    signed = {fill.fill_id: fill.quantity if fill.side is Side.BUY else -fill.quantity for fill in fills}
    fees = sum((fill.fee for fill in fills), D(0))
    paid = sum((signed[fill.fill_id] * fill.price for fill in fills), D(0))
    costs = sum((holding.cost for holding in book.holdings.values()), D(0))
    assert book.balance == opening - fees - paid + costs
    assert book.balance == opening - fees + sum((fill.realised_profit for fill in fills), D(0))
    for key, holding in book.holdings.items():
        mine = [signed[f.fill_id] for f in fills if (f.market, f.symbol) == key]
        assert holding.quantity == sum(mine, D(0))
        assert (holding.quantity == 0) == (holding.cost == 0)
        assert holding.quantity * holding.cost >= 0
        assert key.market is Market.FUTURES or holding.quantity >= 0


@settings(max_examples=200, deadline=None)
@given(start=st.integers(-(10**6), 10**6), side=sides, quantity=lots, price=prices, resting=st.booleans())
def test_a_reduce_only_order_never_increases_or_turns_a_position(
    start: int, side: Side, quantity: Decimal, price: Decimal, resting: bool
) -> None:
    before = D(start) * RULES.lot_step
    book = make_book(holdings=held(str(before), str(before * 100)), marks={"BTCUSDT": price})
    order = make_paper_order(side=side, quantity=str(quantity), reduce_only=True)
    if resting:
        limit = order.model_copy(update={"order_type": OrderType.LIMIT, "price": price})
        book = book._replace(open_orders=[limit])
        step = match(limit, make_bar(open=str(price), high=str(price), low=str(price), close=str(price)), book, TERMS)
    else:
        step = place(order, book, RULES, TERMS)
    after = step.book.held(LONG).quantity
    assert abs(after) <= abs(before)
    assert after * before >= 0
    assert abs(before) - abs(after) == reducible(before, side, quantity)


@given(quantity=lots, price=prices, fee_bps=bps)
def test_a_fee_is_never_rounded(quantity: Decimal, price: Decimal, fee_bps: Decimal) -> None:
    assert fee(quantity, price, fee_bps) * 10_000 == quantity * price * fee_bps
