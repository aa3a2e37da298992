"""No run says in which state it is before it has read the latch; a kill waits for nothing."""

import asyncio
import uuid

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

from domain.market import LatchRow
from domain.states import State
from tests.workflows.world import Desk, World, running_desk
from workflows import names
from workflows.gateway import CoordinatorSilent, DeskGateway

COMPLETED = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED


async def test_a_run_tells_no_state_before_it_has_read_the_latch_and_a_kill_does_not_wait(temporal: Client) -> None:
    world = World(latch_gate=asyncio.Event())
    async with running_desk(temporal, world) as desk:
        impatient = DeskGateway(temporal, desk.desk, patience=4.0)
        with pytest.raises(CoordinatorSilent, match="has not read the latch"):
            await impatient.status()
        assert world.observations == 0
        await desk.signal("kill")
        assert await desk.state() is State.KILLED
        await desk.until(lambda s: s.kill.quiet_at and s.kill.latched)
        assert world.latch_gate
        world.latch_gate.set()


async def test_a_latch_that_cannot_be_read_is_told_and_holds_nothing_up(temporal: Client) -> None:
    world = World(database_up=False)
    async with running_desk(temporal, world) as desk:
        status = await desk.until(lambda s: s.state is State.RUNNING)
        assert any("cannot be read" in warning for warning in status.warnings)
        world.database_up = True
        await desk.until(lambda s: not any("cannot be read" in warning for warning in s.warnings))


async def test_the_latch_kills_before_the_first_cycle(temporal: Client) -> None:
    world = World(latch=LatchRow(killed=True, kill_number=1, kill_id="k", reason="r", actor="a"), proposes=True)
    async with running_desk(temporal, world) as desk:
        assert await desk.state() is State.KILLED
        assert not world.sent


async def test_after_a_reset_without_signals_running_is_never_shown(temporal: Client) -> None:
    async with running_desk(temporal, cycle_seconds=600.0) as desk:
        await desk.until(lambda s: s.last_cycle_at is not None)
        before = await newest_completed_task(desk)
        await desk.signal("kill")
        await desk.until(lambda s: s.kill.latched and s.kill.row_written)
        gate = desk.world.latch_gate = asyncio.Event()
        await reset(desk, before)
        with pytest.raises(CoordinatorSilent, match="has not read the latch"):
            await DeskGateway(temporal, desk.desk, patience=2.0).status()
        gate.set()
        assert await desk.state() is State.KILLED
        # The numbers are those of a past without the kill: the next one is told apart from it.
        assert (await desk.status()).kill_number == 2


async def newest_completed_task(desk: Desk) -> int:
    found = [e.event_id async for e in desk.handle.fetch_history_events() if e.event_type == COMPLETED]
    return found[-1]


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
