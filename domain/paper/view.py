"""What the paper venue shows: a symbol to agents, an account to guards, and an order to its sender.

Agents see the same prices and quantities at which their orders would fill.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from domain.paper.book import NOTHING_HAPPENED, Book, Events, Exchange, OrderStatus, PaperOrder, Terms
from domain.paper.funding import next_funding_hour
from domain.paper.matching import left_of_bar, market_price
from domain.trading.assessment import Assessment
from domain.trading.instructions import Side
from domain.trading.market import (
    Account,
    Bar,
    FilledOrder,
    Market,
    MarketView,
    Observation,
    OpenOrder,
    Position,
    Reading,
    SymbolRules,
    TopOfBook,
)
from domain.trading.orders import Fate, OrderReport
from domain.values import ZERO, assembled

_FATES = {
    OrderStatus.OPEN: Fate.OPEN,
    OrderStatus.FILLED: Fate.FILLED,
    OrderStatus.CANCELED: Fate.CANCELED,
    OrderStatus.EXPIRED: Fate.CANCELED,
    OrderStatus.REJECTED: Fate.REJECTED,
}


class Times(NamedTuple):
    """When an account was read, when its newest prices became known, and which bar they are from."""

    observed_at: datetime
    data_time: datetime
    bar_time: datetime | None


def market_view(symbol: str, bars: Sequence[Bar], exchange: Exchange, taken: Decimal = ZERO) -> MarketView | None:
    """One symbol's newest bars, oldest first, its book and its next funding rate; None if there is no data.

    `taken` is what the account has used of the newest bar's volume.
    """
    rules = exchange.rules(symbol)
    if rules is None or not bars:
        return None
    return MarketView(
        bars=list(bars),
        book=top_of_book(bars[-1], rules, exchange.terms, taken),
        funding_rate=next_rate(symbol, bars[-1], exchange),
    )


def top_of_book(newest: Bar, rules: SymbolRules, terms: Terms, taken: Decimal = ZERO) -> TopOfBook:
    """What a taker is offered after a bar of whose volume the account has `taken` some."""
    left = left_of_bar(newest, taken, rules, terms)
    bid, ask = (market_price(side, newest.close, terms.slippage_bps, rules.tick_size) for side in (Side.SELL, Side.BUY))
    return TopOfBook(bid=bid, ask=ask, bid_quantity=left, ask_quantity=left)


def next_rate(symbol: str, newest: Bar, exchange: Exchange) -> Decimal | None:
    """The rate to be paid at the next funding hour."""
    return exchange.funding.rate(symbol, next_funding_hour(newest.open_time))


def observation_of(
    book: Book,
    exchange: Exchange,
    times: Times,
    events: Events = NOTHING_HAPPENED,
    note: str | None = None,
    assessment: Assessment | None = None,
) -> Observation:
    """A reading of an account whose positions all have a price. `events` are those of the bar that it has just seen.

    `assessment` is the limits check of this reading (`reading_of`), if it was made along with it.
    """
    liquidated = [f"{o.symbol} {o.side.value} {o.quantity} at {o.average_price}" for o in events.liquidations]
    open_orders = [OpenOrder(**order.model_dump(include=set(OpenOrder.model_fields))) for order in book.open_orders]
    return assembled(
        Observation,
        {
            "observed_at": times.observed_at,
            "data_time": times.data_time,
            "bar_time": times.bar_time,
            "marks": book.marks,
            "rules": {symbol: rules for symbol in book.bars if (rules := exchange.rules(symbol))},
            "positions": _positions(book),
            "open_orders": open_orders,
            "account": assembled(
                Account, {"balance": book.balance, "unrealised_profit": book.unrealised_profit(), "halted": None}
            ),
            "fills": _notices(events) if events.fills else [],
            "latch": None,
            "latch_error": None,
            "database": None,
            "venue_account": None,
            "note": note or (f"liquidated: {', '.join(liquidated)}" if liquidated else None),
            "doubts": [],
            "assessment": assessment,
            "low_disks": [],
            "clocks": [],
            "books": None,
        },
    )


def reading_of(book: Book, rules: Mapping[str, SymbolRules], market_time: datetime) -> Reading:
    """What a limits check needs of the same account. `rules` are those of every symbol that has any."""
    return Reading(book.equity, _positions(book), rules, market_time)


def report_of(order: PaperOrder) -> OrderReport:
    """What is known of an order."""
    return assembled(
        OrderReport,
        {
            "order_id": order.order_id,
            "fate": _FATES[order.status],
            "detail": order.reason,
            "filled_quantity": order.filled_quantity,
            "average_price": order.average_price,
            "position_before": None,
            "venue_order_id": None,
        },
    )


def _positions(book: Book) -> list[Position]:
    """Futures, then spot."""
    held = [(key, holding) for key, holding in book.holdings.items() if holding.quantity]
    if len(held) > 1:
        held.sort(key=lambda each: each[0].market is Market.SPOT)
    return [
        assembled(
            Position,
            {
                "symbol": key.symbol,
                "quantity": holding.quantity,
                "entry_price": holding.entry_price,
                "mark_price": book.bars[key.symbol].close,
                "market": key.market,
            },
        )
        for key, holding in held
    ]


def _notices(events: Events) -> list[FilledOrder]:
    """An order that is whole now became so by its last fill. There may be several: of each bar, if more than one came."""
    whole = {o.order_id for o in (*events.liquidations, *events.changed) if o.status is OrderStatus.FILLED}
    completing = {fill.order_id: fill.fill_id for fill in events.fills if fill.order_id in whole}.values()
    return [
        FilledOrder(symbol=fill.symbol, quantity=fill.quantity, maker=fill.maker, whole=fill.fill_id in completing)
        for fill in events.fills
    ]
