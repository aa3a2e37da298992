"""Prices, bars, books and funding of several symbols at once."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
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
    mark_of,
    marks_of,
)
from activities.venues.aster.results import Unreadable
from activities.venues.port import VenueError, VenueRateLimited, VenueRefused
from activities.venues.watch import Watch
from domain.market import Bar, MarketView, TopOfBook

BOOK_LEVELS = 5
# One call for the marks of all symbols weighs ten times as much as one for a single symbol, and takes one turn.
MARKS_ONE_BY_ONE = 3
_FUNDING_HOURS_FRESH_SECONDS = 3600.0
# A second round of calls, for which what reads the account has little time left.
_LAST_PRICE_SECONDS = 1.0


class Prices(NamedTuple):
    """Prices by symbol, since when the oldest of them holds, and why others are missing."""

    of: dict[str, Decimal]
    as_of: datetime
    missing: str | None


class Tape:
    """Public market data. `interval` is that of the bars, in the exchange's words."""

    def __init__(self, caller: Caller, watch: Watch, interval: str) -> None:
        self._caller = caller
        self._watch = watch
        self._interval = interval
        self._most_bars: dict[str, int] = {}
        self._funding_hours: Mapping[str, Decimal] = {}
        self._funding_hours_until = 0.0

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        """What agents and guards see; a symbol that the venue does not know, whose bars or book cannot be read, or of which it
        has no bars or fewer than before, is left out: it takes no new order."""
        views = asyncio.gather(*(self._view(symbol, bars) for symbol in symbols))
        funding, read = await asyncio.gather(self.funding(symbols), views)
        found = dict(zip(symbols, read, strict=True))
        return {
            symbol: view.model_copy(update={"funding_rate": funding[symbol]}) for symbol, view in found.items() if view
        }

    async def funding(self, symbols: Sequence[str]) -> dict[str, Decimal | None]:
        """The rates that are paid next, for eight hours whatever a symbol's own interval; None where it is not known."""
        hours, marks = await asyncio.gather(self._hours(), self.marks(symbols))
        return {symbol: _per_eight_hours(marks[symbol], hours.get(symbol)) for symbol in symbols}

    async def time(self, symbol: str) -> datetime | None:
        """The exchange's clock: no tool tells it, but a book says when it was sent. Raises VenueError."""
        return book_time_of(await self._caller.call("get_order_book", symbol, limit=BOOK_LEVELS))

    async def bars(self, symbol: str, limit: int) -> list[Bar]:
        """The newest finished bars of a symbol, oldest first. Raises VenueError."""
        # One more than is wanted, since the newest is still being made.
        answer = await self._caller.call("get_klines", symbol, interval=self._interval, limit=limit + 1)
        return bars_of(answer, limit, datetime.now(UTC))

    async def marks(self, symbols: Sequence[str]) -> dict[str, Mark]:
        """Mark prices, each with its own time; empty ones where the venue does not tell them."""
        if len(symbols) > MARKS_ONE_BY_ONE:
            return await self._all_marks(symbols)
        read = await asyncio.gather(*(self._mark(symbol) for symbol in symbols))
        return dict(zip(symbols, read, strict=True))

    async def prices(
        self, symbols: Sequence[str], marks: Mapping[str, Mark], known: Mapping[str, Decimal], began: datetime
    ) -> Prices:
        """One for each symbol: its mark price, else one that is `known`, else the last price."""
        found = await asyncio.gather(*(self._price(symbol, marks, known) for symbol in symbols))
        priced = [(symbol, mark) for symbol, (mark, _) in zip(symbols, found, strict=True)]
        as_of = min([began, *(mark.as_of for _, mark in priced if mark.as_of is not None)])
        self._watch.venue_data("ticker", as_of)
        of = {symbol: mark.price for symbol, mark in priced if mark.price is not None}
        return Prices(of, as_of, next((why for _, why in found if why), None))

    async def _all_marks(self, symbols: Sequence[str]) -> dict[str, Mark]:
        try:
            found = marks_of(await self._caller.call("get_funding_rate"))
        except VenueRateLimited:
            raise
        except VenueError:
            found = {}
        return {symbol: found.get(symbol, NO_MARK) for symbol in symbols}

    async def _mark(self, symbol: str) -> Mark:
        try:
            return mark_of(await self._caller.call("get_funding_rate", symbol), symbol)
        except VenueRateLimited:
            raise
        except VenueError:
            return NO_MARK  # Another tool may still know the price.

    async def _price(
        self, symbol: str, marks: Mapping[str, Mark], known: Mapping[str, Decimal]
    ) -> tuple[Mark, str | None]:
        mark = marks.get(symbol, NO_MARK)
        if mark.price is not None:
            return mark, None
        return (Mark(known[symbol], None, None), None) if symbol in known else await self._last_price(symbol)

    async def _last_price(self, symbol: str) -> tuple[Mark, str | None]:
        try:
            answer = await self._caller.call("get_ticker", symbol, seconds=_LAST_PRICE_SECONDS)
            return last_price_of(answer, symbol), None
        except VenueRateLimited:
            raise
        except VenueError as error:
            return NO_MARK, f"no price: {error}"

    async def _view(self, symbol: str, bars: int) -> MarketView | None:
        try:
            found, book = await asyncio.gather(self.bars(symbol, bars), self._book(symbol))
            self._not_shorter(symbol, found, bars)
        except (VenueRefused, Unreadable):
            return None
        return MarketView(bars=found, book=book) if found else None

    def _not_shorter(self, symbol: str, found: Sequence[Bar], wanted: int) -> None:
        """Raises Unreadable where there are fewer bars than there have been: a short answer hides what a price is weighed by."""
        most = min(wanted, self._most_bars.get(symbol, 0))
        if len(found) < most:
            raise Unreadable("get_klines", f"{len(found)} bars, where there were {most}")
        self._most_bars[symbol] = max(most, len(found))

    async def _book(self, symbol: str) -> TopOfBook | None:
        began = datetime.now(UTC)
        answer = await self._caller.call("get_order_book", symbol, limit=BOOK_LEVELS)
        book, told = book_of(answer), book_time_of(answer)
        self._watch.venue_data("book", min(told or began, began))
        return book

    async def _hours(self) -> Mapping[str, Decimal]:
        """How often each symbol pays funding; where nobody says it, every eight hours, as the exchange does unless told."""
        now = asyncio.get_running_loop().time()
        if now >= self._funding_hours_until:
            # Also where it failed: an extra that is not there is not asked for with every cycle.
            self._funding_hours_until = now + _FUNDING_HOURS_FRESH_SECONDS
            try:
                self._funding_hours = funding_hours_of(await self._caller.call("get_funding_info"))
            except VenueError:
                pass
        return self._funding_hours


def _per_eight_hours(mark: Mark, hours: Decimal | None) -> Decimal | None:
    if mark.funding_rate is None or hours is None:
        return mark.funding_rate
    return mark.funding_rate * FUNDING_HOURS / hours
