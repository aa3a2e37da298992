"""What the paper venue refuses, in the exchange's words, and at what price it fills."""

from typing import Any

import pytest

from domain.accounting import Holding, HoldingKey
from domain.paper.book import OrderStatus, Terms
from domain.paper.matching import limit_price, market_price, match, place
from domain.trading.instructions import OrderType, Side
from domain.trading.market import Market
from tests.venues.builders import EXCHANGE, RULES, D, make_bar, make_book, make_exchange, make_paper_order, still_bar

LONG = HoldingKey(Market.FUTURES, "BTCUSDT")
FILTERS = RULES.model_copy(
    update={
        "min_quantity": D("0.01"),
        "max_quantity": D(50),
        "market_max_quantity": D(40),
        "multiplier_up": D("1.05"),
        "multiplier_down": D("0.95"),
    }
)
FILTERED = make_exchange(rules=FILTERS)


def held(quantity: str, cost: str) -> dict[HoldingKey, Holding]:
    return {LONG: Holding(quantity=D(quantity), cost=D(cost))}


def limit(price: str, **changes: Any) -> dict[str, Any]:
    return {"order_type": "LIMIT", "price": price, **changes}


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"symbol": "NEVERUSDT"}, "-1121: Invalid symbol. (no market data for NEVERUSDT)"),
        ({"symbol": "GONEUSDT"}, "-1121: Invalid symbol. (no market data for GONEUSDT)"),
        ({"order_type": "LIMIT"}, "-1102: Mandatory parameter 'price' was not sent, was empty/null, or malformed."),
        ({"price": "100"}, "-1106: Parameter 'price' sent when not required."),
        ({"time_in_force": "IOC"}, "-1106: Parameter 'timeInForce' sent when not required."),
        ({"quantity": "0"}, "-4003: Quantity less than zero. (0)"),
        ({"quantity": "-1"}, "-4003: Quantity less than zero. (-1)"),
        ({"quantity": "0.009"}, "-4004: Quantity less than min quantity. (0.009, at least 0.01)"),
        ({"quantity": "0.0105"}, "-4023: Qty not increased by step size. (0.0105, the step is 0.001)"),
        ({"quantity": "40.001"}, "-4005: Quantity greater than max quantity. (40.001, at most 40)"),
        (limit("100", quantity="50.001"), "-4005: Quantity greater than max quantity. (50.001, at most 50)"),
        (limit("0"), "-4001: Price less than 0. (0)"),
        (limit("-100"), "-4001: Price less than 0. (-100)"),
        (limit("100.05"), "-4014: Price not increased by tick size. (100.05, the tick is 0.1)"),
        (limit("105.1"), "-4016: Price is higher than mark price multiplier cap. (105.1, at most 105)"),
        (limit("94.9", side="SELL"), "-4024: Price is lower than mark price multiplier floor. (94.9, at least 95)"),
        (
            {"quantity": "0.042", "symbol": "CHEAPUSDT"},
            "-4164: Order's notional must be no smaller than 5 (unless you choose reduce only) (worth 0.042)",
        ),
        (
            limit("98", quantity="0.051"),
            "-4164: Order's notional must be no smaller than 5 (unless you choose reduce only) (worth 4.998)",
        ),
        ({"reduce_only": True}, "-2022: ReduceOnly Order is rejected. (there is no position)"),
    ],
)
def test_futures_are_refused_with_the_exchanges_code_and_text(changes: dict[str, Any], reason: str) -> None:
    order, book = make_paper_order(**changes), make_book()
    step = place(order, book, FILTERED)
    assert (step.order.status, step.fill, step.book) == (OrderStatus.REJECTED, None, book)
    assert step.order.reason == reason
    assert step.order.code == int(reason.split(":", maxsplit=1)[0])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantity": "0.009"}, "-1013: Filter failure: LOT_SIZE (0.009, at least 0.01)"),
        ({"quantity": "0.0105"}, "-1013: Filter failure: LOT_SIZE (0.0105, the step is 0.001)"),
        ({"quantity": "40.001"}, "-1013: Filter failure: MARKET_LOT_SIZE (40.001, at most 40)"),
        (limit("100", quantity="50.001"), "-1013: Filter failure: LOT_SIZE (50.001, at most 50)"),
        (limit("100.05"), "-1013: Filter failure: PRICE_FILTER (100.05, the tick is 0.1)"),
        (limit("105.1"), "-1013: Filter failure: PERCENT_PRICE (105.1, at most 105)"),
        (limit("94.9"), "-1013: Filter failure: PERCENT_PRICE (94.9, at least 95)"),
        ({"quantity": "0.042", "symbol": "CHEAPUSDT"}, "-1013: Filter failure: NOTIONAL (worth 0.042)"),
        ({"reduce_only": True}, "-1106: Parameter 'reduceOnly' sent when not required."),
        (
            {"side": "SELL"},
            "-2010: Account has insufficient balance for requested action. (0 BTCUSDT free to sell)",
        ),
        (
            limit("300", quantity="34"),
            "-1013: Filter failure: PERCENT_PRICE (300, at most 105)",
        ),
    ],
)
def test_spot_is_refused_in_the_words_of_spot(changes: dict[str, Any], reason: str) -> None:
    step = place(make_paper_order(market="spot", **changes), make_book(), FILTERED)
    assert (step.order.status, step.order.reason) == (OrderStatus.REJECTED, reason)
    assert step.order.code == int(reason.split(":", maxsplit=1)[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": "0.05"},
        {"quantity": "40"},
        limit("100", quantity="50"),
        limit("105"),
        limit("95", side="SELL"),
        # A purchase far below the mark and a sale far above it may wait.
        limit("50"),
        limit("150", side="SELL"),
        limit("97.9", quantity="0.052"),
    ],
)
def test_what_is_just_within_the_rules_is_taken(changes: dict[str, Any]) -> None:
    step = place(make_paper_order(**changes), make_book(), FILTERED)
    assert step.order.status in (OrderStatus.FILLED, OrderStatus.OPEN), step.order.reason


