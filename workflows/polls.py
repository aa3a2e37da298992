"""How many polls a worker has for workflow tasks, and how it stops being given tasks before it stops.

Queries that wait while no worker is up can hold up a workflow task behind them, with a kill in it, for as long as they wait
themselves: 30 s from the web UI and `temporal workflow query`. A task queue has four partitions by default, and the SDK's worker
has a single poll for all of them. Measured with six queries while a worker started (server 1.32): with one poll 10 of 72 starts
stalled for 10 or 30 s, with six polls 5 of 60, with eight none of 80.

The incident behind the end of polls: a worker was told to stop while a kill was on its way to it. The SDK (temporalio 1.35)
abandons its polls at once, and with them a task that the server is just giving to one of them. The server offers that task again
after its time-out, so the kill's first cancel went out 8 s late: in 9 of 50 trials that aimed at this moment.
"""

import asyncio
import contextlib

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.workflowservice.v1 import ListWorkersRequest, ResetStickyTaskQueueRequest, ShutdownWorkerRequest
from temporalio.client import Client
from temporalio.service import RPCError

# Of these, 8 are for the queue itself and 4 for what only this worker has in its memory, as the SDK's worker has of those.
WORKFLOW_TASK_POLLS, SHARE_FOR_THE_QUEUE = 12, 0.7
ASK_SECONDS = 2.0
# Tasks that the server handed out before it ended the polls arrive within this time, and are carried out as always.
IN_TRANSIT_SECONDS = 0.5
KINDS = (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)


async def end_polls(client: Client, identity: str, workflow_id: str) -> None:
    """Has the server end all polls of the workers of this identity, refuse their next ones, and give the next task of this
    workflow to any other worker. Without the last, it would offer the task to this worker's own queue first, for a second.

    Changes nothing where the server cannot do that (`frontend.enableCancelWorkerPollsOnShutdown` is off by default), or does
    not answer within two seconds. A worker stops in any case.
    """
    with contextlib.suppress(RPCError, TimeoutError):
        async with asyncio.timeout(ASK_SECONDS):
            for request in await _requests(client, identity):
                await client.workflow_service.shutdown_worker(request, retry=True)
            execution = WorkflowExecution(workflow_id=workflow_id)
            reset = ResetStickyTaskQueueRequest(namespace=client.namespace, execution=execution)
            await client.workflow_service.reset_sticky_task_queue(reset, retry=True)
    # Wait even if a request was refused: the reset is refused if the desk has no open coordinator, and by then the polls are
    # ended.
    await asyncio.sleep(IN_TRANSIT_SECONDS)


async def _requests(client: Client, identity: str) -> list[ShutdownWorkerRequest]:
    asked = ListWorkersRequest(namespace=client.namespace, query=f'WorkerIdentity = "{identity}"')
    listed = await client.workflow_service.list_workers(asked, retry=True)
    return [
        ShutdownWorkerRequest(
            namespace=client.namespace, identity=identity, worker_instance_key=worker.worker_instance_key,
            task_queue=worker.task_queue, task_queue_types=KINDS, reason="told to stop",
        )
        for worker in listed.workers
        if worker.worker_identity == identity
    ]  # fmt: skip
