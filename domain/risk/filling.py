"""How far resting orders could move each symbol's position, in either direction, if they fill."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from domain.risk.measures import Correlations, exposures, group
from domain.trading.instructions import OrderInstruction, Side
from domain.trading.market import OpenOrder, Position
from domain.trading.quotes import AgentQuote
from domain.values import ZERO

Marks = Mapping[str, Decimal]
# The exchange lists an order that closes a whole position with a quantity of 0.
WHOLE_POSITION = Decimal("Infinity")


class Leg(NamedTuple):
    """The unfilled part of an order, and its price. One that `reduces` closes at most what is held."""

    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    reduces: bool = False


class Reach(NamedTuple):
    """A symbol's signed value if only its sells fill (`low`), and if only its buys fill (`high`)."""

    low: Decimal
    high: Decimal

    @property
    def worst(self) -> Decimal:
        """The bound with the larger absolute value."""
        return self.low if abs(self.low) >= abs(self.high) else self.high

    def towards(self, side: Side) -> Decimal:
        """The bound on an order's side."""
        return self.high if side is Side.BUY else self.low


def sign(side: Side) -> int:
    """1 for a buy, -1 for a sell."""
    return 1 if side is Side.BUY else -1


def legs_of(orders: Iterable[OpenOrder], marks: Marks) -> list[Leg]:
    """Resting orders, each at its own price or at the mark price, whichever is higher."""
    legs = []
    for o in orders:
        price = max(o.price or ZERO, marks.get(o.symbol, ZERO))
        left = o.quantity - o.filled_quantity if o.quantity else WHOLE_POSITION
        legs.append(Leg(o.symbol, o.side, left, price, o.reduce_only or not o.quantity))
    return legs


def unlisted_legs(quotes: Iterable[AgentQuote], orders: Iterable[OpenOrder], marks: Marks) -> list[Leg]:
    """Agents' resting orders that the reading does not list: it may have begun before they were placed."""
    listed = {(order.symbol, order.order_id) for order in orders}
    return [
        Leg(q.symbol, q.side, q.remaining, max(q.price, marks.get(q.symbol, ZERO)))
        for q in quotes
        if not q.canceled and not q.names & listed
    ]


def unsettled_legs(orders: Iterable[OrderInstruction], marks: Marks) -> list[Leg]:
    """Orders whose fate is unknown. Even one that has filled counts again beside its position: it might still rest."""
    return [
        Leg(o.symbol, o.side, o.quantity, max(o.price or ZERO, marks.get(o.symbol, ZERO)), o.reduce_only)
        for o in orders
    ]


def together(found: Mapping[str, Reach], correlations: Correlations, threshold: float) -> Decimal:
    """The largest value that could move together (`measures.concentration`), whichever of the resting orders fill.

    An unfilled order hedges nothing: each symbol counts at whichever end of its reach is worse for the group.
    """
    if len(found) == 1:
        # The usual desk: nothing moves together with anything.
        return max(max(abs(reach.low), abs(reach.high)) for reach in found.values())
    return max((with_twins(symbol, found, correlations, threshold) for symbol in found), default=ZERO)


def with_twins(symbol: str, found: Mapping[str, Reach], correlations: Correlations, threshold: float) -> Decimal:
    """The same for one symbol and everything that moves with it."""
    lows = {symbol: reach.low for symbol, reach in found.items()}
    highs = {symbol: reach.high for symbol, reach in found.items()}
    up, down = group(symbol, highs, correlations, threshold), group(symbol, lows, correlations, threshold)
    # `group` flips the sign of symbols that move the other way, and with it which end is the upper one.
    high = sum((max(up[other], down[other]) for other in up), ZERO)
    low = sum((min(up[other], down[other]) for other in up), ZERO)
    return max(abs(high), abs(low))


def reaches(positions: Sequence[Position], legs: Sequence[Leg], marks: Marks) -> dict[str, Reach]:
    """Each symbol's reach, from everything held or about to fill. What an order closes counts at the mark, what it opens at
    the order's price. Orders that reduce fill first: what they close, no other order can close any more."""
    values, held = exposures(positions), quantities(positions)
    legs = sorted(legs, key=lambda leg: not leg.reduces)
    found = {}
    for symbol in dict.fromkeys([*values, *(leg.symbol for leg in legs if not leg.reduces)]):
        value, quantity, mark = values.get(symbol, ZERO), held.get(symbol, ZERO), marks.get(symbol)
        sells = [leg for leg in legs if leg.symbol == symbol and leg.side is Side.SELL]
        buys = [leg for leg in legs if leg.symbol == symbol and leg.side is Side.BUY]
        found[symbol] = Reach(filled(value, quantity, sells, mark), filled(value, quantity, buys, mark))
    return found


def quantities(positions: Iterable[Position]) -> dict[str, Decimal]:
    """Signed quantities by symbol, both markets together."""
    held: dict[str, Decimal] = {}
    for position in positions:
        held[position.symbol] = held.get(position.symbol, ZERO) + position.quantity
    return held


def filled(value: Decimal, held: Decimal, legs: Sequence[Leg], mark: Decimal | None) -> Decimal:
    """The signed value of a position of `held` once these orders of its symbol have filled."""
    for leg in legs:
        way = sign(leg.side)
        closing = min(leg.quantity, max(ZERO, -way * held))
        opening = ZERO if leg.reduces else leg.quantity - closing
        value += way * (closing * (mark or leg.price) + opening * leg.price)
        held += way * (closing + opening)
    return value
