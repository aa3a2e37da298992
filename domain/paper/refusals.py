"""The exchange's refusals, with its own codes and texts.

Futures: asterdex/api-docs, "V1(Legacy)/EN/aster-finance-futures-api.md", sections "Filters" and "Error Codes"; the family
is Binance's USDS-M futures. Spot answers as Binance's spot does: one code for every filter, plus the filter's name.
(Aster's spot document repeats the -40xx codes of its futures and does not say which of the two it uses.)
"""

from decimal import Decimal
from typing import NamedTuple

from domain.accounting import Holding, reducible
from domain.paper.book import PaperOrder
from domain.trading.instructions import OrderType, Side, TimeInForce
from domain.trading.market import Market, SymbolRules
from domain.values import ZERO, plain


class ExchangeRefusal(NamedTuple):
    """The exchange's code and text, our own numbers for people, and the filter that failed, if any."""

    code: int
    message: str
    numbers: str = ""
    filter: str = ""

    @property
    def text(self) -> str:
        """`-4164: Order's notional must be … (worth 4.2)`."""
        return f"{self.code}: {self.message}" + (f" ({self.numbers})" if self.numbers else "")


class Offer(NamedTuple):
    """What an order meets in the book: the mark price, and the best price of the other side.

    `unrounded` is that price before rounding to a whole tick. The band of -4131 is measured by it, so that a coarse tick
    does not cause every market order of a cheap symbol to be refused.
    """

    mark: Decimal
    best: Decimal
    unrounded: Decimal


def symbol_refusal(symbol: str) -> ExchangeRefusal:
    """For a symbol without a bar or without rules."""
    return ExchangeRefusal(-1121, "Invalid symbol.", f"no market data for {symbol}")


def order_refusal(order: PaperOrder, rules: SymbolRules, offer: Offer) -> ExchangeRefusal | None:
    """Why an order breaks the symbol's rules: its parameters, then the filters."""
    wrong = parameter_refusal(order)
    if wrong:
        return wrong
    failed = filter_failures(order, rules, offer)
    if failed is None or order.market is Market.FUTURES:
        return failed
    return ExchangeRefusal(-1013, f"Filter failure: {failed.filter}", failed.numbers, failed.filter)


def parameter_refusal(order: PaperOrder) -> ExchangeRefusal | None:
    """Parameters that are missing, or that this kind of order does not take."""
    if order.order_type is OrderType.LIMIT and order.price is None:
        return ExchangeRefusal(-1102, "Mandatory parameter 'price' was not sent, was empty/null, or malformed.")
    if order.order_type is OrderType.MARKET and order.price is not None:
        return _not_required("price")
    if order.order_type is OrderType.MARKET and order.time_in_force is not None:
        return _not_required("timeInForce")
    if order.market is Market.SPOT and order.reduce_only:
        return _not_required("reduceOnly")
    return None


def filter_failures(order: PaperOrder, rules: SymbolRules, offer: Offer) -> ExchangeRefusal | None:
    """The first filter that an order fails, in the terms of futures."""
    return (
        quantity_failure(order, rules)
        or price_failure(order, rules)
        or band_failure(order, rules, offer)
        or notional_failure(order, rules, offer)
    )


def quantity_failure(order: PaperOrder, rules: SymbolRules) -> ExchangeRefusal | None:
    """LOT_SIZE: between minQty and maxQty, and `(quantity - minQty) % stepSize == 0`; MARKET_LOT_SIZE's maxQty too."""
    quantity, least = order.quantity, rules.min_quantity
    if quantity <= 0:
        return ExchangeRefusal(-4003, "Quantity less than zero.", f"{quantity}", "LOT_SIZE")
    if quantity < least:
        return ExchangeRefusal(-4004, "Quantity less than min quantity.", f"{quantity}, at least {least}", "LOT_SIZE")
    if over := _over_maximum(order, rules):
        return over
    if (quantity - least) % rules.lot_step:
        numbers = f"{quantity}, the step is {rules.lot_step}"
        return ExchangeRefusal(-4023, "Qty not increased by step size.", numbers, "LOT_SIZE")
    return None


def _over_maximum(order: PaperOrder, rules: SymbolRules) -> ExchangeRefusal | None:
    at_market = rules.market_max_quantity if order.order_type is OrderType.MARKET else None
    for most, name in ((rules.max_quantity, "LOT_SIZE"), (at_market, "MARKET_LOT_SIZE")):
        if most is not None and order.quantity > most:
            return ExchangeRefusal(
                -4005, "Quantity greater than max quantity.", f"{order.quantity}, at most {most}", name
            )
    return None


