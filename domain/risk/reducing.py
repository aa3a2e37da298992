"""Sizes a reduction: a reduce-only market order for part of a live futures position."""

from decimal import Decimal

from domain.trading.instructions import OrderInstruction, OrderType, Side
from domain.trading.market import Market, Observation, Position, SymbolReading, SymbolRules
from domain.values import Value, floor_to_step


class Reduction(Value):
    """The sized order, and the signed position that it was sized from; or why there is no order. `closed`: nothing is held."""

    instruction: OrderInstruction | None = None
    refusal: str | None = None
    position: Decimal | None = None
    closed: bool = False


def plan(
    observation: Observation | SymbolReading,
    symbol: str,
    reduce_pct: Decimal,
    quantity: Decimal | None = None,
    automatic: bool = False,
) -> Reduction:
    """The order for a fraction of the position, or for `quantity` of it, rounded down to the lot step and never more than
    is held. A whole position needs no lot step: it is sized even if the venue's rules are not known.

    An order larger than the largest market order is refused. An `automatic` reduction takes that largest size instead,
    since another follows for the rest. From a doubtful reading only automatic reductions are sized: those that close
    positions after a kill.
    """
    if isinstance(observation, Observation) and observation.doubts and not automatic:
        return Reduction(refusal=f"The position in {symbol} is not known: {observation.doubt}.")
    held = (p for p in observation.positions if p.symbol == symbol and p.market is Market.FUTURES)
    position = next((p for p in held if p.quantity), None)
    rules = observation.rules.get(symbol)
    if position is None:
        return Reduction(refusal=f"There is no open position in {symbol}.", closed=True)
    size = abs(position.quantity)
    wanted = size * reduce_pct if quantity is None else min(quantity, size)
    if rules is None:
        if wanted == size:
            return _of(position, size)
        return Reduction(refusal=f"The lot step of {symbol} is not known; nothing was sent.")
    sized = floor_to_step(wanted, rules.lot_step)
    if sized <= 0:
        return Reduction(refusal=f"{reduce_pct} of {size} {symbol} is below the lot step {rules.lot_step}.")
    return _within_largest(position, sized, rules, automatic)


def _within_largest(position: Position, quantity: Decimal, rules: SymbolRules, automatic: bool) -> Reduction:
    bounds = [bound for bound in (rules.market_max_quantity, rules.max_quantity) if bound is not None]
    # A bound need not be a whole number of lots.
    largest = floor_to_step(min([quantity, *bounds]), rules.lot_step)
    if largest < quantity and not automatic:
        return Reduction(
            refusal=f"{quantity} {position.symbol} is more than the largest market order of {largest}; ask for less."
        )
    return _of(position, largest)


def _of(position: Position, quantity: Decimal) -> Reduction:
    side = Side.SELL if position.quantity > 0 else Side.BUY
    order = OrderInstruction(
        symbol=position.symbol, side=side, order_type=OrderType.MARKET, quantity=quantity, reduce_only=True
    )
    return Reduction(instruction=order, position=position.quantity)
