"""A desk's worker carries out what its coordinator asks for, and nothing else."""

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import ActivityFailureError, Client, WorkflowFailureError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.callers import NOT_THE_COORDINATOR, OnlyTheCoordinator

CARRIED_OUT: list[str] = []


@activity.defn
async def act(who: str) -> str:
    CARRIED_OUT.append(who)
    return who


@workflow.defn(sandboxed=False)
class Calls:
    """Calls the activity once."""

    @workflow.run
    async def run(self) -> str:
        answer: str = await workflow.execute_activity(
            act, workflow.info().workflow_id, start_to_close_timeout=timedelta(seconds=60)
        )
        return answer


def cause_of(error: BaseException) -> Any:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


async def test_only_the_desks_own_coordinator_is_obeyed(temporal: Client) -> None:
    """`temporal activity start`, and a second coordinator under another workflow id."""
    queue, mine = f"q-{uuid.uuid4().hex[:8]}", f"coordinator-{uuid.uuid4().hex[:8]}"
    worker = Worker(
        temporal,
        task_queue=queue,
        workflows=[Calls],
        activities=[act],
        workflow_runner=UnsandboxedWorkflowRunner(),
        interceptors=[OnlyTheCoordinator(mine)],
    )
    async with worker, asyncio.timeout(180):
        with pytest.raises(ActivityFailureError) as alone:
            await temporal.execute_activity(
                act, "nobody", id=f"a-{queue}", task_queue=queue, start_to_close_timeout=timedelta(seconds=60)
            )
        with pytest.raises(WorkflowFailureError) as another:
            await temporal.execute_workflow(Calls.run, id=f"{mine}-2", task_queue=queue)
        assert await temporal.execute_workflow(Calls.run, id=mine, task_queue=queue) == mine
    for raised in (alone.value, another.value):
        assert cause_of(raised).type == NOT_THE_COORDINATOR
    assert [mine] == CARRIED_OUT
