"""Prices, bars, books and funding of several symbols at once."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import NamedTuple

from activities.venues.aster.caller import Caller
from activities.venues.aster.markets import (
    FUNDING_HOURS,
    NO_MARK,
    Mark,
    bars_of,
    book_of,
    book_time_of,
    funding_hours_of,
    last_price_of,
    length_of,
    mark_of,
    marks_of,
)
from activities.venues.aster.operation import Urgency, current
from activities.venues.aster.results import Unreadable
from activities.venues.call_observer import CallObserver
from activities.venues.port import VenueError, VenueRateLimited, VenueRefused
from domain.trading.market import Bar, MarketView, TopOfBook

BOOK_LEVELS = 5
# The newest finished bar began up to two of its lengths ago. After so many, agents would decide on an old market.
BARS_LAST = 5
FEWER_SECONDS = 3600.0
# One call for the marks of all symbols weighs ten times as much as one for a single symbol, and takes one turn.
MARKS_ONE_BY_ONE = 3
_FUNDING_HOURS_FRESH_SECONDS = 3600.0
# For the second round of calls, for which a reading of the account has little time left.
_LAST_PRICE_SECONDS = 1.0


class Prices(NamedTuple):
    """Prices by symbol, the time of the oldest one, and why others are missing."""

    of: dict[str, Decimal]
    as_of: datetime
    missing: str | None


class MarketData:
    """Public market data. `interval` is the length of the bars, as the exchange writes it."""

    def __init__(self, caller: Caller, watch: CallObserver, interval: str) -> None:
        self._caller = caller
        self._watch = watch
        self._interval = interval
        self._bars_last = BARS_LAST * length_of(interval)
        self._most_bars: dict[str, int] = {}
        # Since when a symbol has had fewer, by the event loop's clock.
        self._fewer_since: dict[str, float] = {}
        self._funding_hours: Mapping[str, Decimal] = {}
        self._funding_hours_until = 0.0

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        """What agents and guards see. Left out, so that they take no new order: symbols that the venue does not know, whose bars
        or book cannot be read, or that have no bars, fewer than before, or only old ones."""
        views = asyncio.gather(*(self._view(symbol, bars) for symbol in symbols))
        funding, read = await asyncio.gather(self.funding(symbols), views)
        found = dict(zip(symbols, read, strict=True))
        return {
            symbol: view.model_copy(update={"funding_rate": funding[symbol]}) for symbol, view in found.items() if view
        }

    async def funding(self, symbols: Sequence[str]) -> dict[str, Decimal | None]:
        """The next funding rates, converted to eight hours whatever a symbol's own interval; None if not known."""
        hours, marks = await asyncio.gather(self._hours(), self.marks(symbols))
        rates = {symbol: marks[symbol].funding_rate for symbol in symbols}
        return {
            symbol: rate if rate is None or symbol not in hours else rate * FUNDING_HOURS / hours[symbol]
            for symbol, rate in rates.items()
        }

    async def time(self, symbol: str) -> datetime | None:
        """The exchange's clock, from the time stamp of a book, since no tool tells it. Raises VenueError."""
        return book_time_of(await self._caller.call("get_order_book", symbol, limit=BOOK_LEVELS))

    async def bars(self, symbol: str, limit: int) -> list[Bar]:
        """The newest finished bars of a symbol, oldest first. Raises VenueError."""
        # One more than wanted, since the newest is not finished.
        answer = await self._caller.call("get_klines", symbol, interval=self._interval, limit=limit + 1)
        return bars_of(answer, limit, datetime.now(UTC))

    async def marks(self, symbols: Sequence[str]) -> dict[str, Mark]:
        """Mark prices, each with its own time; NO_MARK if the venue does not tell one."""
        # A missing price is no error: another tool may know it. A kill and a limit do not wait for one.
        call = partial(self._caller.call_or_none, heeds_pauses=current().urgency > Urgency.SOON)
        if len(symbols) > MARKS_ONE_BY_ONE:
            found = await call(marks_of, "get_funding_rate") or {}
            return {symbol: found.get(symbol, NO_MARK) for symbol in symbols}
        reads = (call(partial(mark_of, symbol=symbol), "get_funding_rate", symbol=symbol) for symbol in symbols)
        marks = await asyncio.gather(*reads)
        return {symbol: mark or NO_MARK for symbol, mark in zip(symbols, marks, strict=True)}

    async def prices(
        self, symbols: Sequence[str], marks: Mapping[str, Mark], known: Mapping[str, Decimal], began: datetime
    ) -> Prices:
        """A price for each symbol: its mark price, else a `known` one, else the last price."""
        found = await asyncio.gather(*(self._price(symbol, marks, known) for symbol in symbols))
        priced = [(symbol, mark) for symbol, (mark, _) in zip(symbols, found, strict=True)]
        as_of = min([began, *(mark.as_of for _, mark in priced if mark.as_of is not None)])
        self._watch.venue_data("ticker", as_of)
        of = {symbol: mark.price for symbol, mark in priced if mark.price is not None}
        return Prices(of, as_of, next((why for _, why in found if why), None))

    async def _price(
        self, symbol: str, marks: Mapping[str, Mark], known: Mapping[str, Decimal]
    ) -> tuple[Mark, str | None]:
        mark = marks.get(symbol, NO_MARK)
        if mark.price is None and symbol in known:
            mark = Mark(known[symbol], None, None)
        if mark.price is not None:
            return mark, None
        try:
            answer = await self._caller.call("get_ticker", symbol, seconds=_LAST_PRICE_SECONDS)
            return last_price_of(answer, symbol), None
        except VenueError as error:
            if isinstance(error, VenueRateLimited) and current().urgency > Urgency.SOON:
                raise
            return NO_MARK, f"no price: {error}"

    async def _view(self, symbol: str, bars: int) -> MarketView | None:
        try:
            found, book = await asyncio.gather(self.bars(symbol, bars), self._book(symbol))
        except (VenueRefused, Unreadable):
            return None
        if not self._are_enough(symbol, len(found), bars):
            return None
        if found and datetime.now(UTC) - found[-1].open_time > self._bars_last:
            return None
        return MarketView(bars=found, book=book) if found else None

    def _are_enough(self, symbol: str, count: int, wanted: int) -> bool:
        """Whether there are no fewer bars than before: a short answer would hide what guards compare a price with. One that has
        been short for an hour is true: an exchange may list a symbol again.
        """
        now, most = asyncio.get_running_loop().time(), min(wanted, self._most_bars.get(symbol, 0))
        if count < most and now - self._fewer_since.setdefault(symbol, now) < FEWER_SECONDS:
            return False
        self._fewer_since.pop(symbol, None)
        self._most_bars[symbol] = count if count < most else max(count, self._most_bars.get(symbol, 0))
        return True

    async def _book(self, symbol: str) -> TopOfBook | None:
        began = datetime.now(UTC)
        answer = await self._caller.call("get_order_book", symbol, limit=BOOK_LEVELS)
        book, stamped = book_of(answer), book_time_of(answer)
        self._watch.venue_data("book", min(stamped or began, began))
        return book

    async def _hours(self) -> Mapping[str, Decimal]:
        """The hours between two payments of funding, by symbol. A missing symbol pays every eight hours, the default."""
        now = asyncio.get_running_loop().time()
        if now >= self._funding_hours_until:
            # Also if it failed: a missing extra is not asked for in every cycle.
            self._funding_hours_until = now + _FUNDING_HOURS_FRESH_SECONDS
            read = await self._caller.call_or_none(funding_hours_of, "get_funding_info", heeds_pauses=False)
            self._funding_hours = self._funding_hours if read is None else read
        return self._funding_hours
