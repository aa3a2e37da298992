"""Whole accounts over random order flow: funding, liquidations and parts of orders included.

Three computations of the same account have to agree: the venue's own book, the portfolio from its records, and an
independent one in fractions, which knows average prices and no costs, and nothing of the venue's code.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise, product
from random import Random
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from activities.market.simulated import SimulatedMarket
from domain.accounting import Fill, Holding, HoldingKey, LedgerEntry, LedgerKind, Portfolio, folded
from domain.paper.advance import advance, cancel_all
from domain.paper.book import Book, Exchange, OrderStatus, PaperOrder, Terms
from domain.paper.matching import place
from domain.trading.instructions import OrderType, Side, TimeInForce
from domain.trading.market import Bar, Market
from tests.venues.builders import RULES, D, make_exchange, make_paper_order

SYMBOLS = ("BTCUSDT", "ETHUSDT")
OPENING = D("5000.01")
BEGIN = datetime(2026, 1, 1, 4, tzinfo=UTC)
RATE = "0.0007"
EXCHANGE = make_exchange(
    terms=Terms(fee_bps=D("4.5"), maker_fee_bps=D("1.7"), slippage_bps=D(3), leverage=D(20), volume_share=D("0.3")),
    maintenance_ratio=D("0.03"),
    funding=RATE,
    multiplier_up=D("1.5"),
    multiplier_down=D("0.5"),
)


# --- a flow, and what it makes of an account ------------------------------------------------------------------------


class Asked(NamedTuple):
    """An order of a flow: `ticks` is how far its price is from the mark."""

    symbol: str
    market: Market
    side: Side
    lots: int
    reduce_only: bool
    ticks: int | None
    time_in_force: TimeInForce | None


class Canceled(NamedTuple):
    """A cancel-all of a flow."""

    symbol: str
    market: Market


class Minute(NamedTuple):
    """A bar of a flow, so many minutes after the last, and what is done once it has come."""

    minutes: int
    moves: Sequence[tuple[int, int, int]]
    volumes: Sequence[int]
    actions: Sequence[Asked | Canceled]


Kind = tuple[str, Market, Side, bool, TimeInForce | None]


def of_kind(kind: Kind, lots: int, ticks: int | None) -> Asked:
    symbol, market, side, reduce_only, time_in_force = kind
    return Asked(symbol, market, side, lots, reduce_only, ticks, time_in_force)


# What an order is comes from one draw, and a bar's three moves are of one width: most of a flow's time goes into draws.
MARKETS = [Market.FUTURES, Market.FUTURES, Market.SPOT]
IN_FORCE = [None] * len(TimeInForce) + list(TimeInForce)
kinds = st.sampled_from(list[Kind](product(SYMBOLS, MARKETS, Side, [False, True], IN_FORCE)))
lots = st.integers(1, 400_000) | st.sampled_from([50_000, 300_000])
asked = st.builds(of_kind, kinds, lots, st.none() | st.integers(-60, 60))
canceled = st.sampled_from([Canceled(*each) for each in product(SYMBOLS, Market)])
move = st.tuples(*[st.integers(-60, 60)] * 3) | st.tuples(*[st.integers(-350, 350)] * 3)
minute = st.builds(
    Minute,
    st.sampled_from([1, 1, 5, 300, 1_500]),
    st.tuples(move, move),
    st.tuples(st.integers(0, 900), st.integers(0, 900)),
    st.lists(asked | asked | canceled, max_size=4),
)
# Long ones are the seeded flows' at the end of this file.
flows = st.lists(minute, min_size=1, max_size=8)


@dataclass
class Run:
    """An account that a flow has gone through, and everything that was written down on the way."""

    book: Book = field(default_factory=lambda: Book("main", OPENING))
    bars: list[dict[str, Bar]] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    entries: list[LedgerEntry] = field(default_factory=list)
    records: list[Fill | LedgerEntry] = field(default_factory=list)
    orders: dict[str, PaperOrder] = field(default_factory=dict)

    def through(self, flow: Sequence[Minute], exchange: Exchange = EXCHANGE) -> "Run":
        moment, prices = BEGIN, [D(100), D(10)]
        for step in flow:
            moment += timedelta(minutes=step.minutes)
            bars = {}
            for n, symbol in enumerate(SYMBOLS):
                bars[symbol] = a_bar(moment, prices[n], step.moves[n], step.volumes[n])
                prices[n] = bars[symbol].close
            self.advance(bars, exchange)
            for action in step.actions:
                self.act(action, exchange)
        return self

    def advance(self, bars: dict[str, Bar], exchange: Exchange) -> None:
        self.bars.append(bars)
        self.book, events = advance(self.book, bars, exchange)
        self.fills += events.fills
        self.entries += events.entries
        self.records += [*events.entries, *events.fills]
        self.orders |= {order.order_id: order for order in (*events.liquidations, *events.changed)}

    def act(self, action: Asked | Canceled, exchange: Exchange) -> None:
        if isinstance(action, Canceled):
            self.book, gone = cancel_all(self.book, action.market, action.symbol)
            self.orders |= {order.order_id: order for order in gone}
            return
        order = an_order(action, len(self.orders), self.book)
        step = place(order, self.book, exchange)
        self.book, self.orders[order.order_id] = step.book, step.order
        if step.fill:
            self.fills.append(step.fill)
            self.records.append(step.fill)


def a_bar(moment: datetime, price: Decimal, moves: tuple[int, int, int], volume: int) -> Bar:
    """Moves are in thousandths; the price stays above ten ticks."""
    open_, high, low = (max(D(1), price * (1000 + by) // 100 / 10) for by in moves)
    close = max(D(1), price * (1000 + moves[0] // 2) // 100 / 10)
    four = (open_, high, low, close)
    return Bar(open_time=moment, open=open_, high=max(four), low=min(four), close=close, volume=D(volume))


def an_order(action: Asked, number: int, book: Book) -> PaperOrder:
    mark = book.bars[action.symbol].close
    return make_paper_order(
        order_id=f"ord_{number}",
        symbol=action.symbol,
        market=action.market,
        side=action.side,
        quantity=action.lots * RULES.lot_step,
        reduce_only=action.reduce_only and action.market is Market.FUTURES,
        order_type=OrderType.MARKET if action.ticks is None else OrderType.LIMIT,
        price=None if action.ticks is None else mark + action.ticks * RULES.tick_size,
        time_in_force=None if action.ticks is None else action.time_in_force,
    )


# --- the independent computation ------------------------------------------------------------------------------------


@dataclass
class Naive:
    """One holding in fractions: an average price that is divided exactly, and cash that is counted by hand."""

    quantity: Fraction = Fraction(0)
    entry: Fraction = Fraction(0)
    realised: Fraction = Fraction(0)
    fees: Fraction = Fraction(0)
    spent: Fraction = Fraction(0)

    def take(self, fill: Fill) -> None:
        signed = Fraction(fill.quantity) * (1 if fill.side is Side.BUY else -1)
        price = Fraction(fill.price)
        self.fees += Fraction(fill.fee)
        self.spent += signed * price
        if self.quantity * signed >= 0:
            total = self.quantity + signed
            self.entry = (self.quantity * self.entry + signed * price) / total
        else:
            closed = min(abs(self.quantity), abs(signed)) * (1 if self.quantity > 0 else -1)
            self.realised += closed * (price - self.entry)
            if abs(signed) > abs(self.quantity):
                self.entry = price
        self.quantity += signed


def naive_account(fills: Sequence[Fill]) -> dict[HoldingKey, Naive]:
    account: dict[HoldingKey, Naive] = defaultdict(Naive)
    for fill in fills:
        account[fill.key].take(fill)
    return account


def naive_funding(run: Run) -> Iterator[tuple[str, datetime, Fraction]]:
    """Every payment that should stand in the ledger, from the fills of earlier bars and the clock alone."""
    for number, (before, bars) in enumerate(pairwise(run.bars), start=1):
        for symbol in SYMBOLS:
            hour = before[symbol].open_time.replace(minute=0, second=0)
            while (hour := hour + timedelta(hours=1)) <= bars[symbol].open_time:
                earlier = [f for f in run.fills if f.bar_no < number and f.key == (Market.FUTURES, symbol)]
                held = sum((Fraction(f.quantity) * (1 if f.side is Side.BUY else -1) for f in earlier), Fraction(0))
                if hour.hour in (0, 8, 16) and held:
                    yield symbol, hour, -held * Fraction(bars[symbol].open) * Fraction(RATE)


CLOSE = Fraction(1, 10**9)


def agrees(run: Run) -> None:
    """The venue's book against the independent account, to the last digit wherever there is one."""
    account, book = naive_account(run.fills), run.book
    ledger = sum((Fraction(entry.amount) for entry in run.entries), Fraction(0))
    fees = sum((held.fees for held in account.values()), Fraction(0))
    cash = Fraction(OPENING) - fees - sum((held.spent for held in account.values()), Fraction(0)) + ledger
    worth = sum((held.quantity * Fraction(book.marks[key.symbol]) for key, held in account.items()), Fraction(0))
    assert Fraction(book.balance) + Fraction(book.unrealised_profit()) == cash + worth
    realised = sum((Fraction(fill.realised_profit) for fill in run.fills), Fraction(0))
    assert Fraction(book.balance) == Fraction(OPENING) - fees + realised + ledger
    for key, naive in account.items():
        held = book.held(key)
        assert (Fraction(held.quantity), Fraction(held.fees)) == (naive.quantity, naive.fees)
        # Its costs are split at twelve places; what is rounded off stays in the holding.
        assert abs(Fraction(held.realised_profit) - naive.realised) < CLOSE
        assert not naive.quantity or abs(Fraction(held.entry_price) - naive.entry) < CLOSE
        assert Fraction(held.cost) == naive.spent + Fraction(held.realised_profit)
        assert (held.quantity == 0) == (held.cost == 0)


