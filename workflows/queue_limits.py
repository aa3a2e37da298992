"""Rate limits that somebody has put on a desk's queue of activities, and how a worker takes them off again.

The hazard behind this file: `temporal task-queue config set --queue-rps-limit 0` on that queue. The desk took a kill at once,
but no cancel went out and no latch was written until somebody took the limit off. A limit that is only low holds up a kill
of many symbols. No limit is of any use there: what must not happen too often is limited where it happens, at the venue.
"""

from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimitConfig, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, UpdateTaskQueueConfigRequest
from temporalio.client import Client

from domain.values import printable

ASK_TIMEOUT = timedelta(seconds=3)
_ACTIVITIES = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
_WHY = "AIS: nothing may hold up a kill"


async def limits_of(client: Client, queue: str) -> str | None:
    """The limits of a queue of activities, and who has set them; None if there are none. Raises RPCError."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=_ACTIVITIES,
        report_config=True,
    )
    found = await client.workflow_service.describe_task_queue(request, retry=False, timeout=ASK_TIMEOUT)
    limits = {
        "tasks a second": found.config.queue_rate_limit,
        "tasks a second for each fairness key": found.config.fairness_keys_rate_limit_default,
    }
    # A limit that was taken off leaves its entry behind, without the limit.
    texts = [_text(limit, unit) for unit, limit in limits.items() if limit.HasField("rate_limit")]
    return "; ".join(texts) or None


async def take_off(client: Client, queue: str) -> None:
    """Takes every limit off a queue of activities. Raises RPCError."""
    nothing = UpdateTaskQueueConfigRequest.RateLimitUpdate(reason=_WHY)
    request = UpdateTaskQueueConfigRequest(
        namespace=client.namespace,
        identity=client.identity,
        task_queue=queue,
        task_queue_type=_ACTIVITIES,
        update_queue_rate_limit=nothing,
        update_fairness_key_rate_limit_default=nothing,
    )
    await client.workflow_service.update_task_queue_config(request, retry=False, timeout=ASK_TIMEOUT)


def taking_off(queue: str) -> str:
    """The command that does the same."""
    return (
        f"temporal task-queue config set --task-queue {queue} --task-queue-type activity --queue-rps-limit default "
        "--fairness-key-rps-limit-default default"
    )


def _text(limit: RateLimitConfig, unit: str) -> str:
    who, why = printable(limit.metadata.update_identity), printable(limit.metadata.reason)
    return f"{limit.rate_limit.requests_per_second:g} {unit}, set by {who or 'somebody'}" + (f": {why}" if why else "")
