"""The one object that survives: all that a coordinator carries from run to run.

Whatever is on the workflow but not in here is gone at the next continue-as-new; a stop flag kept beside such an object once
made a workflow run on for ever.
"""

from decimal import Decimal
from enum import StrEnum

from pydantic import Field

from domain.agents import AgentHealth
from domain.assessment import RiskMemory
from domain.commands import Command, Source
from domain.decisions import Decision
from domain.instructions import InstructionRow, OrderInstruction
from domain.limits import Limits
from domain.market import Market, Observation
from domain.open_cancels import OpenCancels
from domain.orders import Order
from domain.proposals import WaitingProposal
from domain.states import CommandKind, Mode, State
from domain.values import Moment, Record
from domain.versions import SCHEMA_VERSION

MAX_WARNINGS = 10


class Outcome(StrEnum):
    """What became of a command."""

    APPLIED = "applied"
    REFUSED = "refused"
    PENDING = "pending"


class RefusalCode(StrEnum):
    """Why a command was refused, coarsely; the detail is for people."""

    CONFLICT = "conflict"
    INVALID = "invalid"
    EXPIRED = "expired"
    BUSY = "busy"


class CommandRecord(Record):
    """One command of the dedupe window and its outcome. `rounds` counts how often cancels were issued under its id."""

    command_id: str
    kind: CommandKind
    fingerprint: str
    outcome: Outcome
    at: Moment
    actor: str
    reason: str = ""
    detail: str | None = None
    code: RefusalCode | None = None
    repeated: bool = False
    reused_id: bool = False
    rounds: int = 0
    symbols: list[str] | None = None
    symbol: str | None = None
    reduce_pct: Decimal | None = None
    instruction: OrderInstruction | None = None
    limits: dict[str, str] | None = None
    proposal_id: str | None = None
    expires_at: Moment | None = None


class GrownPosition(Record):
    """A position of which more is held, in either direction, than before the kill. `now` is signed, `before` is not."""

    market: Market
    symbol: str
    before: Decimal
    now: Decimal


class LeftPosition(Record):
    """A futures position that a kill which flattens has not closed yet. `lot_step`: None where the venue's rules are unknown."""

    symbol: str
    quantity: Decimal
    lot_step: Decimal | None = None

    @property
    def is_dust(self) -> bool:
        """Whether it is too small for any order."""
        return self.lot_step is not None and abs(self.quantity) < self.lot_step


class KillRecord(Record):
    """The kill that holds. `row_id` is its decision; `quiet_at` when every cancel was confirmed and no order was open.

    `verified_at`: when the whole account was read after that, and showed no open order. `cancels` counts what was asked of
    the venue, `confirmed` what it answered.
    """

    command_id: str
    reason: str
    actor: str
    source: Source
    at: Moment
    row_id: str
    # Noted when the write was confirmed: a row that is not waiting any more is no proof.
    row_written: bool = False
    cancels: int = 0
    confirmed: int = 0
    quiet_at: Moment | None = None
    verified_at: Moment | None = None
    # An operator has killed, too: no limit sends anything any more.
    hands_off: bool = False
    # Where the desk closes its positions after a kill: until no position is left, read at the venue at `flat_at`.
    flattens: bool = False
    flat_at: Moment | None = None
    # What the newest reading since showed; None where there was none.
    left: list[LeftPosition] | None = None
    # How much was held as it came, by market and symbol and without a sign, as read at `held_at`; None where nobody knew.
    held: dict[str, Decimal] | None = None
    held_at: Moment | None = None
    grown: list[GrownPosition] = Field(default_factory=list)


class OrderPhase(StrEnum):
    """How far an order has come."""

    DECIDED = "decided"
    SENDING = "sending"
    UNKNOWN = "unknown"


class PendingOrder(Record):
    """An order whose fate is not known yet. `pause_row` waits for that fate, to tell whether the pause stopped it."""

    order: Order
    phase: OrderPhase
    since: Moment
    pause_row: Decision | None = None

    @property
    def adds_risk(self) -> bool:
        """Whether it could increase a position."""
        return not self.order.instruction.reduce_only


