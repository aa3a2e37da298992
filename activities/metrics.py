"""The worker's metrics (docs/metrics.md). They count when an activity writes a new row, never in code that Temporal replays."""

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from activities.agents.runner import AgentAnswer
from activities.calls import CycleSummary
from activities.fresh_gauge import FreshGauge
from domain.desk.commands import Source
from domain.desk.states import CommandKind
from domain.health.disks import DiskSpace
from domain.risk.limits import PORTFOLIO_LIMITS, Limits
from domain.trading.assessment import Measures
from domain.trading.decisions import Decision, DecisionType
from domain.trading.instructions import InstructionOutcome, InstructionRow, Tool
from domain.trading.market import Observation

# Takes the tool, seconds, symbol and outcome of a venue call.
VenueFollower = Callable[[str, float, str | None, str], None]

_AGENT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# A value read by a cycle is shown for three cycles, and for a minute at least.
_FRESH_CYCLES, _FRESH_SECONDS = 3, 60.0
# The books wait up to ten minutes for an exchange that does not answer (`activities/books.py`).
_BOOKS_FRESH_ROUNDS, _BOOKS_FRESH_SECONDS = 3, 900.0
# A few rounds of the audit's watcher, each of which may wait for the database.
_AUDIT_FRESH_SECONDS = 120.0

_NEVER = datetime.min.replace(tzinfo=UTC)


