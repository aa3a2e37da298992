"""A query that reaches a new worker between an activity's end and the workflow task for it, on a real server.

With the SDK's own runner the run cannot be replayed afterwards, or it ends without signals of its own history, which is what
`workflows/runner.py` is for. Once the tests of the SDK's runner fail, it gives such news the right time, and ours may go.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.worker import Replayer, Worker, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import NondeterminismError

from tests.temporal import client_of, serve
from tests.workflows.timed import Handing, Timed
from workflows import begun, runner
from workflows.begun import begun_by, drop_by
from workflows.polls import SHARE_FOR_THE_QUEUE, WORKFLOW_TASK_POLLS
from workflows.runner import TimelyRunner, timely

# So many look at the run, so that the new worker hears of a query before it hears of the task; where it does not, once more.
LOOKS = 12
TRIES = 10
# It only ends a broken test.
PATIENCE = 60.0
# A task that is lost comes again after so long.
TASK_TIMEOUT = timedelta(seconds=2)
# Enough for as long as a task's time-out takes, twice.
MOST_SIGNALS = 2_000
# The SDK's own runner loses a signal in one of five tries.
ENDINGS = 30


class TimedRun:
    """One run, the activity that it waits for, and the workers that come and go."""

    def __init__(self, client: Client, workflow_runner: WorkflowRunner | None = None, looks: int = LOOKS) -> None:
        self.client, self.runner, self.looks = client, workflow_runner, looks
        self.name = f"timed-{uuid.uuid4().hex[:8]}"
        self.begun, self.gate = asyncio.Event(), asyncio.Event()

    @activity.defn(name="gated")
    async def gated(self) -> None:
        self.begun.set()
        await self.gate.wait()

    @activity.defn(name="at_once")
    async def at_once(self) -> None:
        """Nothing."""

    @asynccontextmanager
    async def activities(self) -> AsyncIterator[str]:
        queue = f"{self.name}-activities"
        async with Worker(self.client, task_queue=queue, activities=[self.gated, self.at_once]):
            yield queue

    def worker(self) -> Worker:
        made = Worker(
            self.client,
            task_queue=self.name,
            workflows=[Timed, Handing],
            # As in worker.py.
            workflow_runner=self.runner or timely(self.client, self.client.identity, lambda: made),
            max_concurrent_workflow_task_polls=WORKFLOW_TASK_POLLS,
            nonsticky_to_sticky_poll_ratio=SHARE_FOR_THE_QUEUE,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        )
        return made

    async def looked_at_by_a_new_worker(self) -> WorkflowHandle[Timed, None]:
        """The run, ended. Nobody serves it when it is looked at; then its activity ends, and only then comes a worker."""
        async with self.activities() as queue:
            async with self.worker():
                run = await self.client.start_workflow(
                    Timed.run, queue, id=self.name, task_queue=self.name, task_timeout=TASK_TIMEOUT
                )
                await asyncio.wait_for(self.begun.wait(), PATIENCE)
            looks = [asyncio.create_task(run.query(Timed.look)) for _ in range(self.looks)]
            await until(run, EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
            self.gate.set()
            await until(run, EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
            async with self.worker():
                await asyncio.wait_for(run.result(), PATIENCE)
                for look in looks:
                    look.cancel()
                await asyncio.gather(*looks, return_exceptions=True)
        return run

    async def ended_beside_signals(self) -> set[int]:
        """The signals that the run's history has, and that the next run was not given."""
        async with self.activities() as queue:
            async with self.worker():
                run = await self.client.start_workflow(
                    Handing.run, args=[queue, None], id=self.name, task_queue=self.name, task_timeout=TASK_TIMEOUT
                )
                await asyncio.wait_for(self.begun.wait(), PATIENCE)
            looks = [asyncio.create_task(run.query(Handing.look)) for _ in range(self.looks)]
            self.gate.set()
            await until(run, EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
            sender = asyncio.create_task(send(run))
            async with self.worker():
                handed = await asyncio.wait_for(run.result(), PATIENCE)
            for task in (sender, *looks):
                task.cancel()
            await asyncio.gather(sender, *looks, return_exceptions=True)
        first = self.client.get_workflow_handle(self.name, run_id=run.first_execution_run_id)
        return {*signals(await events(first))} - {*handed}


async def send(run: WorkflowHandle[Any, Any]) -> None:
    """Signal after signal, until no run takes any more."""
    with suppress(RPCError):
        for number in range(MOST_SIGNALS):
            await run.signal(Handing.hear, number)


def signals(history: list[HistoryEvent]) -> list[int]:
    heard = [event.workflow_execution_signaled_event_attributes for event in history]
    return [int(each.input.payloads[0].data) for each in heard if each.signal_name]


@pytest.fixture
async def partitioned() -> AsyncIterator[Client]:
    """A server with as many partitions of a task queue as others have."""
    async with await serve(partitions=4) as env:
        yield await client_of(env)


async def events(run: WorkflowHandle[Any, Any]) -> list[HistoryEvent]:
    return [*(await run.fetch_history()).events]


async def until(run: WorkflowHandle[Any, Any], kind: EventType.ValueType) -> None:
    async with asyncio.timeout(PATIENCE):
        while not any(event.event_type == kind for event in await events(run)):
            await asyncio.sleep(0.1)


async def replay(run: WorkflowHandle[Timed, None]) -> None:
    replayer = Replayer(workflows=[Timed], data_converter=pydantic_data_converter)
    await replayer.replay_workflow(await run.fetch_history())


async def test_without_the_runner_the_run_cannot_be_replayed(temporal: Client) -> None:
    for _ in range(TRIES):
        run = await TimedRun(temporal, SandboxedWorkflowRunner()).looked_at_by_a_new_worker()
        try:
            await replay(run)
        except NondeterminismError:
            return
    pytest.fail("the SDK does without workflows/runner.py, or the moment never came")


# With five refusals at most, forty people who looked at once had the run taken further in three of four tries.
@pytest.mark.parametrize("looks", [LOOKS, pytest.param(40, marks=pytest.mark.thorough)])
async def test_with_the_runner_the_query_is_refused_and_the_run_can_be_replayed(
    temporal: Client, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    refusals: dict[tuple[str, int], float] = {}
    monkeypatch.setattr(runner, "_refusals", refusals)
    for _ in range(TRIES):
        timed = TimedRun(temporal, looks=looks)
        run = await timed.looked_at_by_a_new_worker()
        async with timed.worker():
            assert await run.query(Timed.look) == "seen"
        await replay(run)
        # The second activity followed the first without a timer, as the time says. And no task was lost with the query: found
        # with three lookers, who held up every second kill for ten seconds.
        kinds = {event.event_type for event in await events(run)}
        assert not kinds & {EventType.EVENT_TYPE_TIMER_STARTED, EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT}
        if any(run_id == run.first_execution_run_id for run_id, _ in refusals):
            return
    pytest.fail("the moment never came")


# If the worker has a single poll, one of so many starts stands still for 30 s, in nineteen of twenty tries, where six look.
STARTS, SIX = 20, 6
NO_STANDSTILL = timedelta(seconds=9)


@pytest.mark.thorough
async def test_queries_that_wait_hold_up_no_task_when_a_worker_starts(
    partitioned: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_refusals", {})
    for _ in range(STARTS):
        found = await events(await TimedRun(partitioned, looks=SIX).looked_at_by_a_new_worker())
        times = [
            event.event_time.ToDatetime()
            for event in found
            if event.event_type
            in (EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED, EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED)
        ]
        assert max(after - before for before, after in pairwise(times)) < NO_STANDSTILL


@pytest.mark.thorough
async def test_without_the_runner_a_run_ends_without_signals_that_it_was_sent(partitioned: Client) -> None:
    for _ in range(ENDINGS):
        if await TimedRun(partitioned, SandboxedWorkflowRunner()).ended_beside_signals():
            return
    pytest.fail("the SDK does without workflows/runner.py, or the moment never came")


# The moment itself is tested with activations, in test_runner.py.
@pytest.mark.thorough
async def test_with_the_runner_every_signal_is_handed_on(partitioned: Client) -> None:
    for _ in range(ENDINGS):
        assert not await TimedRun(partitioned).ended_beside_signals()


async def test_the_history_says_whose_workflow_task_an_event_begins(temporal: Client) -> None:
    timed = TimedRun(temporal)
    async with timed.worker():
        run = await temporal.start_workflow(Timed.run, "nobody", id=timed.name, task_queue=timed.name)
        await until(run, EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)

    def asks(event_id: int, identity: str) -> Awaitable[bool | None]:
        begins = begun_by(temporal, identity)
        return asyncio.to_thread(begins, run.id, str(run.first_execution_run_id), event_id)

    ours = temporal.identity
    # The run starts; its task is scheduled, begins and ends; an activity is scheduled. There is no sixth event.
    assert [await asks(number, ours) for number in range(1, 7)] == [False, False, True, False, False, True]
    # Another worker's may time out. What is read of it now, comes again with a task of its own.
    assert await asks(3, "another worker") is False
    assert await asyncio.to_thread(begun_by(temporal, ours), "no-such-run", str(uuid.uuid4()), 3) is None
    await run.terminate()
    # Nothing comes after it: what was read of this run can be shown.
    assert await asks(6, ours)


async def test_a_run_is_dropped_unless_it_has_left_by_itself(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begun, "TASK_WITHIN_SECONDS", 0.0)
    made, create = [], TimelyRunner.create_instance

    def counted(self: TimelyRunner, det: WorkflowInstanceDetails) -> WorkflowInstance:
        made.append(det.info.run_id)
        return create(self, det)

    monkeypatch.setattr(TimelyRunner, "create_instance", counted)
    timed = TimedRun(temporal)
    worker = timed.worker()
    async with worker:
        run = await temporal.start_workflow(Timed.run, "nobody", id=timed.name, task_queue=timed.name)
        run_id, drop = str(run.first_execution_run_id), drop_by(lambda: worker)
        assert await run.query(Timed.look) == "seen"
        drop(run_id, lambda: False)
        async with asyncio.timeout(30):
            while made.count(run_id) < 2:
                await run.query(Timed.look)
        drop(run_id, lambda: True)
        for _ in range(3):
            assert await run.query(Timed.look) == "seen"
        assert made.count(run_id) == 2
        await run.terminate()
