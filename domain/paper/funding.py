"""Funding: what holders of perpetual futures pay each other at fixed hours.

Aster, "Funding Rate" (docs.asterdex.com), and Binance alike: at 00:00, 08:00 and 16:00 UTC each position pays
`notional * funding rate`, longs to shorts where the rate is positive; the notional is at the mark price. Here that is the
open of the first bar at or after the hour. (Aster lets some contracts pay every four hours or every hour; this venue
does not.)
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from domain.accounting import Holding, LedgerEntry, LedgerKind
from domain.paper.book import Book, Exchange
from domain.trading.market import Bar, Market
from domain.values import ZERO

INTERVAL = timedelta(hours=8)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def funding_hours(after: datetime, until: datetime) -> list[datetime]:
    """Every funding hour T with `after < T <= until`."""
    first, last = (after - _EPOCH) // INTERVAL + 1, (until - _EPOCH) // INTERVAL
    return [_EPOCH + number * INTERVAL for number in range(first, last + 1)]


def is_due(before: Mapping[str, Bar], bars: Mapping[str, Bar]) -> bool:
    """Whether a funding hour lies between two bars of any symbol: false for nearly every bar."""
    for symbol, bar in bars.items():
        last = before.get(symbol)
        if last and (last.open_time - _EPOCH) // INTERVAL != (bar.open_time - _EPOCH) // INTERVAL:
            return True
    return False


def next_funding_hour(after: datetime) -> datetime:
    """The first funding hour later than a moment."""
    return _EPOCH + ((after - _EPOCH) // INTERVAL + 1) * INTERVAL


def nearest_funding_hour(to: datetime) -> datetime:
    """The funding hour of a payment: exchanges stamp it some milliseconds later."""
    return _EPOCH + ((to - _EPOCH + INTERVAL / 2) // INTERVAL) * INTERVAL


def pay_funding(book: Book, before: Mapping[str, Bar], exchange: Exchange) -> tuple[Book, list[LedgerEntry]]:
    """Every payment that has come due since the bars `before`. What was held until then pays; nothing of the new bar
    counts."""
    entries: list[LedgerEntry] = []
    for symbol, held in book.positions():
        bar, last = book.bars.get(symbol), before.get(symbol)
        if bar is None or last is None:
            continue
        for hour in funding_hours(last.open_time, bar.open_time):
            if rate := exchange.funding.rate(symbol, hour):
                entries.append(_entry(symbol, held, bar.open, rate, hour, book))
    if not entries:
        return book, entries
    holdings = dict(book.holdings)
    for entry in entries:
        held = holdings[entry.key]
        holdings[entry.key] = held.model_copy(update={"funding": held.funding + entry.amount})
    balance = book.balance + sum((entry.amount for entry in entries), ZERO)
    return book._replace(balance=balance, holdings=holdings), entries


def _entry(symbol: str, held: Holding, price: Decimal, rate: Decimal, hour: datetime, book: Book) -> LedgerEntry:
    return LedgerEntry(
        entry_id=f"funding:{book.desk}:{book.bar_no}:{symbol}:{hour:%Y-%m-%dT%H}",
        desk=book.desk,
        kind=LedgerKind.FUNDING,
        market=Market.FUTURES,
        symbol=symbol,
        amount=-held.quantity * price * rate,
        price=price,
        rate=rate,
        bar_no=book.bar_no,
        market_time=hour,
    )
