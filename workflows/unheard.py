"""Finds a kill that Temporal recorded for a coordinator that has closed since, and that no workflow task ever handled.

The incident behind this file: 10,000 waiting signals of 5 KB exceeded the limit of a history. The server ended the
coordinator, with an acknowledged kill among the signals. A restart then started a new one that knew nothing of the kill,
and traded.
"""

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client

from domain.desk.commands import Command
from domain.desk.payloads import MAX_INPUTS, kind_of, read_cancellation, read_command
from domain.desk.states import CommandKind
from workflows.coordinator import raw_payload

_PAGE = 500


async def unheard_kill(client: Client, workflow_id: str) -> Command | None:
    """The oldest kill since the last workflow task of the newest run; None if there is none. Raises RPCError."""
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id), maximum_page_size=_PAGE
    )
    found = None
    while True:
        answer = await client.workflow_service.get_workflow_execution_history_reverse(request)
        for event in answer.history.events:
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                return found
            found = _kill_of(event) or found
        if not answer.next_page_token:
            return found
        request.next_page_token = answer.next_page_token


def _kill_of(event: HistoryEvent) -> Command | None:
    fallback_id = f"unheard-{event.event_id}"
    if event.HasField("workflow_execution_cancel_requested_event_attributes"):
        return read_cancellation(event.workflow_execution_cancel_requested_event_attributes.cause, fallback_id)
    signal = event.workflow_execution_signaled_event_attributes
    if kind_of(signal.signal_name) is CommandKind.KILL:
        inputs = [raw_payload(payload) for payload in signal.input.payloads[:MAX_INPUTS]]
        return read_command(CommandKind.KILL, inputs, fallback_id)
    return None
