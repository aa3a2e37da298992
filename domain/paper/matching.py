"""When an order fills, at what price, and how much of it.

The book is one price per side, `slippage_bps` away from the last close, good for the account's share of the bar's volume.
An order that takes from it pays the taker's fee. An order that rests fills in a later bar that reaches its price, and pays
the maker's fee.
"""

from decimal import Decimal, localcontext
from typing import Any, NamedTuple

from domain.accounting import Fill, fee, reducible, trade
from domain.paper.book import Book, Exchange, OrderStatus, PaperOrder, Step, Terms
from domain.paper.margin import money_refusal, spot_refusal
from domain.paper.refusals import (
    ExchangeRefusal,
    Offer,
    order_refusal,
    reduce_only_refusal,
    symbol_refusal,
    timing_refusal,
)
from domain.trading.instructions import OrderType, Side, TimeInForce
from domain.trading.market import Bar, SymbolRules
from domain.values import BPS, EXACT, ZERO, assembled, floor_to_step, plain


def place(order: PaperOrder, book: Book, exchange: Exchange) -> Step:
    """A new order: refused, or filled at once as far as there is volume. The rest of it rests or expires."""
    bar, rules = book.bars.get(order.symbol), exchange.rules(order.symbol)
    if bar is None or rules is None:
        return _refused(order, book, symbol_refusal(order.symbol))
    with localcontext(EXACT):
        offer = offer_to(order.side, bar.close, exchange.terms, rules)
        # A sale that crosses the book fills at what is offered there, which is more than its limit.
        worst = max(order.price or ZERO, offer.best) if order.side is Side.SELL else order.price or offer.best
        refusal = (
            order_refusal(order, rules, offer)
            or reduce_only_refusal(order, book.held(order.key))
            or money_refusal(order, worst, book, exchange.terms)
        )
        return _refused(order, book, refusal) if refusal else _take(order, offer, rules, book, exchange.terms)


def _take(order: PaperOrder, offer: Offer, rules: SymbolRules, book: Book, terms: Terms) -> Step:
    """Takes what the book offers now, and decides what becomes of the rest."""
    crosses = order.price is None or reaches(order.side, order.price, offer.best)
    wanted = fillable(order, book)
    there = min(wanted, left_of(order.symbol, rules, book, terms))
    if refusal := timing_refusal(order, crosses, wanted, there):
        return _refused(order, book, refusal)
    step = _fill(order, _Execution(there, offer.best), book, terms) if crosses and there else Step(order, None, book)
    if step.order.status is not OrderStatus.OPEN:
        return step
    if order.order_type is OrderType.MARKET or order.time_in_force is TimeInForce.IOC:
        why = "the bar's volume has no more for it" if crosses else "the book does not reach its price"
        return step._replace(order=_ended(step.order, OrderStatus.EXPIRED, f"expired: {why}"))
    return step._replace(book=step.book._replace(open_orders=[*step.book.open_orders, step.order]))


def match(order: PaperOrder, book: Book, exchange: Exchange) -> Step:
    """Matches a resting order against the newest bar: it fills whole or in part, is canceled if it has become impossible,
    or keeps resting."""
    bar, rules = book.bars.get(order.symbol), exchange.rules(order.symbol)
    price = None if bar is None or order.price is None else limit_price(order.side, order.price, bar)
    if price is None or rules is None:
        return Step(order, None, book)
    with localcontext(EXACT):
        without = book._replace(open_orders=[o for o in book.open_orders if o.order_id != order.order_id])
        # Futures orders had their margin when they were placed. Cash and positions may be gone since.
        refusal = reduce_only_refusal(order, book.held(order.key)) or spot_refusal(
            order, price, without, exchange.terms
        )
        if refusal:
            canceled = order.model_copy(update={"code": refusal.code})
            return Step(_ended(canceled, OrderStatus.CANCELED, refusal.text), None, without)
        quantity = min(fillable(order, book), left_of(order.symbol, rules, book, exchange.terms))
        if not quantity:
            return Step(order, None, book)
        step = _fill(order, _Execution(quantity, price, maker=True), book, exchange.terms)
        return step._replace(book=step.book.with_order(step.order))


# --- prices ----------------------------------------------------------------------------------------------------------


def offer_to(side: Side, mark: Decimal, terms: Terms, rules: SymbolRules) -> Offer:
    """What a taker of this side is offered."""
    with localcontext(EXACT):
        slip = terms.slippage_bps * BPS
        unrounded = mark * (1 + slip if side is Side.BUY else 1 - slip)
        return Offer(mark, market_price(side, mark, terms.slippage_bps, rules.tick_size), unrounded)