def price_failure(order: PaperOrder, rules: SymbolRules) -> ExchangeRefusal | None:
    """PRICE_FILTER: above 0 and a multiple of tickSize."""
    if order.price is None:
        return None
    if order.price <= 0:
        return ExchangeRefusal(-4001, "Price less than 0.", f"{order.price}", "PRICE_FILTER")
    if order.price % rules.tick_size:
        numbers = f"{order.price}, the tick is {rules.tick_size}"
        return ExchangeRefusal(-4014, "Price not increased by tick size.", numbers, "PRICE_FILTER")
    return None


def band_failure(order: PaperOrder, rules: SymbolRules, offer: Offer) -> ExchangeRefusal | None:
    """PERCENT_PRICE: BUY `price <= markPrice * multiplierUp`, SELL `price >= markPrice * multiplierDown`.

    Spot has both bounds for either side (Aster, spot document). A market order has no price; the price it would meet is
    measured instead (-4131).
    """
    spot, buys = order.market is Market.SPOT, order.side is Side.BUY
    price = offer.unrounded if order.price is None else order.price
    cap = rules.multiplier_up and offer.mark * rules.multiplier_up
    floor = rules.multiplier_down and offer.mark * rules.multiplier_down
    if cap and price > cap and (spot or buys):
        code, text, numbers = -4016, "Price is higher than mark price multiplier cap.", f"at most {plain(cap)}"
    elif floor and price < floor and (spot or not buys):
        code, text, numbers = -4024, "Price is lower than mark price multiplier floor.", f"at least {plain(floor)}"
    else:
        return None
    if order.price is None:
        code, text = -4131, "The counterparty's best price does not meet the PERCENT_PRICE filter limit"
    return ExchangeRefusal(code, text, f"{plain(price)}, {numbers}", "PERCENT_PRICE")


def notional_failure(order: PaperOrder, rules: SymbolRules, offer: Offer) -> ExchangeRefusal | None:
    """MIN_NOTIONAL: price times quantity, at the mark price for a market order; reduce-only is exempt."""
    worth = order.quantity * (offer.mark if order.price is None else order.price)
    if order.reduce_only or worth >= rules.min_notional:
        return None
    least = plain(rules.min_notional)
    text = f"Order's notional must be no smaller than {least} (unless you choose reduce only)"
    return ExchangeRefusal(-4164, text, f"worth {plain(worth)}", "NOTIONAL")


def reduce_only_refusal(order: PaperOrder, held: Holding) -> ExchangeRefusal | None:
    """Why a reduce-only order has nothing to reduce."""
    if not order.reduce_only or reducible(held.quantity, order.side, order.remaining):
        return None
    why = "it would increase the position" if held.quantity else "there is no position"
    return ExchangeRefusal(-2022, "ReduceOnly Order is rejected.", why)


def timing_refusal(order: PaperOrder, crosses: bool, wanted: Decimal, there: Decimal) -> ExchangeRefusal | None:
    """Refuses a post-only order that would take, and a fill-or-kill order that would not fill whole.

    -5021 and -5022 are Binance's; Aster's documents do not list them. For spot: -2010 as Binance answers a LIMIT_MAKER, and
    -2020, which Aster's spot document has.
    """
    spot = order.market is Market.SPOT
    if order.time_in_force is TimeInForce.GTX and crosses:
        return ExchangeRefusal(-2010, "Order would immediately match and take.") if spot else _POST_ONLY
    if order.time_in_force is TimeInForce.FOK and (not crosses or there < wanted):
        found = there if crosses else ZERO
        whole = ExchangeRefusal(-2020, "Unable to fill.") if spot else _FILL_OR_KILL
        return whole._replace(numbers=f"{plain(found)} of {plain(wanted)} could be filled")
    return None


def _not_required(parameter: str) -> ExchangeRefusal:
    return ExchangeRefusal(-1106, f"Parameter '{parameter}' sent when not required.")


_RECORDED = "The order will not be recorded in the order history"
_FILL_OR_KILL = ExchangeRefusal(
    -5021, f"Due to the order could not be filled immediately, the FOK order has been rejected. {_RECORDED}"
)
_POST_ONLY = ExchangeRefusal(
    -5022, f"Due to the order could not be executed as maker, the Post Only order will be rejected. {_RECORDED}"
)
