"""An account at the paper venue, and the terms that it is run on."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import NamedTuple, Protocol, Self

from domain.accounting import Fill, Holding, HoldingKey, LedgerEntry, ratio
from domain.trading.instructions import OrderInstruction, OrderType, Side, TimeInForce
from domain.trading.market import Bar, Market, SymbolRules
from domain.values import EXACT, ZERO, Value, assembled


class OrderStatus(StrEnum):
    """The status of an order at the venue. An open one may be partly filled."""

    OPEN = "open"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    """Accepted, but the venue itself gave up the rest: a market order or an IOC that found too little."""
    REJECTED = "rejected"


class Terms(Value):
    """What the venue charges and allows.

    `fee_bps` is the taker's fee; `leverage` applies to all symbols; `volume_share` is the share of a bar's volume that all
    of the account's orders together may fill.
    """

    fee_bps: Decimal
    slippage_bps: Decimal
    maker_fee_bps: Decimal = Decimal(2)
    leverage: Decimal = Decimal(5)
    volume_share: Decimal = Decimal("0.10")


class FundingRates(Protocol):
    """Where funding rates come from."""

    def rate(self, symbol: str, at: datetime) -> Decimal | None:
        """The rate paid at a funding hour, as a fraction of the notional; None if unknown."""


class Exchange(NamedTuple):
    """What every account at the venue is run on."""

    terms: Terms
    rules: Callable[[str], SymbolRules | None]
    funding: FundingRates


class PaperOrder(Value):
    """An order as the venue keeps it. `filled_value` is the sum of quantity times price of its `fills` fills."""

    order_id: str
    desk: str
    symbol: str
    market: Market
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None
    reduce_only: bool
    time_in_force: TimeInForce | None = None
    status: OrderStatus = OrderStatus.OPEN
    filled_quantity: Decimal = ZERO
    filled_value: Decimal = ZERO
    fills: int = 0
    code: int | None = None
    reason: str = ""

    @classmethod
    def asked(cls, order_id: str, desk: str, market: Market, instruction: OrderInstruction) -> Self:
        """An order that has just arrived."""
        return assembled(
            cls,
            {
                "order_id": order_id,
                "desk": desk,
                "symbol": instruction.symbol,
                "market": market,
                "side": instruction.side,
                "order_type": instruction.order_type,
                "quantity": instruction.quantity,
                "price": instruction.price,
                "reduce_only": instruction.reduce_only,
                "time_in_force": instruction.time_in_force,
                "status": OrderStatus.OPEN,
                "filled_quantity": ZERO,
                "filled_value": ZERO,
                "fills": 0,
                "code": None,
                "reason": "",
            },
        )

    @property
    def key(self) -> HoldingKey:
        """The holding that it trades."""
        return HoldingKey(self.market, self.symbol)

    @property
    def remaining(self) -> Decimal:
        """The unfilled quantity."""
        return self.quantity - self.filled_quantity

    @property
    def average_price(self) -> Decimal | None:
        """The average price of its fills, rounded to twelve places; None without a fill."""
        return ratio(self.filled_value, self.filled_quantity) if self.fills else None


class Book(NamedTuple):
    """An account at one moment, and the market that it sees.

    `balance` counts spot holdings at cost. `bars` holds the newest bar of each symbol that has one; its close is the mark
    price. `taken` is what the account's fills have used of those bars' volume, in units of the base asset.
    """

    desk: str
    balance: Decimal
    holdings: Mapping[HoldingKey, Holding] = {}
    open_orders: Sequence[PaperOrder] = ()
    """Oldest first, which is the order in which they are matched."""
    bar_no: int = -1
    bars: Mapping[str, Bar] = {}
    taken: Mapping[str, Decimal] = {}

    @property
    def marks(self) -> dict[str, Decimal]:
        """The mark prices."""
        return {symbol: bar.close for symbol, bar in self.bars.items()}

    @property
    def is_idle(self) -> bool:
        """Whether a new bar cannot change it: nothing is held and nothing rests."""
        return not self.open_orders and not any(held.quantity for held in self.holdings.values())

    def held(self, key: HoldingKey) -> Holding:
        """The holding; an empty one if there is none."""
        return self.holdings[key] if key in self.holdings else Holding()

    def positions(self) -> list[tuple[str, Holding]]:
        """Open futures positions by symbol, sorted, so that equal books are processed in the same order."""
        held = self.holdings.items()
        return sorted((key.symbol, h) for key, h in held if h.quantity and key.market is Market.FUTURES)

    def unpriced(self) -> list[str]:
        """Symbols that are held but have no price."""
        held = {key.symbol for key, holding in self.holdings.items() if holding.quantity}
        return sorted(held - set(self.bars))

    def unrealised_profit(self) -> Decimal:
        """Of everything held, futures and spot."""
        profit = ZERO
        for key, held in self.holdings.items():
            if held.quantity:
                profit = EXACT.add(profit, held.profit_at(self.bars[key.symbol].close))
        return profit

    @property
    def equity(self) -> Decimal:
        """Balance plus unrealised profit."""
        return self.balance + self.unrealised_profit()

    def after_fill(self, fill: Fill, held: Holding) -> "Book":
        """The book after a fill: profit and fee go to the balance, `held` is the new holding, and the fill's volume is used
        up."""
        with localcontext(EXACT):
            return self._replace(
                balance=self.balance + fill.realised_profit - fill.fee,
                holdings={**self.holdings, fill.key: held},
                taken={**self.taken, fill.symbol: self.taken.get(fill.symbol, ZERO) + fill.quantity},
            )

    def with_order(self, order: PaperOrder) -> "Book":
        """The book with an order in its current state: in its old place while it rests, gone once it does not."""
        others = [other if other.order_id != order.order_id else order for other in self.open_orders]
        return self._replace(open_orders=[other for other in others if other.status is OrderStatus.OPEN])


class Step(NamedTuple):
    """What became of one order, and the account after it."""

    order: PaperOrder
    fill: Fill | None
    book: Book


class Events(NamedTuple):
    """What a bar did to an account. Within each kind, in the order in which it happened."""

    entries: Sequence[LedgerEntry] = ()
    liquidations: Sequence[PaperOrder] = ()
    """Orders that the venue itself made, which filled at once."""
    changed: Sequence[PaperOrder] = ()
    """Orders that had been resting, in their current state."""
    fills: Sequence[Fill] = ()

    def then(self, later: "Events") -> "Events":
        """These events, followed by those of a later bar."""
        return Events(
            entries=[*self.entries, *later.entries],
            liquidations=[*self.liquidations, *later.liquidations],
            changed=[*self.changed, *later.changed],
            fills=[*self.fills, *later.fills],
        )


NOTHING_HAPPENED = Events()
