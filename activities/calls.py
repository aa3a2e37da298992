"""The activities' signatures: what the workflow calls and what it gets back. The classes beside this file implement them."""

from decimal import Decimal
from typing import NoReturn

from pydantic import Field
from temporalio import activity

from domain.deciding import Choice
from domain.desk.ahead import DecisionFacts, ObservedAndChosen
from domain.desk.outbox import DeskRow, RecordBatch
from domain.desk.states import Mode
from domain.risk.limits import Limits
from domain.risk.reducing import Reduction
from domain.trading.assessment import RiskMemory
from domain.trading.decisions import Decision
from domain.trading.instructions import Tool
from domain.trading.market import NOTHING_KNOWN, Known, LatchReading, LatchRow, Observation
from domain.trading.orders import Order, OrderReport
from domain.values import Moment, Value

# The error type with which a worker refuses work that is meant for another.
WRONG_WORKER = "WrongWorker"
# The name that Temporal gives the venue's error: that of its class (a test compares them).
VENUE_NOT_SENT = "VenueNotSent"


class Scope(Value):
    """The desk, venue account and database that a call is for. A worker with another one refuses the call (I7).

    None means not known, and matches anything. `database_seen_at` is when the desk's own database was last read or written.
    """

    desk: str
    mode: Mode
    database_id: str | None = None
    account: str | None = None
    database_seen_at: Moment | None = None


class CycleSummary(Value):
    """The cycle before this one, for the worker's metrics."""

    number: int
    ended_at: Moment
    seconds: float
    open_instructions: int


class ObserveCall(Value):
    """A reading for one cycle; `cycle_id` makes a retry the same reading of a market that moves with the cycles.

    Without one it only reads again. The reading is checked against `limits` and `risk`, and compared with `known`. With
    `decides`, a choice made from it and from these facts may come with the reading.
    """

    scope: Scope
    symbols: list[str]
    cycle_id: str | None
    previous: CycleSummary | None = None
    limits: Limits | None = None
    risk: RiskMemory = Field(default_factory=RiskMemory)
    known: Known = NOTHING_KNOWN
    # A worker of an older release ignores it, and sends no choice.
    decides: DecisionFacts | None = None


class ObserveAnswer(Observation):
    """A reading, with the choice made from it. None: the coordinator asks for a decision of its own, if it needs one.

    Flat, so that a worker and a coordinator of different releases read each other's.
    """

    choice: Choice | None = None

    @classmethod
    def of(cls, observation: Observation, choice: Choice | None) -> "ObserveAnswer":
        """Both together."""
        return cls.model_construct(**vars(observation), choice=choice)

    @property
    def split(self) -> ObservedAndChosen:
        """Reading and choice, each by itself: the coordinator carries only the reading."""
        seen = {name: value for name, value in vars(self).items() if name != "choice"}
        return ObservedAndChosen(Observation.model_construct(**seen), self.choice)


class DecideCall(DecisionFacts):
    """The input of one decision: a reading, and the facts beside it."""

    scope: Scope
    symbols: list[str]
    observation: Observation
    limits: Limits


class CancelCall(Value):
    """One cancel at the venue. It confirms every instruction that was prepared before it began. `order_ids` are the venue's ids
    if single orders are to be canceled, instead of all orders of the symbol."""

    scope: Scope
    tool: Tool
    symbol: str
    instruction_ids: list[str]
    order_ids: list[str] = Field(default_factory=list)
    # The same cancel was begun by `cancel_many` a moment ago and had no answer yet.
    goes_on: bool = False


class CancelManyCall(Value):
    """Cancels that are due at the same time, each for a different symbol or market."""

    scope: Scope
    cancels: list[CancelCall]


class CancelAnswer(Value):
    """The result of one cancel: confirmed if it is `done` without an `error`. `not_sent`: nothing reached the venue."""

    done: bool = True
    error: str | None = None
    not_sent: bool = False


class PlanCall(Value):
    """A deleverage to size from the live position: a fraction of it, or `quantity`, but never more than the position."""

    scope: Scope
    symbol: str
    reduce_pct: Decimal
    quantity: Decimal | None = None
    automatic: bool = False


class OrderCall(Value):
    """An order to send once, under these limits, or to ask the venue about."""

    scope: Scope
    order: Order
    limits: Limits | None = None


class RecordCall(Value):
    """Rows to write."""

    scope: Scope
    batch: RecordBatch


class WriteDeskCall(Value):
    """The desk's row to write."""

    scope: Scope
    row: DeskRow


class ReadLatchCall(Value):
    """Which desk's latch."""

    scope: Scope


class ClearLatchCall(Value):
    """The first step of a restart: one transaction writes the control row and clears the latch, if desk and kill match."""

    scope: Scope
    kill_number: int
    kill_id: str
    row: Decision


class AttributesCall(Value):
    """Names of search attributes."""

    scope: Scope
    names: list[str]


def _by_a_worker() -> NoReturn:
    raise NotImplementedError("a signature; the worker registers the class that carries it out")


@activity.defn
async def observe(call: ObserveCall) -> ObserveAnswer:
    """Reads the venue and the latch. May decide at once where the reading gives no cause to act first."""
    _by_a_worker()


@activity.defn
async def decide(call: DecideCall) -> Choice:
    """Runs the agents, chooses, sizes and checks. Its result is recorded, so that a changed rule never changes a replay."""
    _by_a_worker()


@activity.defn
async def record(call: RecordCall) -> None:
    """Writes rows, each exactly once."""
    _by_a_worker()


@activity.defn
async def read_latch(call: ReadLatchCall) -> LatchReading:
    """Reads only the latch, which a run does before it reports any state."""
    _by_a_worker()


@activity.defn
async def write_desk(call: WriteDeskCall) -> LatchRow:
    """Writes the desk's row, including the latch, and returns what the row then says of it."""
    _by_a_worker()


@activity.defn
async def clear_latch(call: ClearLatchCall) -> bool:
    """Clears the latch; False if the row does not match."""
    _by_a_worker()


@activity.defn
async def cancel(call: CancelCall) -> None:
    """Cancels at the venue; returns once it has confirmed."""
    _by_a_worker()


@activity.defn
async def cancel_many(call: CancelManyCall) -> list[CancelAnswer]:
    """Cancels at the venue, several symbols and markets at the same time."""
    _by_a_worker()


@activity.defn
async def plan_deleverage(call: PlanCall) -> Reduction:
    """Reads the position and sizes the reduce-only order."""
    _by_a_worker()


@activity.defn
async def place_order(call: OrderCall) -> OrderReport:
    """Sends an order, at most once."""
    _by_a_worker()


@activity.defn
async def settle_order(call: OrderCall) -> OrderReport:
    """Asks the venue what became of an order."""
    _by_a_worker()


@activity.defn
async def missing_attributes(call: AttributesCall) -> list[str]:
    """Which of these search attributes the namespace does not know."""
    _by_a_worker()
