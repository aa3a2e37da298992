"""Liquidation: what the venue does when an account can no longer carry its positions.

Aster, "Perpetual Liquidation Protocols" (docs.asterdex.com), cross margin: it begins when the margin balance falls to the
maintenance margin, `sum(|notional| * maintenance rate)`, at the mark price. All open orders are canceled, the remaining
positions are closed, and a liquidation fee is charged. If the account would end below zero, the insurance fund pays the
difference.

A bar has no path. So each position is tested at its worst price in the bar (a long at the low, a short at the high), with
the others at their close. This finds every liquidation that the closes alone would show. Everything closes at the price
where the margin balance equals the maintenance margin, or at the open if the bar already opened beyond that price. The
exchange proceeds in steps and stops once the rest can be carried; this venue closes everything at once.
"""

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NamedTuple

from domain.accounting import Fill, Holding, LedgerEntry, LedgerKind, trade
from domain.paper.book import NOTHING_HAPPENED, Book, Events, Exchange, OrderStatus, PaperOrder
from domain.paper.margin import cash
from domain.trading.instructions import OrderType, Side
from domain.trading.market import Bar, Market, SymbolRules
from domain.values import ZERO

LIQUIDATION = "liquidation"
CANCELED = "canceled: liquidation"
_LEFT = Decimal("0.01")


class _Line(NamedTuple):
    """One position. `slope` is how much a price rise of 1 adds to the margin balance less the maintenance margin."""

    symbol: str
    held: Holding
    bar: Bar
    rules: SymbolRules
    slope: Decimal

    @property
    def is_long(self) -> bool:
        return self.held.quantity > 0

    @property
    def worst(self) -> Decimal:
        return self.bar.low if self.is_long else self.bar.high

    def excess(self, price: Decimal) -> Decimal:
        """Unrealised profit less maintenance margin."""
        return price * self.slope - self.held.cost


def is_safe(book: Book, exchange: Exchange) -> bool:
    """Whether more than a hundredth of the account's cash would remain with every position at its worst price at once. Then
    `liquidate` closes nothing, whichever way the bar went; the hundredth is larger than any rounding error. True for nearly
    every bar."""
    wallet = left = cash(book)
    for key, held in book.holdings.items():
        quantity = held.quantity
        if not quantity or key.market is not Market.FUTURES:
            continue
        bar, rules = book.bars.get(key.symbol), exchange.rules(key.symbol)
        if bar is None or rules is None or rules.maintenance_ratio >= 1:
            return False
        notional = quantity * (bar.low if quantity > 0 else bar.high)
        left += notional - held.cost - abs(notional) * rules.maintenance_ratio
    # Without a position nothing was subtracted. A wallet may be below zero, while a position's profit carries the account.
    return left > abs(wallet) * _LEFT or left is wallet


def safe_from(held: Holding, wallet: Decimal, rules: SymbolRules | None) -> Decimal | None:
    """The price down to which (of a short: up to which) `is_safe` holds, with this as the only position; None where nobody can
    say. A little less far than that, so that no rounding matters.
    """
    if rules is None or rules.maintenance_ratio >= 1 or wallet <= 0:
        return None
    slope = held.quantity - abs(held.quantity) * rules.maintenance_ratio
    return (held.cost - wallet * (1 - 2 * _LEFT)) / slope


def liquidate(book: Book, exchange: Exchange) -> tuple[Book, Events]:
    """Closes every futures position if the newest bar took the account to its maintenance margin."""
    lines = _lines(book, exchange)
    prices = _prices(lines, cash(book)) if lines else None
    if not prices:
        return book, NOTHING_HAPPENED
    ended = {"status": OrderStatus.CANCELED, "reason": CANCELED}
    canceled = [order.model_copy(update=ended) for order in book.open_orders if order.market is Market.FUTURES]
    book = book._replace(open_orders=[order for order in book.open_orders if order.market is not Market.FUTURES])
    orders, fills = [], []
    for line in lines:
        order, fill, held = _closed(line, prices[line.symbol], book)
        orders.append(order)
        fills.append(fill)
        book = book.after_fill(fill, held)
    entries = _charges(book, lines, fills)
    book = book._replace(balance=book.balance + sum((entry.amount for entry in entries), ZERO))
    return book, Events(entries=entries, liquidations=orders, changed=canceled, fills=fills)


