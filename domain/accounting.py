"""Accounting: what fills and ledger entries do to an account. Pure, in Decimal, and exact.

Money is exact by construction: a holding carries what was paid for it (`cost`) and not an average price, so that no
division ever rounds money away. Over any flow of fills and entries, with q signed (a purchase positive):

    balance = opening balance - sum(fees) + sum(realised profits) + sum(ledger amounts)
    balance = opening balance - sum(fees) - sum(q * price) + sum(cost of what is held) + sum(ledger amounts)

Two independent users share this file: the paper venue, which keeps its book as it goes, and `Portfolio`, which recomputes
the account from the records alone. If the two differ, one of them is wrong.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, Self

from domain.trading.instructions import Side
from domain.trading.market import Market
from domain.values import BPS, EXACT, ZERO, Moment, Value, assembled, plain

COST_STEP = Decimal("1e-12")


class HoldingKey(NamedTuple):
    """One symbol's futures and spot holdings are separate."""

    market: Market
    symbol: str


class Holding(Value):
    """A futures position or a spot holding, and what it has earned and cost since the account was opened.

    `quantity` is signed. `cost` is what was paid for it, with the same sign. `funding` is positive if received, negative if
    paid.
    """

    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    realised_profit: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO

    @cached_property
    def entry_price(self) -> Decimal:
        """Average entry price, `cost / quantity`, rounded to twelve places. For people, never for sums.

        Aster, GET /fapi/v2/positionRisk, entryPrice: the average over what opened the position.
        """
        return ratio(self.cost, self.quantity)

    def profit_at(self, mark: Decimal) -> Decimal:
        """Unrealised profit: `quantity * (mark - entry price)`, exact because it needs no division (Aster,
        unRealizedProfit)."""
        return EXACT.fma(self.quantity, mark, self.cost.copy_negate())


class Fill(Value):
    """One execution. `realised_profit` is before the fee. `market_time` is the time of its bar; None if unknown."""

    fill_id: str
    order_id: str
    desk: str
    market: Market
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    realised_profit: Decimal
    maker: bool = False
    bar_no: int = 0
    market_time: Moment | None = None

    @property
    def key(self) -> HoldingKey:
        """The holding that it changes."""
        return HoldingKey(self.market, self.symbol)


class LedgerKind(StrEnum):
    """Why money moved without a trade (Aster, GET /fapi/v1/income: FUNDING_FEE, INSURANCE_CLEAR, TRANSFER)."""

    FUNDING = "funding"
    LIQUIDATION_FEE = "liquidation_fee"
    INSURANCE = "insurance"
    """Paid by the insurance fund to an account that a liquidation left below zero."""
    TRANSFER = "transfer"
    """Put into a real account or taken out of it."""
    OTHER = "other"
    """A kind that has no name here, such as a bonus."""


class LedgerEntry(Value):
    """Money that moved without a trade. `amount` is positive if the account received it."""

    entry_id: str
    desk: str
    kind: LedgerKind
    market: Market
    symbol: str
    amount: Decimal
    price: Decimal | None
    rate: Decimal | None
    bar_no: int
    market_time: Moment

    @property
    def key(self) -> HoldingKey:
        """The holding that it belongs to."""
        return HoldingKey(self.market, self.symbol)


def ratio(value: Decimal, base: Decimal) -> Decimal:
    """`value / base`, rounded to twelve places; 0 for a base of 0. For people and limits, never for money."""
    with localcontext(EXACT):
        return plain((value / base).quantize(COST_STEP)) if base else ZERO


def fee(quantity: Decimal, price: Decimal, fee_bps: Decimal) -> Decimal:
    """`quantity * price * fee_bps / 10,000`, not rounded (Aster, commission: notional times the rate)."""
    with localcontext(EXACT):
        return quantity * price * fee_bps * BPS


def trade(
    held: Holding, side: Side, quantity: Decimal, price: Decimal, charged: Decimal = ZERO
) -> tuple[Holding, Decimal]:
    """The holding after a fill, and the profit that the fill realised, before the `charged` fee.

    The part of the fill that opposes the position closes it at that part's share of the cost (average cost, as on Binance's
    and Aster's futures). Anything beyond opens a position the other way at the fill's price. Realised profit of q closed
    units: `q * (exit price - entry price)`, negative for a short.
    """
    with localcontext(EXACT):
        signed = quantity if side is Side.BUY else -quantity
        closing = reducible(held.quantity, side, quantity).copy_sign(signed)
        closed_cost = _share(held, -closing)
        opening = signed - closing
        profit = -closing * price - closed_cost
        after = {
            "quantity": held.quantity + signed,
            "cost": held.cost - closed_cost + opening * price,
            "realised_profit": held.realised_profit + profit,
            "fees": held.fees + charged,
            "funding": held.funding,
        }
        return assembled(Holding, after), profit