def market_price(side: Side, mark: Decimal, slippage_bps: Decimal, tick: Decimal) -> Decimal:
    """`mark * (1 ± slippage)`, rounded to the tick against the trader: the price of taking what the book offers."""
    with localcontext(EXACT):
        # Whole ticks and a remainder, instead of a quotient with a hundred digits.
        if side is Side.BUY:
            ticks, rest = divmod(mark * (1 + slippage_bps * BPS), tick)
            return (ticks + bool(rest)) * tick
        # A sale gets at least one tick.
        return max(Decimal(1), mark * (1 - slippage_bps * BPS) // tick) * tick


def limit_price(side: Side, price: Decimal, bar: Bar) -> Decimal | None:
    """Where a resting order fills in a bar that reaches its price. If the bar opens beyond the price, it fills at the open."""
    if side is Side.BUY:
        return min(price, bar.open) if bar.low <= price else None
    return max(price, bar.open) if bar.high >= price else None


def reaches(side: Side, price: Decimal, best: Decimal) -> bool:
    """Whether an order at this price takes what the book offers at `best`."""
    return price >= best if side is Side.BUY else price <= best


# --- quantities ------------------------------------------------------------------------------------------------------


def fillable(order: PaperOrder, book: Book) -> Decimal:
    """What an order may still fill: a reduce-only one no more than there is to reduce."""
    if not order.reduce_only:
        return order.remaining
    return reducible(book.held(order.key).quantity, order.side, order.remaining)


def left_of(symbol: str, rules: SymbolRules, book: Book, terms: Terms) -> Decimal:
    """What the account may still use of the newest bar's volume, in whole lots, over both sides and all orders."""
    return left_of_bar(book.bars[symbol], book.taken.get(symbol, ZERO), rules, terms)


def left_of_bar(bar: Bar, taken: Decimal, rules: SymbolRules, terms: Terms) -> Decimal:
    """The same for a bar of which `taken` is used already."""
    with localcontext(EXACT):
        left = bar.volume * terms.volume_share - taken
        return floor_to_step(left, rules.lot_step) if left > 0 else ZERO


# --- fills -----------------------------------------------------------------------------------------------------------


class _Execution(NamedTuple):
    """How much fills, at what price, and whether as maker."""

    quantity: Decimal
    price: Decimal
    maker: bool = False


def _fill(order: PaperOrder, done: _Execution, book: Book, terms: Terms) -> Step:
    charged = fee(done.quantity, done.price, terms.maker_fee_bps if done.maker else terms.fee_bps)
    held, profit = trade(book.held(order.key), order.side, done.quantity, done.price, charged)
    fill = assembled(
        Fill,
        {
            "fill_id": f"{order.order_id}:{order.fills + 1}",
            "order_id": order.order_id,
            "desk": order.desk,
            "market": order.market,
            "symbol": order.symbol,
            "side": order.side,
            "quantity": done.quantity,
            "price": done.price,
            "fee": charged,
            "realised_profit": profit,
            "maker": done.maker,
            "bar_no": book.bar_no,
            "market_time": book.bars[order.symbol].open_time,
        },
    )
    return Step(_filled(order, fill, held.quantity), fill, book.after_fill(fill, held))


def _filled(order: PaperOrder, fill: Fill, held: Decimal) -> PaperOrder:
    """The order after a fill. It is done once it is whole, or once a reduce-only order has nothing left to reduce."""
    filled = order.filled_quantity + fill.quantity
    changes: dict[str, Any] = {
        "filled_quantity": filled,
        "filled_value": order.filled_value + fill.quantity * fill.price,
        "fills": order.fills + 1,
    }
    if filled == order.quantity:
        changes["status"] = OrderStatus.FILLED
    elif order.reduce_only and not reducible(held, order.side, order.quantity):
        changes |= {"status": OrderStatus.FILLED, "reason": f"reduce-only: cut to the position of {plain(filled)}"}
    return assembled(PaperOrder, vars(order) | changes)


def _ended(order: PaperOrder, status: OrderStatus, reason: str) -> PaperOrder:
    return assembled(PaperOrder, vars(order) | {"status": status, "reason": reason})


def _refused(order: PaperOrder, book: Book, refusal: ExchangeRefusal) -> Step:
    rejected = {"status": OrderStatus.REJECTED, "reason": refusal.text, "code": refusal.code}
    return Step(order.model_copy(update=rejected), None, book)
