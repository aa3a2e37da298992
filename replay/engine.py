"""A coordinator in memory: one cycle per bar, by `domain/desk/cycle.py`, as in the workflow.

Everything that the workflow would wait for is done at once: the venue is a `Book`, an order's fate is known when it is placed,
and a cancel is confirmed at once. The time is the market's. A test runs both over part of a crash and compares their decisions.
"""

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property, partial
from itertools import count
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from activities.agents.port import Arguments, BarArrays, quote_of
from activities.agents.reply import Reply
from activities.agents.round import analyse
from activities.agents.runner import InlineAgents, answer_of
from activities.choosing import CycleContext, Round, chosen
from activities.market.replay import Block
from domain.accounting import Fill
from domain.deciding import NOTHING_CHOSEN, Choice, abstained, intent, nothing, weighed
from domain.desk import enforcing, ordering
from domain.desk.carried import Carried
from domain.desk.cycle import run_cycle
from domain.desk.outbox import cancels_confirmed
from domain.desk.recording import Tick
from domain.desk.states import Mode, State
from domain.paper.advance import advance, cancel_all, cancel_order
from domain.paper.book import NOTHING_HAPPENED, Book, Events, Exchange, FundingRates, PaperOrder, Terms
from domain.paper.funding import next_funding_hour
from domain.paper.matching import place
from domain.paper.view import Times, next_rate, observation_of, reading_of, report_of, top_of_book
from domain.risk.assessing import assess
from domain.risk.limits import Limits
from domain.risk.reducing import plan
from domain.trading.assessment import Assessment, Measures, RiskMemory
from domain.trading.decisions import Decision
from domain.trading.instructions import Tool
from domain.trading.market import Bar, Market, Observation, Reading, SymbolRules, TopOfBook
from domain.trading.orders import Order, OrderReport
from domain.trading.proposals import Analysis, Proposal, WaitingProposal
from domain.values import ZERO
from replay.cycle import Cycle, QuietBars, row_of
from replay.refusing import NOTHING_CERTAIN, Refusals, Tape, tapes_of
from replay.still import Still
from replay.window import Window, blocks_of

T = TypeVar("T")

_MARKETS = {Tool.CANCEL_ALL_ORDERS: Market.FUTURES, Tool.CANCEL_SPOT_ALL_ORDERS: Market.SPOT}
# A reduction that fills in part asks again in the next bar; a kill that flattens, for as long as there is volume.
MOST_CLOSES = 3


@dataclass(frozen=True)
class Setup:
    """The desk at its start."""

    symbol: str
    rules: SymbolRules
    terms: Terms
    funding: FundingRates
    balance: Decimal
    limits: Limits
    cycle_seconds: float
    weights: Mapping[str, float] = field(default_factory=dict)
    kill_flattens: bool = False


class _Once(Mapping[str, T]):
    """One symbol's book, computed only when it is read: most agents do not read it in most bars."""

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


def _at_once(cycle: Coroutine[None, None, None]) -> None:
    """Runs a coroutine that never waits."""
    try:
        cycle.send(None)
    except StopIteration:
        return
    raise RuntimeError("a replay cannot wait")


def _is_at_rest(c: Carried) -> bool:
    """Whether the desk runs and has nothing to do beside the market: a cycle that chooses nothing only counts itself."""
    return c.state is State.RUNNING and not (_under_way(c) or c.warnings or c.agents or c.kill)


def _is_over(c: Carried, book: Book) -> bool:
    """Whether the desk is killed, holds nothing and has nothing left to do: a cycle only counts itself."""
    return c.state is State.KILLED and book.is_idle and not (_under_way(c) or enforcing.flattening(c))


def _under_way(c: Carried) -> bool:
    return bool(c.orders or c.cancels or c.deleverages or c.proposals or c.quotes)


