"""A row of bars that change only the price: everything that stays the same from bar to bar is computed once.

In such a row nothing rests at the venue, no funding is due, nothing is liquidated, and each limits check finds the same as the
one before. Then a bar needs only a handful of numbers, by the formulas of `domain/risk/measures.py`. If a bar may do more than
that, `Still` returns no measures, and the engine takes a longer path. A test compares the two, digit by digit.
"""

from decimal import Decimal
from typing import NamedTuple, Self

from domain.accounting import Holding
from domain.paper.book import Book, Exchange
from domain.paper.funding import next_funding_hour
from domain.paper.liquidation import safe_from
from domain.paper.margin import cash
from domain.risk.assessing import Interval, interval_around
from domain.risk.limits import Limits
from domain.risk.measures import loss, share
from domain.trading.assessment import Assessment, Measures, RiskMemory
from domain.trading.market import Bar, Market
from domain.values import EXACT, ZERO, assembled


class Limited(NamedTuple):
    """How far the measures may move before a limits check has to be made."""

    drawdown: Interval
    daily_loss: Interval
    exposure: Interval

    @classmethod
    def around(cls, measures: Measures, limits: Limits) -> Self:
        """The intervals in which a check finds the same as for these measures."""
        return cls(
            interval_around(measures.drawdown, limits.edges["drawdown"]),
            interval_around(measures.daily_loss, limits.edges["daily_loss"]),
            interval_around(measures.position, limits.exposure_edges),
        )


class Still:
    """A desk at rest: its account after a quiet bar, and after the still bars taken since then."""

    def __init__(self, book: Book, held: Holding | None, safe: Decimal, found: Assessment, limits: Limits) -> None:
        (self._symbol, self.newest), *_ = book.bars.items()
        self.measures, self.bars = found.measures, 0
        self._book, self._balance = book, book.balance
        self.quantity, self._cost = (held.quantity, held.cost.copy_negate()) if held else (ZERO, ZERO)
        self._safe = safe
        self._found, self._peak, self._day_open = found, found.measures.peak, found.measures.day_open
        self._limited = Limited.around(found.measures, limits)
        # A day of UTC begins with a funding hour as well.
        self._until = next_funding_hour(self.newest.open_time)

    @classmethod
    def after(cls, book: Book, found: Assessment, limits: Limits, exchange: Exchange) -> Self | None:
        """Begins after a quiet bar with these findings. None unless the account is the usual one: at most one position, far from
        liquidation.
        """
        held = {key: holding for key, holding in book.holdings.items() if holding.quantity}
        if len(book.bars) > 1 or len(held) > 1 or not (found.measures.equity > 0 and found.memory.day_open):
            return None
        for key, holding in held.items():
            safe = safe_from(holding, cash(book), exchange.rules(key.symbol))
            if safe is None or key.market is not Market.FUTURES or key.symbol not in book.bars:
                return None
            return cls(book, holding, safe, found, limits)
        return cls(book, None, ZERO, found, limits)

    def measured(self, bar: Bar) -> Measures | None:
        """The account's measures after the next bar; None if the bar may do more than change the price."""
        if bar.open_time >= self._until or not self._is_safe(bar):
            return None
        if not self.quantity:
            # An account that holds nothing keeps its measures, whatever the price.
            return self.measures
        quantity, mark, peak, opened = self.quantity, bar.close, self._peak, self._day_open
        equity = self._balance + EXACT.add(ZERO, EXACT.fma(quantity, mark, self._cost))
        if equity <= 0:
            return None
        peak = max(peak, equity)
        drawdown, daily_loss, part = loss(peak, equity), loss(opened, equity), share(abs(quantity * mark), equity)
        (low, high), (low_day, high_day), (low_part, high_part) = self._limited
        if not (low < drawdown < high and low_day < daily_loss < high_day and low_part < part < high_part):
            return None
        return assembled(
            Measures,
            {
                "equity": equity,
                "peak": peak,
                "day_open": opened,
                "drawdown": drawdown,
                "daily_loss": daily_loss,
                "leverage": part,
                "gross_exposure": part,
                "net_exposure": part,
                "position": part,
                "concentration": part,
            },
        )

    def take(self, bar: Bar, measures: Measures) -> None:
        """Adds the bar to the row; `measures` are those of the account after it."""
        self.newest, self.measures, self._peak = bar, measures, measures.peak
        self.bars += 1

    def _is_safe(self, bar: Bar) -> bool:
        """Whether the bar certainly liquidates nothing."""
        quantity, safe = self.quantity, self._safe
        return not quantity or (bar.low >= safe if quantity > 0 else bar.high <= safe)

    def book(self, bar: Bar, number: int) -> Book:
        """The account after a bar, which is the `number`th of the row."""
        before = self._book
        bars = {self._symbol: bar}
        return Book(before.desk, before.balance, before.holdings, before.open_orders, before.bar_no + number, bars)

    def found(self, measures: Measures) -> Assessment:
        """The result that a limits check would have had. If a hard limit is breached, nothing is held, so the result stays the
        same.
        """
        if measures is self._found.measures:
            return self._found
        memory = vars(self._found.memory) | {"peak": measures.peak, "last_equity": measures.equity}
        return assembled(
            Assessment, vars(self._found) | {"measures": measures, "memory": assembled(RiskMemory, memory)}
        )
