"""Workers with versions on a real server: an upgrade by the commands of docs/operations.md, with kills before, between and after.

The workers of both builds run this code: what is tested is who gets the tasks. That new code replays old histories is tested by
`test_replay.py`.
"""

import asyncio
import shlex
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.enums.v1 import EventType, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError
from temporalio.worker import Worker

import settings
import worker
from activities.calls import Scope
from domain.desk.states import Mode, State
from domain.desk.versions import SCHEMA_VERSION
from tests.temporal import BIN
from tests.workflows.world import Desk, World
from workflows.coordinator import Coordinator
from workflows.patience import allow_a_full_signal_queue
from workflows.serving import Serving, current_version, making_current, serving

WORKFLOWS = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
BEHAVIORS = (pytest.param("auto-upgrade", marks=pytest.mark.thorough), "pinned")


class Deployment:
    """Workers of several builds on one queue, the desks that they serve, and the commands of an operator."""

    def __init__(self, client: Client, behavior: str) -> None:
        self.client = client
        self.behavior = behavior
        self.name = f"d{uuid.uuid4().hex[:10]}"
        self.queue = f"q-{self.name}"

    @asynccontextmanager
    async def worker(self, build: str | None) -> AsyncIterator[None]:
        """A worker of this build that polls; None for one without a version. It takes no activities, as in worker.py."""
        running = Worker(
            self.client,
            task_queue=self.queue,
            workflows=[Coordinator],
            deployment_config=worker.versioned_as(self._settings(build)),
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        )
        async with allow_a_full_signal_queue(running):
            await self._until_it_polls(build)
            yield

    def _settings(self, build: str | None) -> settings.WorkerSettings:
        return settings.WorkerSettings(
            worker_versioning=self.behavior if build else "off", worker_deployment=self.name, worker_build_id=build
        )

    async def _until_it_polls(self, build: str | None) -> None:
        """A version can be made current once the server knows it."""
        if build is None:
            return
        describe = f"worker deployment describe-version --deployment-name {self.name} --build-id {build}".split()
        async with asyncio.timeout(180):
            while build not in await self._polling() or (await temporal_says(self.client, *describe))[0] != 0:
                await asyncio.sleep(0.1)

    async def _polling(self) -> set[str]:
        request = DescribeTaskQueueRequest(
            namespace=self.client.namespace, task_queue=TaskQueue(name=self.queue), task_queue_type=WORKFLOWS
        )
        try:
            found = await self.client.workflow_service.describe_task_queue(request)
        except RPCError:
            # The server ends each connection after five minutes, with whatever is just being asked.
            return set()
        return {poller.deployment_options.build_id for poller in found.pollers}

    async def make_current(self, build: str | None) -> None:
        chosen = WorkerDeploymentVersion(self.name, build) if build else None
        await typed(self.client, making_current(chosen, self.name))

    @asynccontextmanager
    async def desk(self, **changes: object) -> AsyncIterator[Desk]:
        """A desk that its own workers of activities look after, whatever becomes of the others."""
        desk = Desk(self.client, World())
        desk.queue = self.queue
        await desk.start(**{"cycle_seconds": 1.5} | changes)
        async with desk.activity_worker(graceful_seconds=0):
            yield desk
            await desk.assert_healthy_history()
        await desk.handle.terminate("the test is over")

    async def move(self, desk: Desk, build: str) -> None:
        """As the page says for pinned desks."""
        found = Serving(desk.desk, None, True, (WorkerDeploymentVersion(self.name, build),))
        await typed(self.client, *found.remedies)

    async def until_served_by(self, desk: Desk, build: str | None) -> None:
        """Until the desk's last workflow task was done by this build."""
        async with asyncio.timeout(180):
            while await served_by(desk) != build:
                await asyncio.sleep(0.1)


async def served_by(desk: Desk) -> str | None:
    info = (await desk.handle.describe()).raw_description.workflow_execution_info.versioning_info
    return info.deployment_version.build_id or None


