"""Funding: who pays, when, on what, and what the ledger says of it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.accounting import Holding, HoldingKey, LedgerKind
from domain.paper.advance import Advanced, advance
from domain.paper.book import Book, Exchange
from domain.paper.funding import funding_hours, nearest_funding_hour, next_funding_hour
from domain.trading.market import Bar, Market
from tests.venues.builders import TERMS, D, make_bar, make_book, make_exchange, make_paper_order

DAY = datetime(2026, 1, 1, tzinfo=UTC)
LONG = HoldingKey(Market.FUTURES, "BTCUSDT")
PAID = make_exchange(funding="0.0001")


def at(hours: float, **changes: object) -> Bar:
    return make_bar(open_time=DAY + timedelta(hours=hours), **changes)


def holding(quantity: str, market: Market = Market.FUTURES) -> Book:
    held = Holding(quantity=D(quantity), cost=D(quantity) * 100)
    return make_book(holdings={HoldingKey(market, "BTCUSDT"): held})


def moved(book: Book, a: float, b: float, exchange: Exchange = PAID, **changes: object) -> Advanced:
    """From a bar at hour `a` of the day to one at hour `b`."""
    return advance(book._replace(bars={"BTCUSDT": at(a)}), {"BTCUSDT": at(b, **changes)}, exchange)


@pytest.mark.parametrize(
    ("a", "b", "hours"),
    [
        (7.9, 8, [8]),
        (7, 8.5, [8]),
        (8, 8.5, []),
        (0, 7.9, []),
        (-1, 0, [0]),
        (-1, 17, [0, 8, 16]),
        (15, 24, [16, 24]),
        (8, 8, []),
        (9, 3, []),
    ],
)
def test_an_hour_is_paid_once_and_by_the_first_bar_that_reaches_it(a: float, b: float, hours: list[int]) -> None:
    _, events = moved(holding("1"), a, b)
    assert [entry.market_time for entry in events.entries] == [DAY + timedelta(hours=hour) for hour in hours]


@pytest.mark.parametrize(("quantity", "rate", "amount"), [("2", "0.0001", "-0.022"), ("-2", "0.0001", "0.022")])
def test_longs_pay_shorts_the_rate_of_the_notional_at_the_open(quantity: str, rate: str, amount: str) -> None:
    exchange = make_exchange(funding=rate)
    book, events = moved(holding(quantity), 7, 8, exchange, open="110", high="110")
    (entry,) = events.entries
    assert (entry.amount, entry.price, entry.rate) == (D(amount), D(110), D(rate))
    assert book.balance == 10_000 + D(amount)
    assert book.held(LONG).funding == D(amount)
    back, _ = moved(holding(quantity), 7, 8, make_exchange(funding=f"-{rate}"), open="110", high="110")
    assert back.balance == 10_000 - D(amount)


def test_the_ledger_names_desk_bar_symbol_and_hour() -> None:
    _, events = moved(holding("1"), 7, 8.5)
    (entry,) = events.entries
    assert entry.entry_id == "funding:main:1:BTCUSDT:2026-01-01T08"
    assert (entry.kind, entry.desk, entry.market, entry.symbol) == (LedgerKind.FUNDING, "main", "futures", "BTCUSDT")
    assert (entry.bar_no, entry.market_time) == (1, DAY + timedelta(hours=8))


def test_spot_pays_no_funding() -> None:
    assert not moved(holding("1", Market.SPOT), 7, 8).events.entries


@pytest.mark.parametrize("rate", [None, "0"])
def test_without_a_rate_nothing_is_paid(rate: str | None) -> None:
    assert not moved(holding("1"), 7, 8, make_exchange(funding=rate)).events.entries


def test_without_a_bar_before_nobody_knows_which_hours_passed() -> None:
    book = holding("1")._replace(bars={})
    assert not advance(book, {"BTCUSDT": at(8)}, PAID).events.entries


def test_what_the_bar_itself_fills_does_not_pay_for_its_hour() -> None:
    order = make_paper_order(order_type="LIMIT", price="99")
    book = make_book(open_orders=[order])
    book, events = moved(book, 7, 8)
    assert events.fills
    assert not events.entries
    assert moved(book, 8, 16).events.entries


def test_what_the_bar_itself_closes_still_pays() -> None:
    order = make_paper_order(side="SELL", order_type="LIMIT", price="101", reduce_only=True)
    book, events = moved(holding("1")._replace(open_orders=[order]), 7, 8)
    assert book.held(LONG).quantity == 0
    assert [entry.amount for entry in events.entries] == [D("-0.01")]


@given(a=st.datetimes(timezones=st.just(UTC)), gap=st.timedeltas(timedelta(0), timedelta(days=400)))
def test_no_hour_is_paid_twice_or_left_out(a: datetime, gap: timedelta) -> None:
    b = min(a + gap, datetime.max.replace(tzinfo=UTC)) if a.year < 9998 else a
    middle = a + (b - a) / 2
    hours = funding_hours(a, b)
    assert funding_hours(a, middle) + funding_hours(middle, b) == hours
    assert all(a < hour <= b and hour.hour % 8 == 0 and hour.minute == hour.second == 0 for hour in hours)
    assert len(hours) in (gap // timedelta(hours=8), gap // timedelta(hours=8) + 1) or a.year >= 9998


def test_the_next_hour_is_never_the_present_one() -> None:
    assert next_funding_hour(DAY) == DAY + timedelta(hours=8)
    assert next_funding_hour(DAY + timedelta(hours=7.99)) == DAY + timedelta(hours=8)


@pytest.mark.parametrize("milliseconds", [-3_600_000, 0, 17, 3_600_000])
def test_a_stamp_beside_an_hour_belongs_to_it(milliseconds: int) -> None:
    assert nearest_funding_hour(DAY + timedelta(milliseconds=milliseconds)) == DAY


def test_funding_is_exact() -> None:
    rate = Decimal("0.000123456789")
    held = Holding(quantity=D("1.234567"), cost=D("100"))
    book = make_book(holdings={LONG: held})
    after, _ = moved(book, 7, 8, make_exchange(funding=str(rate), terms=TERMS), open="100.1")
    assert 10_000 - after.balance == D("1.234567") * D("100.1") * rate
