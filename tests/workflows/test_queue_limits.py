"""Nobody's rate limit holds up a kill: a worker takes it off its queue."""

import asyncio
import uuid
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit
from temporalio.api.workflowservice.v1 import UpdateTaskQueueConfigRequest
from temporalio.client import Client

import worker
from activities.metrics import WorkerMetrics
from domain.desk.states import State
from startup import in_background
from tests.workflows.world import running_desk
from workflows import names
from workflows.queue_limits import limits_of, taking_off


async def limit(client: Client, queue: str, *, a_second: float) -> None:
    update = UpdateTaskQueueConfigRequest.RateLimitUpdate(
        rate_limit=RateLimit(requests_per_second=a_second), reason="too many"
    )
    await client.workflow_service.update_task_queue_config(
        UpdateTaskQueueConfigRequest(
            namespace=client.namespace,
            identity="somebody",
            task_queue=queue,
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            update_queue_rate_limit=update,
            update_fairness_key_rate_limit_default=update,
        )
    )


async def test_a_worker_takes_off_what_limits_its_queue(temporal: Client) -> None:
    queue = f"q-{uuid.uuid4().hex[:8]}"
    assert await limits_of(temporal, queue) is None
    await limit(temporal, queue, a_second=0.5)
    # A partition hears of a new limit a moment later.
    async with asyncio.timeout(180):
        while not (text := await limits_of(temporal, queue)):
            await asyncio.sleep(0.05)
    assert "0.5 tasks a second, set by somebody: too many" in text
    assert "for each fairness key" in text
    assert f"--task-queue {queue} " in taking_off(queue)
    async with in_background(worker._keep_unlimited(temporal, queue)), asyncio.timeout(180):
        while await limits_of(temporal, queue) is not None:
            await asyncio.sleep(0.05)


async def test_a_kill_of_a_desk_whose_activities_somebody_has_stopped_is_carried_out(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        queue = names.activity_queue(desk.desk, desk.mode.value)
        await limit(temporal, queue, a_second=0)
        async with in_background(worker._keep_unlimited(temporal, queue)):
            await desk.signal("kill")
            await desk.until(lambda s: s.state is State.KILLED and s.kill and s.kill.latched and s.kill.quiet_at)


async def test_every_worker_looks_after_the_queue_of_its_desk_and_mode(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = f"d{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("AIS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("AIS_DESK", desk)
    beside = worker._beside(
        worker.Config.load(), cast(Any, SimpleNamespace(client=temporal)), WorkerMetrics(desk), None
    )
    mine = [loop for loop in beside if cast(Any, loop).__name__ == "_keep_unlimited"]
    for loop in beside:
        if loop not in mine:
            loop.close()
    queue = names.activity_queue(desk, "paper")
    await limit(temporal, queue, a_second=0.5)
    async with asyncio.timeout(180):
        while await limits_of(temporal, queue) is None:
            await asyncio.sleep(0.05)
        async with in_background(*mine):
            while await limits_of(temporal, queue) is not None:
                await asyncio.sleep(0.05)
