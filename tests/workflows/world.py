"""The world around a coordinator in its tests: activities under the real names, with switches for every fault."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from temporalio import activity
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from activities import calls
from activities.scope import refuse_other
from domain.agents import AgentHealth
from domain.assessing import assess
from domain.books_seen import BooksSeen
from domain.carried import Carried
from domain.clocks import ClockReading
from domain.deciding import Choice, nothing
from domain.decisions import Decision, DecisionType
from domain.instructions import InstructionRow, OrderInstruction, OrderType, Side
from domain.limits import Limits
from domain.market import Account, Known, LatchReading, LatchRow, Observation, OpenOrder, Position, SymbolRules
from domain.orders import Fate, OrderReport
from domain.proposals import Proposal
from domain.reducing import Plan
from domain.states import Mode, State
from domain.status import Outcomes, Status
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway, registered_attributes
from workflows.patience import TASK_TIMEOUT, allow_a_full_signal_queue

BTC = "BTCUSDT"
# A position of 1 at 100 is 1 % of the account: these warn at 0.5 %, reduce past 1 % and kill past 3 %.
TIGHT = Limits(max_position_fraction="0.01", soft_position_fraction="0.01", hard_position_fraction="0.03")
PROPOSAL = {"agent_id": "mine", "symbol": BTC, "side": "BUY", "confidence": 0.8}
# By the server's design: a signal that arrived while continue-as-new committed, and more signals at once than it buffers.
HARMLESS = (
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNSPECIFIED,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,
)


def rules(symbol: str = BTC) -> SymbolRules:
    return SymbolRules(
        symbol=symbol,
        tick_size=Decimal("0.1"),
        lot_step=Decimal("0.001"),
        min_quantity=Decimal("0.001"),
        min_notional=Decimal(5),
    )


def carried(desk: str, **changes: Any) -> Carried:
    now = datetime.now(UTC)
    facts: dict[str, Any] = {
        "desk": desk,
        "mode": Mode.PAPER,
        "symbols": [BTC],
        "cycle_seconds": 0.2,
        "limits": Limits(),
        "search_attributes": True,
        "started_at": now,
        "since": now,
    }
    return Carried(**(facts | changes))


@dataclass
class World:
    """Fakes of the venue and of the database, which stand apart from each other."""

    database_up: bool = True
    database_hangs: bool = False
    venue_up: bool = True
    # Whether the account can be read; cancels go out all the same.
    readable: bool = True
    proposes: bool = False
    agent_fails: bool = False
    health: list[dict[str, AgentHealth]] = field(default_factory=list)
    decides: bool = True
    order_fate: Fate = Fate.FILLED
    latch: LatchRow | None = None
    position: Decimal = Decimal(0)
    equity: Decimal = Decimal(10_000)
    # What readings that only read again show, where it differs.
    second_equity: Decimal | None = None
    fills_at_most: Decimal | None = None
    fills_half: bool = False
    open_orders: list[OpenOrder] = field(default_factory=list)
    # Why readings are no facts, the first ones of a cycle and those that only read again.
    doubts: list[str] = field(default_factory=list)
    second_doubts: list[str] = field(default_factory=list)
    known: list[Known] = field(default_factory=list)
    # Symbols whose cancels fail.
    stuck: set[str] = field(default_factory=set)
    # Symbols whose cancels take longer than the others of the same activity, and how many each activity had.
    slow: set[str] = field(default_factory=set)
    together: list[int] = field(default_factory=list)
    # So many cancels find other calls before them.
    busy: int = 0
    cancel_seconds: float = 0.0
    cancelling: int = 0
    most_at_once: int = 0
    readings_again: int = 0
    # Readings, first ones or those that only read again, wait here once they have seen the venue.
    observe_gate: asyncio.Event | None = None
    again_gate: asyncio.Event | None = None
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    decide_gate: asyncio.Event | None = None
    deciding: asyncio.Event = field(default_factory=asyncio.Event)
    decisions: dict[str, Decision] = field(default_factory=dict)
    instructions: dict[str, InstructionRow] = field(default_factory=dict)
    cancels: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    observations: int = 0
    order_gate: asyncio.Event | None = None
    order_started: asyncio.Event = field(default_factory=asyncio.Event)
    settle_fate: Fate = Fate.UNKNOWN
    clear_gate: asyncio.Event | None = None
    latch_gate: asyncio.Event | None = None
    look_gate: asyncio.Event | None = None
    plan_gate: asyncio.Event | None = None
    plan_started: asyncio.Event = field(default_factory=asyncio.Event)
    scope: calls.Scope | None = None
    clocks: list[ClockReading] = field(default_factory=list)
    books: BooksSeen | None = None
    commit_gate: asyncio.Event | None = None
    commit_started: asyncio.Event = field(default_factory=asyncio.Event)
    # Whether Temporal says which search attributes it knows, and how often it was asked.
    attributes_told: bool = True
    looks: int = 0

    async def _database(self) -> None:
        if self.database_hangs:
            await asyncio.sleep(600)
        if not self.database_up:
            raise ApplicationError("the database cannot be reached", type="DatabaseUnavailable")

    def _venue(self) -> None:
        if not self.venue_up:
            raise ApplicationError("the venue does not answer", type="VenueUnavailable")

    @activity.defn(name="observe")
    async def observe(self, call: calls.ObserveCall) -> Observation:
        self._venue()
        if not self.readable:
            raise ApplicationError("the venue does not answer", type="VenueUnavailable")
        self.observations += 1
        self.readings_again += call.cycle_id is None
        self.known.append(call.known)
        now = datetime.now(UTC)
        again = call.cycle_id is None and self.second_equity is not None
        held = [Position(symbol=BTC, quantity=self.position, entry_price=Decimal(100), mark_price=Decimal(100))]
        known = self.database_up and not self.database_hangs
        seen = Observation(
            observed_at=now,
            data_time=now,
            marks={BTC: Decimal(100)},
            rules={BTC: rules()},
            positions=held if self.position else [],
            open_orders=list(self.open_orders),
            account=Account(balance=self.second_equity if again and self.second_equity else self.equity),
            clocks=list(self.clocks),
            books=self.books,
            doubts=[*self.doubts, *(self.second_doubts if call.cycle_id is None else [])],
            latch=self.latch if known else None,
            latch_error=None if known else "the database cannot be reached",
        )
        if gate := self.again_gate if call.cycle_id is None else self.observe_gate:
            self.reading.set()
            await gate.wait()
        watched = None if call.limits is None else assess(seen.reading, call.limits, call.risk)
        return seen.model_copy(update={"assessment": watched})

    @activity.defn(name="decide")
    async def decide(self, call: calls.DecideCall) -> Choice:
        if not self.decides:
            raise ApplicationError("no decision", type="Test", non_retryable=True)
        self.health.append(dict(call.agents))
        if self.decide_gate:
            self.deciding.set()
            await self.decide_gate.wait()
        failing = {"x": AgentHealth(failures=call.cycle)} if self.agent_fails else {}
        if call.proposals:
            return Choice(
                decision_type=DecisionType.ORDER_INTENT,
                summary=f"Selected {BTC} from {call.proposals[0].agent_id}",
                votes={p.agent_id: p.confidence for p in call.proposals},
                proposal=call.proposals[0],
                risk_passed=False,
                risk_reasons=["position_too_large"],
            )
        if not self.proposes or call.blocked or call.observation.latch_error:
            idle = nothing(call.observation.latch_error or "No agent proposed an order")
            return idle.model_copy(update={"agents": failing})
        order = OrderInstruction(
            symbol=BTC, side=Side.BUY, order_type=OrderType.MARKET, quantity=Decimal("0.5"), reduce_only=False
        )
        return Choice(
            decision_type=DecisionType.ORDER_INTENT,
            summary=f"Selected {BTC} from fake",
            proposal=Proposal(proposal_id="sig_1", agent_id="fake", symbol=BTC, side=Side.BUY, confidence=1.0),
            instruction=order,
            risk_passed=True,
            risk_reasons=["approved"],
        )

    @activity.defn(name="record")
    async def record(self, call: calls.RecordCall) -> None:
        await self._database()
        batch = call.batch
        if self.commit_gate and any(row.selected_order_id for row in batch.decisions):
            self.commit_started.set()
            await self.commit_gate.wait()
        for row in batch.decisions:
            self.decisions.setdefault(row.decision_id, row)
        for instruction in batch.instructions:
            self.instructions[instruction.instruction_id] = instruction

    @activity.defn(name="read_latch")
    async def read_latch(self, _: calls.ReadLatchCall) -> LatchReading:
        if self.latch_gate:
            await self.latch_gate.wait()
        if not self.database_up or self.database_hangs:
            return LatchReading(error="the database cannot be reached")
        return LatchReading(latch=self.latch)

    @activity.defn(name="write_desk")
    async def write_desk(self, call: calls.WriteDeskCall) -> LatchRow:
        await self._database()
        # As the database has it: a kill that stands there is cleared by a restart alone, never by a run that knows of none.
        if self.latch is None or not self.latch.killed or call.row.latch.killed:
            self.latch = call.row.latch
        return self.latch

    @activity.defn(name="clear_latch")
    async def clear_latch(self, call: calls.ClearLatchCall) -> bool:
        if self.clear_gate:
            await self.clear_gate.wait()
        await self._database()
        if self.latch is None or self.latch.kill_number != call.kill_number:
            return False
        self.decisions[call.row.decision_id] = call.row
        self.latch = LatchRow(
            killed=False, kill_number=call.kill_number, kill_id=call.kill_id, cleared_by=call.row.decision_id
        )
        return True

    @activity.defn(name="cancel")
    async def cancel(self, call: calls.CancelCall) -> None:
        self._venue()
        self.cancelling += 1
        self.most_at_once = max(self.most_at_once, self.cancelling)
        try:
            await asyncio.sleep(self.cancel_seconds)
        finally:
            self.cancelling -= 1
        if self.busy:
            self.busy -= 1
            raise ApplicationError(f"{call.tool.value} {call.symbol}: not sent, no turn", type="VenueNotSent")
        if call.symbol in self.stuck:
            raise ApplicationError(f"{call.tool.value} {call.symbol}: HTTP 503", type="VenueUnavailable")
        self.cancels.append(f"{call.tool.value} {call.symbol}")
        self.open_orders = [order for order in self.open_orders if order.symbol != call.symbol]

    @activity.defn(name="cancel_many")
    async def cancel_many(self, call: calls.CancelManyCall) -> list[calls.CancelAnswer]:
        self.together.append(len(call.cancels))
        return await asyncio.gather(*map(self._answer, call.cancels))

    async def _answer(self, call: calls.CancelCall) -> calls.CancelAnswer:
        if call.symbol in self.slow:
            return calls.CancelAnswer(done=False)
        try:
            await self.cancel(call)
        except ApplicationError as error:
            return calls.CancelAnswer(error=error.message, not_sent=error.type == "VenueNotSent")
        return calls.CancelAnswer()

    @activity.defn(name="plan_deleverage")
    async def plan_deleverage(self, call: calls.PlanCall) -> Plan:
        self._venue()
        self.plan_started.set()
        if self.plan_gate:
            await self.plan_gate.wait()
        if not self.position:
            return Plan(refusal=f"There is no open position in {call.symbol}.")
        return Plan(
            instruction=OrderInstruction(
                symbol=call.symbol,
                side=Side.SELL,
                order_type=OrderType.MARKET,
                quantity=self.position * call.reduce_pct
                if call.quantity is None
                else min(call.quantity, self.position),
                reduce_only=True,
            ),
            position=self.position,
        )

    @activity.defn(name="place_order")
    async def place_order(self, call: calls.OrderCall) -> OrderReport:
        refuse_other(self.scope or call.scope, call.scope)
        self.order_started.set()
        if self.order_gate:
            await self.order_gate.wait()
        self.sent.append(call.order.order_id)
        instruction = call.order.instruction
        if self.order_fate is Fate.FILLED:
            filled = min(instruction.quantity, self.fills_at_most or instruction.quantity)
            if self.fills_half:
                filled = max(instruction.quantity / 2, Decimal("0.001")).quantize(Decimal("0.001"))
            self.position += filled if instruction.side is Side.BUY else -filled
            if self.fills_half:
                fate = Fate.FILLED if filled == instruction.quantity else Fate.CANCELED
                return OrderReport(order_id=call.order.order_id, fate=fate, filled_quantity=filled)
        return OrderReport(order_id=call.order.order_id, fate=self.order_fate)

    @activity.defn(name="settle_order")
    async def settle_order(self, call: calls.OrderCall) -> OrderReport:
        return OrderReport(order_id=call.order.order_id, fate=self.settle_fate)

    @activity.defn(name="missing_attributes")
    async def missing_attributes(self, call: calls.AttributesCall) -> list[str]:
        self.looks += 1
        if self.look_gate:
            await self.look_gate.wait()
        if not self.attributes_told:
            raise ApplicationError("not everybody may ask", type="RPCError")
        registered = await registered_attributes(activity.client())
        return [name for name in call.names if name not in registered]

    @property
    def activities(self) -> list[Any]:
        """Every activity, for a worker."""
        return [
            self.observe,
            self.decide,
            self.record,
            self.read_latch,
            self.write_desk,
            self.clear_latch,
            self.cancel,
            self.cancel_many,
            self.plan_deleverage,
            self.place_order,
            self.settle_order,
            self.missing_attributes,
        ]

    def open_gates(self) -> None:
        """Nothing waits any more."""
        for name, gate in vars(self).items():
            if name.endswith("_gate") and isinstance(gate, asyncio.Event):
                gate.set()

    def summaries(self, kind: DecisionType = DecisionType.CONTROL) -> list[str]:
        """The summaries of all rows of a kind, oldest first."""
        rows = sorted(self.decisions.values(), key=lambda row: row.decision_id)
        return [row.summary for row in rows if row.decision_type is kind]


class Desk:
    """A running coordinator in a test, and the world around it."""

    def __init__(self, client: Client, world: World) -> None:
        self.client = client
        self.world = world
        self.desk = f"t{uuid.uuid4().hex[:10]}"
        self.queue = f"q-{self.desk}"
        self.mode = Mode.PAPER
        self.gateway = DeskGateway(client, self.desk, patience=10)
        self.handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(names.workflow_id(self.desk))

    async def start(self, **changes: Any) -> None:
        self.mode = changes.get("mode", Mode.PAPER)
        await self.client.start_workflow(
            Coordinator.run,
            carried(self.desk, **changes),
            id=names.workflow_id(self.desk),
            task_queue=self.queue,
            task_timeout=TASK_TIMEOUT,
        )

    def activity_worker(self, graceful_seconds: float = 20.0) -> Worker:
        """Activities alone: it can go away while workflow tasks go on."""
        return Worker(
            self.client,
            task_queue=names.activity_queue(self.desk, self.mode.value),
            activities=self.world.activities,
            graceful_shutdown_timeout=timedelta(seconds=graceful_seconds),
        )

    @asynccontextmanager
    async def worker(self, cached: int = 0, activities: bool = True) -> AsyncIterator[None]:
        """Polls what a real one polls: the workflow's queue, and the desk's own for activities."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._workflow_worker(cached, activities))
            if activities:
                await stack.enter_async_context(self.activity_worker(graceful_seconds=0))
            yield

    def _workflow_worker(self, cached: int, activities: bool) -> Worker:
        worker = Worker(
            self.client,
            task_queue=self.queue,
            workflows=[Coordinator],
            activities=self.world.activities if activities else [],
            max_cached_workflows=cached,
        )
        return allow_a_full_signal_queue(worker)

    async def signal(self, name: str, *payloads: Any) -> None:
        await self.handle.signal(name, args=list(payloads))

    async def status(self) -> Status:
        return await self.gateway.status()

    async def outcomes(self, *command_ids: str) -> Outcomes:
        return await self.gateway.outcomes(command_ids)

    async def until(self, condition: Any, what: str = "") -> Status:
        """Polls until the condition holds; the time bound only ends a broken test.

        The status is asked for where the history has grown: each answer replays all of it, and who asks without a pause
        keeps a busy machine from everything else.
        """
        async with asyncio.timeout(90):
            told, status = await self._past(), await self.status()
            while not condition(status):
                await asyncio.sleep(0.02)
                if (past := await self._past()) != told:
                    told, status = past, await self.status()
        return status

    async def _past(self) -> tuple[str, int]:
        """Which run it is and how many events it has: nothing else changes a status."""
        found = await self.handle.describe()
        return found.run_id or "", found.history_length

    async def state(self) -> State:
        return (await self.status()).state

    async def assert_healthy_history(self) -> None:
        """No workflow task failed: a retry can hide what replay would not."""
        async for run in self.client.list_workflows(f'WorkflowId="{self.handle.id}"'):
            handle = self.client.get_workflow_handle(self.handle.id, run_id=run.run_id)
            async for event in handle.fetch_history_events():
                assert event.workflow_task_failed_event_attributes.cause in HARMLESS, event


@asynccontextmanager
async def running_desk(
    client: Client,
    world: World | None = None,
    cached: int = 0,
    before: Callable[[Desk], Awaitable[None]] | None = None,
    **changes: Any,
) -> AsyncIterator[Desk]:
    """A desk with a worker, and what comes before there is one; its history is checked and it is terminated at the end."""
    desk = Desk(client, world or World())
    await desk.start(**changes)
    if before:
        await before(desk)
    async with desk.worker(cached):
        try:
            yield desk
            await desk.assert_healthy_history()
        finally:
            # A worker that stops waits for its activities: a test that fails behind a closed gate would hang for ever.
            desk.world.open_gates()
    await desk.handle.terminate("the test is over")
