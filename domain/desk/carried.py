"""The carried state: everything that a coordinator keeps from run to run.

Whatever the workflow keeps elsewhere is lost at the next continue-as-new. A stop flag kept outside such an object once made
a workflow run for ever.
"""

from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field, field_validator

from domain.desk.commands import AddSymbols, Deleverage, Restart, Source
from domain.desk.open_cancels import OpenCancels
from domain.desk.states import CommandKind, Mode, State
from domain.desk.versions import SCHEMA_VERSION
from domain.risk.limits import Limits
from domain.trading.agents import AgentHealth
from domain.trading.assessment import RiskMemory
from domain.trading.decisions import Decision
from domain.trading.instructions import InstructionRow, OrderInstruction
from domain.trading.market import Market, Observation
from domain.trading.orders import Order
from domain.trading.proposals import WaitingProposal
from domain.trading.quotes import AgentQuote
from domain.values import Moment, Record, Value

MAX_WARNINGS = 10


class Outcome(StrEnum):
    """What became of a command."""

    APPLIED = "applied"
    REFUSED = "refused"
    PENDING = "pending"


class RefusalCode(StrEnum):
    """The kind of a refusal, for programs; the detail is for people."""

    CONFLICT = "conflict"
    INVALID = "invalid"
    EXPIRED = "expired"
    BUSY = "busy"


class Refusal(NamedTuple):
    """Why a command is not carried out."""

    detail: str
    code: RefusalCode


class CommandRecord(Record):
    """One command in the dedupe window, and its outcome. `rounds` counts how often cancels were issued under its id."""

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


class DeskWarning(Value):
    """A warning in the status. `topic` and `about` say what ends it (`domain/desk/warnings.py`)."""

    topic: str
    about: str = ""
    text: str


class GrownPosition(Record):
    """A position that is larger than before the kill, or has changed sign. Both quantities are signed."""

    market: Market
    symbol: str
    before: Decimal
    now: Decimal


class LeftPosition(Record):
    """A futures position that a flattening kill has not closed yet. `lot_step` is None if the venue's rules are unknown."""

    symbol: str
    quantity: Decimal
    lot_step: Decimal | None = None

    @property
    def is_dust(self) -> bool:
        """Whether it is too small for any order."""
        return self.lot_step is not None and abs(self.quantity) < self.lot_step


class KillRecord(Record):
    """The kill in force. `row_id`: its row in the decision log. `quiet_at`: when every cancel was confirmed and no order
    was on its way.

    `verified_at`: when a later reading of the whole account showed no open order. `cancels` counts the prepared cancels,
    `confirmed` those that the venue has confirmed.
    """

    command_id: str
    reason: str
    actor: str
    source: Source
    at: Moment
    row_id: str
    # Set when the write is confirmed. A row that is no longer queued would be no proof.
    row_written: bool = False
    cancels: int = 0
    confirmed: int = 0
    quiet_at: Moment | None = None
    verified_at: Moment | None = None
    # Set if an operator has killed as well: limits then send nothing any more.
    hands_off: bool = False
    # Whether the desk closes its positions after the kill; `flat_at`: when a reading of the venue showed none left.
    flattens: bool = False
    flat_at: Moment | None = None
    # The positions in the newest reading since the kill; None before there is one.
    left: list[LeftPosition] | None = None
    # The signed positions at the kill, by market and symbol, as read at `held_at`; None if there was no reading.
    held: dict[str, Decimal] | None = None
    held_at: Moment | None = None
    grown: list[GrownPosition] = Field(default_factory=list)


class OrderPhase(StrEnum):
    """How far an order has come. A settled order is no longer carried."""

    DECIDED = "decided"
    SENDING = "sending"
    UNKNOWN = "unknown"
    SETTLED = "settled"


class OrderEvent(StrEnum):
    """What moves an order on: it was sent, or a report says what became of it, or that nobody knows."""

    SENT = "sent"
    KNOWN = "known"
    NOT_KNOWN = "not known"


# Only the first row leads to `sending`: an order is sent once (I4).
ORDER_PHASES = {
    (OrderPhase.DECIDED, OrderEvent.SENT): OrderPhase.SENDING,
    (OrderPhase.DECIDED, OrderEvent.KNOWN): OrderPhase.SETTLED,
    (OrderPhase.DECIDED, OrderEvent.NOT_KNOWN): OrderPhase.UNKNOWN,
    (OrderPhase.SENDING, OrderEvent.KNOWN): OrderPhase.SETTLED,
    (OrderPhase.SENDING, OrderEvent.NOT_KNOWN): OrderPhase.UNKNOWN,
    (OrderPhase.UNKNOWN, OrderEvent.KNOWN): OrderPhase.SETTLED,
    (OrderPhase.UNKNOWN, OrderEvent.NOT_KNOWN): OrderPhase.UNKNOWN,
}


class PendingOrder(Record):
    """An order whose fate is not known yet. `pause_row` waits for it, to say whether the pause stopped the order."""

    order: Order
    phase: OrderPhase = OrderPhase.DECIDED
    since: Moment
    pause_row: Decision | None = None

    def move(self, event: OrderEvent) -> None:
        """Moves on by the table. Raises KeyError if the table has no such row, which is a bug."""
        self.phase = ORDER_PHASES[self.phase, event]

    @property
    def adds_risk(self) -> bool:
        """Whether it could increase a position."""
        return not self.order.instruction.reduce_only


