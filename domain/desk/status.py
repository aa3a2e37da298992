"""What the coordinator's queries answer."""

from datetime import date
from decimal import Decimal
from itertools import islice
from typing import Any

from pydantic import Field

from domain.desk.carried import Carried, CommandRecord, GrownPosition, KillRecord, Outcome, PendingOrder, RefusalCode
from domain.desk.killing import progress, residue
from domain.desk.listed import Listed
from domain.desk.resting import RestingOrderStatus, resting_orders
from domain.desk.states import CommandKind, Mode, State
from domain.health.clocks import ClockReading
from domain.risk.limits import PORTFOLIO_LIMITS, Limits
from domain.trading.assessment import Level, Measures, RiskMemory
from domain.trading.instructions import InstructionOutcome, OpenCancel, OrderInstruction, Tool, cancel_instructions
from domain.trading.market import Account, OpenOrder, Position
from domain.trading.symbols import covered_symbols
from domain.values import Moment, Value, printable_texts

MAX_SHOWN = 50


class KillStatus(Value):
    """The kill in force.

    `confirmed`: how many of its cancels the venue has confirmed; `quiet_at`: when it had confirmed all of them.
    `verified_at`: when a reading of the whole account then showed no open order. `residue`: what is still outstanding.
    `grown`: positions that are larger than before the kill.
    """

    command_id: str
    reason: str
    actor: str
    source: str
    at: Moment
    row_written: bool
    latched: bool
    cancels: int = 0
    confirmed: int = 0
    quiet_at: Moment | None
    verified_at: Moment | None = None
    progress: str = ""
    residue: list[str] = Field(default_factory=list)
    flattens: bool
    flat_at: Moment | None
    grown: list[GrownPosition] = Field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether the kill is verified and, if it flattens, the desk is flat."""
        return self.verified_at is not None and (self.flat_at is not None or not self.flattens)


class OpenInstruction(Value):
    """An instruction that the venue has not confirmed."""

    instruction_id: str
    tool: Tool
    symbol: str
    outcome: InstructionOutcome
    since: Moment
    attempts: int
    last_error: str | None


class ObservationStatus(Value):
    """The last successful reading of the venue. `clocks` compares the worker's clock with others."""

    observed_at: Moment
    data_time: Moment
    market_time: Moment
    marks: dict[str, Decimal]
    positions: list[Position]
    open_orders: list[OpenOrder]
    account: Account
    nav: Decimal
    clocks: list[ClockReading] = Field(default_factory=list)


class LimitStatus(Value):
    """One portfolio limit: its current measure, the soft and hard numbers, and its level (`calm` to `hard`)."""

    limit: str
    value: Decimal
    soft: Decimal
    hard: Decimal
    level: str


class PortfolioStatus(Value):
    """The portfolio by the last reading, against its limits. `day` is the market's UTC day, which opened with `day_open`."""

    equity: Decimal
    peak: Decimal
    day: date | None
    day_open: Decimal
    limits: list[LimitStatus]


class AgentStatus(Value):
    """An agent whose last call failed; `quarantined_until` is the cycle that tries it again."""

    failures: int
    quarantined_until: int | None


class LastDecision(Value):
    """The newest cycle decision or command, in one line."""

    decision_id: str
    timestamp: Moment
    summary: str


class Status(Value):
    """Everything an operator needs, in one model (query `status`, `GET /control/coordinator`).

    `run_ending`: the workflow is about to continue as a new run, and refuses a restart until it has done so.
    """

    desk: str
    state: State
    reason: str
    actor: str
    since: Moment
    mode: Mode
    symbols: list[str]
    covered_symbols: list[str]
    cycle_seconds: float
    started_at: Moment
    kill_number: int
    last_kill_at: Moment | None
    kill: KillStatus | None
    restart_pending: bool
    cycle_number: int
    last_cycle_at: Moment | None
    last_cycle_seconds: float | None
    observation: ObservationStatus | None
    observation_error: str | None
    portfolio: PortfolioStatus | None
    failing_agents: dict[str, AgentStatus]
    last_decision: LastDecision | None
    open_instructions: list[OpenInstruction]
    open_instructions_total: int
    unknown_orders: list[str]
    unknown_orders_total: int = 0
    resting_orders: list[RestingOrderStatus] = Field(default_factory=list)
    resting_orders_total: int = 0
    commands_pending: int
    proposals_waiting: int
    records_waiting: int
    limits: dict[str, Any]
    kill_flattens: bool
    database_id: str | None = None
    account: str | None = None
    database_seen_at: Moment | None = None
    search_attributes: bool
    warnings: list[str]
    run_id: str
    run_ending: bool = False


class CommandOutcome(Value):
    """What became of one command. `reused_id`: this kill took effect although another command had used its id before."""

    command_id: str
    command: CommandKind
    outcome: Outcome
    at: Moment
    actor: str
    reason: str
    detail: str | None = None
    code: RefusalCode | None = None
    repeated: bool = False
    reused_id: bool = False
    fingerprint: str
    symbols: list[str] | None = None
    cancel_instructions: list[dict[str, str]] | None = None
    symbol: str | None = None
    reduce_pct: Decimal | None = None
    instruction: OrderInstruction | None = None
    limits: dict[str, str] | None = None
    proposal_id: str | None = None
    expires_at: Moment | None = None


class Outcomes(Value):
    """Answer to the query `outcomes`: the status, and the outcome of each requested id that is known."""

    status: Status
    outcomes: dict[str, CommandOutcome]


