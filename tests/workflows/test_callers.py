"""A desk's worker carries out what its coordinator asks for, and nothing else."""

import asyncio
import uuid
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio import activity, workflow
from temporalio.client import ActivityFailureError, Client, WorkflowFailureError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

import worker as ais_worker
from activities.callers import NOT_THE_COORDINATOR, OnlyTheCoordinator
from activities.calls import Scope
from domain.desk.states import Mode

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


async def test_a_desks_worker_asks_first_who_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before all else: a stranger's call with another account made the worker exit."""
    monkeypatch.setattr(ais_worker, "Worker", lambda _, **given: SimpleNamespace(**given))
    monkeypatch.setattr(ais_worker, "allow_a_full_signal_queue", lambda built: built)
    scope = Scope(desk="eu", mode=Mode.PAPER, database_id=None, account=None)
    built: Any = ais_worker.build_workers(cast(Client, None), scope, [], timedelta(), print)
    first, *_ = built.own.interceptors
    assert isinstance(first, OnlyTheCoordinator)
    assert first._workflow_id == "coordinator-eu"
