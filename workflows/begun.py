"""Asks Temporal whether a workflow task stands behind news that a run was handed.

It is asked from the thread of a workflow task, only if the run itself cannot tell (workflows/runner.py).
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client

# A task that waits for longer takes its time from a kill.
ANSWER = timedelta(seconds=1)
PAGE = 20

Begun = Callable[[str, str, int], bool | None]

log = structlog.get_logger("worker")


def begun_by(client: Client, identity: str) -> Begun:
    """A function of workflow id, run id and event id: whether with this event a worker of that identity begins a workflow task;
    None if Temporal does not say, or if it is another worker's task, which may yet time out.

    It must be made in the thread of the client's event loop, and called in another one.
    """
    loop = asyncio.get_running_loop()

    def begun(workflow_id: str, run_id: str, event_id: int) -> bool | None:
        asked = asyncio.run_coroutine_threadsafe(_begins_a_task(client, identity, workflow_id, run_id, event_id), loop)
        try:
            return asked.result(ANSWER.total_seconds())
        except Exception as error:  # no answer of any kind is a fact
            asked.cancel()
            log.info("Temporal does not say whether a workflow task has begun", run_id=run_id, why=repr(error))
            return None

    return begun


async def _begins_a_task(client: Client, identity: str, workflow_id: str, run_id: str, event_id: int) -> bool | None:
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        maximum_page_size=PAGE,
    )
    while True:
        answer = await client.workflow_service.get_workflow_execution_history_reverse(request, timeout=ANSWER)
        for event in answer.history.events:
            if event.event_id < event_id:
                # The second and later attempts of a task are in no history until they succeed.
                return True
            if event.event_id == event_id and event.event_type != EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
                return False
            if event.event_id == event_id:
                return True if event.workflow_task_started_event_attributes.identity == identity else None
        request.next_page_token = answer.next_page_token
