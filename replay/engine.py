"""A coordinator in memory: one cycle a bar, by the same functions and in the same order as `workflows/cycle.py`.

What the workflow awaits is done at once here: the venue is a `Book`, an order's fate is known when it is placed, a cancel is
confirmed when it is made. Time is the market's. A test runs both over a stretch of a crash and compares their decisions.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import TypeVar

from activities.agents.port import Arguments, quote_of
from activities.agents.room import LocalRoom
from activities.choosing import Round, Situation, choose
from domain import desk, enforcing
from domain.accounting import Fill, LedgerEntry
from domain.assessing import assess
from domain.assessment import Assessment, Measures
from domain.carried import Carried, OrderPhase
from domain.deciding import Choice, nothing
from domain.decisions import Decision
from domain.instructions import Tool
from domain.limits import Limits
from domain.market import Bar, Market, Observation, Reading, SymbolRules, TopOfBook
from domain.orders import Order, OrderReport
from domain.outbox import cancels_confirmed, order_prepared
from domain.paper.advance import advance, cancel_all
from domain.paper.book import NOTHING_HAPPENED, Book, Events, Exchange, FundingRates, PaperOrder, Terms
from domain.paper.matching import place
from domain.paper.view import Times, next_rate, observation_of, report_of, top_of_book
from domain.reducing import plan
from domain.states import Mode, State
from domain.traces import Tick
from domain.values import ZERO
from replay.window import Window

T = TypeVar("T")

_MARKETS = {Tool.CANCEL_ALL_ORDERS: Market.FUTURES, Tool.CANCEL_SPOT_ALL_ORDERS: Market.SPOT}
# A reduction that fills in part asks again in the next bar; a kill that flattens, for as long as there is volume.
MOST_CLOSES = 3


@dataclass(frozen=True)
class Setup:
    """A desk as it starts."""

    symbol: str
    rules: SymbolRules
    terms: Terms
    funding: FundingRates
    balance: Decimal
    limits: Limits
    cycle_seconds: float
    weights: Mapping[str, float] = field(default_factory=dict)
    kill_flattens: bool = False


@dataclass
class Cycle:
    """What one bar came to."""

    bar: Bar
    observation: Observation
    measures: Measures
    state: State
    decisions: list[Decision]
    fills: list[Fill]
    entries: list[LedgerEntry]


class _Once(Mapping[str, T]):
    """One symbol's book, worked out only if somebody looks at it: most agents, in most bars, do not."""

    def __init__(self, symbol: str, make: Callable[[], T]) -> None:
        self._symbol = symbol
        self._make = make
        self._made: T | None = None

    def __getitem__(self, symbol: str) -> T:
        if symbol != self._symbol:
            raise KeyError(symbol)
        if self._made is None:
            self._made = self._make()
        return self._made

    def __iter__(self) -> Iterator[str]:
        return iter((self._symbol,))

    def __len__(self) -> int:
        return 1