def status_of(carried: Carried, run_id: str, arrived: int = 0) -> Status:
    """The answer to the status query; `arrived` counts signals that still wait for their turn."""
    c, row = carried, carried.last_decision
    last = LastDecision.model_validate(row.model_dump(include=set(LastDecision.model_fields))) if row else None
    open_, resting = open_instructions(c), resting_orders(c)
    unknown = [p.order.order_id for p in c.orders if p.phase == "unknown"]
    return Status(
        **printable_texts({name: getattr(c, name) for name in _COPIED}),
        covered_symbols=covered_symbols(c.symbols, c.seen_symbols),
        kill=_kill_status(c, c.kill) if c.kill else None,
        restart_pending=c.restart is not None,
        warnings=c.warning_texts,
        observation=_observation_status(c),
        portfolio=_portfolio_status(c),
        failing_agents={name: AgentStatus.model_validate(health.model_dump()) for name, health in c.agents.items()},
        last_decision=last,
        open_instructions=list(islice(open_, MAX_SHOWN)),
        open_instructions_total=len(open_),
        unknown_orders=unknown[:MAX_SHOWN],
        unknown_orders_total=len(unknown),
        resting_orders=list(islice(resting, MAX_SHOWN)),
        resting_orders_total=len(resting),
        commands_pending=sum(not d.automatic for d in c.deleverages)
        + (c.restart is not None)
        + (c.addition is not None)
        + arrived,
        proposals_waiting=len(c.proposals),
        records_waiting=len(c.records),
        limits=c.limits.model_dump(mode="json"),
        run_id=run_id,
        run_ending=c.hand_over,
    )


_COPIED = [
    "desk",
    "state",
    "reason",
    "actor",
    "since",
    "mode",
    "symbols",
    "cycle_seconds",
    "started_at",
    "kill_number",
    "last_kill_at",
    "cycle_number",
    "last_cycle_at",
    "last_cycle_seconds",
    "observation_error",
    "search_attributes",
    "kill_flattens",
    "database_id",
    "account",
    "database_seen_at",
]


def outcome_of(record: CommandRecord | None) -> CommandOutcome | None:
    """One command's outcome; None if the id is unknown."""
    if record is None:
        return None
    facts = record.model_dump(exclude={"kind", "rounds"})
    canceled = record.symbols if record.kind is not CommandKind.ADD_SYMBOLS else None
    # A kill has 800, and a query asks about many kills: what pydantic does for each would take half of its time.
    cancels = [{"tool": i.tool.value, "symbol": i.symbol} for i in cancel_instructions(canceled or [])]
    return CommandOutcome(**facts, command=record.kind, cancel_instructions=cancels or None)


def outcomes_of(carried: Carried, command_ids: list[str], run_id: str, arrived: int = 0) -> Outcomes:
    """The outcomes query's answer."""
    found = {i: outcome for i in command_ids if (outcome := outcome_of(carried.commands.get(i)))}
    return Outcomes(status=status_of(carried, run_id, arrived), outcomes=found)


def open_instructions(c: Carried) -> Listed[OpenInstruction]:
    """The cancels and orders that nobody has confirmed."""
    return Listed((c.cancels, _open_cancel), (c.orders, _open_order))


def _open_cancel(cancel: OpenCancel) -> OpenInstruction:
    return OpenInstruction(
        instruction_id=cancel.instruction_id,
        tool=cancel.tool,
        symbol=cancel.symbol,
        outcome=InstructionOutcome.PREPARED,
        since=cancel.prepared_at,
        attempts=cancel.attempts,
        last_error=cancel.last_error,
    )


def _open_order(pending: PendingOrder) -> OpenInstruction:
    return OpenInstruction(
        instruction_id=pending.order.order_id,
        tool=Tool.CREATE_ORDER,
        symbol=pending.order.instruction.symbol,
        outcome=InstructionOutcome.UNKNOWN if pending.phase == "unknown" else InstructionOutcome.PREPARED,
        since=pending.since,
        attempts=1,
        last_error=None,
    )


def _kill_status(c: Carried, kill: KillRecord) -> KillStatus:
    facts = printable_texts(kill.model_dump(exclude={"row_id", "held", "held_at", "left"}))
    found = residue(c)
    left = list(islice(found, MAX_SHOWN))
    if len(found) > MAX_SHOWN:
        # Whoever cancels by hand must not take the first few for all.
        left[-1] = f"and {len(found) - MAX_SHOWN + 1} more, among the open instructions"
    return KillStatus(
        **facts,
        latched=c.latched,
        progress=progress(c, kill),
        residue=left,
    )


def _observation_status(c: Carried) -> ObservationStatus | None:
    if c.observation is None:
        return None
    names = ("observed_at", "data_time", "market_time", "marks", "positions", "open_orders", "account", "clocks")
    return ObservationStatus(**{name: getattr(c.observation, name) for name in names}, nav=c.observation.account.nav)


def _portfolio_status(c: Carried) -> PortfolioStatus | None:
    assessment = c.observation.assessment if c.observation else None
    if assessment is None:
        return None
    m = assessment.measures
    return PortfolioStatus(
        equity=m.equity, peak=m.peak, day=c.risk.day, day_open=m.day_open, limits=limit_statuses(c.limits, m, c.risk)
    )


def limit_statuses(limits: Limits, measures: Measures, memory: RiskMemory) -> list[LimitStatus]:
    """Every portfolio limit, in their order."""
    return [
        LimitStatus(
            limit=limit.name,
            value=getattr(measures, limit.name),
            soft=getattr(limits, limit.soft),
            hard=getattr(limits, limit.hard),
            level=memory.levels.get(limit.name, Level.CALM).name.lower(),
        )
        for limit in PORTFOLIO_LIMITS
    ]
