"""The worker's metrics (docs/metrics.md). Counted where an activity's row is new, never in code that replays."""

import time
from collections.abc import Container, Iterable
from datetime import UTC, datetime
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from activities.agents.room import Answer
from domain.assessment import Measures
from domain.clocks import ClockReading
from domain.decisions import Decision, DecisionType
from domain.disks import DiskSpace
from domain.instructions import InstructionOutcome, InstructionRow, Tool
from domain.limits import PORTFOLIO_LIMITS, Limits
from domain.market import Observation

_AGENT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Instruments:
    """Every instrument of the worker, in a registry of its own."""

    def __init__(self, desk: str) -> None:
        self.registry = CollectorRegistry()
        self._desk = desk
        self._cycle_seen = 0
        self._cycle_ended_at: float | None = None
        self._trading_instruments()
        self._cycle_instruments()
        self._agent_instruments()
        self._money_instruments()
        self._books_instruments()
        self._venue_instruments()
        self._machine_instruments()

    def _trading_instruments(self) -> None:
        r = self.registry
        self.decisions = Counter("ais_decisions", "Rows written", ["desk", "decision_type", "risk_passed"], registry=r)
        self.rejections = Counter("ais_risk_rejections", "Orders refused by a guard", ["desk", "guard"], registry=r)
        self.instructions = Counter(
            "ais_instructions", "Instructions by outcome", ["desk", "tool", "outcome"], registry=r
        )
        self.kills = Counter("ais_kill_switch_triggers", "Kills", ["desk", "source"], registry=r)
        self.kill_to_quiet = Histogram(
            "ais_kill_to_quiet_seconds", "Kill to every cancel confirmed", ["desk"], buckets=_SECONDS, registry=r
        )
        self.doubtful_readings = Counter(
            "ais_doubtful_readings", "Readings whose sources contradicted each other", ["desk"], registry=r
        )
        self.words_too_old = Counter(
            "ais_words_too_old", "Sends held back since the coordinator's word was too old", ["desk"], registry=r
        )
        self.orders = Counter("ais_orders_submitted", "Orders sent", ["symbol", "side"], registry=r)
        self.filled = Counter("ais_orders_filled", "Orders filled", ["symbol"], registry=r)
        self.paper_fills = Counter("ais_paper_fills", "Fills on the paper venue", ["symbol"], registry=r)
        self.signals = Counter("ais_signals", "Proposals made", ["agent_id", "direction"], registry=r)
        self.approved = Counter("ais_signals_approved", "Proposals that passed risk", registry=r)
        self.rejected = Counter("ais_signals_rejected", "Proposals that risk refused", ["reason"], registry=r)

    def _cycle_instruments(self) -> None:
        r = self.registry
        self.cycle = Histogram("ais_cycle_seconds", "One cycle", ["desk"], buckets=_SECONDS, registry=r)
        self.open_instructions = Gauge("ais_instructions_open", "Prepared and unconfirmed", ["desk"], registry=r)
        self.cycle_age = Gauge("ais_cycle_age_seconds", "Since the last completed cycle", ["desk"], registry=r)

    def _agent_instruments(self) -> None:
        r = self.registry
        self.agent = Histogram(
            "ais_agent_latency_seconds", "One agent's analysis", ["agent_id"], buckets=_AGENT_SECONDS, registry=r
        )
        self.agent_failures = Counter("ais_agent_failures", "No answer", ["agent_id", "kind"], registry=r)
        self.agent_quarantined = Gauge("ais_agent_quarantined", "Not asked for a while", ["agent_id"], registry=r)

    def _money_instruments(self) -> None:
        r = self.registry
        self.nav = Gauge("ais_nav", "Net asset value in quote currency", ["desk"], registry=r)
        self.exposure = Gauge("ais_exposure", "Gross exposure, fraction of net asset value", ["desk"], registry=r)
        self.leverage = Gauge("ais_leverage", "Value of all futures over net asset value", ["desk"], registry=r)
        self.pnl = Gauge(
            "ais_pnl", "Profit of the UTC day, fraction of the equity it opened with", ["desk"], registry=r
        )
        self.drawdown = Gauge("ais_drawdown", "Loss since the peak, fraction of it", ["desk"], registry=r)
        self.limit_use = Gauge("ais_limit_use", "Measure over its soft limit", ["desk", "limit"], registry=r)

    def _books_instruments(self) -> None:
        r = self.registry
        self.books_age = Gauge("ais_books_age_seconds", "Since the live books were read whole", ["desk"], registry=r)
        self.books_facts = Gauge("ais_books_faults", "Differences, gaps, unread parts", ["desk"], registry=r)
        self.strangers = Gauge("ais_strange_orders", "Orders there that are no row of ours", ["desk"], registry=r)

    def books_read(self, read_at: datetime | None, faults: int, strangers: int) -> None:
        """The books after a round of reading."""
        if read_at:
            self.books_age.labels(self._desk).set_function(partial(_seconds_since, read_at))
        self.books_facts.labels(self._desk).set(faults)
        self.strangers.labels(self._desk).set(strangers)

    def _venue_instruments(self) -> None:
        r = self.registry
        self.venue = Histogram("ais_aster_latency_seconds", "Venue calls", ["tool"], buckets=_SECONDS, registry=r)
        self.venue_errors = Counter("ais_aster_errors", "Venue calls that failed", ["tool"], registry=r)
        self.data_age = Gauge("ais_aster_data_age_seconds", "Freshness of data", ["data_type"], registry=r)

    def _machine_instruments(self) -> None:
        r = self.registry
        self.disk_free = Gauge("ais_disk_free_bytes", "Free space of a watched folder", ["folder"], registry=r)
        self.clock_ahead = Gauge(
            "ais_clock_ahead_seconds", "The worker's clock over another one", ["desk", "clock"], registry=r
        )
        self.disk_size = Gauge("ais_disk_size_bytes", "Size of its file system", ["folder"], registry=r)

    def _clocks_read(self, readings: Iterable[ClockReading]) -> None:
        for reading in readings:
            self.clock_ahead.labels(self._desk, reading.clock.value).set(reading.ahead_seconds)

    def disks_seen(self, disks: Iterable[DiskSpace]) -> None:
        """What the watched folders have left."""
        for disk in disks:
            self.disk_free.labels(disk.folder).set(disk.free_bytes)
            self.disk_size.labels(disk.folder).set(disk.size_bytes)

    def venue_called(self, tool: str, seconds: float, failed: bool) -> None:
        """One call of the venue, ended."""
        self.venue.labels(tool).observe(seconds)
        if failed:
            self.venue_errors.labels(tool).inc()

    def venue_data(self, kind: str, as_of: datetime) -> None:
        """Data of a kind as of a moment; its age grows until the next."""
        self.data_age.labels(kind).set_function(partial(_seconds_since, as_of))

    def decision_written(self, row: Decision) -> None:
        """A row that is new in the database."""
        passed = "none" if row.risk_passed is None else str(row.risk_passed).lower()
        self.decisions.labels(self._desk, row.decision_type.value, passed).inc()
        if row.decision_type is DecisionType.ORDER_INTENT:
            self._weighed(row)
        if row.decision_type is DecisionType.CONTROL and row.summary.startswith("kill applied"):
            self.kills.labels(self._desk, row.source or "signal").inc()

    def _weighed(self, row: Decision) -> None:
        if row.risk_passed:
            self.approved.inc()
            return
        for reason in row.risk_reasons:
            guard = reason.split(":")[0]
            self.rejections.labels(self._desk, guard).inc()
            self.rejected.labels(guard).inc()

    def instruction_written(self, row: InstructionRow) -> None:
        """An instruction whose row is new or changed its outcome."""
        self.instructions.labels(self._desk, row.tool.value, row.outcome.value).inc()
        if row.tool is Tool.CREATE_ORDER and row.order and row.outcome is InstructionOutcome.CONFIRMED:
            self.orders.labels(row.symbol, row.order.side.value).inc()

    def cycle_completed(self, number: int, seconds: float, age_seconds: float, open_instructions: int) -> None:
        """The cycle before the one that begins; told again by a retry, and counted once."""
        self._cycle_ended_at = time.time() - age_seconds
        self.cycle_age.labels(self._desk).set_function(self._age)
        self.open_instructions.labels(self._desk).set(open_instructions)
        if number > self._cycle_seen:
            self._cycle_seen = number
            self.cycle.labels(self._desk).observe(seconds)

    def agents_answered(self, answers: Iterable[Answer]) -> None:
        """Agents of this desk were asked. Those outside are not counted: they may name themselves anything."""
        for answer in answers:
            self.agent.labels(answer.agent_id).observe(answer.seconds)
            if answer.failure:
                self.agent_failures.labels(answer.agent_id, answer.failure.kind.value).inc()
            for suggestion in answer.suggestions:
                self.signals.labels(answer.agent_id, suggestion.side.value).inc()

    def quarantine(self, agent_ids: Iterable[str], away: Container[str]) -> None:
        """Which agents were asked in this cycle, and which were not."""
        for agent_id in agent_ids:
            self.agent_quarantined.labels(agent_id).set(agent_id in away)

    def _age(self) -> float:
        return time.time() - (self._cycle_ended_at or time.time())

    def fill_seen(self, symbol: str, *, whole: bool, on_paper: bool = True) -> None:
        """A fill that is told for the first time; `whole` where it was the order's last."""
        if on_paper:
            self.paper_fills.labels(symbol).inc()
        if whole:
            self.filled.labels(symbol).inc()

    def observed(self, observation: Observation) -> None:
        """A reading of the account; money stays on the worker's own port."""
        for fill in observation.fills:
            self.fill_seen(fill.symbol, whole=fill.whole)
        self.nav.labels(self._desk).set(float(observation.account.nav))
        if observation.assessment:
            self._measured(observation.assessment.measures)
        self.venue_data("ticker", observation.data_time)
        self._clocks_read(observation.clocks)

    def _measured(self, measures: Measures) -> None:
        self.exposure.labels(self._desk).set(float(measures.gross_exposure))
        self.leverage.labels(self._desk).set(float(measures.leverage))
        self.drawdown.labels(self._desk).set(float(measures.drawdown))
        opened = measures.day_open
        self.pnl.labels(self._desk).set(float((measures.equity - opened) / opened) if opened else 0.0)

    def limits_used(self, measures: Measures, limits: Limits) -> None:
        """How much of each portfolio limit is used up: 1 is where it reduces."""
        for limit in PORTFOLIO_LIMITS:
            used = getattr(measures, limit.name) / getattr(limits, limit.soft)
            self.limit_use.labels(self._desk, limit.name).set(float(used))


def _seconds_since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
