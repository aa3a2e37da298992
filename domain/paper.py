"""The paper venue's rules: when an order fills, at what price, and what it does to the money. Pure, and exact.

Money is exact by construction: a position carries what was paid for it (`cost`) and not an average price, so that no
division ever rounds money away. Over any flow of fills, with q signed (a purchase positive):

    balance = opening balance - sum(fees) - sum(q * price) + sum(cost of what is held)
    balance = opening balance - sum(fees) + sum(realised profits)
"""

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext
from enum import StrEnum
from typing import NamedTuple

from domain.instructions import OrderType, Side
from domain.market import Bar, Market, SymbolRules
from domain.values import BPS, ZERO, Value, plain

# Wide enough that no product or sum of prices, quantities and fees is ever rounded.
EXACT = Context(prec=100)
COST_STEP = Decimal("1e-12")
MAX_LEVERAGE = Decimal(5)


class OrderStatus(StrEnum):
    """Where an order stands at the venue. An order fills at once and whole, or rests whole."""

    OPEN = "open"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"


class Terms(Value):
    """What the venue charges and allows."""

    fee_bps: Decimal
    slippage_bps: Decimal
    max_leverage: Decimal = MAX_LEVERAGE


class Holding(Value):
    """A futures position or a spot holding. `quantity` is signed, and `cost`, what was paid for it, has its sign."""

    quantity: Decimal = ZERO
    cost: Decimal = ZERO

    @property
    def entry_price(self) -> Decimal:
        """Average price of entry, rounded to twelve places: for people, never for sums."""
        with localcontext(EXACT):
            return plain((self.cost / self.quantity).quantize(COST_STEP)) if self.quantity else ZERO

    def profit_at(self, mark: Decimal) -> Decimal:
        """Unrealised profit."""
        return self.quantity * mark - self.cost


class PaperOrder(Value):
    """An order as the venue keeps it."""

    order_id: str
    desk: str
    symbol: str
    market: Market
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None
    reduce_only: bool
    status: OrderStatus = OrderStatus.OPEN
    filled_quantity: Decimal = ZERO
    average_price: Decimal | None = None
    reason: str = ""

    @property
    def key(self) -> "HoldingKey":
        """What it trades."""
        return HoldingKey(self.market, self.symbol)


class Fill(Value):
    """One execution. `realised_profit` does not contain the fee."""

    fill_id: str
    order_id: str
    desk: str
    market: Market
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    realised_profit: Decimal


class HoldingKey(NamedTuple):
    """Futures and spot of one symbol are held apart."""

    market: Market
    symbol: str


class Book(NamedTuple):
    """An account at one moment. `balance` counts spot holdings at cost; `marks` holds the prices that are known."""

    balance: Decimal
    holdings: Mapping[HoldingKey, Holding]
    open_orders: Sequence[PaperOrder]
    marks: Mapping[str, Decimal]

    def held(self, key: HoldingKey) -> Holding:
        """What is held; nothing where nothing is."""
        return self.holdings.get(key, Holding())

    def unpriced(self) -> list[str]:
        """Symbols that are held and have no price."""
        return sorted({key.symbol for key, held in self.holdings.items() if held.quantity} - set(self.marks))

    def unrealised_profit(self) -> Decimal:
        """Of all that is held."""
        with localcontext(EXACT):
            profits = (held.profit_at(self.marks[key.symbol]) for key, held in self.holdings.items() if held.quantity)
            return sum(profits, ZERO)


class Step(NamedTuple):
    """What became of an order, and the account after it."""

    order: PaperOrder
    fill: Fill | None
    book: Book


def place(order: PaperOrder, book: Book, rules: SymbolRules | None, terms: Terms) -> Step:
    """A new order: refused, filled at once, or resting."""
    with localcontext(EXACT):
        mark = book.marks.get(order.symbol)
        if mark is None or rules is None:
            return _refused(order, book, f"no market data for {order.symbol}")
        taking = market_price(order.side, mark, terms.slippage_bps, rules.tick_size)
        worst = taking if order.price is None else order.price
        reason = (
            rule_refusal(order, rules, worst)
            or reduce_only_refusal(order, book.held(order.key))
            or money_refusal(order, worst, book, terms)
        )
        if reason:
            return _refused(order, book, reason)
        if order.order_type is OrderType.MARKET:
            return _fill(order, taking, book, terms)
        if _is_marketable(order.side, worst, mark):
            return _fill(order, better_price(order.side, worst, taking), book, terms)
        return Step(order, None, book._replace(open_orders=[*book.open_orders, order]))


