"""Aster's own market for the paper venue: bars, rules and funding, through the public tools of its MCP server.

It moves with time. A bar's number is its opening time divided by the interval, so every process counts the same way. Only
finished bars count: an unfinished one would fill orders twice. Nothing here needs an account.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import structlog

from activities.market.port import MarketSource
from activities.venues.aster.market_data import MarketData
from activities.venues.aster.operation import Urgency, operation
from activities.venues.aster.rules import RuleBook
from activities.venues.port import VenueRefused
from domain.paper.funding import next_funding_hour
from domain.trading.market import Bar, SymbolRules
from domain.values import ZERO

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The most bars that an account catches up on after a while without any, and how many agents can look back on after that.
MOST_CAUGHT_UP = 500
KEPT_BARS = 600
KEPT_HOURS = 6
# A reading has to end before its activity does.
READ_SECONDS = 6.0

log = structlog.get_logger("market")


class AsterMarket(MarketSource):
    """The bars of one interval. The event loop reads them and other threads use them, so each update replaces the mappings."""

    is_live = True

    def __init__(
        self,
        tape: MarketData,
        rules: RuleBook,
        interval: timedelta,
        close: Callable[[], Awaitable[None]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tape = tape
        self._book = rules
        self._interval = interval
        self._close = close
        self._now = now
        self._series: Mapping[str, Mapping[int, Bar]] = {}
        self._rules: Mapping[str, SymbolRules] = {}
        self._funding: Mapping[tuple[str, datetime], Decimal] = {}
        self._read_at: dict[str, float] = {}
        self._lock = asyncio.Lock()

    @property
    def warm_up(self) -> int:
        """All bars but the newest, with which an account begins."""
        newest = self._newest()
        return 0 if newest is None else newest

    def bar(self, symbol: str, number: int) -> Bar | None:
        """A finished bar. One that the exchange left out stays at the close before it, without volume."""
        series = self._series.get(symbol, {})
        if number in series or not series or not min(series) <= number:
            return series.get(number)
        close = series[max(known for known in series if known < number)].close
        opened = _EPOCH + number * self._interval
        return Bar(open_time=opened, open=close, high=close, low=close, close=close, volume=ZERO)

    def rules(self, symbol: str) -> SymbolRules | None:
        """The exchange's rules; None for a symbol that it does not trade, or without bars."""
        return self._rules.get(symbol) if self._series.get(symbol) else None

    def rate(self, symbol: str, at: datetime) -> Decimal | None:
        """The last forecast for a funding hour, as a rate for eight hours; None if nobody read one before that hour."""
        return self._funding.get((symbol, at))

    async def refresh(self, symbols: Sequence[str], seconds: float) -> None:
        """Reads the newest bars and the funding rates. Raises VenueError, and then leaves everything as it was."""
        async with self._lock:
            due = time.monotonic() - seconds
            stale = [symbol for symbol in symbols if self._read_at.get(symbol, 0.0) <= due]
            if not stale:
                return
            with operation(Urgency.READING, READ_SECONDS):
                rules = await self._book.rules()
                traded = [symbol for symbol in stale if symbol in rules]
                bars_of_all = asyncio.gather(*(self._bars(symbol) for symbol in traded))
                funding, bars = await asyncio.gather(self._tape.funding(traded), bars_of_all)
            self._rules = rules
            self._series = {**self._series, **dict(zip(traded, bars, strict=True))}
            now = self._now()
            hour, oldest = next_funding_hour(now), now - timedelta(hours=8 * KEPT_HOURS)
            kept = {key: rate for key, rate in self._funding.items() if key[1] > oldest}
            self._funding = kept | {(symbol, hour): rate for symbol, rate in funding.items() if rate is not None}
            self._read_at |= dict.fromkeys(stale, time.monotonic())

    def due(self, after: int, *, idle: bool) -> range:
        """Every bar since `after`, or only the newest if no other can change anything."""
        newest = self._newest()
        if newest is None or newest <= after:
            return range(0)
        if idle:
            return range(newest, newest + 1)
        oldest = max(min(series) for series in self._series.values() if series)
        first = max(after + 1, oldest, newest - MOST_CAUGHT_UP + 1)
        if first > after + 1:
            log.warning(
                "too many bars at once; the oldest are left out",
                left_out=first - after - 1,
                caught_up=newest - first + 1,
            )
        return range(first, newest + 1)

    def good_until(self, bar_time: datetime) -> datetime | None:
        """The next bar is finished two intervals after this one opened."""
        return bar_time + 2 * self._interval

    async def close(self) -> None:
        """Closes the connection."""
        await self._close()

    def _newest(self) -> int | None:
        """The newest bar that every symbol has, not counting silent symbols: one that is a single bar behind may catch up."""
        newest = [max(series) for series in self._series.values() if series]
        return min((number for number in newest if number >= max(newest) - 1), default=None)

    async def _bars(self, symbol: str) -> Mapping[int, Bar]:
        known = self._series.get(symbol, {})
        # The bars since the newest known one, and that one again, since it may have been read early.
        missing = (self._now() - _EPOCH) // self._interval - max(known) if known else MOST_CAUGHT_UP
        try:
            read = await self._tape.bars(symbol, min(MOST_CAUGHT_UP, max(1, missing)))
        except VenueRefused:
            return known
        series = {**known, **{(bar.open_time - _EPOCH) // self._interval: bar for bar in read}}
        return {number: series[number] for number in sorted(series)[-KEPT_BARS:]}
