"""A person helps himself: `temporal activity complete`, `fail`, `pause` and `reset` on what the desk is waiting for.

Such an answer comes from no worker. It may cost the desk a try. It must not be taken for the venue's or the database's word, and
it must fail no workflow task, which would then fail for ever.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure
from temporalio.api.workflowservice import v1
from temporalio.service import RPCError

from tests.chaos.desk import Desk
from tests.chaos.schedule import BY_HAND, Fault

NAMESPACE = "default"
# Results and details that no activity of AIS gives.
STRANGE = (b'"done"', b"[]", b"null", b"{}", b"7", b"no JSON")
CALL_SECONDS = timedelta(seconds=2)
LOOKS_EVERY_SECONDS = 0.01


@asynccontextmanager
async def meddled(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """Does it to the first activity of the type that is pending within the fault's time; at the end a paused one goes on."""
    activity_id = await _pending(desk, fault.detail, fault.seconds)
    if activity_id is None:
        yield
        return
    await _ask(desk, *WAYS[fault.kind](desk.workflow_id, activity_id))
    try:
        yield
    finally:
        if fault.kind == "pause":
            await _ask(desk, *_unpause(desk.workflow_id, activity_id))


async def _pending(desk: Desk, name: str, seconds: float) -> str | None:
    request = v1.DescribeWorkflowExecutionRequest(namespace=NAMESPACE, execution=_execution(desk.workflow_id))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = await _ask(desk, "describe_workflow_execution", request)
        for each in found.pending_activities if found else ():
            if each.activity_type.name == name:
                return str(each.activity_id)
        await asyncio.sleep(LOOKS_EVERY_SECONDS)
    return None


async def _ask(desk: Desk, method: str, request: Any) -> Any:
    """None where Temporal does not answer, or the activity is over by now."""
    assert desk.client
    with suppress(RPCError, RuntimeError):
        return await getattr(desk.client.workflow_service, method)(request, retry=False, timeout=CALL_SECONDS)
    return None


# --- the ways ----------------------------------------------------------------------------------------------------------

Asked = tuple[str, Any]


def _execution(workflow_id: str) -> WorkflowExecution:
    return WorkflowExecution(workflow_id=workflow_id)


def _strange(activity_id: str) -> Payloads:
    data = STRANGE[sum(activity_id.encode()) % len(STRANGE)]
    return Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=data)])


def _complete(workflow_id: str, activity_id: str) -> Asked:
    return "respond_activity_task_completed_by_id", v1.RespondActivityTaskCompletedByIdRequest(
        namespace=NAMESPACE, workflow_id=workflow_id, activity_id=activity_id, identity=BY_HAND,
        result=_strange(activity_id),
    )  # fmt: skip


def _fail(workflow_id: str, activity_id: str) -> Asked:
    info = ApplicationFailureInfo(type="operations", non_retryable=True, details=_strange(activity_id))
    return "respond_activity_task_failed_by_id", v1.RespondActivityTaskFailedByIdRequest(
        namespace=NAMESPACE, workflow_id=workflow_id, activity_id=activity_id, identity=BY_HAND,
        failure=Failure(message="it hangs", application_failure_info=info),
    )  # fmt: skip


def _pause(workflow_id: str, activity_id: str) -> Asked:
    return "pause_activity", v1.PauseActivityRequest(
        namespace=NAMESPACE, execution=_execution(workflow_id), id=activity_id, identity=BY_HAND, reason="it hangs"
    )


def _unpause(workflow_id: str, activity_id: str) -> Asked:
    return "unpause_activity", v1.UnpauseActivityRequest(
        namespace=NAMESPACE, execution=_execution(workflow_id), id=activity_id, identity=BY_HAND
    )


def _reset(workflow_id: str, activity_id: str) -> Asked:
    return "reset_activity", v1.ResetActivityRequest(
        namespace=NAMESPACE, execution=_execution(workflow_id), id=activity_id, identity=BY_HAND
    )


WAYS: dict[str, Callable[[str, str], Asked]] = {
    "complete": _complete, "fail": _fail, "pause": _pause, "reset": _reset,
}  # fmt: skip