class WorkerMetrics:
    """Every instrument of the worker, in a registry of its own."""

    def __init__(
        self,
        desk: str,
        cycle_seconds: float = 0.0,
        follow: VenueFollower | None = None,
        *,
        books_seconds: float = 0.0,
    ) -> None:
        self.registry = CollectorRegistry()
        self._desk = desk
        self._follow = follow
        self._fresh_seconds = max(_FRESH_SECONDS, _FRESH_CYCLES * cycle_seconds)
        self._books_fresh_seconds = max(_BOOKS_FRESH_SECONDS, _BOOKS_FRESH_ROUNDS * books_seconds)
        # The newest cycle, and the newest decision: a retry that reports one of them again does not count again.
        self._cycle_ended = _NEVER
        self._decided: object = None
        self._decision_instruments()
        self._order_instruments()
        self._agent_instruments()
        self._account_instruments()
        self._books_instruments()
        self._machine_instruments()
        self._audit_instruments()
        self._start_at_zero()

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, *labels: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
        return Histogram(name, documentation, labels, registry=self.registry, buckets=buckets)

    def _read_each_cycle(self, name: str, documentation: str, *labels: str) -> FreshGauge:
        return FreshGauge(name, documentation, labels or ("desk",), self.registry, self._fresh_seconds)

    def _start_at_zero(self) -> None:
        """Prometheus notices the first increase only if it has seen a zero before."""
        self.doubtful_readings.labels(self._desk)
        self.answers_too_old.labels(self._desk)
        self.audit_rows.labels(self._desk)
        for source in Source:
            self.kills.labels(self._desk, source.value)

    def _decision_instruments(self) -> None:
        count = self._counter
        self.decisions = count("ais_decisions", "Rows of the decision log.", "desk", "decision_type", "risk_passed")
        self.rejections = count("ais_risk_rejections", "Orders that a guard refused, once per guard.", "desk", "guard")
        self.signals = count("ais_signals", "Proposals of the desk's own agents.", "agent_id", "direction")
        self.approved = count("ais_signals_approved", "Selected proposals that every guard approved.")
        self.rejected = count("ais_signals_rejected", "Selected proposals that a guard rejected.", "reason")
        self.doubtful_readings = count("ais_doubtful_readings", "Readings of the account that were discarded.", "desk")
        self.cycle = self._histogram("ais_cycle_seconds", "Duration of a cycle.", "desk")
        self.cycle_age = self._gauge("ais_cycle_age_seconds", "Time since the last completed cycle.", "desk")

    def _order_instruments(self) -> None:
        count = self._counter
        self.instructions = count("ais_instructions", "Instructions that got this outcome.", "desk", "tool", "outcome")
        what = "Instructions that the venue has not confirmed yet."
        self.open_instructions = self._read_each_cycle("ais_instructions_open", what)
        self.kills = count("ais_kill_switch_triggers", "Kills of a desk that was not killed yet.", "desk", "source")
        what = "Time from a kill until every cancel was confirmed."
        self.kill_to_quiet = self._histogram("ais_kill_to_quiet_seconds", what, "desk")
        what = "Orders stopped right before the send: the coordinator's answer was too old."
        self.answers_too_old = count("ais_answers_too_old", what, "desk")
        self.orders = count("ais_orders_submitted", "Orders that the venue has taken.", "symbol", "side")
        self.filled = count("ais_orders_filled", "Orders filled completely.", "symbol")
        self.paper_fills = count("ais_paper_fills", "Fills on the paper venue, partial ones too.", "symbol")

    def _agent_instruments(self) -> None:
        what = "Duration of a call of an agent."
        self.agent = self._histogram("ais_agent_latency_seconds", what, "agent_id", buckets=_AGENT_SECONDS)
        what = "Calls of an agent without a usable answer."
        self.agent_failures = self._counter("ais_agent_failures", what, "agent_id", "kind")
        what = "1 while the agent is left out, else 0."
        self.agent_quarantined = self._read_each_cycle("ais_agent_quarantined", what, "agent_id")

    def _account_instruments(self) -> None:
        read = self._read_each_cycle
        self.nav = read("ais_nav", "Net asset value in quote currency.")
        self.exposure = read("ais_exposure", "Longs plus shorts, as a fraction of net asset value.")
        self.leverage = read("ais_leverage", "Value of all futures divided by net asset value.")
        self.pnl = read("ais_pnl", "Profit of the UTC day, as a fraction of its opening equity.")
        self.drawdown = read("ais_drawdown", "Loss since the peak, as a fraction of the peak.")
        self.limit_use = read("ais_limit_use", "A portfolio measure divided by its soft limit.", "desk", "limit")

    def _books_instruments(self) -> None:
        what = "Time since the books were last read completely."
        self.books_age = self._gauge("ais_books_age_seconds", what, "desk")
        r, seconds = self.registry, self._books_fresh_seconds
        what = "Differences, gaps and unread parts of the books."
        self.books_facts = FreshGauge("ais_books_faults", what, ["desk"], r, seconds)
        what = "Orders on the account that this desk did not send."
        self.foreign_orders = FreshGauge("ais_foreign_orders", what, ["desk"], r, seconds)

    def _machine_instruments(self) -> None:
        self.venue = self._histogram("ais_aster_latency_seconds", "Duration of a venue call.", "tool")
        self.venue_errors = self._counter("ais_aster_errors", "Venue calls that failed.", "tool")
        self.data_age = self._gauge("ais_aster_data_age_seconds", "Age of the newest data of a kind.", "data_type")
        read = self._read_each_cycle
        self.disk_free = read("ais_disk_free_bytes", "Free space on the file system of a watched folder.", "folder")
        self.disk_size = read("ais_disk_size_bytes", "Size of the file system of a watched folder.", "folder")
        what = "How far the worker's clock is ahead of the named one."
        self.clock_ahead = read("ais_clock_ahead_seconds", what, "desk", "clock")

    def _audit_instruments(self) -> None:
        what = "1 while the audit chain has a known fault, else 0."
        self.audit_broken = FreshGauge("ais_audit_broken", what, ["desk"], self.registry, _AUDIT_FRESH_SECONDS)
        what = "Time since the audit chain was last verified to its end."
        self.audit_age = self._gauge("ais_audit_verified_age_seconds", what, "desk")
        what = "Rows of audit chains that were verified."
        self.audit_rows = self._counter("ais_audit_verified_rows", what, "desk")

    def audit_looked_at(self, broken: Iterable[str], whole: Iterable[str]) -> None:
        """Sets which chains have a known fault and which have none."""
        for value, desks in ((0, whole), (1, broken)):
            for desk in desks:
                self.audit_broken.set(value, desk)

    def audit_verified(self, rows: int, ages: Mapping[str, float]) -> None:
        """Counts the rows that this worker verified, and sets how long ago each chain was last verified to its end."""
        self.audit_rows.labels(self._desk).inc(rows)
        for desk, seconds in ages.items():
            since = datetime.now(UTC) - timedelta(seconds=seconds)
            self.audit_age.labels(desk).set_function(_age_of(since))

    def books_read(self, read_at: datetime | None, faults: int, foreign_orders: int) -> None:
        """The books after a round of reading."""
        if read_at:
            self.books_age.labels(self._desk).set_function(_age_of(read_at))
        self.books_facts.set(faults, self._desk)
        self.foreign_orders.set(foreign_orders, self._desk)

    def disks_seen(self, disks: Iterable[DiskSpace]) -> None:
        """Sets the free space and the size of the watched file systems."""
        for disk in disks:
            self.disk_free.set(disk.free_bytes, disk.folder)
            self.disk_size.set(disk.size_bytes, disk.folder)

    def venue_called(self, tool: str, seconds: float, outcome: str, symbol: str | None = None) -> None:
        """Counts a venue call that ended, and adds it to the trace if there is one."""
        self.venue.labels(tool).observe(seconds)
        self.venue_errors.labels(tool).inc(outcome != "ok")
        if self._follow:
            self._follow(tool, seconds, symbol, outcome)

    def venue_data(self, kind: str, as_of: datetime) -> None:
        """Sets how old the data of a kind is; the age grows until the next reading."""
        self.data_age.labels(kind).set_function(_age_of(as_of))

    def decision_written(self, row: Decision) -> None:
        """Counts a row that is new in the database."""
        passed = "none" if row.risk_passed is None else str(row.risk_passed).lower()
        self.decisions.labels(self._desk, row.decision_type.value, passed).inc()
        if row.decision_type is DecisionType.ORDER_INTENT and row.risk_passed:
            self.approved.inc()
        for guard in row.refused_by:
            self.rejections.labels(self._desk, guard).inc()
            self.rejected.labels(guard).inc()
        if (row.command, row.result) == (CommandKind.KILL.value, "applied"):
            self.kills.labels(self._desk, row.source or "signal").inc()

    def instruction_written(self, row: InstructionRow) -> None:
        """Counts an instruction whose row is new or has a new outcome."""
        self.instructions.labels(self._desk, row.tool.value, row.outcome.value).inc()
        if row.tool is Tool.CREATE_ORDER and row.order and row.outcome is InstructionOutcome.CONFIRMED:
            self.orders.labels(row.symbol, row.order.side.value).inc()

    def cycle_completed(self, cycle: CycleSummary) -> None:
        """Counts the previous cycle once, even if a retry reports it again."""
        self.cycle_age.labels(self._desk).set_function(_age_of(cycle.ended_at))
        self.open_instructions.set(cycle.open_instructions, self._desk)
        if cycle.ended_at > self._cycle_ended:
            self._cycle_ended = cycle.ended_at
            self.cycle.labels(self._desk).observe(cycle.seconds)

    def agents_answered(self, answers: Iterable[AgentAnswer], decided: object) -> None:
        """Counts the calls of this desk's agents, and their proposals once per decision. `decided` identifies the decision.
        Only the newest one is remembered, and only in this process: a retry in another worker counts again.

        Agents outside the worker are not counted, since they may choose any name.
        """
        again, self._decided = decided == self._decided, decided
        for answer in answers:
            self.agent.labels(answer.agent_id).observe(answer.seconds)
            if answer.failure:
                self.agent_failures.labels(answer.agent_id, answer.failure.kind.value).inc()
            for suggestion in () if again else answer.suggestions:
                self.signals.labels(answer.agent_id, suggestion.side.value).inc()

    def quarantine(self, agent_ids: Iterable[str], away: Container[str]) -> None:
        """Sets which agents were left out of this cycle."""
        for agent_id in agent_ids:
            self.agent_quarantined.set(float(agent_id in away), agent_id)

    def fill_seen(self, symbol: str, *, whole: bool, on_paper: bool = True) -> None:
        """Counts a fill that is reported for the first time; `whole` if it completed the order."""
        if on_paper:
            self.paper_fills.labels(symbol).inc()
        if whole:
            self.filled.labels(symbol).inc()

    def observed(self, observation: Observation) -> None:
        """Sets the gauges of the account; money appears only on the worker's own port."""
        for fill in observation.fills:
            self.fill_seen(fill.symbol, whole=fill.whole)
        self.nav.set(float(observation.account.nav), self._desk)
        if observation.assessment:
            measures, opened = observation.assessment.measures, observation.assessment.measures.day_open
            self.exposure.set(float(measures.gross_exposure), self._desk)
            self.leverage.set(float(measures.leverage), self._desk)
            self.drawdown.set(float(measures.drawdown), self._desk)
            self.pnl.set(float((measures.equity - opened) / opened) if opened else 0.0, self._desk)
        self.venue_data("ticker", observation.data_time)
        self.venue_data("positions", observation.observed_at)
        for reading in observation.clocks:
            self.clock_ahead.set(reading.ahead_seconds, self._desk, reading.clock.value)

    def limits_used(self, measures: Measures, limits: Limits) -> None:
        """Sets how much of each portfolio limit is used up. At 1 the desk reduces."""
        for limit in PORTFOLIO_LIMITS:
            used = getattr(measures, limit.name) / getattr(limits, limit.soft)
            self.limit_use.set(float(used), self._desk, limit.name)


def _age_of(moment: datetime) -> Callable[[], float]:
    """The seconds since a moment that is known from now on; at least as many as have passed since then.

    By the clock alone, nothing would grow old while it is behind the one that gave the moment, or after somebody set it back.
    """
    known = time.monotonic()
    return lambda: max((datetime.now(UTC) - moment).total_seconds(), time.monotonic() - known)
