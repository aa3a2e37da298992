"""What AIS reads from the venue: bars, books, positions, open orders, the account, and the rules of a symbol."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from domain.health.books_seen import BooksSeen
from domain.health.clocks import ClockReading
from domain.health.disks import DiskSpace
from domain.trading.assessment import Assessment
from domain.trading.instructions import OrderType, Side
from domain.values import ZERO, Moment, Value

SHOWN_DOUBTS = 5


class Market(StrEnum):
    """The venue's two markets."""

    FUTURES = "futures"
    SPOT = "spot"


class Bar(Value):
    """One bar; prices in quote currency, volume in units of the base asset."""

    open_time: Moment
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class SymbolRules(Value):
    """A symbol's filters (Aster, GET /fapi/v1/exchangeInfo). A filter that is None does not limit.

    PRICE_FILTER tickSize; LOT_SIZE stepSize, minQty, maxQty; MARKET_LOT_SIZE maxQty; MIN_NOTIONAL notional; PERCENT_PRICE
    multiplierUp, multiplierDown; liquidationFee. `maintenance_ratio` is that of the first bracket of GET
    /fapi/v1/leverageBracket. `halted` is the venue's own term for why the symbol takes no new order now, such as BREAK;
    None while it trades.
    """

    symbol: str
    tick_size: Decimal
    lot_step: Decimal
    min_quantity: Decimal
    min_notional: Decimal
    max_quantity: Decimal | None = None
    market_max_quantity: Decimal | None = None
    multiplier_up: Decimal | None = None
    multiplier_down: Decimal | None = None
    maintenance_ratio: Decimal = Decimal("0.005")
    liquidation_fee: Decimal = Decimal("0.01")
    halted: str | None = None


class TopOfBook(Value):
    """Best prices, and the quantities of the base asset offered at them."""

    bid: Decimal
    ask: Decimal
    bid_quantity: Decimal
    ask_quantity: Decimal


class MarketView(Value):
    """What agents and guards see of one symbol: its newest bars, oldest first, its book, and its next funding rate.

    `funding_rate` is the fraction of the notional that longs pay shorts every eight hours; None if unknown.
    """

    bars: list[Bar]
    book: TopOfBook | None = None
    funding_rate: Decimal | None = None


class Position(Value):
    """A futures position, or a spot holding; `quantity` is signed, long positive."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal
    market: Market = Market.FUTURES

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


class RestingOrder(Value):
    """An order that a reading has shown at the venue."""

    market: Market
    symbol: str
    order_id: str


class Known(Value):
    """What a desk knows of its account before a reading. If the reading no longer shows something, that must be confirmed.

    `held` are the signed futures positions by symbol, without zeros; `resting` the open orders; `balance` excludes
    unrealised profit. `verifies`: this reading may verify a kill. `flattens`: it may show that a kill has left the desk
    flat.
    """

    held: dict[str, Decimal] = Field(default_factory=dict)
    resting: list[RestingOrder] = Field(default_factory=list)
    balance: Decimal | None = None
    verifies: bool = False
    flattens: bool = False


NOTHING_KNOWN = Known()


class Account(Value):
    """Balance, unrealised profit and their sum, all in quote currency.

    `halted` is the venue's own term for why the account takes no new order now; None while it may trade.
    """

    balance: Decimal
    unrealised_profit: Decimal = ZERO
    halted: str | None = None

    @property
    def nav(self) -> Decimal:
        """Net asset value."""
        return self.balance + self.unrealised_profit


class FilledOrder(Value):
    """A fill that no call was waiting for: of a resting order, or of a liquidation. `whole`: it completed the order."""

    symbol: str
    quantity: Decimal
    maker: bool
    whole: bool


class LatchRow(Value):
    """What the desk's database row says of the kill.

    `kill_id` is the decision-log row of the newest kill, `cleared_by` that of the newest restart. Both are None if a person
    wrote them by hand.
    """

    killed: bool
    kill_number: int
    kill_id: str | None = None
    cleared_number: int = 0
    cleared_by: str | None = None
    reason: str | None = None
    actor: str | None = None


class DatabaseSeen(Value):
    """Which database a worker has, and whether it has a row of the desk."""

    database_id: str
    knows_desk: bool


class LatchReading(Value):
    """A reading of the latch alone. If `error` is set, the database could not be read."""

    latch: LatchRow | None = None
    error: str | None = None


class Reading(NamedTuple):
    """What a limits check needs: equity, positions, their lot steps for reductions, and the market's own time."""

    equity: Decimal
    positions: Sequence[Position]
    rules: Mapping[str, SymbolRules]
    market_time: datetime


class SymbolReading(Value):
    """What sizing a reduction needs: the positions and the rules of one symbol, as far as known."""

    positions: list[Position]
    rules: dict[str, SymbolRules]


class Observation(Value):
    """One reading of the venue, and of the latch if the database answered.

    - `latch_error`: why the latch could not be read; then no new risk (I7).
    - `data_time`: when the newest price became known. It stands still while prices do, so that they grow stale.
    - `assessment`: the limits check of this reading; None if nobody made one, then no new risk (I7).
    - `bar_time`: opening time of the newest bar, in a market with its own time (a replay, a simulation).
    - `fills`: fills from moving the market on in this call. A second reading of the same cycle has none.
    - `low_disks`: the worker's file systems with little space left.
    - `clocks`: how the worker's clock compares with others, without those that could not be read.
    - `books`: the state of a live desk's books; None if it could not be read.
    - `database`, `venue_account`: those of the worker that made the reading.
    - `doubts`: why the reading is not a fact: its sources contradict each other, or something is missing without
      confirmation. `positions` and `open_orders` then hold the most that any source shows, so that a kill may close and
      cancel it. No limit, guard or kill takes such a reading for the truth (I6).
    """

    observed_at: Moment
    data_time: Moment
    bar_time: Moment | None = None
    marks: dict[str, Decimal]
    rules: dict[str, SymbolRules]
    positions: list[Position]
    open_orders: list[OpenOrder]
    account: Account
    fills: list[FilledOrder] = Field(default_factory=list)
    latch: LatchRow | None = None
    latch_error: str | None = None
    database: DatabaseSeen | None = None
    venue_account: str | None = None
    note: str | None = None
    doubts: list[str] = Field(default_factory=list)
    assessment: Assessment | None = None
    low_disks: list[DiskSpace] = Field(default_factory=list)
    clocks: list[ClockReading] = Field(default_factory=list)
    books: BooksSeen | None = None

    def held(self, symbol: str) -> Decimal:
        """The signed futures position of a symbol."""
        mine = (p.quantity for p in self.positions if p.symbol == symbol and p.market is Market.FUTURES)
        return sum(mine, ZERO)

    @property
    def doubt(self) -> str | None:
        """The doubts in one line; None if the reading is a fact."""
        if not self.doubts:
            return None
        left = len(self.doubts) - SHOWN_DOUBTS
        return "; ".join([*self.doubts[:SHOWN_DOUBTS], *([f"and {left} more"] if left > 0 else [])])

    @property
    def market_time(self) -> Moment:
        """The market's own time, which decides days, funding hours and order rates: a replay's time is not ours."""
        return self.bar_time or self.observed_at

    @property
    def reading(self) -> Reading:
        """The part of the reading that limits are checked against."""
        return Reading(self.account.nav, self.positions, self.rules, self.market_time)
