"""Positions, open orders and account, from what the tools answer."""

from decimal import Context, Decimal, localcontext
from typing import NamedTuple

from activities.venues.aster.results import Row, Unreadable, rows
from activities.venues.port import HedgeMode
from domain.instructions import OrderType, Side
from domain.market import Account, Market, OpenOrder, Position
from domain.values import ZERO

# So that balance and profit add up to what the exchange says, to the last digit.
_EXACT = Context(prec=60)
_ONE_WAY = "BOTH"


class Holding(NamedTuple):
    """One row of the exchange's positions; its mark price is None where the row has none."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal | None


def holdings_of(answer: object) -> dict[str, Holding]:
    """By symbol, empty ones too, since they carry prices. Raises HedgeMode at any sign of it."""
    found = rows("get_positions", answer)
    # In hedge mode the exchange lists LONG and SHORT rows even where nothing is held.
    if any(row.has("positionSide") and row.text("positionSide") != _ONE_WAY for row in found):
        raise HedgeMode
    return {holding.symbol: holding for holding in map(_holding, found)}


def position_of(holding: Holding, mark: Decimal | None) -> Position:
    """What is held, at a price that is known. Raises Unreadable where none is."""
    if mark is None:
        raise Unreadable("get_positions", f"{holding.symbol} is held and has no price")
    return Position(symbol=holding.symbol, quantity=holding.quantity, entry_price=holding.entry_price, mark_price=mark)


def orders_of(call: str, answer: object, market: Market) -> list[OpenOrder]:
    """Every resting order of one market."""
    return [_open_order(row, market) for row in rows(call, answer)]


def account_of(answer: object) -> Account:
    """Net asset value is the exchange's own margin balance, exactly."""
    row = Row("get_account_v4", answer)
    profit = row.number("totalUnrealizedProfit")
    with localcontext(_EXACT):
        return Account(balance=row.number("totalMarginBalance") - profit, unrealised_profit=profit)


def _holding(row: Row) -> Holding:
    return Holding(
        symbol=row.text("symbol"),
        quantity=row.number("positionAmt"),
        entry_price=row.number("entryPrice") if row.has("entryPrice") else ZERO,
        mark_price=row.positive("markPrice"),
    )


def _open_order(row: Row, market: Market) -> OpenOrder:
    price = row.positive("price")
    return OpenOrder(
        order_id=row.text("orderId"),
        symbol=row.text("symbol"),
        market=market,
        side=_side(row),
        # A stop order of somebody else's is shown as the order that it becomes.
        order_type=OrderType.MARKET if price is None else OrderType.LIMIT,
        quantity=row.number("origQty"),
        filled_quantity=row.number("executedQty") if row.has("executedQty") else ZERO,
        price=price,
        reduce_only=row.flag("reduceOnly"),
    )


def _side(row: Row) -> Side:
    try:
        return Side(row.text("side"))
    except ValueError:
        raise Unreadable(row.call, "side is neither BUY nor SELL") from None
