"""The results of a replay, counted as it runs: nothing here grows with the number of bars."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from domain.accounting import LedgerKind
from domain.desk.states import State
from domain.trading.assessment import Level, Measures
from domain.trading.decisions import Decision, DecisionType
from domain.trading.market import Bar
from domain.values import ZERO
from replay.curve import Curve
from replay.cycle import Cycle, QuietBars

MAX_EVENTS = 1_000
KILLED, REDUCED, WARNED = "killed", "reduced", "warned"
NO_ACTION = "no_action"
AFTER_KILL = "after_kill"
"""What followed a kill: the desk is flat, or a position grew. No limit has reached a level, so it is none of their warnings."""

_KINDS: dict[str | None, str] = {Level.HARD.name.lower(): KILLED, Level.SOFT.name.lower(): REDUCED, None: AFTER_KILL}


@dataclass(frozen=True)
class Event:
    """An action of a limit."""

    time: datetime
    kind: str
    text: str
    price: Decimal
    equity: Decimal


@dataclass
class Tally:
    """Counts, extremes and events of one stretch."""

    bars: int = 0
    first_time: datetime | None = None
    last_time: datetime | None = None
    first_price: Decimal = ZERO
    last_price: Decimal = ZERO
    opening_equity: Decimal = ZERO
    equity: Decimal = ZERO
    peak: Decimal = ZERO
    worst_drawdown: Decimal = ZERO
    worst_drawdown_at: datetime | None = None
    worst_day_loss: Decimal = ZERO
    worst_bar_loss: Decimal = ZERO
    decided: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    selected: Counter[str] = field(default_factory=Counter)
    acted: Counter[str] = field(default_factory=Counter)
    fills: int = 0
    traded: Decimal = ZERO
    fees: Decimal = ZERO
    realised_profit: Decimal = ZERO
    ledger: dict[LedgerKind, Decimal] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    kill: Event | None = None
    curve: Curve = field(default_factory=Curve)
    _measures: Measures | None = None

    def add(self, found: Cycle | QuietBars) -> None:
        """Adds one bar, or quiet ones."""
        if isinstance(found, QuietBars):
            self._take_prices(found.bars, found.measures)
            if found.ids:
                self.decided[NO_ACTION] += len(found.ids)
        else:
            self._take_cycle(found)

    def _take_cycle(self, cycle: Cycle) -> None:
        self._take_prices([cycle.bar], [cycle.measures])
        for row in cycle.decisions:
            self._take_decision(row, cycle)
        for fill in cycle.fills:
            self.fills += 1
            self.traded += fill.quantity * fill.price
            self.fees += fill.fee
            self.realised_profit += fill.realised_profit
        for entry in cycle.entries:
            self.ledger[entry.kind] = self.ledger.get(entry.kind, ZERO) + entry.amount

    def end(self, measures: Measures) -> None:
        """Adds the account after the fills of the last bar, which no further bar would show."""
        self.equity, self.peak = measures.equity, measures.peak
        self.worst_day_loss = max(self.worst_day_loss, measures.daily_loss)
        if measures.drawdown > self.worst_drawdown:
            self.worst_drawdown, self.worst_drawdown_at = measures.drawdown, self.last_time

    def _take_prices(self, bars: Sequence[Bar], found: Sequence[Measures]) -> None:
        first, newest = bars[0], bars[-1]
        if not self.bars:
            self.first_time, self.first_price = first.open_time, first.open
            self.opening_equity = self.equity = found[0].equity
        for bar, measures in zip(bars, found, strict=True):
            # An account that holds nothing keeps the measures of the bar before.
            if measures is not self._measures:
                self._take_measures(measures, bar.open_time)
            self.curve.add(bar, measures.equity, measures.drawdown)
        self.bars += len(bars)
        self.last_time, self.last_price = newest.open_time, newest.close

    def _take_measures(self, measures: Measures, time: datetime) -> None:
        equity, before, drawdown = measures.equity, self.equity, measures.drawdown
        if equity < before > 0:
            self.worst_bar_loss = max(self.worst_bar_loss, (before - equity) / before)
        self._measures, self.equity, self.peak = measures, equity, measures.peak
        if measures.daily_loss > self.worst_day_loss:
            self.worst_day_loss = measures.daily_loss
        if drawdown > self.worst_drawdown:
            self.worst_drawdown, self.worst_drawdown_at = drawdown, time

    def _take_decision(self, row: Decision, cycle: Cycle) -> None:
        kind = row.decision_type
        # The usual one first.
        if kind is DecisionType.NO_ACTION:
            self.decided[NO_ACTION] += 1
        elif kind is DecisionType.ORDER_INTENT:
            self.decided["approved" if row.risk_passed else "refused"] += 1
            for code in row.refused_by:
                self.refused[code] += 1
            self.selected[row.agent_id or "unknown"] += 1
        elif kind is DecisionType.RISK_ACTION:
            self._take_event(row, cycle)
        else:
            self.decided["control"] += 1

    def _take_event(self, row: Decision, cycle: Cycle) -> None:
        kind = _KINDS.get(row.source, WARNED)
        self.acted[kind] += 1
        event = Event(cycle.bar.open_time, kind, row.summary, cycle.bar.close, cycle.measures.equity)
        if kind == KILLED and self.kill is None and cycle.state is State.KILLED:
            self.kill = event
        # A kill is never left out.
        if len(self.events) < MAX_EVENTS or kind == KILLED:
            self.events.append(event)
