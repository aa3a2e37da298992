"""A search attribute that somebody removed while the desk runs takes nothing away but a line in a list.

The incident behind this file: `temporal operator search-attribute remove --name AisState` beside a running desk. Every
workflow task that took a kill was refused by the server, and no cancel went out until the attribute was back.
"""

import asyncio
import contextlib
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType, IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from domain.desk.carried import Carried
from domain.desk.states import State
from tests.domain.builders import NOW
from tests.temporal import serve
from tests.workflows.parts import Server
from tests.workflows.world import Desk, World, carried, running_desk
from workflows import names, showing
from workflows.gateway import registered_attributes
from workflows.run import CoordinatorRun
from workflows.showing import ShowTask

MAX_REFUSED = 6
TEMPORAL = str(Path(sys.executable).parent / "temporal")


@pytest.fixture
async def own_temporal() -> AsyncIterator[Client]:
    """A server whose attributes a test may remove."""
    async with await serve() as env:
        yield env.client


async def registered(client: Client) -> set[str]:
    found = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace="default"))
    return set(found.custom_attributes)


def remove(client: Client, *attributes: str) -> None:
    flags = [flag for name in attributes for flag in ("--name", name)]
    address = client.service_client.config.target_host
    command = [TEMPORAL, "operator", "search-attribute", "remove", *flags, "--yes", "--address", address]
    subprocess.run(command, check=True, capture_output=True)


async def failed_tasks(desk: Desk) -> list[str]:
    """What the server said to workflow tasks that it refused, in every run."""
    found: list[str] = []
    async for run in desk.client.list_workflows(f'WorkflowId="{desk.handle.id}"'):
        handle = desk.client.get_workflow_handle(desk.handle.id, run_id=run.run_id)
        async for event in handle.fetch_history_events():
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                failed = event.workflow_task_failed_event_attributes
                found.append(f"{failed.cause} {failed.failure.message}")
    return found


async def is_over(desk: Desk) -> None:
    """The kill is latched, written, and every cancel of it confirmed."""
    await desk.until(lambda s: s.kill is not None and s.kill.latched and s.kill.row_written and bool(s.kill.quiet_at))


@pytest.mark.parametrize(
    "gone", [["AisState"], pytest.param(["AisState", "AisDesk", "AisMode"], marks=pytest.mark.thorough)]
)
async def test_a_kill_and_all_that_follows_it_needs_no_search_attribute(own_temporal: Client, gone: list[str]) -> None:
    desk = Desk(own_temporal, World())
    await desk.start(search_attributes=True)
    async with desk.worker():
        await desk.until(lambda s: s.cycle_number >= 1)
        remove(own_temporal, *gone)
        assert not set(gone) & await registered(own_temporal)
        await desk.signal("pause")
        await desk.until(lambda s: s.state is State.PAUSED)
        await desk.signal("kill", "flash crash")
        await is_over(desk)
        status = await desk.until(lambda s: any("AisState" in warning for warning in s.warnings))
        await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "r"})
        after = await desk.until(lambda s: s.state is State.RUNNING and s.run_id != status.run_id)
        await desk.handle.cancel()
        await is_over(desk)
        await desk.until(lambda s: s.run_id != after.run_id)
        # The server may list an attribute for a moment after its removal: a task that only shows the state is refused then,
        # and gives up. One that is tried for ever would stand here many times.
        assert len(await failed_tasks(desk)) <= MAX_REFUSED


def create(client: Client, name: str, kind: str) -> None:
    address = client.service_client.config.target_host
    command = [TEMPORAL, "operator", "search-attribute", "create", "--name", name, "--type", kind, "--address", address]
    subprocess.run(command, check=True, capture_output=True)


async def test_an_attribute_of_another_type_is_as_good_as_missing(own_temporal: Client) -> None:
    """Removed, and created again as a number: a kill was verified after 42 s, and nobody knew whether a restart took effect."""
    names_of_ours = {"AisDesk", "AisState", "AisMode"}
    assert set(await registered_attributes(own_temporal)) == names_of_ours
    remove(own_temporal, *names_of_ours)
    async with asyncio.timeout(180):
        while names_of_ours & await registered(own_temporal):
            await asyncio.sleep(0.1)
    for name, kind in (("AisDesk", "Datetime"), ("AisState", "Int"), ("AisMode", "Bool")):
        create(own_temporal, name, kind)
    assert not names_of_ours & set(await registered_attributes(own_temporal))
    desk = Desk(own_temporal, World())
    await desk.start(search_attributes=True)
    async with desk.worker():
        await desk.until(lambda s: s.cycle_number >= 1)
        await desk.signal("kill")
        await is_over(desk)
        status = await desk.until(lambda s: any("AisState" in warning for warning in s.warnings))
        await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "r"})
        await desk.until(lambda s: s.state is State.RUNNING and s.run_id != status.run_id)
    assert not await failed_tasks(desk)


class Forbidding:
    """A client that may read runs, and not list the namespace's attributes."""

    def __init__(self, client: Client, status: RPCStatusCode) -> None:
        self.namespace, self.workflow_service, self.operator_service = client.namespace, client.workflow_service, self
        self.status = status

    async def list_search_attributes(self, *_: object, **__: object) -> None:
        raise RPCError("not everybody may ask", self.status, b"")