class PendingDeleverage(Record):
    """A deleverage that waits its turn, or for the fate of its order (`order_id` set once there is one).

    `automatic`: a limit or a kill asks for it and no command; `quantity` then says how much of the position, where it is
    not all of it.
    """

    command: Command
    symbol: str
    reduce_pct: Decimal
    order_id: str | None = None
    automatic: bool = False
    quantity: Decimal | None = None


class PendingRestart(Record):
    """A restart that was accepted; `row` is written in the transaction that clears the latch."""

    command: Command
    kill_number: int
    kill_id: str = ""
    row: Decision


class StrangeDatabase(Record):
    """A database that is not the desk's, as the newest readings in a row have met it."""

    database_id: str
    knows_desk: bool
    readings: int


class Carried(Record):
    """State of a coordinator. Changed only by the functions of `domain.desk` and its neighbours."""

    # What older code began keeps its number until the run continues as new (`domain.versions`).
    schema_version: int = SCHEMA_VERSION
    desk: str
    mode: Mode
    symbols: list[str]
    cycle_seconds: float
    limits: Limits
    search_attributes: bool
    # What the search attribute AisState says, as far as it could be shown.
    shown_state: State | None = None
    started_at: Moment
    kill_flattens: bool = False
    # Which database and which venue account are the desk's (`domain.identity`); None where nobody has said so yet.
    database_id: str | None = None
    account: str | None = None
    # When the desk's own database was last read or written.
    database_seen_at: Moment | None = None
    stranger: StrangeDatabase | None = None

    state: State = State.RUNNING
    since: Moment
    reason: str = ""
    actor: str = ""
    kill_number: int = 0
    # The decision of the newest kill, and that of the newest restart: numbers may be equal by chance (`domain.latch`).
    kill_id: str = ""
    cleared_number: int = 0
    cleared_by: str = ""
    # Restarts that the database may name: tried, applied, or found there.
    restarts: list[str] = Field(default_factory=list)
    kill: KillRecord | None = None
    last_kill_at: Moment | None = None
    restart: PendingRestart | None = None

    latched_number: int = 0
    # The highest round of commands that are remembered no more.
    forgotten_rounds: int = 0
    row_dirty: bool = False
    hand_over: bool = False

    cycle_number: int = 0
    last_cycle_at: Moment | None = None
    last_cycle_seconds: float | None = None
    observation: Observation | None = None
    observation_error: str | None = None
    # What orders that add risk have filled since that observation, signed, by market and symbol.
    filled: dict[str, Decimal] = Field(default_factory=dict)
    seen_symbols: list[str] = Field(default_factory=list)
    risk: RiskMemory = Field(default_factory=RiskMemory)
    # The decision that told of the newest reduction: its orders' instructions stand under this id.
    reduction_id: str = ""
    # When the newest orders were sent, by the market's clock.
    recent_orders: list[Moment] = Field(default_factory=list)
    # Agents that failed last time, quarantined or not; one without an entry is well.
    agents: dict[str, AgentHealth] = Field(default_factory=dict)
    proposals: list[WaitingProposal] = Field(default_factory=list)
    last_decision: Decision | None = None
    warnings: list[str] = Field(default_factory=list)

    commands: dict[str, CommandRecord] = Field(default_factory=dict)
    # Ids among `commands` that no sender chose, oldest first.
    unnamed: list[str] = Field(default_factory=list)
    cancels: OpenCancels = Field(default_factory=OpenCancels)
    orders: list[PendingOrder] = Field(default_factory=list)
    deleverages: list[PendingDeleverage] = Field(default_factory=list)
    records: list[Decision] = Field(default_factory=list)
    # How many rows at the head of `records` were in an attempt to write: they may stand in the database already, so
    # nothing may be merged into them.
    records_attempted: int = 0
    instruction_rows: dict[str, InstructionRow] = Field(default_factory=dict)

    # What is bulky, compressed; a single text from runs of schema 3.
    packed: str | list[str] | None = None

    @property
    def latched(self) -> bool:
        """Whether the database is known to hold the newest kill."""
        return self.latched_number >= self.kill_number

    @property
    def latch_due(self) -> bool:
        """Whether the database row has to be written."""
        return self.row_dirty or (self.kill is not None and not self.latched)
