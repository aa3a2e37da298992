"""What the venue shows: bars, positions, open orders, account, and the rules of a symbol."""

from decimal import Decimal

from domain.instructions import OrderType, Side
from domain.values import ZERO, Moment, Value


class Bar(Value):
    """One bar; prices in quote currency, volume as its source counts it."""

    open_time: Moment
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class SymbolRules(Value):
    """Steps of a symbol (exchangeInfo: PRICE_FILTER tickSize, LOT_SIZE stepSize, MIN_NOTIONAL)."""

    symbol: str
    tick_size: Decimal
    lot_step: Decimal
    min_quantity: Decimal
    min_notional: Decimal


class Position(Value):
    """A futures position; `quantity` is signed, long positive."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal

    @property
    def notional(self) -> Decimal:
        """Signed value at the mark price."""
        return self.quantity * self.mark_price


class OpenOrder(Value):
    """An order that rests at the venue."""

    order_id: str
    symbol: str
    market: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    filled_quantity: Decimal
    price: Decimal | None
    reduce_only: bool


class Account(Value):
    """Balance, unrealised profit and their sum, all in quote currency."""

    balance: Decimal
    unrealised_profit: Decimal = ZERO

    @property
    def nav(self) -> Decimal:
        """Net asset value."""
        return self.balance + self.unrealised_profit


class LatchRow(Value):
    """What the desk's database row says of the kill."""

    killed: bool
    kill_number: int
    reason: str | None = None
    actor: str | None = None


class Observation(Value):
    """One reading of the venue, and of the latch where the database answered.

    `latch_error` set means that nobody knows what the database says: no new risk (I7). `data_time` is when the newest
    price became known; a price that stopped moving grows old by it.
    """

    observed_at: Moment
    data_time: Moment
    bar_time: Moment | None = None
    marks: dict[str, Decimal]
    rules: dict[str, SymbolRules]
    positions: list[Position]
    open_orders: list[OpenOrder]
    account: Account
    latch: LatchRow | None = None
    latch_error: str | None = None
    note: str | None = None
