"""A person pauses an activity."""

import asyncio

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest, PauseActivityRequest

from tests.workflows.world import Desk

SCHEDULED = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED


async def pause(desk: Desk, activity: str, state: PendingActivityState.ValueType = SCHEDULED) -> None:
    """The first call of it in this state; otherwise one that waits for a worker."""
    execution, service = WorkflowExecution(workflow_id=desk.handle.id), desk.client.workflow_service
    asked = DescribeWorkflowExecutionRequest(namespace=desk.client.namespace, execution=execution)
    async with asyncio.timeout(60):
        while True:
            pending = (await service.describe_workflow_execution(asked)).pending_activities
            waiting = [each for each in pending if each.state == state]
            if mine := [each.activity_id for each in waiting if each.activity_type.name == activity]:
                break
            await asyncio.sleep(0.05)
    await service.pause_activity(
        PauseActivityRequest(
            namespace=desk.client.namespace, execution=execution, id=mine[0], identity="ann", reason="it hangs"
        )
    )
