"""The world around a coordinator in its tests: activities under the real names, with switches for every fault."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from temporalio import activity
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker

from activities import calls
from activities.scope import refuse_other
from domain.deciding import Choice, nothing
from domain.desk.ahead import may_choose
from domain.desk.carried import Carried
from domain.desk.states import Mode, State
from domain.desk.status import Outcomes, Status
from domain.risk.assessing import assess
from domain.risk.limits import Limits
from domain.risk.reducing import Reduction
from domain.trading.agents import AgentHealth
from domain.trading.decisions import DecisionType
from domain.trading.instructions import OrderInstruction, OrderType, Side
from domain.trading.market import Account, LatchReading, LatchRow, Observation, Position, SymbolRules
from domain.trading.orders import Fate, OrderReport
from domain.trading.proposals import Proposal
from tests.temporal import has_begun
from tests.workflows.parts import Agents, Cancels, Database, Orders, Part, Readings, Server, Venue
from workflows import names
from workflows.converter import DATA_CONVERTER
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway, registered_attributes
from workflows.patience import TASK_TIMEOUT, allow_a_full_signal_queue
from workflows.runner import timely

P = TypeVar("P", Database, Venue, Readings, Agents, Orders, Cancels, Server)

BTC = "BTCUSDT"
# A position of 1 at 100 is 1 % of the account: these warn at 0.5 %, reduce past 1 % and kill past 3 %.
TIGHT = Limits(max_position_fraction="0.004", soft_position_fraction="0.01", hard_position_fraction="0.03")
PROPOSAL = {"agent_id": "mine", "symbol": BTC, "side": "BUY", "confidence": 0.8}
# `make soak` sets 0: each workflow task, and each query, begins with a replay of all before it.
CACHED_RUNS = int(os.environ.get("TEST_CACHED_RUNS", "10"))
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
        "cycle_seconds": 0.5,
        "limits": Limits(),
        "search_attributes": True,
        "started_at": now,
        "since": now,
    }
    return Carried(**(facts | changes))


def _part(kind: type[P], unusual: Sequence[Part]) -> P:
    return next((part for part in unusual if isinstance(part, kind)), None) or kind()


class World:
    """The activities around a coordinator, over parts that stand apart from each other. The given ones are unusual."""

    def __init__(self, *unusual: Part) -> None:
        self.database = _part(Database, unusual)
        self.venue = _part(Venue, unusual)
        self.readings = _part(Readings, unusual)
        self.agents = _part(Agents, unusual)
        self.orders = _part(Orders, unusual)
        self.cancels = _part(Cancels, unusual)
        self.server = _part(Server, unusual)

    @activity.defn(name="observe")
    async def observe(self, call: calls.ObserveCall) -> calls.ObserveAnswer:
        self.venue.reached()
        if not self.readings.possible:
            raise ApplicationError("the venue does not answer", type="VenueUnavailable")
        again = call.cycle_id is None
        self.readings.count += 1
        self.readings.again += again
        self.readings.known.append(call.known)
        self.readings.symbols = set(call.symbols)
        now = datetime.now(UTC)
        held = [Position(symbol=BTC, quantity=self.venue.position, entry_price=Decimal(100), mark_price=Decimal(100))]
        seen = Observation(
            observed_at=now,
            data_time=now,
            marks={BTC: Decimal(100)},
            rules={name: rules(name) for name in (BTC, *self.readings.also_listed)},
            positions=held if self.venue.position else [],
            open_orders=list(self.venue.open_orders),
            account=Account(balance=(again and self.readings.second_equity) or self.venue.equity),
            clocks=list(self.readings.clocks),
            books=self.readings.books,
            doubts=[*self.readings.doubts, *(self.readings.second_doubts if again else [])],
            latch=self.database.latch if self.database.answers else None,
            latch_error=None if self.database.answers else "the database cannot be reached",
        )
        if gate := self.readings.again_gate if again else self.readings.gate:
            self.readings.begun.set()
            await gate.wait()
        watched = None if call.limits is None else assess(seen.reading, call.limits, call.risk)
        seen = seen.model_copy(update={"assessment": watched})
        return calls.ObserveAnswer.of(seen, await self._ahead(call, seen))

    async def _ahead(self, call: calls.ObserveCall, seen: Observation) -> Choice | None:
        """As a worker does: agents that are slow, or a decision that fails, leave it to a decision of its own."""
        self.agents.asked_ahead.append(call.decides)
        able = self.agents.ahead and self.agents.decide and not self.agents.gate
        if not able or call.decides is None or call.limits is None or not may_choose(seen):
            return None
        facts = vars(call.decides)
        self.agents.chosen_ahead += 1
        return await self.decide(
            calls.DecideCall(scope=call.scope, symbols=call.symbols, observation=seen, limits=call.limits, **facts)
        )

    @activity.defn(name="decide")
    async def decide(self, call: calls.DecideCall) -> Choice:
        if not self.agents.decide:
            raise ApplicationError("no decision", type="Test", non_retryable=True)
        self.agents.asked += 1
        self.agents.health.append(dict(call.agents))
        if self.agents.gate:
            self.agents.begun.set()
            await self.agents.gate.wait()
        failing = {"x": AgentHealth(failures=call.cycle)} if self.agents.fail else {}
        if call.proposals:
            return Choice(
                decision_type=DecisionType.ORDER_INTENT,
                summary=f"Selected {BTC} from {call.proposals[0].agent_id}",
                votes={p.agent_id: p.confidence for p in call.proposals},
                proposal=call.proposals[0],
                risk_passed=False,
                risk_reasons=["position_too_large"],
            )
        if not self.agents.propose or call.blocked or call.observation.latch_error:
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
        await self.database.reached()
        batch = call.batch
        if self.database.commit_gate and any(row.selected_order_id for row in batch.decisions):
            self.database.commit_begun.set()
            await self.database.commit_gate.wait()
        for row in batch.decisions:
            self.database.decisions.setdefault(row.decision_id, row)
        for instruction in batch.instructions:
            self.database.instructions[instruction.instruction_id] = instruction

    @activity.defn(name="read_latch")
    async def read_latch(self, _: calls.ReadLatchCall) -> LatchReading:
        if self.database.latch_gate:
            await self.database.latch_gate.wait()
        if not self.database.answers:
            return LatchReading(error="the database cannot be reached")
        return LatchReading(latch=self.database.latch)

    @activity.defn(name="write_desk")
    async def write_desk(self, call: calls.WriteDeskCall) -> LatchRow:
        await self.database.reached()
        # As the database has it: a kill that stands there is cleared by a restart alone, never by a run that knows of none.
        if self.database.latch is None or not self.database.latch.killed or call.row.latch.killed:
            self.database.latch = call.row.latch
        return self.database.latch

    @activity.defn(name="clear_latch")
    async def clear_latch(self, call: calls.ClearLatchCall) -> bool:
        if self.database.clear_gate:
            await self.database.clear_gate.wait()
        await self.database.reached()
        if self.database.latch is None or self.database.latch.kill_number != call.kill_number:
            return False
        self.database.decisions[call.row.decision_id] = call.row
        self.database.latch = LatchRow(
            killed=False, kill_number=call.kill_number, kill_id=call.kill_id, cleared_by=call.row.decision_id
        )
        return True

    @activity.defn(name="cancel")
    async def cancel(self, call: calls.CancelCall) -> None:
        self.venue.reached()
        self.cancels.under_way += 1
        self.cancels.most_at_once = max(self.cancels.most_at_once, self.cancels.under_way)
        try:
            await asyncio.sleep(self.cancels.seconds)
        finally:
            self.cancels.under_way -= 1
        if self.cancels.busy:
            self.cancels.busy -= 1
            raise ApplicationError(f"{call.tool.value} {call.symbol}: not sent, no turn", type=calls.VENUE_NOT_SENT)
        if call.symbol in self.cancels.stuck:
            raise ApplicationError(f"{call.tool.value} {call.symbol}: HTTP 503", type="VenueUnavailable")
        self.cancels.done.append(f"{call.tool.value} {call.symbol}")
        self.venue.open_orders = [order for order in self.venue.open_orders if order.symbol != call.symbol]

    @activity.defn(name="cancel_many")
    async def cancel_many(self, call: calls.CancelManyCall) -> list[calls.CancelAnswer]:
        self.cancels.together.append(len(call.cancels))
        return await asyncio.gather(*map(self._answer, call.cancels))

    async def _answer(self, call: calls.CancelCall) -> calls.CancelAnswer:
        if call.symbol in self.cancels.slow:
            return calls.CancelAnswer(done=False)
        try:
            await self.cancel(call)
        except ApplicationError as error:
            return calls.CancelAnswer(error=error.message, not_sent=error.type == calls.VENUE_NOT_SENT)
        return calls.CancelAnswer()

    @activity.defn(name="plan_deleverage")
    async def plan_deleverage(self, call: calls.PlanCall) -> Reduction:
        self.venue.reached()
        self.orders.plan_begun.set()
        if self.orders.plan_gate:
            await self.orders.plan_gate.wait()
        if not self.venue.position:
            return Reduction(refusal=f"There is no open position in {call.symbol}.")
        return Reduction(
            instruction=OrderInstruction(
                symbol=call.symbol,
                side=Side.SELL,
                order_type=OrderType.MARKET,
                quantity=self.venue.position * call.reduce_pct
                if call.quantity is None
                else min(call.quantity, self.venue.position),
                reduce_only=True,
            ),
            position=self.venue.position,
        )

    @activity.defn(name="place_order")
    async def place_order(self, call: calls.OrderCall) -> OrderReport:
        refuse_other(self.orders.scope or call.scope, call.scope)
        self.orders.begun.set()
        if self.orders.gate:
            await self.orders.gate.wait()
        self.orders.sent.append(call.order.order_id)
        instruction = call.order.instruction
        if self.orders.fate is Fate.FILLED:
            filled = min(instruction.quantity, self.orders.fill_at_most or instruction.quantity)
            if self.orders.fill_half:
                filled = max(instruction.quantity / 2, Decimal("0.001")).quantize(Decimal("0.001"))
            self.venue.position += filled if instruction.side is Side.BUY else -filled
            if self.orders.fill_half:
                fate = Fate.FILLED if filled == instruction.quantity else Fate.CANCELED
                return OrderReport(order_id=call.order.order_id, fate=fate, filled_quantity=filled)
        return OrderReport(order_id=call.order.order_id, fate=self.orders.fate)

    @activity.defn(name="settle_order")
    async def settle_order(self, call: calls.OrderCall) -> OrderReport:
        return OrderReport(order_id=call.order.order_id, fate=self.orders.settled_as)

    @activity.defn(name="missing_attributes")
    async def missing_attributes(self, call: calls.AttributesCall) -> list[str]:
        self.server.looks += 1
        if self.server.gate:
            await self.server.gate.wait()
        if not self.server.tells:
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
        for part in vars(self).values():
            for name, gate in vars(part).items():
                if name.endswith("gate") and isinstance(gate, asyncio.Event):
                    gate.set()

    def summaries(self, kind: DecisionType = DecisionType.CONTROL) -> list[str]:
        """The summaries of all rows of a kind, oldest first."""
        rows = sorted(self.database.decisions.values(), key=lambda row: row.decision_id)
        return [row.summary for row in rows if row.decision_type is kind]


class Desk:
    """A running coordinator in a test, and the world around it."""

    def __init__(self, client: Client, world: World) -> None:
        self.client = client
        self.world = world
        self.desk = f"t{uuid.uuid4().hex[:10]}"
        self.queue = f"q-{self.desk}"
        self.mode = Mode.PAPER
        self.gateway = DeskGateway(client, self.desk, patience=60)
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

    def activity_worker(
        self, graceful_seconds: float = 20.0, mode: Mode | None = None, world: World | None = None
    ) -> Worker:
        """Activities alone: it can go away while workflow tasks go on. In another mode a worker has a world of its own."""
        return Worker(
            self.client,
            task_queue=names.activity_queue(self.desk, (mode or self.mode).value),
            activities=(world or self.world).activities,
            graceful_shutdown_timeout=timedelta(seconds=graceful_seconds),
        )

    @asynccontextmanager
    async def worker(self, activities: bool = True) -> AsyncIterator[None]:
        """Polls what a real one polls: the workflow's queue, and the desk's own for activities."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._workflow_worker(activities))
            if activities:
                await stack.enter_async_context(self.activity_worker(graceful_seconds=0))
            yield

    def _workflow_worker(self, activities: bool) -> Worker:
        worker = Worker(
            self.client,
            task_queue=self.queue,
            workflows=[Coordinator],
            workflow_runner=timely(self.client, self.client.identity, lambda: worker),
            activities=self.world.activities if activities else [],
            max_cached_workflows=CACHED_RUNS,
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
        keeps a busy machine from everything else. For the same reason it looks less and less often.
        """
        async with asyncio.timeout(180):
            pause, told, status = 0.04, await self._past(), await self.status()
            while not condition(status):
                await asyncio.sleep(pause)
                pause = min(1.3 * pause, 0.3)
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
        """No workflow task failed (a retry can hide what replay would not), and every run can be replayed."""
        histories = self.client.list_workflows(f'WorkflowId="{self.handle.id}"').map_histories()
        # Without the sandbox, which only guards what the worker has already run in it: the commands are compared all the same.
        replayer = Replayer(
            workflows=[Coordinator],
            workflow_runner=UnsandboxedWorkflowRunner(),
            data_converter=DATA_CONVERTER,
            # Without the SDK's limit of 2 s, which is no rule of ours.
            debug_mode=True,
        )
        await replayer.replay_workflows(_without_failures(histories))


async def _without_failures(histories: AsyncIterator[WorkflowHistory]) -> AsyncIterator[WorkflowHistory]:
    """The same histories, each once no task in it has failed. Fails where there is none: then nothing would be compared."""
    found = 0
    async for history in histories:
        found += 1
        for event in history.events:
            assert event.workflow_task_failed_event_attributes.cause in HARMLESS, event
        if has_begun(history):
            yield history
    assert found, "the server lists no run"


@asynccontextmanager
async def running_desk(
    client: Client,
    world: World | None = None,
    before: Callable[[Desk], Awaitable[None]] | None = None,
    **changes: Any,
) -> AsyncIterator[Desk]:
    """A desk with a worker, and what comes before there is one; its history is checked and it is terminated at the end."""
    desk = Desk(client, world or World())
    await desk.start(**changes)
    if before:
        await before(desk)
    async with desk.worker():
        try:
            yield desk
            await desk.assert_healthy_history()
        finally:
            # A worker that stops waits for its activities: a test that fails behind a closed gate would hang for ever.
            desk.world.open_gates()
    await desk.handle.terminate("the test is over")