def test_a_market_order_is_measured_by_what_it_would_meet() -> None:
    wide = make_exchange(rules=FILTERS, terms=Terms(fee_bps=D(4), slippage_bps=D(501)))
    reason = place(make_paper_order(), make_book(), wide).order.reason
    text = "The counterparty's best price does not meet the PERCENT_PRICE filter limit"
    assert reason == f"-4131: {text} (105.01, at most 105)"
    sale = place(make_paper_order(side="SELL"), make_book(), wide).order.reason
    assert sale == f"-4131: {text} (94.99, at least 95)"


def test_a_coarse_tick_is_no_reason_against_a_market_order() -> None:
    coarse = make_exchange(rules=FILTERS, tick_size=D(10), lot_step=D("0.01"))
    step = place(make_paper_order(), make_book(), coarse)
    assert step.fill
    assert step.fill.price == 110


def test_a_reduce_only_order_may_be_worth_less_than_the_minimum_and_is_cut_to_the_position() -> None:
    cheap = HoldingKey(Market.FUTURES, "CHEAPUSDT")
    book = make_book(holdings={cheap: Holding(quantity=D(2), cost=D(2))})
    step = place(make_paper_order(symbol="CHEAPUSDT", side="SELL", quantity="5", reduce_only=True), book, EXCHANGE)
    assert step.fill
    assert (step.fill.quantity, step.order.filled_quantity, step.order.status) == (D(2), D(2), OrderStatus.FILLED)
    assert step.order.reason == "reduce-only: cut to the position of 2"
    assert step.book.held(cheap).quantity == 0


def test_a_reduce_only_order_that_goes_with_the_position_is_refused() -> None:
    step = place(make_paper_order(reduce_only=True), make_book(holdings=held("1", "100")), EXCHANGE)
    assert step.order.reason == "-2022: ReduceOnly Order is rejected. (it would increase the position)"


# --- prices ----------------------------------------------------------------------------------------------------------


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
def test_a_market_order_slips_against_the_trader_to_a_whole_tick(side: str, bps: str, price: str) -> None:
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
    ("side", "price", "paid"),
    [
        ("BUY", "101", "100.1"),
        ("BUY", "100.1", "100.1"),
        ("BUY", "100", None),
        ("SELL", "99", "99.9"),
        ("SELL", "99.9", "99.9"),
        ("SELL", "100", None),
    ],
)
def test_a_limit_order_takes_what_the_book_offers_or_rests(side: str, price: str, paid: str | None) -> None:
    step = place(make_paper_order(side=side, **limit(price)), make_book(), EXCHANGE)
    if paid is None:
        assert (step.order.status, step.fill) == (OrderStatus.OPEN, None)
        assert list(step.book.open_orders) == [step.order]
    else:
        assert step.fill
        assert (step.fill.price, step.fill.maker) == (D(paid), False)


def test_who_takes_pays_the_takers_fee_and_who_rested_the_makers() -> None:
    taken = place(make_paper_order(quantity="2"), make_book(), EXCHANGE)
    assert taken.fill
    assert taken.fill.fee == D("200.2") * D("0.0004")
    resting = place(make_paper_order(**limit("99")), make_book(), EXCHANGE)
    made = match(resting.order, resting.book._replace(bars={"BTCUSDT": make_bar()}), EXCHANGE)
    assert made.fill
    assert (made.fill.fee, made.fill.maker) == (D("99") * D("0.0002"), True)


def test_a_fill_tells_bar_time_and_place() -> None:
    step = place(make_paper_order(), make_book(bar_no=7, bars={"BTCUSDT": still_bar(100, minutes=5)}), EXCHANGE)
    assert step.fill
    assert (step.fill.fill_id, step.fill.bar_no) == ("ord_1:1", 7)
    assert step.fill.market_time == still_bar(100, minutes=5).open_time


def test_a_resting_reduce_only_order_is_canceled_when_nothing_is_left_to_reduce() -> None:
    order = make_paper_order(side="SELL", reduce_only=True, **limit("101"))
    step = place(order, make_book(holdings=held("1", "100")), EXCHANGE)
    assert step.order.status is OrderStatus.OPEN
    flat = step.book._replace(holdings={}, bars={"BTCUSDT": make_bar(high="102")})
    matched = match(step.order, flat, EXCHANGE)
    assert (matched.order.status, matched.order.code, matched.fill) == (OrderStatus.CANCELED, -2022, None)
    assert list(matched.book.open_orders) == []


@pytest.mark.parametrize("order_type", OrderType)
def test_a_symbol_without_rules_is_not_traded(order_type: OrderType) -> None:
    price = None if order_type is OrderType.MARKET else "1"
    order = make_paper_order(symbol="NEVERUSDT", order_type=order_type, price=price)
    assert place(order, make_book(marks={"NEVERUSDT": D(1)}), EXCHANGE).order.code == -1121
