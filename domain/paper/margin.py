"""What the money allows: margin for futures, cash for spot.

One balance pays for both, but money spent on spot is no margin. On the exchange the two are separate wallets, and a spot
holding is no collateral for a futures account in single-asset mode.
"""

from decimal import Decimal

from domain.accounting import fee
from domain.paper.book import Book, PaperOrder, Terms
from domain.paper.refusals import ExchangeRefusal
from domain.trading.instructions import Side
from domain.trading.market import Market
from domain.values import ZERO, plain


def cash(book: Book) -> Decimal:
    """The balance without what was paid for spot holdings: the wallet that carries the futures."""
    spot = [held.cost for key, held in book.holdings.items() if key.market is Market.SPOT]
    return book.balance - sum(spot, ZERO)


def margin_balance(book: Book) -> Decimal:
    """Cash plus the unrealised profit of the futures positions (Aster: totalMarginBalance)."""
    return cash(book) + sum((held.profit_at(book.bars[symbol].close) for symbol, held in book.positions()), ZERO)


def money_refusal(order: PaperOrder, price: Decimal, book: Book, terms: Terms) -> ExchangeRefusal | None:
    """Why the account cannot carry the order at `price`, which is the worst that it may have to pay."""
    if order.market is Market.SPOT:
        return spot_refusal(order, price, book, terms)
    return None if order.reduce_only else margin_refusal(order, price, book, terms)


def margin_refusal(order: PaperOrder, price: Decimal, book: Book, terms: Terms) -> ExchangeRefusal | None:
    """Initial margin: the notional of positions and resting orders together, divided by the leverage, must not exceed the
    margin balance.

    Aster, "Margin" (docs.asterdex.com): initial margin = position size * mark price / leverage. An order that only makes a
    position smaller is always allowed.
    """
    now = book.held(order.key).quantity
    after = now + (order.remaining if order.side is Side.BUY else -order.remaining)
    if abs(after) <= abs(now):
        return None
    if unpriced := unpriced_positions(book):
        return _no_margin(f"no market data for the position in {unpriced[0]}")
    # What the order adds is worth the order's price. A position that it turns around is gone by the time the order has
    # filled.
    grown = exposure(book) + order.remaining * price
    turned = exposure(book, without=order.symbol) + abs(after) * price
    gross = (grown if now * after > 0 or not now else turned) + resting_exposure(book)
    allowed = terms.leverage * (margin_balance(book) - set_aside(book, terms))
    if gross <= allowed:
        return None
    return _no_margin(f"{plain(gross)} of positions and orders, {plain(allowed)} allowed at leverage {terms.leverage}")


def spot_refusal(order: PaperOrder, price: Decimal, book: Book, terms: Terms) -> ExchangeRefusal | None:
    """Spot is paid in full, and sold only from what is held. What resting orders need is set aside, and so is futures'
    margin."""
    if order.market is not Market.SPOT:
        return None
    if order.side is Side.SELL:
        mine = (o for o in book.open_orders if o.key == order.key and o.side is Side.SELL)
        left = book.held(order.key).quantity - sum((o.remaining for o in mine), ZERO)
        return None if order.remaining <= left else _no_balance(f"{plain(left)} {order.symbol} free to sell")
    needed, free = _paid(order, price, terms), cash(book) - set_aside(book, terms)
    if needed > free:
        return _no_balance(f"{plain(needed)} needed, {plain(free)} free")
    if unpriced := unpriced_positions(book):
        return _no_balance(f"no market data for the position in {unpriced[0]}")
    gross = exposure(book) + resting_exposure(book)
    if gross > terms.leverage * (margin_balance(book) - set_aside(book, terms) - needed):
        return _no_balance(f"{plain(needed)} needed, and the rest would not be margin enough for futures")
    return None


def exposure(book: Book, without: str | None = None) -> Decimal:
    """The value of the futures positions at their marks."""
    held = ((symbol, h.quantity) for symbol, h in book.positions() if symbol != without)
    return sum((abs(quantity) * book.bars[symbol].close for symbol, quantity in held), ZERO)


def resting_exposure(book: Book) -> Decimal:
    """What the resting futures orders would add if all of them filled at their prices."""
    orders = (o for o in book.open_orders if o.market is Market.FUTURES and not o.reduce_only)
    return sum((o.remaining * (o.price or ZERO) for o in orders), ZERO)


def set_aside(book: Book, terms: Terms) -> Decimal:
    """Cash that resting spot purchases have reserved, including their fees."""
    orders = (o for o in book.open_orders if o.market is Market.SPOT and o.side is Side.BUY)
    return sum((_paid(o, o.price or ZERO, terms) for o in orders), ZERO)


def unpriced_positions(book: Book) -> list[str]:
    """Futures positions without a price, which nobody can value."""
    return [symbol for symbol, _ in book.positions() if symbol not in book.bars]


def _paid(order: PaperOrder, price: Decimal, terms: Terms) -> Decimal:
    """With the higher of the two fees, since only the fill decides which one applies."""
    return order.remaining * price + fee(order.remaining, price, max(terms.fee_bps, terms.maker_fee_bps))


def _no_margin(numbers: str) -> ExchangeRefusal:
    return ExchangeRefusal(-2019, "Margin is insufficient.", numbers)


def _no_balance(numbers: str) -> ExchangeRefusal:
    """Binance's spot text for -2010. Aster's spot document has the code, but no text of its own."""
    return ExchangeRefusal(-2010, "Account has insufficient balance for requested action.", numbers)
