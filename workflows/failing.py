"""Why a coordinator answers nobody although a worker is up: its workflow task fails, again and again."""

from datetime import timedelta

from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client

from workflows import names
from workflows.listing import described

ASK_TIMEOUT = timedelta(seconds=3)
# The server records the first failure of a task only, and what arrives meanwhile comes after it.
_EVENTS = 200


async def failing(client: Client, desk: str) -> str | None:
    """Why the newest workflow task of a desk fails; None if it does not. Raises RPCError."""
    found = await described(client, names.workflow_id(desk), ASK_TIMEOUT)
    attempt = found.pending_workflow_task.attempt
    if attempt < 2:
        return None
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace, execution=found.workflow_execution_info.execution, maximum_page_size=_EVENTS
    )
    service = client.workflow_service
    answer = await service.get_workflow_execution_history_reverse(request, retry=False, timeout=ASK_TIMEOUT)
    for event in answer.history.events:
        if event.HasField("workflow_task_completed_event_attributes"):
            break
        if event.HasField("workflow_task_failed_event_attributes"):
            why = event.workflow_task_failed_event_attributes.failure.message.splitlines()
            return (
                f"its workflow task fails, {attempt} times by now: {why[0][:300] if why else 'the server says no more'}"
            )
    return f"its workflow task fails, {attempt} times by now"
