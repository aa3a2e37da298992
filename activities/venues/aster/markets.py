"""Public market data: mark price and funding, bars, and the top of the book."""

import contextlib
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from activities.venues.aster.results import Row, Unreadable, decimal_at, moment_of, rows
from domain.trading.market import Bar, TopOfBook
from domain.values import ZERO

FUNDING_HOURS = Decimal(8)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_OPEN_TIME, _OPEN, _HIGH, _LOW, _CLOSE, _VOLUME, _CLOSE_TIME = range(7)


class Mark(NamedTuple):
    """A symbol's mark price, its time if the venue gives one, and the next funding rate."""

    price: Decimal | None
    as_of: datetime | None
    funding_rate: Decimal | None


NO_MARK = Mark(None, None, None)


def mark_of(answer: object, symbol: str) -> Mark:
    """A mark, from the answer of get_funding_rate for one symbol."""
    row = Row("get_funding_rate", answer[0] if isinstance(answer, list) and len(answer) == 1 else answer)
    return _mark(_of_symbol(row, symbol))


def marks_of(answer: object) -> dict[str, Mark]:
    """Marks by symbol, from the answer of get_funding_rate for all symbols."""
    found = {}
    for row in rows("get_funding_rate", answer):
        # One unreadable symbol must not cost the others their marks.
        with contextlib.suppress(Unreadable):
            found[row.text("symbol")] = _mark(row)
    return found


def _of_symbol(row: Row, symbol: str) -> Row:
    if row.has("symbol") and row.text("symbol") != symbol:
        raise Unreadable(row.call, "it is about another symbol")
    return row


def _mark(row: Row) -> Mark:
    funding = None
    # Exchanges of this family write an empty text for a symbol without one.
    with contextlib.suppress(Unreadable):
        funding = row.number("lastFundingRate")
    return Mark(row.positive("markPrice"), row.moment("time"), funding)


def last_price_of(answer: object, symbol: str) -> Mark:
    """The last price, from the answer of get_ticker; it stands in for a missing mark price."""
    row = _of_symbol(Row("get_ticker", answer), symbol)
    return Mark(row.positive("lastPrice"), row.moment("closeTime"), None)


def funding_hours_of(answer: object) -> dict[str, Decimal]:
    """The hours between two payments of funding, by symbol."""
    found = {}
    for row in rows("get_funding_info", answer):
        with contextlib.suppress(Unreadable):
            if hours := row.positive("fundingIntervalHours"):
                found[row.text("symbol")] = hours
    return found


def length_of(interval: str) -> timedelta:
    """The length of `1m`, `4h` or `1d`, as the exchange names its bars."""
    return int(interval[:-1]) * _UNITS[interval[-1]]


def bars_of(answer: object, limit: int, now: datetime) -> list[Bar]:
    """The newest finished bars, oldest first. An unfinished bar is dropped, since it still changes.

    A bar contains its own closing time. The last one counts as unfinished if it does not.
    """
    if not isinstance(answer, list):
        raise Unreadable("get_klines", "a list was expected")
    last = len(answer) - 1
    found = []
    for number, bar in enumerate(answer):
        tells_its_end = isinstance(bar, list) and len(bar) > _CLOSE_TIME
        if _moment(bar, _CLOSE_TIME) >= now if tells_its_end else number == last:
            continue
        opened, high, low, close, volume = (
            decimal_at("get_klines", bar, index) for index in (_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME)
        )
        if not (ZERO < low <= min(opened, close) and max(opened, close) <= high) or volume < 0:
            raise Unreadable("get_klines", "a bar's numbers contradict each other")
        at = _moment(bar, _OPEN_TIME)
        if at >= now:
            raise Unreadable("get_klines", "a finished bar begins in the future")
        found.append(Bar(open_time=at, open=opened, high=high, low=low, close=close, volume=volume))
    return sorted(found, key=lambda bar: bar.open_time)[-limit:]


def book_of(answer: object) -> TopOfBook | None:
    """Best prices; None if a side of the book is empty."""
    row = Row("get_order_book", answer)
    bids, asks = row.listed("bids"), row.listed("asks")
    if not bids or not asks:
        return None
    return TopOfBook(
        bid=decimal_at(row.call, bids[0], 0),
        ask=decimal_at(row.call, asks[0], 0),
        bid_quantity=decimal_at(row.call, bids[0], 1),
        ask_quantity=decimal_at(row.call, asks[0], 1),
    )


def book_time_of(answer: object) -> datetime | None:
    """The time of the book, if the venue tells it."""
    return Row("get_order_book", answer).moment("E")


def _moment(bar: object, index: int) -> datetime:
    return moment_of("get_klines", decimal_at("get_klines", bar, index))
