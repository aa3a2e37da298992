"""What is sent for an order, and what the exchange's status says of its fate.

A MARKET order goes out as LIMIT, IOC, at a price well through the book. The server sends `timeInForce` with every order, for
MARKET too, and an exchange of this family may refuse that (-1106), which would leave no way to close a position. LIMIT with IOC
is always accepted. Its price is a bound that a market order does not have, and what it does not fill is canceled at once. If no
price is known, the order goes out as MARKET after all.
"""

from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, NamedTuple

from activities.venues.aster.results import Row
from domain.trading.instructions import OrderInstruction, OrderType, Side, TimeInForce
from domain.trading.market import SymbolRules
from domain.trading.orders import Fate, Order, OrderReport
from domain.values import ZERO, floor_to_step, plain

# How far beyond the mark price a market order may fill, and how much of PERCENT_PRICE that may use: the exchange's mark has
# moved since we read it.
MOST_SLIPPAGE = Decimal("0.05")
_SHARE_OF_PERCENT_PRICE = Decimal("0.9")
_RESTING = (None, TimeInForce.GTC, TimeInForce.GTX)


class NotRepresentable(Exception):
    """The order cannot be written in numbers that the venue accepts; the text may be shown to people."""


class SymbolSnapshot(NamedTuple):
    """One symbol's state at the exchange: the position and the resting orders."""

    position: Decimal
    mark: Decimal | None
    resting: list[Row]

    @property
    def order_ids(self) -> frozenset[str]:
        """The ids of the resting orders."""
        return frozenset(row.text("orderId") for row in self.resting)

    def same_as(self, other: "SymbolSnapshot") -> bool:
        """Whether nothing was bought, sold or placed since `other`."""
        return self.position == other.position and self.order_ids <= other.order_ids


def arguments_of(instruction: OrderInstruction, rules: SymbolRules | None, mark: Decimal | None) -> dict[str, Any]:
    """The arguments of create_order, without the account. Raises NotRepresentable."""
    quantity = quantity_of(instruction, rules)
    price, time_in_force = instruction.price, instruction.time_in_force or TimeInForce.GTC
    order_type = instruction.order_type
    least = None if instruction.reduce_only or rules is None else rules.min_notional / quantity
    if order_type is OrderType.MARKET and (bound := _bound(instruction.side, rules, mark, least)) is not None:
        order_type, price, time_in_force = OrderType.LIMIT, bound, TimeInForce.IOC
    arguments = {
        "symbol": instruction.symbol,
        "side": instruction.side.value,
        "order_type": order_type.value,
        "quantity": as_float(quantity),
        "time_in_force": time_in_force.value,
        "reduce_only": instruction.reduce_only,
    }
    return arguments if price is None else arguments | {"price": as_float(price)}


def quantity_of(instruction: OrderInstruction, rules: SymbolRules | None) -> Decimal:
    """The quantity in whole lot steps. Without rules, only a reduce-only order is sent, as it is: I7 forbids the rest."""
    if rules is None:
        if not instruction.reduce_only:
            raise NotRepresentable(f"the rules of {instruction.symbol} are not known")
        return plain(instruction.quantity)
    quantity = floor_to_step(instruction.quantity, rules.lot_step)
    if quantity <= 0:
        raise NotRepresentable(f"{instruction.quantity} {instruction.symbol} is below the lot step {rules.lot_step}")
    return quantity


def as_float(number: Decimal) -> float:
    """The number as the tool takes it. The server formats it as Python does: 0.00001 would go out as 1e-05."""
    written = repr(float(number))
    if "e" in written or Decimal(written) != number:
        raise NotRepresentable(f"{number} cannot be sent: it would go out as {written}")
    return float(number)


def _bound(side: Side, rules: SymbolRules | None, mark: Decimal | None, least: Decimal | None) -> Decimal | None:
    """The worst price at which a market order may fill; None if it is not known. From `least` on, the order is worth
    MIN_NOTIONAL."""
    if rules is None or mark is None:
        return None
    multiplier = rules.multiplier_up if side is Side.BUY else rules.multiplier_down
    edge = MOST_SLIPPAGE if multiplier is None else abs(multiplier - 1) * _SHARE_OF_PERCENT_PRICE
    away = min(MOST_SLIPPAGE, edge)
    price, rounding = (mark * (1 + away), ROUND_FLOOR) if side is Side.BUY else (mark * (1 - away), ROUND_CEILING)
    if least is not None and price < least <= mark:
        # A limit order counts at its own price. A sale that is worth just enough at the mark is refused at five per cent less.
        price = least
    found = plain((price / rules.tick_size).to_integral_value(rounding=rounding) * rules.tick_size)
    try:
        as_float(found)
    except NotRepresentable:
        return None
    return found


# --- fates -----------------------------------------------------------------------------------------------------------


def rests(instruction: OrderInstruction) -> bool:
    """Whether the order may rest in the book."""
    return instruction.order_type is OrderType.LIMIT and instruction.time_in_force in _RESTING


def position_tells(order: Order) -> bool:
    """Whether a changed position shows what became of the order. It does not while another order of the desk may fill, nor for an
    order that may fill again later."""
    return not order.others and not rests(order.instruction)


def fate_of(status: str, *, resting: bool) -> Fate | None:
    """The exchange's status as a `Fate`; None if it is not decided yet, or unknown to us."""
    match status:
        case "FILLED":
            return Fate.FILLED
        case "NEW" | "PARTIALLY_FILLED":
            return Fate.OPEN if resting else None
        case "CANCELED" | "EXPIRED" | "EXPIRED_IN_MATCH":
            return Fate.CANCELED
        case "REJECTED":
            return Fate.REJECTED
        case _:
            return None


def report_of(order: Order, row: Row, before: Decimal | None) -> OrderReport | None:
    """What a row from the exchange says of an order; None if it is not decided."""
    fate = fate_of(row.text("status"), resting=rests(order.instruction))
    if fate is None:
        return None
    filled = row.filled("executedQty", order.instruction.quantity)
    if fate is Fate.FILLED and not filled:
        filled = order.instruction.quantity
    return OrderReport(
        order_id=order.order_id,
        fate=fate,
        detail=f"the exchange says {row.text('status')}",
        filled_quantity=filled,
        average_price=row.positive("avgPrice"),
        position_before=before,
        venue_order_id=row.order_id() if row.has("orderId") else None,
    )


def is_of(order: Order, row: Row, quantity: Decimal, since: datetime) -> bool:
    """Whether a row of the order history matches this order in everything: the tool takes no id of ours. `since` is by the
    exchange's clock."""
    instruction, placed = order.instruction, row.moment("time")
    return (
        row.text("symbol") == instruction.symbol
        and row.text("side") == instruction.side.value
        and row.number("origQty") == quantity
        and row.flag("reduceOnly") == instruction.reduce_only
        and (instruction.price is None or row.positive("price") == instruction.price)
        and (placed is None or placed >= since)
    )


def by_position(order: Order, before: Decimal, now: Decimal, quantity: Decimal, *, over: bool) -> OrderReport | None:
    """What a changed position says of an order: all of it filled, a part of it, or nothing is known (None).

    A part decides nothing while the rest may still fill; `over` says that it no longer can.
    """
    moved = (now - before) * (1 if order.instruction.side is Side.BUY else -1)
    if not ZERO < moved <= quantity:
        return None
    if moved < quantity and not over:
        return None
    fate = Fate.FILLED if moved == quantity else Fate.CANCELED
    detail = f"the position went from {before} to {now}"
    return OrderReport(order_id=order.order_id, fate=fate, detail=detail, filled_quantity=moved, position_before=before)