def reducible(held: Decimal, side: Side, quantity: Decimal) -> Decimal:
    """How much of an order would reduce a position of `held`: nothing if there is none, or if the order goes the same way."""
    opposed = held < 0 if side is Side.BUY else held > 0
    return min(abs(held), quantity) if opposed else ZERO


def _share(held: Holding, quantity: Decimal) -> Decimal:
    """The cost of part of a holding. The rest keeps the rounding difference, so no money is lost."""
    if quantity == held.quantity:
        return held.cost
    return (held.cost * quantity / held.quantity).quantize(COST_STEP, ROUND_HALF_EVEN) if quantity else ZERO


class PortfolioLine(Value):
    """One symbol on one market, as a report shows it. Values that need a price are None if no price is known."""

    market: Market
    symbol: str
    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal | None
    notional: Decimal | None
    unrealised_profit: Decimal | None
    realised_profit: Decimal
    fees: Decimal
    funding: Decimal


class Portfolio(NamedTuple):
    """A desk's account as its fills and ledger entries add up, and its performance. Immutable: each step returns a new one.

    `after` takes a record and moves money. `marked` values the account at new prices; equity's peak, drawdown and the day's
    loss are measured only there, so a fill's own price never counts as a valuation.
    """

    desk: str
    opening_balance: Decimal
    balance: Decimal
    peak: Decimal
    day_opening: Decimal
    last_equity: Decimal
    """Equity at the newest valuation."""
    day: date | None = None
    max_drawdown: Decimal = ZERO
    holdings: Mapping[HoldingKey, Holding] = {}
    ledger: Mapping[LedgerKind, Decimal] = {}
    marks: Mapping[str, Decimal] = {}

    @classmethod
    def opened(cls, desk: str, balance: Decimal) -> Self:
        """An account in which nothing has happened yet."""
        return cls(desk, balance, balance, peak=balance, day_opening=balance, last_equity=balance)

    # --- the fold ----------------------------------------------------------------------------------------------------

    def after(self, record: Fill | LedgerEntry) -> Self:
        """The account after one more record; records come in the order of time. Profit is computed here, not taken from the
        fill."""
        with localcontext(EXACT):
            held = self.holdings.get(record.key, Holding())
            if isinstance(record, Fill):
                held, profit = trade(held, record.side, record.quantity, record.price, record.fee)
                holdings = {**self.holdings, record.key: held}
                return self._replace(balance=self.balance + profit - record.fee, holdings=holdings)
            ledger = {**self.ledger, record.kind: self.ledger.get(record.kind, ZERO) + record.amount}
            changed = self._replace(balance=self.balance + record.amount, ledger=ledger)
            if record.kind is not LedgerKind.FUNDING:
                return changed
            paid = held.model_copy(update={"funding": held.funding + record.amount})
            return changed._replace(holdings={**self.holdings, record.key: paid})

    def marked(self, at: datetime, marks: Mapping[str, Decimal]) -> Self:
        """The account valued at new prices, at a moment of the market's own time. A symbol left out keeps its last price."""
        with localcontext(EXACT):
            marks = {**self.marks, **marks}
            equity = self.balance + self._profit(marks)
            peak = max(self.peak, equity)
            day = at.astimezone(UTC).date()
            return self._replace(
                marks=marks,
                last_equity=equity,
                peak=peak,
                max_drawdown=max(self.max_drawdown, _drawdown(peak, equity)),
                day=day,
                day_opening=self.day_opening if day == self.day else self.last_equity,
            )

    # --- what it comes to --------------------------------------------------------------------------------------------

    @property
    def realised_profit(self) -> Decimal:
        """Sum over everything ever held, before fees and funding."""
        return self._sum(held.realised_profit for held in self.holdings.values())

    @property
    def unrealised_profit(self) -> Decimal:
        """Sum of `quantity * mark - cost`. Raises LookupError if something held has no price."""
        with localcontext(EXACT):
            return self._profit(self.marks)

    @property
    def fees(self) -> Decimal:
        """Trading fees paid, as a positive number. A liquidation's fee is in the ledger."""
        return self._sum(held.fees for held in self.holdings.values())

    @property
    def funding(self) -> Decimal:
        """Funding received less funding paid."""
        return self.ledger.get(LedgerKind.FUNDING, ZERO)

    @property
    def equity(self) -> Decimal:
        """Net asset value: balance plus unrealised profit (Aster: margin balance = wallet balance + unrealised PNL)."""
        with localcontext(EXACT):
            return self.balance + self._profit(self.marks)

    @property
    def drawdown(self) -> Decimal:
        """`(peak - equity) / peak` at the newest valuation, a fraction.

        Magdon-Ismail and Atiya, "Maximum drawdown", Risk 17 (2004): the loss from the highest value so far.
        """
        return _drawdown(self.peak, self.last_equity)

    @property
    def day_loss(self) -> Decimal:
        """What the UTC day has lost so far: equity at its start less equity now, never below 0.

        A day starts with the last valuation before it, the very first day with the opening balance.
        """
        with localcontext(EXACT):
            return max(ZERO, self.day_opening - self.last_equity)

    def gross_exposure(self, market: Market | None = None) -> Decimal:
        """Sum of `|quantity| * mark`, on one market or both."""
        return self._sum(abs(value) for value in self._notionals(market))

    def net_exposure(self, market: Market | None = None) -> Decimal:
        """Sum of `quantity * mark`; shorts are negative."""
        return self._sum(self._notionals(market))

    @property
    def leverage(self) -> Decimal | None:
        """Gross exposure over equity; None if there is exposure but no equity to carry it."""
        with localcontext(EXACT):
            gross, equity = self.gross_exposure(), self.equity
            return ZERO if not gross else ratio(gross, equity) if equity > 0 else None

    def lines(self) -> list[PortfolioLine]:
        """Everything ever held, by market and symbol."""
        found = []
        with localcontext(EXACT):
            for key, held in sorted(self.holdings.items()):
                mark = self.marks.get(key.symbol)
                line = PortfolioLine(
                    market=key.market,
                    symbol=key.symbol,
                    entry_price=held.entry_price,
                    mark_price=mark,
                    notional=None if mark is None else plain(held.quantity * mark),
                    unrealised_profit=None if mark is None else plain(held.profit_at(mark)),
                    **{name: plain(amount) for name, amount in held.model_dump(exclude={"cost"}).items()},
                )
                found.append(line)
        return found

    def _profit(self, marks: Mapping[str, Decimal]) -> Decimal:
        profit = ZERO
        for key, held in self.holdings.items():
            if held.quantity:
                profit += held.profit_at(_price(marks, key.symbol))
        return profit

    def _notionals(self, market: Market | None) -> Iterable[Decimal]:
        for key, held in self.holdings.items():
            if held.quantity and market in (None, key.market):
                yield held.quantity * _price(self.marks, key.symbol)

    def _sum(self, numbers: Iterable[Decimal]) -> Decimal:
        with localcontext(EXACT):
            return sum(numbers, ZERO)


