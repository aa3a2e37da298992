"""What an account may carry: margin for futures, cash for spot, and neither twice."""

from typing import Any

import pytest

from domain.accounting import Holding, HoldingKey
from domain.paper.book import Book, Step, Terms
from domain.paper.matching import match, place
from domain.trading.market import Market
from tests.venues.builders import EXCHANGE, D, make_book, make_exchange, make_paper_order, still_bar

# Without slippage and fees, so that a sum is one at sight.
FREE = make_exchange(terms=Terms(fee_bps=D(0), maker_fee_bps=D(0), slippage_bps=D(0)))


def holding(market: str, quantity: str, cost: str, symbol: str = "BTCUSDT") -> dict[HoldingKey, Holding]:
    return {HoldingKey(Market(market), symbol): Holding(quantity=D(quantity), cost=D(cost))}


def order(book: Book, **changes: Any) -> Step:
    return place(make_paper_order(order_id=f"ord_{len(book.open_orders)}", **changes), book, FREE)


def resting(book: Book, **changes: Any) -> Book:
    step = order(book, order_type="LIMIT", **changes)
    assert step.book.open_orders, step.order.reason
    return step.book


@pytest.mark.parametrize(("quantity", "code"), [("500", None), ("500.001", -2019)])
def test_futures_may_be_worth_leverage_times_the_margin_balance(quantity: str, code: int | None) -> None:
    assert order(make_book(), quantity=quantity).order.code == code


def test_the_refusal_says_how_much_there_was() -> None:
    reason = order(make_book(), quantity="600").order.reason
    numbers = "60000 of positions and orders, 50000 allowed at leverage 5"
    assert reason == f"-2019: Margin is insufficient. ({numbers})"


def test_leverage_is_a_term_of_the_venue() -> None:
    once = make_exchange(terms=Terms(fee_bps=D(0), slippage_bps=D(0), leverage=D(1)))
    assert place(make_paper_order(quantity="100"), make_book(), once).fill
    assert place(make_paper_order(quantity="101"), make_book(), once).order.code == -2019


def test_profit_carries_more_and_a_loss_less() -> None:
    book = make_book(holdings=holding("futures", "100", "10000"), marks={"BTCUSDT": D(110), "ETHUSDT": D(100)})
    assert order(book, symbol="ETHUSDT", quantity="440").fill
    assert order(book, symbol="ETHUSDT", quantity="440.001").order.code == -2019
    fallen = make_book(holdings=holding("futures", "100", "10000"), marks={"BTCUSDT": D(90), "ETHUSDT": D(100)})
    assert order(fallen, symbol="ETHUSDT", quantity="360").fill
    assert order(fallen, symbol="ETHUSDT", quantity="360.001").order.code == -2019


def test_a_position_may_be_closed_without_margin_and_not_grown() -> None:
    """The balance is gone: what reduces is allowed, what adds is not."""
    book = make_book(balance="-1", holdings=holding("futures", "1", "100"))
    assert order(book, side="SELL", quantity="1").fill
    assert order(book, side="BUY", quantity="1").fill is None
    assert order(book, side="SELL", quantity="3").fill is None


def test_resting_orders_have_their_margin_already() -> None:
    book = resting(make_book(), price="90", quantity="500")
    assert order(book, quantity="50").fill
    assert order(book, quantity="51").order.code == -2019


def test_a_sale_below_the_book_has_margin_for_the_price_at_which_it_fills() -> None:
    """By its limit it was worth 48,960, and filled for 51,000: more than the account may carry."""
    assert order(make_book(), side="SELL", order_type="LIMIT", price="96", quantity="510").order.code == -2019
    assert order(make_book(), side="SELL", order_type="LIMIT", price="96", quantity="500").fill
    assert order(make_book(), side="BUY", order_type="LIMIT", price="104", quantity="481").order.code == -2019


def test_what_is_filled_of_a_resting_order_is_not_counted_twice() -> None:
    book = resting(make_book(), price="90", quantity="500")
    (waiting,) = book.open_orders
    thin = still_bar(90, volume="4000")
    book = match(waiting, book._replace(bars={"BTCUSDT": thin}), FREE).book
    (waiting,) = book.open_orders
    assert (waiting.filled_quantity, waiting.remaining) == (D(400), D(100))
    assert order(book, order_type="LIMIT", price="50", quantity="100").order.code is None
    assert order(book, order_type="LIMIT", price="50", quantity="101").order.code == -2019


def test_an_unpriced_position_stops_new_risk_and_no_reduction() -> None:
    book = make_book(holdings=holding("futures", "1", "1", "GONEUSDT") | holding("futures", "1", "100"))
    grown = order(book, quantity="1")
    assert grown.order.reason == "-2019: Margin is insufficient. (no market data for the position in GONEUSDT)"
    assert "GONEUSDT" in order(book, market="spot", quantity="1").order.reason
    assert order(book, side="SELL", quantity="1", reduce_only=True).fill
    assert order(book, side="SELL", quantity="1").fill


# --- spot ------------------------------------------------------------------------------------------------------------


def test_spot_is_paid_in_full_with_its_fee() -> None:
    assert order(make_book(), market="spot", quantity="100").fill
    charged = place(make_paper_order(market="spot", quantity="100"), make_book(), EXCHANGE)
    text = "Account has insufficient balance for requested action."
    assert charged.order.reason == f"-2010: {text} (10014.004 needed, 10000 free)"


def test_cash_that_a_resting_purchase_waits_with_is_not_spent_twice() -> None:
    book = resting(make_book(), market="spot", price="90", quantity="100")
    assert order(book, market="spot", quantity="10").fill
    assert order(book, market="spot", quantity="10.001").order.code == -2010


def test_what_a_resting_sale_waits_with_is_not_sold_twice() -> None:
    book = resting(
        make_book(holdings=holding("spot", "5", "500")), market="spot", side="SELL", price="110", quantity="3"
    )
    assert order(book, market="spot", side="SELL", quantity="2").fill
    assert order(book, market="spot", side="SELL", quantity="2.001").order.code == -2010


def test_what_is_spent_on_spot_is_no_margin() -> None:
    """A spot holding is no collateral: the wallets of the exchange are two."""
    book = make_book(holdings=holding("spot", "60", "6000"))
    assert order(book, quantity="200").fill
    assert order(book, quantity="200.001").order.code == -2019


def test_margin_of_futures_is_not_spent_on_spot() -> None:
    book = make_book(holdings=holding("futures", "250", "25000"))
    assert order(book, market="spot", quantity="50").fill
    refused = order(book, market="spot", quantity="50.001")
    assert refused.order.code == -2010
    assert "margin" in refused.order.reason


def test_cash_set_aside_for_spot_is_no_margin() -> None:
    book = resting(make_book(), market="spot", price="90", quantity="100")
    assert order(book, quantity="50").fill
    assert order(book, quantity="50.001").order.code == -2019


def test_a_resting_spot_order_whose_cash_is_gone_is_canceled() -> None:
    book = resting(make_book(), market="spot", price="90", quantity="100")
    (waiting,) = book.open_orders
    poor = book._replace(balance=D(100), bars={"BTCUSDT": still_bar(90)})
    step = match(waiting, poor, FREE)
    assert (step.order.status, step.order.code, step.fill) == ("canceled", -2010, None)
