"""What `workflows/runner.py` asks Temporal and the SDK about new events of a run, from the thread of a workflow task: whether
a task of this worker comes with them, and to drop the run if another worker has the task.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import structlog
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client
from temporalio.worker import Worker

# The workflow task waits for this answer, and a kill waits for the task.
ANSWER = timedelta(seconds=1)
# Events may be large, and the one that we look for is among the last.
PAGE = 8
STARTED = EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED
# No task follows these, and no command of the run leaves the worker.
CLOSED = (EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT)
# If the task of early events has not come within this time, another worker has it.
TASK_WITHIN_SECONDS = 2.0

Begun = Callable[[str, str, int], bool | None]
# Takes a run id, and a function that says whether the run has left the cache by itself.
Drop = Callable[[str, Callable[[], bool]], None]

log = structlog.get_logger("worker")


def begun_by(client: Client, identity: str) -> Begun:
    """Returns a function of workflow id, run id and event id: whether the worker of this identity begins a workflow task with
    this event; None if Temporal does not say. Another worker's task may still time out; its events then come again.

    Call `begun_by` in the thread of the client's event loop, and what it returns in another thread.
    """
    loop = asyncio.get_running_loop()

    def begun(workflow_id: str, run_id: str, event_id: int) -> bool | None:
        asked = _begins_a_task(client, identity, workflow_id, run_id, event_id)
        try:
            return asyncio.run_coroutine_threadsafe(asked, loop).result(ANSWER.total_seconds())
        except Exception as error:  # whatever the error, nothing is known
            log.info("Temporal does not say whether a workflow task has begun", run_id=run_id, why=repr(error))
            return None

    return begun


async def _begins_a_task(client: Client, identity: str, workflow_id: str, run_id: str, event_id: int) -> bool:
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
            if event.event_id == event_id:
                is_ours = event.workflow_task_started_event_attributes.identity == identity
                return event.event_type in CLOSED or (event.event_type == STARTED and is_ours)
        request.next_page_token = answer.next_page_token


def drop_by(worker: Callable[[], Worker]) -> Drop:
    """Returns a function that drops a run from the worker's cache after a while, unless the run has left by then.

    A run that is behind has issued a command that no history will ever have. If another worker carries out the task, the SDK
    (core of 1.35) fails silently and for good at the next query: it answers no more queries or tasks of the run.
    """
    loop = asyncio.get_running_loop()

    def evict(run_id: str, has_left: Callable[[], bool]) -> None:
        # The worker may be gone by then.
        with suppress(Exception):
            if not has_left():
                worker()._bridge_worker.request_workflow_eviction(run_id)

    def drop(run_id: str, has_left: Callable[[], bool]) -> None:
        loop.call_soon_threadsafe(loop.call_later, TASK_WITHIN_SECONDS, evict, run_id, has_left)

    return drop
