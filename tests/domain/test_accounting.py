"""Accounting: what a fill does to a holding, and what a whole account comes to from its records alone."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.accounting import (
    Fill,
    Holding,
    HoldingKey,
    LedgerEntry,
    LedgerKind,
    Portfolio,
    fee,
    folded,
    ratio,
    reducible,
    trade,
)
from domain.trading.instructions import Side
from domain.trading.market import Market
from domain.values import plain

D = Decimal
NOON = datetime(2026, 3, 12, 12, tzinfo=UTC)
BTC, SPOT_BTC = HoldingKey(Market.FUTURES, "BTCUSDT"), HoldingKey(Market.SPOT, "BTCUSDT")
lots = st.integers(1, 10**9).map(lambda n: D(n) / 1000)
prices = st.integers(1, 10**9).map(lambda n: D(n) / 10)


def a_fill(**changes: Any) -> Fill:
    facts = {
        "fill_id": "ord_1:1",
        "order_id": "ord_1",
        "desk": "main",
        "market": "futures",
        "symbol": "BTCUSDT",
        "side": "BUY",
        "quantity": 1,
        "price": 100,
        "fee": 0,
        "realised_profit": 0,
        "market_time": NOON,
    }
    return Fill.model_validate(facts | changes)


def an_entry(amount: str, kind: str = "funding", **changes: Any) -> LedgerEntry:
    facts = {
        "entry_id": "e",
        "desk": "main",
        "kind": kind,
        "market": "futures",
        "symbol": "BTCUSDT",
        "amount": amount,
        "price": 100,
        "rate": "0.0001",
        "bar_no": 0,
        "market_time": NOON,
    }
    return LedgerEntry.model_validate(facts | changes)


def a_portfolio(*records: Fill | LedgerEntry, opening: str = "10000", **marks: int) -> Portfolio:
    portfolio = Portfolio.opened("main", D(opening))
    for record in records:
        portfolio = portfolio.after(record)
    return portfolio.marked(NOON, {symbol: D(mark) for symbol, mark in marks.items()})


# --- one holding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "side", "quantity", "price", "after", "profit"),
    [
        (("0", "0"), "BUY", "2", "100", ("2", "200"), "0"),
        (("2", "200"), "BUY", "1", "130", ("3", "330"), "0"),
        (("3", "330"), "SELL", "1", "120", ("2", "220"), "10"),
        (("2", "220"), "SELL", "2", "100", ("0", "0"), "-20"),
        (("2", "220"), "SELL", "3", "100", ("-1", "-100"), "-20"),
        (("-1", "-100"), "BUY", "1", "90", ("0", "0"), "10"),
        (("-2", "-200"), "BUY", "5", "110", ("3", "330"), "-20"),
    ],
)
def test_a_fill_moves_position_and_profit(
    before: tuple[str, str], side: str, quantity: str, price: str, after: tuple[str, str], profit: str
) -> None:
    start = Holding(quantity=D(before[0]), cost=D(before[1]), realised_profit=D(5), fees=D(1), funding=D(-3))
    end, realised = trade(start, Side(side), D(quantity), D(price), D("0.5"))
    assert (end.quantity, end.cost, realised) == (D(after[0]), D(after[1]), D(profit))
    assert (end.realised_profit, end.fees, end.funding) == (5 + D(profit), D("1.5"), D(-3))


def test_the_entry_price_is_the_average_paid() -> None:
    assert Holding(quantity=D(-3), cost=D(-330)).entry_price == D(110)
    assert Holding().entry_price == 0


def test_a_ratio_that_does_not_end_is_rounded_to_twelve_places() -> None:
    assert ratio(D(100), D(3)) == D("33.333333333333")


@given(quantity=lots, price=prices, fee_bps=st.decimals(0, 9999, places=4))
def test_a_fee_is_never_rounded(quantity: Decimal, price: Decimal, fee_bps: Decimal) -> None:
    assert fee(quantity, price, fee_bps) * 10_000 == quantity * price * fee_bps


@given(start=st.integers(-(10**6), 10**6), side=st.sampled_from(Side), quantity=lots)
def test_only_what_opposes_a_position_reduces_it(start: int, side: Side, quantity: Decimal) -> None:
    held = D(start) / 1000
    signed = 1 if side is Side.BUY else -1
    cut = reducible(held, side, quantity)
    assert 0 <= cut <= min(abs(held), quantity)
    assert abs(held + signed * cut) == abs(held) - cut


# --- a whole account -------------------------------------------------------------------------------------------------


def test_equity_is_the_balance_and_the_unrealised_profit() -> None:
    portfolio = a_portfolio(
        a_fill(quantity=2, price=100, fee="0.08"),
        a_fill(quantity=1, price=120, side="SELL", fee="0.048"),
        an_entry("-0.01"),
        BTCUSDT=130,
    )
    assert portfolio.realised_profit == 20
    assert portfolio.fees == D("0.128")
    assert portfolio.funding == D("-0.01")
    assert portfolio.balance == D("10019.862")
    assert portfolio.unrealised_profit == 30
    assert portfolio.equity == D("10049.862")
    assert portfolio.holdings[BTC].funding == D("-0.01")


def test_futures_and_spot_of_a_symbol_are_held_apart_and_add_up() -> None:
    portfolio = a_portfolio(
        a_fill(quantity=3, price=100, side="SELL"),
        a_fill(quantity=2, price=100, market="spot"),
        a_fill(quantity=1, price=50, symbol="ETHUSDT"),
        BTCUSDT=110,
        ETHUSDT=40,
    )
    assert (portfolio.holdings[BTC].quantity, portfolio.holdings[SPOT_BTC].quantity) == (D(-3), D(2))
    assert portfolio.unrealised_profit == -30 + 20 - 10
    assert portfolio.gross_exposure() == 330 + 220 + 40
    assert portfolio.net_exposure() == -330 + 220 + 40
    assert portfolio.gross_exposure(Market.SPOT) == portfolio.net_exposure(Market.SPOT) == 220
    assert portfolio.net_exposure(Market.FUTURES) == -290
    assert portfolio.leverage == D("0.059118236473")


def test_each_line_says_what_one_symbol_on_one_market_came_to() -> None:
    futures, spot = a_portfolio(
        a_fill(quantity=4, price=100, market="spot", fee=1),
        a_fill(quantity=4, price=100),
        a_fill(quantity=1, price=90, side="SELL"),
        an_entry("2"),
        BTCUSDT=110,
    ).lines()
    assert (futures.market, futures.quantity, futures.entry_price, futures.notional) == (
        "futures",
        D(3),
        D(100),
        D(330),
    )
    assert (futures.realised_profit, futures.unrealised_profit, futures.funding, futures.fees) == (
        D(-10),
        D(30),
        D(2),
        D(0),
    )
    assert (spot.market, spot.quantity, spot.unrealised_profit, spot.fees) == ("spot", D(4), D(40), D(1))


def test_drawdown_is_measured_from_the_highest_value_so_far() -> None:
    portfolio = a_portfolio(a_fill(quantity=10, price=100), BTCUSDT=200)
    assert (portfolio.peak, portfolio.drawdown) == (D(11_000), D(0))
    portfolio = portfolio.marked(NOON, {"BTCUSDT": D(90)}).marked(NOON, {"BTCUSDT": D(145)})
    assert (portfolio.drawdown, portfolio.max_drawdown) == (D("0.05"), D("0.1"))


def test_the_opening_balance_is_a_peak() -> None:
    assert a_portfolio(a_fill(quantity=10, price=100), BTCUSDT=90).drawdown == D("0.01")


def test_a_price_that_an_order_paid_is_no_valuation() -> None:
    """Slippage on the way in is no new peak, and on the way out no loss of the day."""
    portfolio = a_portfolio(a_fill(quantity=10, price=100), BTCUSDT=100)
    assert portfolio.after(a_fill(quantity=1, price=150)).peak == 10_000


def test_the_day_begins_at_midnight_utc_with_the_value_before_it() -> None:
    portfolio = a_portfolio(a_fill(quantity=10, price=100), BTCUSDT=120)
    evening = portfolio.marked(NOON.replace(hour=23, minute=59), {"BTCUSDT": D(110)})
    assert (evening.day_opening, evening.day_loss) == (D(10_000), D(0))
    # The night's funding belongs to the new day.
    night = evening.after(an_entry("-5")).marked(NOON.replace(day=13, hour=0), {"BTCUSDT": D(105)})
    assert (night.day_opening, night.day_loss) == (D(10_100), D(55))
    risen = night.marked(NOON.replace(day=13, hour=1), {"BTCUSDT": D(300)})
    assert (risen.day_opening, risen.day_loss) == (D(10_100), D(0))


def test_midnight_is_that_of_utc_wherever_the_time_was_reported() -> None:
    east = datetime.fromisoformat("2026-03-13T01:00:00+02:00")
    assert a_portfolio(BTCUSDT=100).marked(east, {}).day == NOON.date()


def test_exposure_without_equity_has_no_leverage() -> None:
    ruined = a_portfolio(a_fill(quantity=10, price=100), opening="1000", BTCUSDT=0)
    assert ruined.leverage == 0
    assert a_portfolio(a_fill(quantity=10, price=100), opening="100", BTCUSDT=90).leverage is None


def test_what_has_no_price_is_not_valued() -> None:
    portfolio = Portfolio.opened("main", D(10_000)).after(a_fill())
    with pytest.raises(LookupError, match="BTCUSDT is held"):
        _ = portfolio.equity
    (line,) = portfolio.lines()
    assert (line.mark_price, line.unrealised_profit, line.notional) == (None, None, None)


def test_an_account_is_folded_from_its_records_alone() -> None:
    records: list[Fill | LedgerEntry] = [
        a_fill(quantity=10, price=100, bar_no=0),
        an_entry("-100", "liquidation_fee", bar_no=1),
        a_fill(quantity=10, price=60, side="SELL", bar_no=1, market_time=NOON + timedelta(minutes=1)),
        an_entry("7", "insurance", bar_no=1, price=None, rate=None),
    ]
    portfolio = folded("main", D(10_000), records)
    assert portfolio.balance == portfolio.equity == 10_000 - 400 - 100 + 7
    assert portfolio.ledger == {LedgerKind.LIQUIDATION_FEE: -100, LedgerKind.INSURANCE: 7}
    # Fee and insurance fund belong to one moment: there is no drawdown between them.
    assert portfolio.max_drawdown == D(493) / 10_000


def test_records_of_an_older_version_have_no_market_time() -> None:
    portfolio = folded("main", D(10_000), [a_fill(quantity=1, market_time=None)])
    assert (portfolio.equity, portfolio.day) == (D(10_000), None)


flows = st.lists(
    st.tuples(st.sampled_from(Side), lots, prices, st.sampled_from(Market), st.decimals(0, 5, places=3)), max_size=25
)


@given(flow=flows, mark=prices)
def test_money_adds_up_to_the_last_digit_in_another_arithmetic(flow: list[Any], mark: Decimal) -> None:
    """Cash in and cash out in fractions, which know no rounding and no average cost."""
    portfolio = Portfolio.opened("main", D(1_000_000))
    cash, held = Fraction(1_000_000), Fraction(0)
    for side, quantity, price, market, charged in flow:
        portfolio = portfolio.after(a_fill(side=side, quantity=quantity, price=price, market=market, fee=charged))
        signed = Fraction(quantity) if side is Side.BUY else -Fraction(quantity)
        cash, held = cash - signed * Fraction(price) - Fraction(charged), held + signed
    assert Fraction(portfolio.marked(NOON, {"BTCUSDT": mark}).equity) == cash + held * Fraction(mark)


def test_a_number_loses_its_zeros_and_no_digit() -> None:
    long = D("12345678901234567890123456789.123456789")
    assert (str(plain(long)), str(plain(D("1E+30"))), str(plain(D("4.500")))) == (str(long), "1" + "0" * 30, "4.5")
