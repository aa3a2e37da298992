"""Moves an account on by one bar, and cancels orders. Only this file decides what happens in a bar in which order:

1. the new bars become the newest, and nothing has been taken of their volume yet;
2. funding: every funding hour since the last bars is paid at the new bar's open, on what was held until then;
3. liquidation: if the bar took the account to its maintenance margin, all futures are closed;
4. matching: resting orders fill, oldest first, as far as the bar reaches their prices and its volume lasts.

So fills of a bar pay no funding of that bar, and the positions that they open can be liquidated in the next one at the
earliest. Both the venue in PostgreSQL and the replay in memory use this code.
"""

from collections.abc import Mapping
from decimal import localcontext
from typing import NamedTuple

from domain.accounting import Fill
from domain.paper.book import NOTHING_HAPPENED, Book, Events, Exchange, OrderStatus, PaperOrder
from domain.paper.funding import is_due, pay_funding
from domain.paper.liquidation import is_safe, liquidate
from domain.paper.matching import match
from domain.trading.market import Bar, Market
from domain.values import EXACT

CANCELED_ON_REQUEST = "canceled on request"


class Advanced(NamedTuple):
    """The account after a bar, and what the bar did to it."""

    book: Book
    events: Events


def advance(book: Book, bars: Mapping[str, Bar], exchange: Exchange) -> Advanced:
    """Moves on to the next bars, one for each symbol with data. The bars in `book` are the ones before them."""
    before = book.bars
    book = Book(book.desk, book.balance, book.holdings, book.open_orders, book.bar_no + 1, bars)
    if not book.open_orders and not is_due(before, bars) and is_safe(book, exchange):
        return Advanced(book, NOTHING_HAPPENED)
    with localcontext(EXACT):
        book, paid = pay_funding(book, before, exchange)
        book, closed = liquidate(book, exchange)
        book, changed, fills = _match_all(book, exchange)
    if not (paid or closed.fills or changed):
        return Advanced(book, NOTHING_HAPPENED)
    events = Events(
        entries=[*paid, *closed.entries],
        liquidations=closed.liquidations,
        changed=[*closed.changed, *changed],
        fills=[*closed.fills, *fills],
    )
    return Advanced(book, events)


def _match_all(book: Book, exchange: Exchange) -> tuple[Book, list[PaperOrder], list[Fill]]:
    changed, fills = [], []
    for order in book.open_orders:
        step = match(order, book, exchange)
        if step.order is not order:
            book = step.book
            changed.append(step.order)
            fills += [step.fill] if step.fill else []
    return book, changed, fills


def cancel_order(book: Book, order_id: str) -> Book:
    """Cancels one order if it still rests."""
    return book._replace(open_orders=[order for order in book.open_orders if order.order_id != order_id])


def cancel_all(book: Book, market: Market, symbol: str) -> tuple[Book, list[PaperOrder]]:
    """Cancels every resting order of a symbol on one market. Repeating it is harmless."""
    mine = [order for order in book.open_orders if order.key == (market, symbol)]
    rest = [order for order in book.open_orders if order.key != (market, symbol)]
    ended = {"status": OrderStatus.CANCELED, "reason": CANCELED_ON_REQUEST}
    return book._replace(open_orders=rest), [order.model_copy(update=ended) for order in mine]