def _lines(book: Book, exchange: Exchange) -> list[_Line]:
    """The open positions; empty if one of them has no price, since nobody can say what the account is worth then."""
    lines = []
    for symbol, held in book.positions():
        bar, rules = book.bars.get(symbol), exchange.rules(symbol)
        if bar is None or rules is None:
            return []
        slope = held.quantity - abs(held.quantity) * rules.maintenance_ratio
        lines.append(_Line(symbol, held, bar, rules, slope))
    return lines


def _prices(lines: Sequence[_Line], wallet: Decimal) -> dict[str, Decimal] | None:
    """The price at which each position is closed; None if the account can carry them through the bar."""
    opening = wallet
    for line in lines:
        opening += line.excess(line.bar.open)
    if opening <= 0:
        return {line.symbol: line.bar.open for line in lines}
    at_close = wallet
    for line in lines:
        at_close += line.excess(line.bar.close)
    for line in lines:
        # By the time one position closes where it falls short, the others have reached their close.
        others = at_close - line.excess(line.bar.close)
        if others + line.excess(line.worst) <= 0:
            return {other.symbol: other.bar.close for other in lines} | {line.symbol: _price(line, others)}
    return None


def _price(line: _Line, others: Decimal) -> Decimal:
    """The price where `others + excess(price) = 0`, rounded to a whole tick against the account, within the bar and never
    before its open."""
    if line.slope * line.held.quantity <= 0:
        # A maintenance rate of 1 or more: the account can carry it at no price.
        return line.bar.open
    exact, tick = (line.held.cost - others) / line.slope, line.rules.tick_size
    if line.is_long:
        return min(line.bar.open, max(line.bar.low, (exact / tick).to_integral_value(ROUND_FLOOR) * tick))
    return max(line.bar.open, min(line.bar.high, (exact / tick).to_integral_value(ROUND_CEILING) * tick))


def _closed(line: _Line, price: Decimal, book: Book) -> tuple[PaperOrder, Fill, Holding]:
    """The venue's own order for a whole position, and its fill. It bears the liquidation fee but no trading fee."""
    side, quantity = Side.SELL if line.is_long else Side.BUY, abs(line.held.quantity)
    held, profit = trade(line.held, side, quantity, price)
    order = PaperOrder(
        order_id=f"liq_{book.desk}_{book.bar_no}_{line.symbol}",
        desk=book.desk,
        symbol=line.symbol,
        market=Market.FUTURES,
        side=side,
        order_type=OrderType.MARKET,
        quantity=quantity,
        price=None,
        reduce_only=True,
        status=OrderStatus.FILLED,
        filled_quantity=quantity,
        filled_value=quantity * price,
        fills=1,
        reason=LIQUIDATION,
    )
    fill = Fill(
        fill_id=f"{order.order_id}:1",
        fee=ZERO,
        price=price,
        realised_profit=profit,
        bar_no=book.bar_no,
        market_time=line.bar.open_time,
        **order.model_dump(include={"order_id", "desk", "market", "symbol", "side", "quantity"}),
    )
    return order, fill, held


def _charges(book: Book, lines: Sequence[_Line], fills: Sequence[Fill]) -> list[LedgerEntry]:
    """The liquidation fee of each position, never more than what is left, and what the insurance fund pays."""
    left, entries = cash(book), []
    for line, fill in zip(lines, fills, strict=True):
        charge = min(fill.quantity * fill.price * line.rules.liquidation_fee, max(ZERO, left))
        if charge:
            left -= charge
            entries.append(_entry(LedgerKind.LIQUIDATION_FEE, -charge, fill, line.rules.liquidation_fee))
    if left < 0:
        entries.append(_entry(LedgerKind.INSURANCE, -left, fills[0], None))
    return entries


def _entry(kind: LedgerKind, amount: Decimal, fill: Fill, rate: Decimal | None) -> LedgerEntry:
    assert fill.market_time is not None
    return LedgerEntry(
        entry_id=f"{kind.value}:{fill.desk}:{fill.bar_no}:{fill.symbol}",
        desk=fill.desk,
        kind=kind,
        market=Market.FUTURES,
        symbol=fill.symbol,
        amount=amount,
        price=fill.price if rate is not None else None,
        rate=rate,
        bar_no=fill.bar_no,
        market_time=fill.market_time,
    )
