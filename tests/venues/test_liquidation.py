"""Liquidation: when it comes, at what price, and that an account never ends below zero by it."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.accounting import Holding, HoldingKey, LedgerKind
from domain.paper.advance import Advanced, advance
from domain.paper.book import Book, OrderStatus
from domain.paper.margin import cash, margin_balance
from domain.trading.market import Market
from tests.venues.builders import D, make_bar, make_book, make_exchange, make_paper_order

BTC, ETH = HoldingKey(Market.FUTURES, "BTCUSDT"), HoldingKey(Market.FUTURES, "ETHUSDT")
SPOT_BTC = HoldingKey(Market.SPOT, "BTCUSDT")
# Ten percent and one percent, so that prices are round at sight.
TENTH = make_exchange(maintenance_ratio=D("0.1"), liquidation_fee=D("0.01"))


def holding(quantity: int | str, entry: int = 100) -> Holding:
    return Holding(quantity=D(quantity), cost=D(quantity) * entry)


def book_with(holdings: dict[HoldingKey, Holding], balance: int | str = 1_000, **changes: Any) -> Book:
    marks = {"BTCUSDT": D(100), "ETHUSDT": D(100)}
    return make_book(balance=balance, holdings=holdings, marks=marks, **changes)


def next_bar(book: Book, eth: dict[str, Any] | None = None, **btc: Any) -> Advanced:
    return advance(book, {"BTCUSDT": make_bar(**btc), "ETHUSDT": make_bar(**(eth or {}))}, TENTH)


# With 1,000 and 45 bought at 100: 1000 + 45 (p - 100) = 4.5 p, so p = 3500 / 40.5 = 86.4197…
LONG_PRICE = D("86.4")
# With 1,000 and 45 sold at 100: 1000 + 45 (100 - p) = 4.5 p, so p = 5500 / 49.5 = 111.11…
SHORT_PRICE = D("111.2")


@pytest.mark.parametrize(
    ("quantity", "bar", "price"),
    [
        (45, {"low": "86.5"}, None),
        (45, {"low": "86.4"}, LONG_PRICE),
        (45, {"low": "60"}, LONG_PRICE),
        (45, {"open": "80", "high": "80", "low": "70", "close": "75"}, D(80)),
        (-45, {"high": "111.1"}, None),
        (-45, {"high": "111.2"}, SHORT_PRICE),
        (-45, {"high": "150"}, SHORT_PRICE),
        (-45, {"open": "120", "low": "120", "high": "130", "close": "125"}, D(120)),
    ],
)
def test_a_position_is_closed_where_the_margin_balance_meets_the_maintenance_margin(
    quantity: int, bar: dict[str, Any], price: Decimal | None
) -> None:
    book, events = next_bar(book_with({BTC: holding(quantity)}), **bar)
    assert [fill.price for fill in events.fills] == ([] if price is None else [price])
    assert book.held(BTC).quantity == (quantity if price is None else 0)


def test_at_the_maintenance_margin_it_comes_and_one_step_above_it_does_not() -> None:
    # 4.5 * 100 is 450: the balance of the flat market itself.
    assert next_bar(book_with({BTC: holding(45)}, balance=450), low="100").events.fills
    assert not next_bar(book_with({BTC: holding(45)}, balance="450.01"), low="100").events.fills


def test_the_venues_own_order_is_a_normal_order_with_a_normal_fill() -> None:
    book, events = next_bar(book_with({BTC: holding(45)}, bar_no=6), low="60")
    (order,), (fill,) = events.liquidations, events.fills
    assert (order.order_id, order.status, order.reason) == ("liq_main_7_BTCUSDT", OrderStatus.FILLED, "liquidation")
    assert (order.side, order.quantity, order.filled_quantity, order.average_price) == (
        "SELL",
        D(45),
        D(45),
        LONG_PRICE,
    )
    assert (fill.fill_id, fill.order_id, fill.bar_no, fill.maker) == ("liq_main_7_BTCUSDT:1", order.order_id, 7, False)
    assert (fill.fee, fill.realised_profit) == (D(0), 45 * (LONG_PRICE - 100))
    assert book.taken == {"BTCUSDT": 45}


def test_the_liquidation_fee_is_charged_on_the_notional() -> None:
    book, events = next_bar(book_with({BTC: holding(45)}), low="60")
    (entry,) = events.entries
    charge = 45 * LONG_PRICE * D("0.01")
    assert (entry.kind, entry.amount, entry.rate, entry.price) == (
        LedgerKind.LIQUIDATION_FEE,
        -charge,
        D("0.01"),
        LONG_PRICE,
    )
    assert book.balance == 1_000 + 45 * (LONG_PRICE - 100) - charge


def test_the_fee_is_never_more_than_what_is_left() -> None:
    bar: dict[str, Any] = {"open": "78", "high": "78", "low": "78", "close": "78"}
    book, events = next_bar(book_with({BTC: holding(45)}), **bar)
    (entry,) = events.entries
    assert (entry.amount, book.balance) == (D(-10), D(0))


def test_the_insurance_fund_pays_what_is_missing() -> None:
    bar: dict[str, Any] = {"open": "70", "high": "70", "low": "70", "close": "70"}
    book, events = next_bar(book_with({BTC: holding(45)}), **bar)
    (entry,) = events.entries
    assert (entry.kind, entry.amount, entry.rate, book.balance) == (LedgerKind.INSURANCE, D(350), None, D(0))


def test_all_futures_orders_are_canceled_first_and_spot_orders_stay() -> None:
    mine = make_paper_order(order_id="a", order_type="LIMIT", price="61")
    spot = make_paper_order(order_id="b", order_type="LIMIT", price="50", market="spot")
    book, events = next_bar(book_with({BTC: holding(45)}, open_orders=[mine, spot]), low="60")
    (canceled,) = events.changed
    assert (canceled.order_id, canceled.status, canceled.reason) == ("a", OrderStatus.CANCELED, "canceled: liquidation")
    assert [order.order_id for order in book.open_orders] == ["b"]
    assert [fill.order_id for fill in events.fills] == ["liq_main_1_BTCUSDT"]


def test_all_positions_are_closed_the_others_at_their_close() -> None:
    book = book_with({BTC: holding(30), ETH: holding(-15)})
    after, events = next_bar(book, eth={"open": "100", "high": "108", "low": "99", "close": "104"}, low="60")
    prices = {fill.symbol: fill.price for fill in events.fills}
    # 1000 + 30 (p - 100) - 15 * 4 = 3 p + 1.5 * 104, so p = 2216 / 27 = 82.07…
    assert prices == {"BTCUSDT": D("82.0"), "ETHUSDT": 104}
    assert [(fill.symbol, fill.side) for fill in events.fills] == [("BTCUSDT", "SELL"), ("ETHUSDT", "BUY")]
    assert not after.positions()


def test_where_the_whole_market_opened_beyond_it_everything_closes_at_the_open() -> None:
    bar = {"open": "75", "high": "95", "low": "74", "close": "90"}
    _, events = next_bar(book_with({BTC: holding(30), ETH: holding(15)}), eth=bar, **bar)
    assert {fill.price for fill in events.fills} == {75}


def test_a_hedge_carries_itself() -> None:
    """The loss of one side is the profit of the other, as far as their closes tell."""
    bar = {"open": "100", "high": "100", "low": "90", "close": "90"}
    book = book_with({BTC: holding(20), ETH: holding(-20)})
    assert not next_bar(book, eth=bar, **bar).events.fills


def test_spot_is_no_collateral_and_is_not_touched() -> None:
    held = {BTC: holding(45), SPOT_BTC: holding(90)}
    book, events = next_bar(book_with(held, balance=10_000), low="60")
    assert [fill.price for fill in events.fills] == [LONG_PRICE]
    assert book.held(SPOT_BTC).quantity == 90
    assert book.balance >= book.held(SPOT_BTC).cost


def test_without_a_price_of_every_position_nobody_is_liquidated() -> None:
    book = book_with({BTC: holding(45), HoldingKey(Market.FUTURES, "GONEUSDT"): holding(1)})
    assert not next_bar(book, low="1").events.fills


def test_an_account_that_only_a_profit_carries_is_closed_as_soon_as_that_is_gone() -> None:
    """With -1,000, and 45 bought at 50 that are worth 100: -1000 + 45 (p - 50) = 4.5 p, so p = 80.24… There it lacked up to a
    hundredth of what it owed before anybody looked."""
    carried = book_with({BTC: holding(45, 50)}, balance=-1_000)
    assert not next_bar(carried, low="80.3").events.fills
    assert [fill.price for fill in next_bar(carried, low="80.1").events.fills] == [D("80.2")]


def test_funding_can_be_the_last_straw() -> None:
    day = make_bar().open_time
    poor = book_with({BTC: holding(45)}, balance="450.04")
    dear = make_exchange(maintenance_ratio=D("0.1"), funding="0.0001")
    still = {"low": "100", "high": "100"}
    bars = {"BTCUSDT": make_bar(open_time=day.replace(hour=8), **still), "ETHUSDT": make_bar(**still)}
    assert advance(poor, bars, dear).events.fills
    assert not advance(poor, bars, TENTH).events.fills


@pytest.mark.parametrize("quantity", [45, -45])
def test_a_maintenance_rate_of_one_closes_at_the_open(quantity: int) -> None:
    whole = make_exchange(maintenance_ratio=D(1))
    _, events = advance(book_with({BTC: holding(quantity)}), {"BTCUSDT": make_bar(low="60", high="140")}, whole)
    assert [fill.price for fill in events.fills] == [100]


prices = st.integers(1, 4_000).map(lambda n: D(n) / 10)
quantities = st.integers(-900, 900).map(lambda n: D(n) / 10)


@given(
    btc=quantities,
    eth=quantities,
    spot=st.integers(0, 50),
    paths=st.lists(st.tuples(prices, prices), min_size=4, max_size=4),
)
def test_a_liquidation_leaves_no_position_and_no_debt(
    btc: Decimal, eth: Decimal, spot: int, paths: list[tuple[Decimal, Decimal]]
) -> None:
    held = {BTC: holding(str(btc)), ETH: holding(str(eth)), SPOT_BTC: holding(spot)}
    book = book_with(held, balance=1_000 + spot * 100)
    bars = {symbol: bar_of(*paths[n : n + 2]) for n, symbol in ((0, "BTCUSDT"), (2, "ETHUSDT"))}
    after, events = advance(book, bars, TENTH)
    if not events.fills:
        assert after.positions() == book.positions()
        return
    assert not after.positions()
    assert cash(after) >= 0
    assert all(bars[fill.symbol].low <= fill.price <= bars[fill.symbol].high for fill in events.fills)
    insured = [entry for entry in events.entries if entry.kind is LedgerKind.INSURANCE]
    assert not insured or cash(after) == 0
    moved = sum((fill.realised_profit for fill in events.fills), D(0)) + sum((e.amount for e in events.entries), D(0))
    assert after.balance == book.balance + moved


@given(btc=quantities, path=st.tuples(prices, prices, prices, prices))
def test_who_is_not_liquidated_has_more_than_the_maintenance_margin(btc: Decimal, path: tuple[Decimal, ...]) -> None:
    bar = bar_of(path[:2], path[2:])
    book = make_book(balance=1_000, holdings={BTC: holding(str(btc))})
    after, events = advance(book, {"BTCUSDT": bar}, TENTH)
    for price in (bar.open, bar.low, bar.high, bar.close):
        there = after._replace(bars={"BTCUSDT": make_bar(open=price, high=price, low=price, close=price)})
        maintenance = abs(btc) * price * D("0.1")
        assert events.fills or not btc or margin_balance(there) > maintenance


def bar_of(*pairs: Any) -> Any:
    (a, b), (c, d) = pairs
    return make_bar(open=a, close=b, low=min(a, b, c, d), high=max(a, b, c, d))