def match(order: PaperOrder, bar: Bar, book: Book, terms: Terms) -> Step:
    """A resting order against a new bar: filled, canceled where it can no longer be filled, or resting on."""
    price = None if order.price is None else limit_price(order.side, order.price, bar)
    if price is None:
        return Step(order, None, book)
    with localcontext(EXACT):
        rest = [other for other in book.open_orders if other.order_id != order.order_id]
        without = book._replace(open_orders=rest)
        # Futures had their margin when they were placed; cash and positions may be gone since.
        reason = reduce_only_refusal(order, book.held(order.key)) or spot_refusal(order, price, without, terms)
        if reason:
            canceled = {"status": OrderStatus.CANCELED, "reason": reason}
            return Step(order.model_copy(update=canceled), None, without)
        return _fill(order, price, without, terms)


def market_price(side: Side, mark: Decimal, slippage_bps: Decimal, tick: Decimal) -> Decimal:
    """`mark * (1 ± slippage)`, rounded to the tick against the trader: the price of taking what the book offers."""
    with localcontext(EXACT):
        if side is Side.BUY:
            ticks = (mark * (1 + slippage_bps * BPS) / tick).to_integral_value(ROUND_CEILING)
        else:
            # A sale never gets less than one tick.
            ticks = max(Decimal(1), (mark * (1 - slippage_bps * BPS) / tick).to_integral_value(ROUND_FLOOR))
        return ticks * tick


def limit_price(side: Side, price: Decimal, bar: Bar) -> Decimal | None:
    """Where a resting order fills in a bar that reaches its price; a bar that opens beyond it fills at the open."""
    if side is Side.BUY:
        return min(price, bar.open) if bar.low <= price else None
    return max(price, bar.open) if bar.high >= price else None


def better_price(side: Side, one: Decimal, other: Decimal) -> Decimal:
    """The better of two prices for the trader."""
    return min(one, other) if side is Side.BUY else max(one, other)


def fee(quantity: Decimal, price: Decimal, fee_bps: Decimal) -> Decimal:
    """`quantity * price * fee_bps / 10,000`, not rounded."""
    with localcontext(EXACT):
        return quantity * price * fee_bps * BPS


def trade(held: Holding, side: Side, quantity: Decimal, price: Decimal) -> tuple[Holding, Decimal]:
    """What is held after a fill, and the profit that it realised.

    The part against the position closes it at its share of the cost (average cost, as on Binance's and Aster's
    futures); what is left opens a position the other way at the fill's price.
    """
    with localcontext(EXACT):
        signed = quantity if side is Side.BUY else -quantity
        closing = reducible(held.quantity, side, quantity).copy_sign(signed)
        closed_cost = _share(held, -closing)
        opening = signed - closing
        after = Holding(
            quantity=held.quantity + signed,
            cost=held.cost - closed_cost + opening * price,
        )
        return after, -closing * price - closed_cost


def reducible(held: Decimal, side: Side, quantity: Decimal) -> Decimal:
    """How much of an order reduces a position of `held`: nothing where there is none or the order goes the same way."""
    opposed = held < 0 if side is Side.BUY else held > 0
    return min(abs(held), quantity) if opposed else ZERO


def rule_refusal(order: PaperOrder, rules: SymbolRules, price: Decimal) -> str | None:
    """Why the order breaks the symbol's rules. Reduce-only orders may be worth less than the minimum (venue.md)."""
    if (order.order_type is OrderType.LIMIT) == (order.price is None):
        return "a limit order needs a price, and a market order has none"
    if order.quantity < rules.min_quantity or order.quantity % rules.lot_step:
        return f"quantity {order.quantity} is not a multiple of {rules.lot_step} from {rules.min_quantity} on"
    if price <= 0 or (order.price is not None and price % rules.tick_size):
        return f"price {price} is not a multiple of the tick size {rules.tick_size} above 0"
    if not order.reduce_only and order.quantity * price < rules.min_notional:
        return f"the order is worth {plain(order.quantity * price)}, less than the minimum of {rules.min_notional}"
    return None