# --- properties -----------------------------------------------------------------------------------------------------


bps = st.decimals(0, 100, places=5)
some_terms = st.builds(
    Terms,
    fee_bps=bps,
    maker_fee_bps=bps,
    slippage_bps=bps,
    leverage=st.integers(1, 125).map(Decimal),
    volume_share=st.decimals(D("0.001"), 1, places=3),
)


@given(flow=flows, terms=some_terms)
def test_money_is_conserved_to_the_last_digit(flow: list[Minute], terms: Terms) -> None:
    run = Run().through(flow, EXCHANGE._replace(terms=terms))
    agrees(run)
    for fill in run.fills:
        rate = terms.maker_fee_bps if fill.maker else terms.fee_bps
        charged = 0 if fill.order_id.startswith("liq_") else Fraction(rate) / 10_000
        assert Fraction(fill.fee) == Fraction(fill.quantity) * Fraction(fill.price) * charged


@given(flow=flows)
def test_the_portfolio_from_the_records_is_the_venues_book(flow: list[Minute]) -> None:
    run = Run().through(flow)
    portfolio = folded("main", OPENING, run.records)._replace(marks=run.book.marks)
    assert portfolio.balance == run.book.balance
    assert portfolio.equity == run.book.balance + run.book.unrealised_profit()
    assert portfolio.holdings == run.book.holdings
    assert sum(portfolio.ledger.values(), D(0)) == sum((entry.amount for entry in run.entries), D(0))