class Fold(NamedTuple):
    """An account partway through its records. It can stop after any record and continue later.

    The account is valued once a group of records (a bar, or a moment) is complete. `marks` and `moment` are what the
    records of the newest group, which may not be complete, have named so far.
    """

    portfolio: Portfolio
    group: int | datetime | None = None
    marks: Mapping[str, Decimal] = {}
    moment: datetime | None = None

    def after(
        self,
        record: Fill | LedgerEntry,
        group: int | datetime | None,
        take: Callable[[Portfolio, Fill | LedgerEntry], Portfolio] = Portfolio.after,
    ) -> "Fold":
        """The fold after one more record; records come in the order of time."""
        before = self if group == self.group else Fold(self.valued())
        marks, moment = before.marks, before.moment
        if record.price is not None:
            marks = {**marks, record.symbol: record.price}
        if record.market_time is not None:
            moment = max(moment or record.market_time, record.market_time)
        return Fold(take(before.portfolio, record), group, marks, moment)

    def valued(self) -> Portfolio:
        """The account at the last prices that its records have named. A report without bars draws its curve from this."""
        if self.moment:
            return self.portfolio.marked(self.moment, self.marks)
        # A version that kept no market time wrote these records. Prices alone tell no day and no peak.
        return self.portfolio._replace(marks={**self.portfolio.marks, **self.marks})


FOLD_VERSION = 1
"""Raise it whenever a fold would give other results: totals kept by an older version are then ignored."""


def fold(start: Fold, records: Iterable[Fill | LedgerEntry]) -> Fold:
    """Adds a desk's records in the order of time. The account is valued after each bar."""
    for record in records:
        start = start.after(record, record.bar_no)
    return start


def folded(desk: str, opening_balance: Decimal, records: Iterable[Fill | LedgerEntry]) -> Portfolio:
    """A desk's account from its records alone, taken in the order of time."""
    return fold(Fold(Portfolio.opened(desk, opening_balance)), records).valued()


def _price(marks: Mapping[str, Decimal], symbol: str) -> Decimal:
    try:
        return marks[symbol]
    except KeyError:
        raise LookupError(f"{symbol} is held, and its price is not known") from None


def _drawdown(peak: Decimal, equity: Decimal) -> Decimal:
    with localcontext(EXACT):
        return ratio(peak - equity, peak) if peak > 0 else ZERO
