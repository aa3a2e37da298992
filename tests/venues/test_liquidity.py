"""How much of a bar an account can have, and what becomes of an order that wants more."""

from typing import Any

import pytest

from domain.accounting import Fill, Holding, HoldingKey
from domain.paper.advance import advance
from domain.paper.book import Book, OrderStatus
from domain.paper.matching import place
from domain.paper.view import market_view
from domain.trading.instructions import Side
from domain.trading.market import Market
from tests.venues.builders import EXCHANGE, D, make_bar, make_book, make_exchange, make_paper_order, still_bar

LONG = HoldingKey(Market.FUTURES, "BTCUSDT")


def thin_book(volume: str = "20", **changes: Any) -> Book:
    """A tenth of `volume` is there for the account."""
    return make_book(bars={"BTCUSDT": still_bar(100, volume=volume)}, **changes)


def limit(price: str, **changes: Any) -> dict[str, Any]:
    return {"order_type": "LIMIT", "price": price, **changes}


def test_a_market_order_takes_what_is_there_and_the_rest_expires() -> None:
    step = place(make_paper_order(quantity="5"), thin_book(), EXCHANGE)
    assert step.fill
    assert (step.fill.quantity, step.order.filled_quantity, step.order.average_price) == (D(2), D(2), D("100.1"))
    assert (step.order.status, step.order.reason) == (
        OrderStatus.EXPIRED,
        "expired: the bar's volume has no more for it",
    )
    assert list(step.book.open_orders) == []


def test_all_orders_of_a_bar_share_its_volume_on_both_sides_and_markets() -> None:
    first = place(make_paper_order(quantity="1.5"), thin_book(), EXCHANGE)
    second = place(make_paper_order(order_id="b", side="SELL", quantity="0.3"), first.book, EXCHANGE)
    third = place(make_paper_order(order_id="c", market="spot", quantity="5"), second.book, EXCHANGE)
    assert [step.order.filled_quantity for step in (first, second, third)] == [D("1.5"), D("0.3"), D("0.2")]
    fourth = place(make_paper_order(order_id="d"), third.book, EXCHANGE)
    assert (fourth.order.status, fourth.fill) == (OrderStatus.EXPIRED, None)


def test_the_lot_step_cuts_a_part_down() -> None:
    step = place(make_paper_order(quantity="5"), thin_book("20.009"), EXCHANGE)
    assert step.order.filled_quantity == 2


@pytest.mark.parametrize("kind", [{}, limit("101"), limit("101", time_in_force="IOC")])
def test_a_bar_without_volume_fills_nothing(kind: dict[str, Any]) -> None:
    assert place(make_paper_order(**kind), thin_book("0"), EXCHANGE).fill is None


def test_a_limit_order_takes_what_is_there_and_rests_with_the_rest() -> None:
    step = place(make_paper_order(quantity="5", **limit("101")), thin_book(), EXCHANGE)
    assert step.fill
    assert (step.order.status, step.order.filled_quantity, step.order.remaining) == (OrderStatus.OPEN, D(2), D(3))
    assert list(step.book.open_orders) == [step.order]


def test_what_rests_fills_against_the_volume_of_later_bars() -> None:
    order, _, book = place(make_paper_order(quantity="5", **limit("101")), thin_book(), EXCHANGE)
    fills: list[Fill] = []
    for minute, volume in enumerate(("10", "0", "15", "90"), start=1):
        book, events = advance(book, {"BTCUSDT": still_bar(100, minute, volume)}, EXCHANGE)
        fills += events.fills
        order = next(iter(events.changed), order)
    assert [(fill.fill_id, fill.quantity, fill.maker) for fill in fills] == [
        ("ord_1:2", 1, True),
        ("ord_1:3", D("1.5"), True),
        ("ord_1:4", D("0.5"), True),
    ]
    assert (order.status, order.filled_quantity, order.fills) == (OrderStatus.FILLED, D(5), 4)
    assert order.average_price == (2 * D("100.1") + 3 * D(100)) / 5
    assert list(book.open_orders) == []


def test_the_oldest_order_is_served_first() -> None:
    book = make_book()
    for name in "abc":
        book = place(make_paper_order(order_id=name, quantity="3", **limit("99")), book, EXCHANGE).book
    book, events = advance(book, {"BTCUSDT": still_bar(98, 1, "40")}, EXCHANGE)
    assert [(fill.order_id, fill.quantity) for fill in events.fills] == [("a", D(3)), ("b", D(1))]
    assert [(order.order_id, order.remaining) for order in book.open_orders] == [("b", D(2)), ("c", D(3))]


def test_volume_that_resting_orders_took_is_gone_for_new_ones() -> None:
    book = place(make_paper_order(quantity="3", **limit("99")), make_book(), EXCHANGE).book
    book, _ = advance(book, {"BTCUSDT": still_bar(98, 1, "40")}, EXCHANGE)
    assert place(make_paper_order(order_id="b", quantity="3"), book, EXCHANGE).order.filled_quantity == 1