class Engine:
    """One desk on one symbol."""

    def __init__(self, setup: Setup, room: LocalRoom, started_at: datetime) -> None:
        self._setup = setup
        self._room = room
        self._exchange = Exchange(
            setup.terms, lambda symbol: setup.rules if symbol == setup.symbol else None, setup.funding
        )
        self._window = Window()
        self._ids = count(1)
        self._now = started_at
        self._fills: list[Fill] = []
        self.book = Book("replay", setup.balance)
        self.c = Carried(
            desk="replay",
            mode=Mode.PAPER,
            symbols=[setup.symbol],
            cycle_seconds=setup.cycle_seconds,
            limits=setup.limits,
            search_attributes=False,
            started_at=started_at,
            since=started_at,
            kill_flattens=setup.kill_flattens,
        )

    def cycle(self, bar: Bar) -> Cycle:
        """One bar: the venue moves on, is observed, limits act, agents propose, an order may go out."""
        c, self._now, self._fills = self.c, bar.open_time, []
        self._window.add(bar)
        self.book, events = advance(self.book, {self._setup.symbol: bar}, self._exchange)
        self._fills += events.fills
        c.cycle_number += 1
        observation = self._observe(events)
        desk.take_observation(c, observation, 0, self._tick())
        hold = self._enforce(observation)
        if c.state is State.RUNNING:
            self._decide(observation, hold)
        c.last_cycle_at = self._now
        assert observation.assessment is not None
        return Cycle(
            bar,
            observation,
            observation.assessment.measures,
            c.state,
            self._taken_rows(),
            self._fills,
            list(events.entries),
        )

    def measures(self) -> Measures:
        """The account as it is now, after whatever the last cycle did."""
        return self._watch(self._observe().reading).measures

    def _tick(self) -> Tick:
        return Tick(self._now, self._new_id)

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._ids)}"

    def _observe(self, events: Events = NOTHING_HAPPENED) -> Observation:
        times = Times(self._now, self._now, self._now)
        return observation_of(self.book, self._exchange, times, events, watch=self._watch)

    def _watch(self, reading: Reading) -> Assessment:
        return assess(reading, self.c.limits, self.c.risk)

    # --- limits ------------------------------------------------------------------------------------------------------

    def _enforce(self, observation: Observation) -> str | None:
        c, hold, assessment = self.c, None, observation.assessment
        assert assessment is not None
        enforcing.take_assessment(c, assessment, self._tick())
        if assessment.breaches and c.state is not State.KILLED:
            hold = enforcing.confirm(c, assessment, self._observe().assessment, self._tick())
        if cut := enforcing.reduce(c, assessment, self._tick()):
            hold = f"reducing {', '.join(cut)}"
        self._carry_out()
        return hold

    def _carry_out(self) -> None:
        """What the outbox does: cancels, then reductions, then what a kill that flattens still has to close."""
        if self.c.cancels:
            self._cancel()
        if self.c.deleverages:
            self._reduce()
        for _ in range(MOST_CLOSES):
            if not enforcing.flattening(self.c) or enforcing.flatten(self.c, self._observe(), self._tick()):
                return
            self._reduce()
            self._cancel()

    def _cancel(self) -> None:
        for cancel in list(self.c.cancels):
            self.book, _ = cancel_all(self.book, _MARKETS[cancel.tool], cancel.symbol)
        cancels_confirmed(self.c, [cancel.instruction_id for cancel in self.c.cancels], self._now)

    def _reduce(self) -> None:
        for pending in list(self.c.deleverages):
            sized = plan(
                self._observe(), pending.symbol, pending.reduce_pct, pending.quantity, automatic=pending.automatic
            )
            if sized.instruction is None:
                desk.finish_deleverage(self.c, pending, sized.refusal or "nothing to reduce", self._tick())
                continue
            placed = desk.reduction_prepared(self.c, pending, sized, self._tick())
            desk.take_report(self.c, placed, self._place(placed.order), self._tick())

    # --- decisions ---------------------------------------------------------------------------------------------------

    def _decide(self, observation: Observation, hold: str | None) -> None:
        c = self.c
        choice = nothing(f"No new order: {hold}") if hold else self._choose(observation)
        row = desk.decision_of(c, choice, self._tick())
        c.records.append(row)
        if choice.instruction is not None:
            pending = order_prepared(c, desk.order_of(c, choice, row, self._tick()))
            pending.phase = OrderPhase.SENDING
            desk.take_report(c, pending, self._place(pending.order), self._tick())

    def _choose(self, observation: Observation) -> Choice:
        c, symbol = self.c, self._setup.symbol
        round_ = Round(self._room.names, c.agents, c.cycle_number)
        book = _Once(symbol, self._top_of_book)
        answers = self._room.answers(round_.asked, self._arguments(observation, book))
        situation = Situation(
            observation=observation,
            limits=c.limits,
            symbols=c.symbols,
            bars={symbol: self._window.bars()},
            books=book,
            blocked=desk.blocked(c),
            sent=c.recent_orders,
            weights=self._setup.weights,
            now=self._now,
        )
        choice = choose(round_, answers, situation, (), self._new_id)
        c.agents = choice.agents
        return choice

    def _top_of_book(self) -> TopOfBook:
        setup, bar = self._setup, self.book.bars[self._setup.symbol]
        return top_of_book(bar, setup.rules, setup.terms, self.book.taken.get(setup.symbol, ZERO))

    def _arguments(self, observation: Observation, book: Mapping[str, TopOfBook]) -> Arguments:
        symbol = self._setup.symbol
        funding = next_rate(symbol, self.book.bars[symbol], self._exchange)
        held = next((p.quantity for p in observation.positions if p.market is Market.FUTURES), ZERO)
        return Arguments(
            bars={symbol: self._window.arrays()},
            book=_Once(symbol, lambda: quote_of(book[symbol])),
            funding={symbol: float(funding)} if funding is not None else {},
            positions={symbol: float(held)},
        )

    def _place(self, order: Order) -> OrderReport:
        asked = PaperOrder.asked(order.order_id, self.book.desk, Market.FUTURES, order.instruction)
        step = place(asked, self.book, self._exchange)
        self.book = step.book
        self._fills += [step.fill] if step.fill else []
        return report_of(step.order)

    def _taken_rows(self) -> list[Decision]:
        """The rows of this bar; a desk's go to the database, and nothing here grows with the number of bars."""
        rows, self.c.records, self.c.instruction_rows = self.c.records, [], {}
        return rows
