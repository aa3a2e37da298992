"""What a run that was handed news asks of Temporal and of the SDK (workflows/runner.py), from the thread of a workflow task:
whether a task stands behind the news, and to be dropped if the task is another worker's.
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

# A task that waits for longer takes its time from a kill.
ANSWER = timedelta(seconds=1)
# The events may be large, and the one that is looked for is among the last.
PAGE = 8
STARTED = EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED
# No task comes after these, and nothing that the run commands leaves the worker.
CLOSED = (EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT)
# If the task of early news has not come within this time, another worker has it.
TASK_WITHIN_SECONDS = 2.0

Begun = Callable[[str, str, int], bool | None]
# Of a run id, and of whether the run has left the cache by itself.
Drop = Callable[[str, Callable[[], bool]], None]

log = structlog.get_logger("worker")


def begun_by(client: Client, identity: str) -> Begun:
    """A function of workflow id, run id and event id: whether with this event a worker of that identity begins a workflow task;
    None if Temporal does not say. The task of another worker may yet time out, and its news comes again.

    It must be made in the thread of the client's event loop, and called in another one.
    """
    loop = asyncio.get_running_loop()

    def begun(workflow_id: str, run_id: str, event_id: int) -> bool | None:
        asked = _begins_a_task(client, identity, workflow_id, run_id, event_id)
        try:
            return asyncio.run_coroutine_threadsafe(asked, loop).result(ANSWER.total_seconds())
        except Exception as error:  # no answer of any kind is a fact
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
    """A function that drops a run from the worker's cache a while later, unless it has left by then.

    A run that is behind has issued what no history will ever have. If another worker carries out the task, the SDK (core of 1.35)
    fails the next query over it, without a word and for good: neither queries nor tasks of the run are answered any more.
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