@given(flow=flows)
def test_the_ledger_holds_every_payment_of_funding_and_no_other(flow: list[Minute]) -> None:
    run = Run().through(flow)
    paid = [entry for entry in run.entries if entry.kind is LedgerKind.FUNDING]
    assert [(e.symbol, e.market_time, Fraction(e.amount)) for e in sorted(paid, key=_bar)] == list(naive_funding(run))
    for key in (HoldingKey(Market.FUTURES, symbol) for symbol in SYMBOLS):
        mine = sum((entry.amount for entry in paid if entry.key == key), D(0))
        assert run.book.held(key).funding == mine


def _bar(entry: LedgerEntry) -> tuple[int, str, datetime]:
    return entry.bar_no, entry.symbol, entry.market_time


@given(flow=flows)
def test_peak_and_drawdown_are_those_of_the_curve_of_closes(flow: list[Minute]) -> None:
    """Marked with every bar, as a replay does it, and once more from a list of all values."""
    run, portfolio, curve = Run(), Portfolio.opened("main", OPENING), [(BEGIN, Fraction(OPENING))]
    for step, bars in zip(flow, Run().through(flow).bars, strict=True):
        seen = len(run.records)
        run.advance(bars, EXCHANGE)
        for record in run.records[seen:]:
            portfolio = portfolio.after(record)
        moment = bars["BTCUSDT"].open_time
        portfolio = portfolio.marked(moment, run.book.marks)
        curve.append((moment, Fraction(run.book.balance) + Fraction(run.book.unrealised_profit())))
        seen = len(run.records)
        for action in step.actions:
            run.act(action, EXCHANGE)
        for record in run.records[seen:]:
            portfolio = portfolio.after(record)
    values = [value for _, value in curve]
    falls = [(max(values[: n + 1]) - value) / max(values[: n + 1]) for n, value in enumerate(values)]
    assert Fraction(portfolio.peak) == max(values)
    assert abs(Fraction(portfolio.max_drawdown) - max(falls)) < CLOSE
    last_day = curve[-1][0].date()
    before = [value for moment, value in curve if moment.date() < last_day] or values[:1]
    assert Fraction(portfolio.day_loss) == max(Fraction(0), before[-1] - values[-1])