async def temporal_says(client: Client, *arguments: str) -> tuple[int, str]:
    """The exit status of the command, and what it said."""
    address = client.service_client.config.target_host
    process = await asyncio.create_subprocess_exec(
        str(BIN / "temporal"), *arguments, "--address", address, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def typed(client: Client, *commands: str) -> None:
    """An operator types these, and says yes."""
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "temporal"
        yes = ["--yes"] if {"set-current-version", "set-ramping-version"} & {*arguments} else []
        status, said = await temporal_says(client, *arguments, *yes)
        assert status == 0, f"{command}: {said}"


async def killed(desk: Desk) -> None:
    """Not only the state: the cancels went out, and the venue was read after them."""
    await desk.until(
        lambda s: s.state is State.KILLED and s.kill is not None and s.kill.verified_at is not None,
        "killed and verified",
    )


@pytest.mark.parametrize("behavior", BEHAVIORS)
async def test_desks_in_every_state_survive_an_upgrade_and_a_kill_at_each_step_is_carried_out(
    temporal: Client, behavior: str
) -> None:
    deployment = Deployment(temporal, behavior)
    async with AsyncExitStack() as stack, AsyncExitStack() as old:
        await old.enter_async_context(deployment.worker("A"))
        await deployment.make_current("A")
        desks = await asyncio.gather(*(stack.enter_async_context(deployment.desk()) for _ in range(5)))
        before, between, after, paused, dead = desks
        await paused.signal("pause")
        await dead.signal("kill")
        await killed(dead)

        await stack.enter_async_context(deployment.worker("B"))
        await before.signal("kill")
        await killed(before)
        assert await served_by(before) == "A"

        await deployment.make_current("B")
        await between.handle.cancel(reason="the Cancel button")
        await killed(between)

        await asyncio.gather(*(deployment.move(desk, "B") for desk in desks if behavior == "pinned"))
        await asyncio.gather(*(deployment.until_served_by(desk, "B") for desk in desks))
        await old.aclose()

        assert await after.state() is State.RUNNING
        assert await paused.state() is State.PAUSED
        await after.signal("kill")
        await killed(after)
        await paused.signal("resume")
        await paused.until(lambda s: s.state is State.RUNNING)
        assert [await desk.state() for desk in (before, between, dead)] == [State.KILLED] * 3


async def test_a_pinned_desk_goes_over_to_the_current_version_with_its_next_run(short_history_temporal: Client) -> None:
    deployment = Deployment(short_history_temporal, "pinned")
    async with AsyncExitStack() as stack, AsyncExitStack() as old:
        await old.enter_async_context(deployment.worker("A"))
        await deployment.make_current("A")
        desk = await stack.enter_async_context(deployment.desk(cycle_seconds=0.2))
        first = await desk.until(lambda s: s.cycle_number >= 1)
        await stack.enter_async_context(deployment.worker("B"))
        assert await served_by(desk) == "A"
        # From here on the next run may come at any moment.
        await deployment.make_current("B")
        await desk.signal("kill")
        await killed(desk)
        await deployment.until_served_by(desk, "B")
        await old.aclose()
        status = await desk.status()
        assert status.run_id != first.run_id
        assert status.state is State.KILLED


@pytest.mark.parametrize("behavior", BEHAVIORS)
async def test_the_first_version_and_the_way_back_to_none(temporal: Client, behavior: str) -> None:
    deployment = Deployment(temporal, behavior)
    async with AsyncExitStack() as stack, AsyncExitStack() as old:
        await old.enter_async_context(deployment.worker(None))
        desk = await stack.enter_async_context(deployment.desk())
        await desk.until(lambda s: s.cycle_number >= 1)
        new = await stack.enter_async_context(AsyncExitStack())
        await new.enter_async_context(deployment.worker("A"))
        # Nobody has made it current: all goes to those who served the desk before.
        found = await serving(temporal, desk.desk)
        assert found.needed is None
        nobody = making_current(WorkerDeploymentVersion(deployment.name, "nobody"), deployment.name).split()[1:]
        assert (await temporal_says(temporal, *nobody, "--yes"))[0] != 0
        assert await current_version(temporal, deployment.queue) is None
        await desk.signal("pause")
        await desk.until(lambda s: s.state is State.PAUSED)
        assert await served_by(desk) is None

        await deployment.make_current("A")
        await deployment.until_served_by(desk, "A")
        await old.aclose()
        assert await desk.state() is State.PAUSED

        await stack.enter_async_context(deployment.worker(None))
        await deployment.make_current(None)
        if behavior == "pinned":
            found = await serving(temporal, desk.desk)
            assert found.needed == WorkerDeploymentVersion(deployment.name, "A")
            assert found.remedies
            await typed(temporal, *found.remedies)
        await deployment.until_served_by(desk, None)
        await new.aclose()
        await desk.signal("kill")
        await killed(desk)


@pytest.mark.parametrize("behavior", BEHAVIORS)
async def test_a_desk_whose_version_is_gone_is_killed_once_a_person_types_what_the_doctor_says(
    temporal: Client, behavior: str
) -> None:
    """Somebody stopped the old worker too early: the worst order of the steps."""
    deployment = Deployment(temporal, behavior)
    async with AsyncExitStack() as stack:
        async with deployment.worker("A"):
            await deployment.make_current("A")
            desk = await stack.enter_async_context(deployment.desk())
            await desk.until(lambda s: s.cycle_number >= 1)
        await desk.signal("kill")
        await stack.enter_async_context(deployment.worker("B"))
        a, b = (WorkerDeploymentVersion(deployment.name, build) for build in "AB")
        found = await serving(temporal, desk.desk)
        assert (found.needed, found.is_pinned) == (a, behavior == "pinned")
        assert b in found.polling
        assert len(found.remedies) == 1
        await typed(temporal, *found.remedies)
        await killed(desk)
        assert await served_by(desk) == "B"


# The same steps as in test_desks_in_every_state_survive_an_upgrade_and_a_kill_at_each_step_is_carried_out, with the names
# of the versions exchanged.
@pytest.mark.thorough
@pytest.mark.parametrize("behavior", BEHAVIORS)
async def test_the_way_back_to_the_old_version(temporal: Client, behavior: str) -> None:
    deployment = Deployment(temporal, behavior)
    async with AsyncExitStack() as stack, AsyncExitStack() as new:
        await stack.enter_async_context(deployment.worker("A"))
        await deployment.make_current("A")
        await new.enter_async_context(deployment.worker("B"))
        await deployment.make_current("B")
        desk = await stack.enter_async_context(deployment.desk())
        await desk.until(lambda s: s.cycle_number >= 1)
        assert await served_by(desk) == "B"
        await deployment.make_current("A")
        if behavior == "pinned":
            await deployment.move(desk, "A")
        await deployment.until_served_by(desk, "A")
        await new.aclose()
        await desk.signal("kill")
        await killed(desk)


async def test_a_worker_leaves_alone_a_run_whose_rules_it_does_not_know(temporal: Client) -> None:
    """It would begin the run under its own rules, and no worker could replay that: neither a newer one nor itself."""
    desk = Desk(temporal, World())
    await desk.start(schema_version=SCHEMA_VERSION + 1)
    await desk.signal("kill")
    async with desk.worker():
        kinds = await _until_a_task_failed(desk)
    assert "EVENT_TYPE_WORKFLOW_TASK_COMPLETED" not in kinds
    await desk.handle.terminate("the test is over")


async def _until_a_task_failed(desk: Desk) -> list[str]:
    """What the history has by then."""
    async with asyncio.timeout(180):
        while True:
            events = [event async for event in desk.handle.fetch_history_events()]
            for failed in (event.workflow_task_failed_event_attributes for event in events):
                if failed.failure.message:
                    assert f"rules of version {SCHEMA_VERSION + 1}" in failed.failure.message
                    return [EventType.Name(event.event_type) for event in events]
            await asyncio.sleep(0.05)


async def test_only_workflow_tasks_have_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel never waits for a worker of the version that decided it."""
    monkeypatch.setattr(worker, "Worker", lambda _, **given: SimpleNamespace(**given))
    monkeypatch.setattr(worker, "allow_a_full_signal_queue", lambda built: built)
    scope = Scope(desk="main", mode=Mode.PAPER, database_id=None, account=None)
    versioned = worker.versioned_as(settings.WorkerSettings(worker_versioning="pinned", worker_build_id="A"))
    built: Any = worker.build_workers(cast(Client, None), scope, [], timedelta(), print, versioned)
    assert built.shared.deployment_config is versioned
    assert not hasattr(built.own, "deployment_config")


def test_without_the_setting_a_worker_has_no_version_and_with_it_that_of_the_package() -> None:
    assert worker.versioned_as(settings.WorkerSettings()) is None
    versioned = worker.versioned_as(settings.WorkerSettings(worker_versioning="auto-upgrade"))
    assert versioned
    assert versioned.version.deployment_name == "ais"
    assert versioned.version.build_id == version("ais")