class Engine:
    """One desk on one symbol. With `shortcut` False every bar runs the full cycle; the results are the same."""

    def __init__(self, setup: Setup, agents: InlineAgents, started_at: datetime, *, shortcut: bool = True) -> None:
        self._setup = setup
        self._agents = agents
        self._shortcut = shortcut
        self._rules = {setup.symbol: setup.rules}
        self._exchange = Exchange(setup.terms, self._rules.get, setup.funding)
        self._window = Window()
        self._ids = count(1)
        self._rate: tuple[Decimal | None, datetime] = (None, started_at)
        self._tick = Tick(started_at, self._new_id)
        self._fills: list[Fill] = []
        self._known: Mapping[str, Reply]
        self._tape: Tape
        self._refusals = Refusals(setup.limits, setup.rules)
        self._rests = False
        self._still: Still | None = None
        self._ahead: tuple[Observation, Choice] | None = None
        self._observed: Observation
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
        """Replays one bar."""
        return next(self.run([bar]))

    def run(self, bars: Iterable[Bar]) -> Iterator[Cycle]:
        """Replays bar by bar: the venue moves on and is observed, limits act, agents propose, an order may go out."""
        for found in self.run_blocks(blocks_of(bars)):
            yield from found.cycles() if isinstance(found, QuietBars) else [found]

    def run_blocks(self, blocks: Iterable[Block]) -> Iterator[Cycle | QuietBars]:
        """The same for bars that were read many at once. Quiet ones come together."""
        for _, block, columns in blocks:
            arrays = self._window.take(block, columns)
            known: Sequence[Mapping[str, Reply]] = (
                self._heard_ahead(block, arrays) if self._shortcut else [{}] * len(block)
            )
            first, at = len(arrays) - len(block), 0
            loud = [first + number for number, replies in enumerate(known) if replies is not self._agents.silence]
            tapes = tapes_of(arrays, loud)
            while at < len(block):
                found = self._still_from(block, known, at) or self._cycle(
                    block[at], known[at], tapes.get(first + at, NOTHING_CERTAIN)
                )
                at += len(found.bars) if isinstance(found, QuietBars) else 1
                if at == len(block):
                    # A quiet bar makes its reading only on request. The coordinator needs that of the last bar.
                    self._settle()
                    self.c.observation = found.observation
                yield found

    def _heard_ahead(self, block: Sequence[Bar], arrays: BarArrays) -> list[Mapping[str, Reply]]:
        """For each bar of the block, what is known of the agents' replies before it is replayed."""
        rates, until, rate = np.full(len(arrays), np.nan), block[0].open_time, None
        for number, bar in enumerate(block, len(arrays) - len(block)):
            if bar.open_time >= until:
                rate, until = next_rate(self._setup.symbol, bar, self._exchange), next_funding_hour(bar.open_time)
            if rate is not None:
                rates[number] = rate
        return self._agents.known(self._setup.symbol, arrays, rates, len(block))

    def _still_from(self, block: Sequence[Bar], known: Sequence[Mapping[str, Reply]], at: int) -> QuietBars | None:
        """Replays the block's bars from `at` on as long as no agent proposes anything and each can be computed from the one
        before (`Still`)."""
        still, is_over, end = self._still, self.c.state is State.KILLED, at
        if still is None:
            return None
        before, measures = still.bars, []
        while end < len(block) and (is_over or known[end] is self._agents.silence):
            after = still.measured(block[end])
            if after is None:
                break
            still.take(block[end], after)
            measures.append(after)
            end += 1
        if end == at:
            return None
        bars = block[at:end]
        self._window.show(len(bars))
        return self._quiet_bars(
            bars, measures, lambda number: self._seen(still, before + 1 + number, bars[number], measures[number])
        )

    def _quiet_bars(
        self, bars: Sequence[Bar], measures: Sequence[Measures], seen: Callable[[int], Observation]
    ) -> QuietBars:
        if self.c.state is State.KILLED:
            # It asks no agent, so it writes no row.
            return QuietBars(bars, seen, measures, State.KILLED, None, [])
        ids = [self._new_id("decision") for _ in bars]
        self.c.last_decision = row_of(self._abstention, ids[-1], bars[-1])
        return QuietBars(bars, seen, measures, State.RUNNING, self._abstention, ids)

    def _cycle(self, bar: Bar, known: Mapping[str, Reply], tape: Tape) -> Cycle | QuietBars:
        """Replays one bar in the cheapest way that gives the same result: computed from the bar before (`Still`), with a check of
        the limits alone, or as a whole cycle.
        """
        self._window.show()
        self._known, self._tape = known, tape
        is_silent = self._shortcut and known is self._agents.silence
        if not is_silent and (still := self._still) and (measures := still.measured(bar)):
            seen = partial(self._seen, still, still.bars + 1, bar, measures)
            if cycle := self._heard(bar, still, measures, seen):
                return cycle
        self._settle()
        self._tick = Tick(bar.open_time, self._new_id)
        self.book, events = advance(self.book, {self._setup.symbol: bar}, self._exchange)
        if is_silent and self._rests and events is NOTHING_HAPPENED and (quiet := self._quiet(bar)):
            return quiet
        return self._full(bar, events)

    def _settle(self) -> None:
        """Brings coordinator and book up to date with the bars that `Still` has taken without them."""
        still, self._still, c = self._still, None, self.c
        if still and still.bars:
            self.book, now = still.book(still.newest, still.bars), still.newest.open_time
            self._tick = Tick(now, self._new_id)
            c.cycle_number += still.bars
            c.risk, c.last_cycle_at = still.found(still.measures).memory, now

    def _heard(self, bar: Bar, still: Still, measures: Measures, seen: Callable[[], Observation]) -> Cycle | None:
        """Replays a bar in which agents propose, but no order follows. If one follows, keeps the choice for the whole cycle, and
        returns None.
        """
        round_ = self._round(still.bars + 1)
        analysis = self._analysed(round_, bar, seen)
        choice = self._refused(analysis, bar, still, measures)
        if choice is None:
            observation = seen()
            choice = self._chosen(round_, analysis, bar, observation)
            if choice.instruction or choice.agents:
                self._ahead = observation, choice
                return None
        still.take(bar, measures)
        row = self.c.last_decision = ordering.decision_of(self.c, choice, Tick(bar.open_time, self._new_id))
        return Cycle(bar, seen, measures, State.RUNNING, [row], [], [])

    def _refused(self, analysis: Analysis, bar: Bar, still: Still, measures: Measures) -> Choice | None:
        """The choice of a desk at rest that certainly sends no order, whatever else the guards would say."""
        c = self.c
        if c.agents or analysis.failures or len(c.recent_orders) >= c.limits.max_orders_per_minute:
            return None
        analysis, wishes = weighed(analysis, self._setup.weights, {})
        if not wishes:
            return nothing(NOTHING_CHOSEN, analysis) if analysis.proposals else None
        reasons = self._refusals.reasons(wishes[0], measures, still.quantity, bar.close, self._tape)
        return intent(wishes[0], analysis, reasons) if reasons else None

    def _full(self, bar: Bar, events: Events) -> Cycle:
        """Replays a bar as a whole cycle."""
        c, self._fills, before = self.c, [*events.fills], self.c.risk
        self._observed = observed = self._ahead[0] if self._ahead else self._observe(events)
        _at_once(run_cycle(c, self))
        self._ahead = None
        self._carry_out()
        c.last_cycle_at = self._now
        assert observed.assessment is not None
        # A desk's rows go to the database. Here they go with the bar: nothing grows with the number of bars.
        rows, c.records, c.instruction_rows = c.records, [], {}
        self._rests = _is_at_rest(c) and not self.book.open_orders
        is_calm = self._rests and observed.assessment.is_calm
        if (is_calm or (_is_over(c, self.book) and not rows)) and not (self._fills or events.entries):
            self._begin_still(before, observed.assessment)
        measures = observed.assessment.measures
        return Cycle(bar, lambda: observed, measures, c.state, rows, self._fills, [*events.entries])

    def _quiet(self, bar: Bar) -> QuietBars | None:
        """Replays a quiet bar, in which only the price changes: no agent proposes, no limit reports anything new, and nothing is
        under way. None if the bar is not quiet.
        """
        c, book = self.c, self.book
        now = bar.open_time
        assessment = assess(reading_of(book, self._rules, now), c.limits, c.risk)
        if not assessment.is_calm:
            return None
        before, c.risk = c.risk, assessment.memory
        c.cycle_number += 1
        c.filled, c.last_cycle_at = {}, now
        self._begin_still(before, assessment)
        return self._quiet_bars([bar], [assessment.measures], lambda _: self._observation(book, assessment))

    def _begin_still(self, before: RiskMemory, found: Assessment) -> None:
        """Begins a row of still bars, if the last check of the limits changed nothing: the next checks can then be left out."""
        if self._shortcut and (before.levels, before.warned) == (found.memory.levels, found.memory.warned):
            self._still = Still.after(self.book, found, self.c.limits, self._exchange)

    def _seen(self, still: Still, number: int, bar: Bar, measures: Measures) -> Observation:
        """The reading after a bar that `Still` has taken."""
        return self._observation(still.book(bar, number), still.found(measures))

    def _observation(self, book: Book, assessment: Assessment) -> Observation:
        now = book.bars[self._setup.symbol].open_time
        return observation_of(book, self._exchange, Times(now, now, now), assessment=assessment)

    @cached_property
    def _abstention(self) -> Decision:
        """The row of a quiet bar, without its id."""
        votes = dict.fromkeys(self._agents.names, 0.0)
        choice = abstained(Analysis(votes=votes), self._observe())
        return ordering.decision_of(self.c, choice, Tick(self._now, lambda _: ""))

    def measures(self) -> Measures:
        """The account after the last cycle."""
        return self._watch(self._observe().reading).measures

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._ids)}"

    def _observe(self, events: Events = NOTHING_HAPPENED) -> Observation:
        now = self._tick.now
        assessment = self._watch(reading_of(self.book, self._rules, now))
        return observation_of(self.book, self._exchange, Times(now, now, now), events, assessment=assessment)

    def _watch(self, reading: Reading) -> Assessment:
        return assess(reading, self.c.limits, self.c.risk)

    # --- what a cycle needs: domain.desk.cycle.Surroundings ------------------------------------------------------------

    @property
    def latch_read(self) -> bool:
        """There is no database."""
        return True

    def tick(self) -> Tick:
        """The market's time."""
        return self._tick

    moment = tick

    @property
    def _now(self) -> datetime:
        return self._tick.now

    async def observe(self) -> Observation:
        """The book after the bar."""
        return self._observed

    async def read_again(self) -> Observation:
        """The present book."""
        return self._observe()

    async def until_reduced(self) -> None:
        """Does nothing here: a cycle that reduces sends nothing else, and its reductions are carried out at its end."""

    async def decide(
        self, observation: Observation, blocked: dict[str, str], waiting: Sequence[WaitingProposal]
    ) -> Choice:
        """What the agents propose on the bars until now."""
        if self._ahead:
            return self._ahead[1]
        bar, round_ = self.book.bars[self._setup.symbol], self._round()
        analysis = self._analysed(round_, bar, lambda: observation, [w.proposal for w in waiting])
        return self._chosen(round_, analysis, bar, observation, blocked)

    def _round(self, ahead: int = 0) -> Round:
        """The call of the agents in this cycle, or so many later."""
        return Round(self._agents.names, self.c.agents, self.c.cycle_number + ahead)

    def _analysed(
        self, round_: Round, bar: Bar, seen: Callable[[], Observation], outside: Sequence[Proposal] = ()
    ) -> Analysis:
        """The agents' answers. What they would be asked with is only put together for one whose reply is not known."""
        known, asked = self._known, round_.asked
        if known.keys() >= set(asked):
            answers = [answer_of(name, known[name], 0.0) for name in asked]
        else:
            answers = self._agents.answers(asked, self._arguments(seen(), bar), known)
        return analyse(answers, self._new_id, round_.away, outside)

    def _chosen(
        self,
        round_: Round,
        analysis: Analysis,
        bar: Bar,
        observation: Observation,
        blocked: Mapping[str, str] = MappingProxyType({}),
    ) -> Choice:
        c, symbol = self.c, self._setup.symbol
        context = CycleContext(
            observation=observation,
            limits=c.limits,
            symbols=c.symbols,
            bars={symbol: self._window.bars()},
            books=self._books(bar),
            blocked=blocked,
            sent=c.recent_orders,
            weights=self._setup.weights,
            now=bar.open_time,
            quotes=list(c.quotes.values()),
        )
        return chosen(round_, analysis, context)

    def _books(self, bar: Bar) -> Mapping[str, TopOfBook]:
        """What is offered after the bar, of whose volume the account may have taken some."""
        setup = self._setup
        taken = self.book.taken.get(setup.symbol, ZERO) if self.book.bars.get(setup.symbol) is bar else ZERO
        return _Once(setup.symbol, lambda: top_of_book(bar, setup.rules, setup.terms, taken))

    async def commit(self, row: Decision) -> None:
        """Adds a row to this bar."""
        self.c.records.append(row)

    async def until_canceled(self, _order: Order) -> None:
        """Cancels at once."""
        self._cancel()

    async def send(self, order: Order) -> OrderReport:
        """Places the order in the book."""
        return self._place(order)

    # --- what the outbox does ------------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        """Carries out cancels, then reductions, then the closing orders of a kill that flattens."""
        if self.c.cancels:
            self._cancel()
        if self.c.deleverages:
            self._reduce()
        for _ in range(MOST_CLOSES):
            if not enforcing.flattening(self.c) or enforcing.flatten(self.c, self._observe(), self.tick()):
                return
            self._reduce()
            self._cancel()

    def _cancel(self) -> None:
        for cancel in list(self.c.cancels):
            if cancel.tool is Tool.CANCEL_ORDER and cancel.order_id:
                self.book = cancel_order(self.book, cancel.order_id)
            else:
                self.book = cancel_all(self.book, _MARKETS[cancel.tool], cancel.symbol)[0]
        cancels_confirmed(self.c, [cancel.instruction_id for cancel in self.c.cancels], self._now)

    def _reduce(self) -> None:
        for pending in list(self.c.deleverages):
            sized = plan(
                self._observe(), pending.symbol, pending.reduce_pct, pending.quantity, automatic=pending.automatic
            )
            if sized.instruction is None:
                ordering.finish_deleverage(self.c, pending, sized.refusal or "nothing to reduce", self.tick())
                continue
            placed = ordering.reduction_prepared(self.c, pending, sized, self.tick())
            ordering.take_report(self.c, placed, self._place(placed.order), self.tick())

    def _arguments(self, observation: Observation, bar: Bar) -> Arguments:
        symbol, book = self._setup.symbol, self._books(bar)
        funding = self._next_rate(bar)
        held = next((p.quantity for p in observation.positions if p.market is Market.FUTURES), ZERO)
        return Arguments(
            bars={symbol: self._window.arrays()},
            book=_Once(symbol, lambda: quote_of(book[symbol])),
            funding={symbol: float(funding)} if funding is not None else {},
            positions={symbol: float(held)},
        )

    def _next_rate(self, bar: Bar) -> Decimal | None:
        """The rate of the next funding hour, which is the same for hundreds of bars."""
        rate, until = self._rate
        if bar.open_time >= until:
            rate, until = self._rate = (
                next_rate(self._setup.symbol, bar, self._exchange),
                next_funding_hour(bar.open_time),
            )
        return rate

    def _place(self, order: Order) -> OrderReport:
        asked = PaperOrder.asked(order.order_id, self.book.desk, Market.FUTURES, order.instruction)
        step = place(asked, self.book, self._exchange)
        self.book = step.book
        self._fills += [step.fill] if step.fill else []
        return report_of(step.order)