class PendingDeleverage(Record):
    """A deleverage that waits for its turn, or for the fate of its order (`order_id`, once there is one).

    `automatic`: a limit or a kill needs it, not a command. `quantity` then says how much of the position to close; None
    means all of it.
    """

    command: Deleverage
    symbol: str
    reduce_pct: Decimal
    order_id: str | None = None
    automatic: bool = False
    quantity: Decimal | None = None

    @field_validator("command", mode="before")
    @classmethod
    def _without_fraction(cls, value: object) -> object:
        """Reads an automatic deleverage of an older version, whose command named no fraction: it meant the whole position."""
        return {**value, "reduce_pct": value.get("reduce_pct") or 1} if isinstance(value, dict) else value


class PendingRestart(Record):
    """A restart that was accepted; `row` is written in the transaction that clears the latch."""

    command: Restart
    kill_number: int
    kill_id: str = ""
    row: Decision


class PendingAddition(Record):
    """Symbols that a reading of the venue still has to confirm. `since_kill`: the newest kill when they were accepted."""

    command: AddSymbols
    symbols: list[str]
    since_kill: int


class ForeignDatabase(Record):
    """A database that is not the desk's own, as the newest readings in a row have seen it."""

    database_id: str
    knows_desk: bool
    readings: int


class Carried(Record):
    """The state of a coordinator. Only the functions of `domain/desk/` change it."""

    # A run begun by older code keeps its version until it continues as new (`domain/desk/versions.py`).
    schema_version: int = SCHEMA_VERSION
    desk: str
    mode: Mode
    symbols: list[str]
    cycle_seconds: float
    limits: Limits
    search_attributes: bool
    # The last run could not end with the search attributes, and no check since then has found out which of them the server
    # knows.
    attributes_refused: bool = False
    # The last state that was written to the search attribute AisState.
    shown_state: State | None = None
    started_at: Moment
    kill_flattens: bool = False
    # Which database and which venue account are the desk's (`domain/desk/identity.py`); None while unknown.
    database_id: str | None = None
    account: str | None = None
    # When the desk's own database was last read or written.
    database_seen_at: Moment | None = None
    stranger: ForeignDatabase | None = None

    state: State = State.RUNNING
    since: Moment
    reason: str = ""
    actor: str = ""
    kill_number: int = 0
    # Row ids of the newest kill and the newest restart: their numbers may be equal by chance (`domain/desk/latch.py`).
    kill_id: str = ""
    cleared_number: int = 0
    cleared_by: str = ""
    # Ids of restarts that the database may name: attempted, applied, or read there.
    restarts: list[str] = Field(default_factory=list)
    kill: KillRecord | None = None
    last_kill_at: Moment | None = None
    restart: PendingRestart | None = None
    addition: PendingAddition | None = None

    latched_number: int = 0
    # The highest round of any command that is no longer remembered.
    forgotten_rounds: int = 0
    row_dirty: bool = False
    hand_over: bool = False

    cycle_number: int = 0
    last_cycle_at: Moment | None = None
    last_cycle_seconds: float | None = None
    observation: Observation | None = None
    observation_error: str | None = None
    # What risk-adding orders have filled since that observation, signed, by market and symbol.
    filled: dict[str, Decimal] = Field(default_factory=dict)
    seen_symbols: list[str] = Field(default_factory=list)
    risk: RiskMemory = Field(default_factory=RiskMemory)
    # The decision row of the newest reduction; its orders' instructions carry this id.
    reduction_id: str = ""
    # When the newest orders were sent, by the market's clock.
    recent_orders: list[Moment] = Field(default_factory=list)
    # Agents that failed last time, quarantined or not. An agent without an entry is healthy.
    agents: dict[str, AgentHealth] = Field(default_factory=dict)
    proposals: list[WaitingProposal] = Field(default_factory=list)
    # Agents' orders resting at the venue, by our order id, oldest first (`domain/desk/resting.py`).
    quotes: dict[str, AgentQuote] = Field(default_factory=dict)
    last_decision: Decision | None = None
    warnings: list[DeskWarning] = Field(default_factory=list)

    commands: dict[str, CommandRecord] = Field(default_factory=dict)
    # Ids in `commands` that no sender chose, oldest first.
    unnamed: list[str] = Field(default_factory=list)
    cancels: OpenCancels = Field(default_factory=OpenCancels)
    orders: list[PendingOrder] = Field(default_factory=list)
    deleverages: list[PendingDeleverage] = Field(default_factory=list)
    records: list[Decision] = Field(default_factory=list)
    # How many rows at the head of `records` were part of an attempt to write. The database may already hold them, so
    # nothing may be merged into them.
    records_attempted: int = 0
    instruction_rows: dict[str, InstructionRow] = Field(default_factory=dict)

    # The bulky parts, compressed.
    packed: list[str] | None = None

    @property
    def warning_texts(self) -> list[str]:
        """What people are shown, the newest last."""
        return [warning.text for warning in self.warnings]

    @property
    def latched(self) -> bool:
        """Whether the database is known to hold the newest kill."""
        return self.latched_number >= self.kill_number

    @property
    def latch_due(self) -> bool:
        """Whether the database row has to be written."""
        return self.row_dirty or (self.kill is not None and not self.latched)
