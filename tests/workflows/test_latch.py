"""No run says in which state it is before it has read the latch; a kill waits for nothing."""

import asyncio
import uuid
from contextlib import suppress

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

from domain.desk.states import State
from domain.trading.market import LatchRow
from tests.workflows.parts import Agents, Database
from tests.workflows.world import Desk, World, running_desk
from workflows import names
from workflows.gateway import CoordinatorSilent, DeskGateway


async def test_a_run_tells_no_state_before_it_has_read_the_latch_and_a_kill_does_not_wait(temporal: Client) -> None:
    world = World(Database(latch_gate=asyncio.Event()))
    async with running_desk(temporal, world) as desk:
        impatient = DeskGateway(temporal, desk.desk, patience=4.0)
        with pytest.raises(CoordinatorSilent, match="has not read the latch"):
            await impatient.status()
        assert world.readings.count == 0
        await desk.signal("kill")
        assert await desk.state() is State.KILLED
        await desk.until(lambda s: s.kill.quiet_at and s.kill.latched)
        assert world.database.latch_gate
        world.database.latch_gate.set()


async def test_a_latch_that_cannot_be_read_is_reported_and_holds_nothing_up(temporal: Client) -> None:
    world = World(Database(up=False))
    async with running_desk(temporal, world) as desk:
        status = await desk.until(lambda s: s.state is State.RUNNING)
        assert any("cannot be read" in warning for warning in status.warnings)
        world.database.up = True
        await desk.until(lambda s: not any("cannot be read" in warning for warning in s.warnings))


async def test_the_latch_kills_before_the_first_cycle(temporal: Client) -> None:
    world = World(
        Database(latch=LatchRow(killed=True, kill_number=1, kill_id="k", reason="r", actor="a")), Agents(propose=True)
    )
    async with running_desk(temporal, world) as desk:
        assert await desk.state() is State.KILLED
        assert not world.orders.sent


# Back to the task that brought the answer of one of these: the run had read nothing, written nothing, stood still.
@pytest.mark.parametrize(
    "answered",
    ["write_desk", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("read_latch", "observe"))],
)
async def test_after_a_reset_without_signals_running_is_never_shown(temporal: Client, answered: str) -> None:
    async with running_desk(temporal, cycle_seconds=600.0) as desk:
        await desk.until(lambda s: s.last_cycle_at is not None and desk.world.database.latch is not None)
        await killed_and_reset(desk, answered)
        # A run that has its row yet to write hears of the kill from the answer.
        with suppress(CoordinatorSilent):
            assert (await DeskGateway(temporal, desk.desk, patience=2.0).status()).state is State.KILLED
        desk.world.open_gates()
        assert await desk.state() is State.KILLED
        # The numbers are those of a past without the kill: the next one is told apart from it.
        assert (await desk.status()).kill_number == 2


@pytest.mark.parametrize(
    "answered", ["record", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("observe", "decide"))]
)
async def test_a_decision_from_before_a_reset_sends_no_order(temporal: Client, answered: str) -> None:
    agents = Agents(propose=True, ahead=answered != "decide")
    async with running_desk(temporal, World(agents), cycle_seconds=600.0) as desk:
        await desk.until(lambda s: s.last_cycle_at is not None)
        sent = list(desk.world.orders.sent)
        assert sent
        await killed_and_reset(desk, answered)
        desk.world.open_gates()
        await desk.until(lambda s: s.kill.quiet_at)
        assert desk.world.orders.sent == sent


async def killed_and_reset(desk: Desk, answered: str) -> None:
    """A kill, then a reset to before it; the latch cannot be read again yet."""
    event_id = await task_that_brought(desk, answered)
    await desk.signal("kill")
    await desk.until(lambda s: s.kill.latched and s.kill.row_written)
    desk.world.database.latch_gate = asyncio.Event()
    await reset(desk, event_id)


async def task_that_brought(desk: Desk, activity: str) -> int:
    """Where the first workflow task ends that had the answer of this activity."""
    scheduled: dict[int, str] = {}
    brought = False
    async for event in desk.handle.fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            scheduled[event.event_id] = event.activity_task_scheduled_event_attributes.activity_type.name
        ended = event.activity_task_completed_event_attributes.scheduled_event_id
        brought = brought or scheduled.get(ended) == activity
        if brought and event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            return event.event_id
    raise LookupError(activity)


async def reset(desk: Desk, event_id: int) -> None:
    described = await desk.handle.describe()
    request = ResetWorkflowExecutionRequest(
        namespace=desk.client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=names.workflow_id(desk.desk), run_id=described.run_id),
        workflow_task_finish_event_id=event_id,
        reason="test",
        request_id=str(uuid.uuid4()),
        reset_reapply_exclude_types=[ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL],
    )
    await desk.client.workflow_service.reset_workflow_execution(request)