@given(flow=flows)
def test_a_reduce_only_order_never_increases_or_turns_a_position(flow: list[Minute]) -> None:
    run, held = Run().through(flow), defaultdict[HoldingKey, Decimal](Decimal)
    for fill in run.fills:
        before = held[fill.key]
        held[fill.key] += fill.quantity if fill.side is Side.BUY else -fill.quantity
        if run.orders[fill.order_id].reduce_only:
            assert abs(held[fill.key]) < abs(before)
            assert held[fill.key] * before >= 0


@given(flow=flows)
def test_orders_say_what_their_fills_came_to(flow: list[Minute]) -> None:
    run = Run().through(flow)
    for order in run.orders.values():
        mine = [fill for fill in run.fills if fill.order_id == order.order_id]
        assert [fill.fill_id for fill in mine] == [f"{order.order_id}:{n}" for n in range(1, len(mine) + 1)]
        assert order.filled_quantity == sum((fill.quantity for fill in mine), D(0))
        assert order.filled_value == sum((fill.quantity * fill.price for fill in mine), D(0))
        assert order.filled_quantity <= order.quantity
        assert order.status is not OrderStatus.REJECTED or (order.code and not mine)
        assert (order in run.book.open_orders) == (order.status is OrderStatus.OPEN)
        for fill in mine:
            assert fill.price > 0
            better = order.price is None or (
                fill.price <= order.price if fill.side is Side.BUY else fill.price >= order.price
            )
            assert better


@given(flow=flows)
def test_no_bar_gives_more_than_its_share(flow: list[Minute]) -> None:
    run = Run().through(flow)
    traded = defaultdict[tuple[int, str], Decimal](Decimal)
    for fill in run.fills:
        if not fill.order_id.startswith("liq_"):
            traded[fill.bar_no, fill.symbol] += fill.quantity
    for (number, symbol), quantity in traded.items():
        assert quantity <= run.bars[number][symbol].volume * EXCHANGE.terms.volume_share


@given(flow=flows, symbol=st.sampled_from(SYMBOLS), market=st.sampled_from(Market))
def test_cancel_all_leaves_no_open_order_on_that_symbol_and_market(
    flow: list[Minute], symbol: str, market: Market
) -> None:
    book = Run().through(flow).book
    after, gone = cancel_all(book, market, symbol)
    assert not [order for order in after.open_orders if order.key == (market, symbol)]
    assert {*after.open_orders, *gone} != set() or not book.open_orders
    assert [order.order_id for order in book.open_orders if order.key != (market, symbol)] == [
        order.order_id for order in after.open_orders
    ]
    assert cancel_all(after, market, symbol) == (after, [])