@pytest.mark.parametrize(
    ("price", "filled", "why"),
    [
        ("101", "2", "expired: the bar's volume has no more for it"),
        ("100", "0", "expired: the book does not reach its price"),
    ],
)
def test_immediate_or_cancel_never_rests(price: str, filled: str, why: str) -> None:
    step = place(make_paper_order(quantity="5", **limit(price, time_in_force="IOC")), thin_book(), EXCHANGE)
    assert (step.order.status, step.order.filled_quantity, step.order.reason) == (OrderStatus.EXPIRED, D(filled), why)
    assert list(step.book.open_orders) == []


@pytest.mark.parametrize(("quantity", "price", "found"), [("2.001", "101", "2"), ("1", "100", "0")])
@pytest.mark.parametrize("market", Market)
def test_fill_or_kill_fills_whole_or_is_refused(market: Market, quantity: str, price: str, found: str) -> None:
    order = make_paper_order(market=market, quantity=quantity, **limit(price, time_in_force="FOK"))
    step = place(order, thin_book(), EXCHANGE)
    assert (step.order.status, step.fill, step.book) == (OrderStatus.REJECTED, None, thin_book())
    assert step.order.code == (-5021 if market is Market.FUTURES else -2020)
    assert f"({found} of {quantity} could be filled)" in step.order.reason
    whole = place(order.model_copy(update={"quantity": D(2), "price": D(101)}), thin_book(), EXCHANGE)
    assert (whole.order.status, whole.order.filled_quantity) == (OrderStatus.FILLED, D(2))


@pytest.mark.parametrize(("side", "rests", "takes"), [("BUY", "100", "100.1"), ("SELL", "100", "99.9")])
@pytest.mark.parametrize("market", Market)
def test_post_only_rests_or_is_refused(market: Market, side: str, rests: str, takes: str) -> None:
    spot = {HoldingKey(Market.SPOT, "BTCUSDT"): Holding(quantity=D(5), cost=D(500))}
    order = make_paper_order(side=side, market=market, **limit(rests, time_in_force="GTX"))
    assert place(order, thin_book(holdings=spot), EXCHANGE).order.status is OrderStatus.OPEN
    step = place(order.model_copy(update={"price": D(takes)}), thin_book(holdings=spot), EXCHANGE)
    assert (step.order.status, step.order.code) == (
        OrderStatus.REJECTED,
        -5022 if market is Market.FUTURES else -2010,
    )


def test_a_reduce_only_order_is_cut_and_then_waits_for_volume() -> None:
    book = make_book(holdings={LONG: Holding(quantity=D(4), cost=D(400))})
    order = make_paper_order(side="SELL", quantity="9", reduce_only=True, **limit("101"))
    book = place(order, book, EXCHANGE).book
    book, first = advance(book, {"BTCUSDT": still_bar(101, 1, "30")}, EXCHANGE)
    assert first.changed[0].status is OrderStatus.OPEN
    book, second = advance(book, {"BTCUSDT": still_bar(101, 2, "30")}, EXCHANGE)
    assert [fill.quantity for fill in (*first.fills, *second.fills)] == [3, 1]
    (done,) = second.changed
    assert (done.status, done.reason) == (OrderStatus.FILLED, "reduce-only: cut to the position of 4")
    assert book.held(LONG).quantity == 0


def test_a_reduce_only_market_order_that_finds_too_little_expires() -> None:
    """It is not whole, and whoever sent it has to know."""
    book = thin_book(holdings={LONG: Holding(quantity=D(4), cost=D(400))})
    step = place(make_paper_order(side="SELL", quantity="4", reduce_only=True), book, EXCHANGE)
    assert (step.order.status, step.order.filled_quantity) == (OrderStatus.EXPIRED, D(2))


def test_the_share_of_the_volume_is_a_term_of_the_venue() -> None:
    half = make_exchange(terms=EXCHANGE.terms.model_copy(update={"volume_share": D("0.5")}))
    assert place(make_paper_order(quantity="50"), thin_book(), half).order.filled_quantity == 10


# --- what agents are shown -------------------------------------------------------------------------------------------


def test_the_book_that_is_shown_is_the_one_that_fills() -> None:
    view = market_view("BTCUSDT", [make_bar(), still_bar(100, 1, "20")], make_exchange(funding="0.0003"))
    assert view
    assert view.book
    assert (view.book.bid, view.book.ask, view.book.bid_quantity, view.book.ask_quantity) == (
        D("99.9"),
        D("100.1"),
        D(2),
        D(2),
    )
    assert view.funding_rate == D("0.0003")
    for side, best in ((Side.BUY, view.book.ask), (Side.SELL, view.book.bid)):
        order = make_paper_order(side=side, quantity=view.book.ask_quantity, **limit(str(best), time_in_force="FOK"))
        step = place(order, thin_book(), EXCHANGE)
        assert step.fill
        assert step.fill.price == best


def test_the_view_shows_what_is_left_of_the_bar() -> None:
    view = market_view("BTCUSDT", [still_bar(100, volume="20")], EXCHANGE, taken=D("1.5"))
    assert view
    assert view.book
    assert view.book.ask_quantity == D("0.5")
    assert view.funding_rate is None


def test_a_symbol_without_bars_or_rules_has_no_view() -> None:
    assert market_view("BTCUSDT", [], EXCHANGE) is None
    assert market_view("NEVERUSDT", [make_bar()], EXCHANGE) is None
