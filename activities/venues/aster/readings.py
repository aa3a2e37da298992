"""Positions, open orders and account, from what the tools answer."""

import contextlib
from decimal import Context, Decimal, localcontext
from typing import NamedTuple

from activities.venues.aster.results import Row, Unreadable, rows
from activities.venues.port import HedgeMode
from domain.trading.instructions import OrderType, Side
from domain.trading.market import Account, Market, OpenOrder, Position
from domain.values import ZERO

# Exact, so that balance and profit add up to the exchange's sum to the last digit.
_EXACT = Context(prec=60)
_ONE_WAY = "BOTH"
# How far two numbers of one answer that ought to be equal may differ: a fraction of the margin balance, or one unit of money.
_APART = Decimal("0.01")


class AccountSeen(NamedTuple):
    """The answer of get_account_v4: the money, the positions by symbol, and the margin for open futures orders and for
    positions."""

    account: Account
    held: dict[str, Decimal]
    order_margin: Decimal
    position_margin: Decimal


class ExchangePosition(NamedTuple):
    """One row of the exchange's positions; its mark price is None if the row has none."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal | None


def holdings_of(answer: object) -> dict[str, ExchangePosition]:
    """Positions by symbol, including empty ones, since they carry prices. Raises HedgeMode at any sign of it."""
    found = _one_way(rows("get_positions", answer))
    listed = {}
    for row in found:
        symbol, entry_price = row.text("symbol"), row.number("entryPrice") if row.has("entryPrice") else ZERO
        listed[symbol] = ExchangePosition(symbol, row.number("positionAmt"), entry_price, row.positive("markPrice"))
    if len(listed) < len(found):
        raise Unreadable("get_positions", "a symbol is listed twice")
    return listed


def position_of(holding: ExchangePosition, mark: Decimal | None) -> Position:
    """A position at its mark price. Raises Unreadable if there is none."""
    if mark is None:
        raise Unreadable("get_positions", f"{holding.symbol} is held and has no price")
    return Position(symbol=holding.symbol, quantity=holding.quantity, entry_price=holding.entry_price, mark_price=mark)


def orders_of(call: str, answer: object, market: Market) -> list[OpenOrder]:
    """Every resting order of one market."""
    return [open_order_of(row, market) for row in rows(call, answer)]


def account_of(answer: object) -> AccountSeen:
    """Net asset value is the exchange's own margin balance, exactly. Raises HedgeMode at any sign of it."""
    row = Row("get_account_v4", answer)
    profit, margin = row.number("totalUnrealizedProfit"), row.number("totalMarginBalance")
    listed = _one_way([Row(row.call, fields) for fields in row.listed("positions")])
    _adds_up(row, listed, margin, profit)
    halted = "canTrade=false" if row.has("canTrade") and not row.flag("canTrade") else None
    with localcontext(_EXACT):
        account = Account(balance=margin - profit, unrealised_profit=profit, halted=halted)
    held = {position.text("symbol"): position.number("positionAmt") for position in listed}
    orders, positions = (row.positive(f"total{what}InitialMargin") or ZERO for what in ("OpenOrder", "Position"))
    return AccountSeen(account, held, orders, positions)


def wallet_of(answer: object) -> Decimal:
    """The balance without unrealised profit, from the answer of get_account_info."""
    row = Row("get_account_info", answer)
    return row.number("totalMarginBalance") - row.number("totalUnrealizedProfit")


def locked_of(answer: object) -> list[str]:
    """The assets locked in part by open spot orders, from the answer of get_spot_account."""
    locked = []
    for fields in Row("get_spot_account", answer).listed("balances"):
        # An unreadable row of one asset must not hide the locked amount of another.
        with contextlib.suppress(Unreadable):
            balance = Row("get_spot_account", fields)
            if balance.number("locked"):
                locked.append(balance.text("asset"))
    return locked


def _one_way(found: list[Row]) -> list[Row]:
    # In hedge mode the exchange lists LONG and SHORT rows even if nothing is held.
    if any(row.has("positionSide") and row.text("positionSide") != _ONE_WAY for row in found):
        raise HedgeMode
    return found


def _adds_up(row: Row, listed: list[Row], margin: Decimal, profit: Decimal) -> None:
    """Raises Unreadable if the answer contradicts itself: it is incomplete, or mixes several moments."""
    most = max(Decimal(1), abs(margin) * _APART)
    if row.has("totalWalletBalance") and abs(row.number("totalWalletBalance") + profit - margin) > most:
        raise Unreadable(row.call, "wallet balance and unrealised profit do not make up the margin balance")
    held = [position for position in listed if position.number("positionAmt")]
    if held and all(position.has("unrealizedProfit") for position in held):
        summed = sum((position.number("unrealizedProfit") for position in held), ZERO)
        if abs(summed - profit) > most:
            raise Unreadable(row.call, "the profits of the positions do not make up their sum")


def open_order_of(row: Row, market: Market) -> OpenOrder:
    """One resting order."""
    price, quantity = row.positive("price"), row.number("origQty")
    return OpenOrder(
        order_id=row.order_id(),
        symbol=row.text("symbol"),
        market=market,
        side=side_of(row),
        # Somebody else's stop order is shown as the order that it will become.
        order_type=OrderType.MARKET if price is None else OrderType.LIMIT,
        quantity=quantity,
        # Somebody else's order that closes a whole position has a quantity of 0.
        filled_quantity=row.filled("executedQty", quantity) if quantity else ZERO,
        price=price,
        reduce_only=row.flag("reduceOnly"),
    )


def side_of(row: Row) -> Side:
    """The side of an order or a trade."""
    try:
        return Side(row.text("side"))
    except ValueError:
        raise Unreadable(row.call, "side is neither BUY nor SELL") from None