def reduce_only_refusal(order: PaperOrder, held: Holding) -> str | None:
    """Why a reduce-only order has nothing to reduce."""
    if not order.reduce_only or reducible(held.quantity, order.side, order.quantity):
        return None
    return "reduce-only: the order would increase the position" if held.quantity else "reduce-only: no position"


def money_refusal(order: PaperOrder, price: Decimal, book: Book, terms: Terms) -> str | None:
    """Why the account cannot carry the order."""
    if order.market is Market.SPOT:
        return spot_refusal(order, price, book, terms)
    return None if order.reduce_only else _margin_refusal(order, price, book, terms)


def spot_refusal(order: PaperOrder, price: Decimal, book: Book, terms: Terms) -> str | None:
    """Spot is paid in full and sold from what is held; what rests already is set aside."""
    if order.market is not Market.SPOT:
        return None
    resting = [other for other in book.open_orders if other.market is Market.SPOT and other.side is order.side]
    if order.side is Side.SELL:
        free = book.held(order.key).quantity - sum((o.quantity for o in resting if o.symbol == order.symbol), ZERO)
        return None if order.quantity <= free else f"insufficient balance: {plain(free)} {order.symbol} free to sell"
    paid = sum((held.cost for key, held in book.holdings.items() if key.market is Market.SPOT), ZERO)
    free = book.balance - paid - sum((o.quantity * (o.price or ZERO) for o in resting), ZERO)
    needed = order.quantity * price + fee(order.quantity, price, terms.fee_bps)
    return None if needed <= free else f"insufficient balance: {plain(needed)} needed, {plain(free)} free"


def _margin_refusal(order: PaperOrder, price: Decimal, book: Book, terms: Terms) -> str | None:
    """Positions and resting orders together may be worth `max_leverage` times the net asset value."""
    if unpriced := book.unpriced():
        return f"no market data for the position in {unpriced[0]}"
    futures = {key.symbol: held.quantity for key, held in book.holdings.items() if key.market is Market.FUTURES}
    now = futures.get(order.symbol, ZERO)
    after = now + (order.quantity if order.side is Side.BUY else -order.quantity)
    resting = (o for o in book.open_orders if o.market is Market.FUTURES and not o.reduce_only)
    others = (abs(q) * book.marks[symbol] for symbol, q in futures.items() if q and symbol != order.symbol)
    gross = abs(after) * price + sum(others, ZERO) + sum((o.quantity * (o.price or ZERO) for o in resting), ZERO)
    allowed = terms.max_leverage * (book.balance + book.unrealised_profit())
    if gross <= allowed or abs(after) <= abs(now):
        return None
    return f"insufficient margin: {plain(gross)} exceeds {terms.max_leverage} times the net asset value"


def _fill(order: PaperOrder, price: Decimal, book: Book, terms: Terms) -> Step:
    held = book.held(order.key)
    quantity = reducible(held.quantity, order.side, order.quantity) if order.reduce_only else order.quantity
    after, profit = trade(held, order.side, quantity, price)
    fill = Fill(
        fill_id=f"{order.order_id}:1",
        quantity=quantity,
        price=price,
        fee=fee(quantity, price, terms.fee_bps),
        realised_profit=profit,
        **order.model_dump(include={"order_id", "desk", "market", "symbol", "side"}),
    )
    cut = "" if quantity == order.quantity else f"reduce-only: cut to the position of {quantity}"
    done = {"status": OrderStatus.FILLED, "filled_quantity": quantity, "average_price": price, "reason": cut}
    book = book._replace(balance=book.balance + profit - fill.fee, holdings={**book.holdings, order.key: after})
    return Step(order.model_copy(update=done), fill, book)


def _refused(order: PaperOrder, book: Book, reason: str) -> Step:
    return Step(order.model_copy(update={"status": OrderStatus.REJECTED, "reason": reason}), None, book)


def _is_marketable(side: Side, price: Decimal, mark: Decimal) -> bool:
    return price >= mark if side is Side.BUY else price <= mark


def _share(held: Holding, quantity: Decimal) -> Decimal:
    """The cost of a part of what is held; the rounding stays in the rest, so that nothing is lost."""
    if quantity == held.quantity:
        return held.cost
    return (held.cost * quantity / held.quantity).quantize(COST_STEP, ROUND_HALF_EVEN) if quantity else ZERO