async def test_who_may_not_list_the_attributes_asks_for_each_of_ours(own_temporal: Client) -> None:
    forbidding = cast("Client", Forbidding(own_temporal, RPCStatusCode.PERMISSION_DENIED))
    assert set(await registered_attributes(forbidding)) == {"AisDesk", "AisState", "AisMode"}
    remove(own_temporal, "AisState")
    async with asyncio.timeout(180):
        while "AisState" in (found := await registered_attributes(forbidding)):
            await asyncio.sleep(0.1)
    assert set(found) == {"AisDesk", "AisMode"}
    with pytest.raises(RPCError):
        await registered_attributes(cast("Client", Forbidding(own_temporal, RPCStatusCode.UNAVAILABLE)))


def test_the_next_run_names_none_of_our_attributes_once_they_were_refused() -> None:
    c = carried("main", shown_state=State.RUNNING)
    task = shown_by(c)
    assert len(task.attributes or []) == 3
    task.leave_out()
    task = shown_by(Carried.model_validate_json(c.model_dump_json()))
    assert not {pair.key.name for pair in task.attributes or []} & {key.name for key in names.SEARCH_ATTRIBUTES}


def shown_by(c: Carried) -> ShowTask:
    return ShowTask(cast("CoordinatorRun", SimpleNamespace(c=c, draining=False, may_tell=True)))


@pytest.mark.parametrize(("version", "refusals", "minutes"), [(6, 3, 1), (7, 1, 2), (7, 3, 8), (7, 60, 64)])
async def test_an_attribute_that_the_server_refuses_is_set_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, version: int, refusals: int, minutes: int
) -> None:
    """Each refused workflow task holds up a kill for seconds."""
    task, now = shown_by(carried("main", schema_version=version)), NOW

    async def look() -> None:
        """The server knows the attribute."""

    async def until_late(_seconds: float) -> None:
        """As after a task that was refused, and tried again."""
        nonlocal now
        now += showing.LATE + timedelta(seconds=1)

    monkeypatch.setattr(workflow, "now", lambda: now)
    monkeypatch.setattr(task, "_look", look)
    monkeypatch.setattr(asyncio, "sleep", until_late)
    assert task._is_due()
    for _ in range(refusals):
        tried_at = now
        await task._show()
    now = tried_at + timedelta(minutes=minutes)
    assert not task._is_due()
    now += timedelta(seconds=1)
    assert task._is_due()


async def test_an_attribute_that_is_back_shows_the_state_again(own_temporal: Client) -> None:
    remove(own_temporal, "AisState")
    async with running_desk(own_temporal, search_attributes=True) as desk:
        await desk.signal("pause")
        await desk.until(lambda s: s.state is State.PAUSED and any("AisState" in text for text in s.warnings))
        await own_temporal.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace="default", search_attributes={"AisState": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD}
            )
        )
        await desk.signal("kill")
        await is_over(desk)
        await desk.until(lambda s: not any("AisState" in text for text in s.warnings))
        async with asyncio.timeout(180):
            while await shown(desk) != "killed":
                await asyncio.sleep(0.05)


async def shown(desk: Desk) -> str | None:
    """What lists of desks say."""
    return (await desk.handle.describe()).typed_search_attributes.get(names.STATE_ATTRIBUTE)


async def is_refused(client: Client) -> None:
    """The server starts no run with the attribute any more. It may do so for a moment after the removal."""
    state = TypedSearchAttributes([SearchAttributePair(names.STATE_ATTRIBUTE, "running")])
    async with asyncio.timeout(180):
        with contextlib.suppress(RPCError):
            while True:
                await client.start_workflow("Probe", id=uuid.uuid4().hex, task_queue="nobody", search_attributes=state)
                await asyncio.sleep(0.1)


@pytest.mark.thorough
async def test_a_run_ends_without_attributes_that_nobody_may_ask_about(own_temporal: Client) -> None:
    """On Temporal Cloud not everybody may list the attributes. The server refused the end of such a run for ever: no next
    run, no restart, not even a status, and a kill only when the server tried again."""
    desk = Desk(own_temporal, World(Server(tells=False)))
    await desk.start(search_attributes=True)
    async with desk.worker():
        before = await desk.until(lambda s: s.cycle_number >= 1)
        remove(own_temporal, "AisState", "AisDesk", "AisMode")
        await is_refused(own_temporal)
        await desk.handle.cancel()
        await desk.until(lambda s: s.run_id != before.run_id)
        await is_over(desk)
        after = await desk.until(lambda s: any("refuse the search attributes" in text for text in s.warnings))
        # The next run knows, and ends at the first try.
        refused = len(await failed_tasks(desk))
        await desk.handle.cancel()
        await desk.until(lambda s: s.run_id != after.run_id)
        assert len(await failed_tasks(desk)) == refused
        # Once somebody tells, everything is as before.
        desk.world.server.tells = True
        await desk.handle.cancel()
        await desk.until(lambda s: any("does not know" in text for text in s.warnings))