@given(flow=flows)
def test_a_flow_that_is_replayed_gives_the_same_account_twice(flow: list[Minute]) -> None:
    assert Run().through(flow) == Run().through(flow)


def test_a_replayed_day_gives_the_same_book_twice() -> None:
    """A day of the simulated market, with an order every few minutes."""
    day, again = a_day(), a_day()
    assert day == again
    assert len(day.fills) > 300
    assert {entry.market_time.hour for entry in day.entries} == {8, 16}
    agrees(day)


def a_day() -> Run:
    market, run = SimulatedMarket(SYMBOLS, seed=5), Run()
    exchange = Exchange(EXCHANGE.terms, market.rules, EXCHANGE.funding)
    for number in range(1_440):
        bars = {symbol: bar for symbol in SYMBOLS if (bar := market.bar(symbol, number))}
        run.advance(bars, exchange)
        if number % 3 == 0:
            symbol, side = SYMBOLS[number % 2], Side.BUY if number % 7 < 4 else Side.SELL
            ticks = None if number % 5 else number % 11 - 5
            lots = 3 if symbol == "BTCUSDT" else 60
            run.act(Asked(symbol, Market.FUTURES, side, lots, False, ticks, None), exchange)
    return run


def test_a_bar_that_does_nothing_leaves_everything_as_it_is() -> None:
    """Not even rebuilt: a replay goes through a hundred thousand of them."""
    order = make_paper_order(order_type=OrderType.LIMIT, price="1")
    held = {HoldingKey(Market.FUTURES, "BTCUSDT"): Holding(quantity=D(1), cost=D(100))}
    book = Book("main", OPENING, held, [order], 0, {"BTCUSDT": a_bar(BEGIN, D(100), (0, 0, 0), 5)})
    after, events = advance(book, {"BTCUSDT": a_bar(BEGIN + timedelta(minutes=1), D(101), (0, 0, 0), 5)}, EXCHANGE)
    assert after.holdings is book.holdings
    assert after.open_orders is book.open_orders
    assert not any(events)
    assert (after.bar_no, after.balance) == (1, OPENING)


def test_long_flows_agree_and_reach_everything_there_is() -> None:
    """Seeded, so that no property above passes by seeing nothing: every kind of event comes up in these."""
    seen: set[Any] = set()
    for seed in range(40):
        run = Run().through(a_long_flow(Random(seed)))
        agrees(run)
        seen.update(entry.kind for entry in run.entries)
        seen.update(order.status for order in run.orders.values())
        seen.update(order.code for order in run.orders.values())
        seen.update(("maker", fill.maker) for fill in run.fills)
        seen.update(("fills", order.fills) for order in run.orders.values())
    kinds = set(LedgerKind) - ONLY_OF_REAL_ACCOUNTS
    assert {*kinds, *OrderStatus, ("maker", True), ("maker", False), ("fills", 3)} <= seen
    assert {-1013, -2010, -2019, -2020, -2022, -4164, -5021, -5022} <= seen


ONLY_OF_REAL_ACCOUNTS = {LedgerKind.TRANSFER, LedgerKind.OTHER}


def a_long_flow(random: Random) -> list[Minute]:
    def ask() -> Asked | Canceled:
        symbol, market = random.choice(SYMBOLS), random.choice([Market.FUTURES, Market.FUTURES, Market.SPOT])
        if random.random() < 0.05:
            return Canceled(symbol, market)
        ticks = random.choice([None, random.randint(-60, 60)])
        lots, kind = random.choice([1, 3_000, 50_000, 300_000]), random.choice([None, *TimeInForce])
        return Asked(symbol, market, random.choice(list(Side)), lots, random.random() < 0.3, ticks, kind)

    def bar_move() -> tuple[int, int, int]:
        most = random.choice([30, 30, 30, 250])
        return random.randint(-most, most), random.randint(-most, most), random.randint(-most, most)

    return [
        Minute(
            random.choice([1, 5, 300]),
            (bar_move(), bar_move()),
            (random.randint(0, 900), random.randint(0, 9_000)),
            [ask() for _ in range(random.randint(0, 4))],
        )
        for _ in range(60)
    ]
