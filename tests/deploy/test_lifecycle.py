"""A start or a restart that breaks off says what is known at that point: "nothing was started" only where nothing was."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

import pytest
import typer
from sqlalchemy import Connection, update
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from cli.lifecycle import Lifecycle, RestartAsked
from cli.refusals import EXPECTED, Refused
from cli.terminal import expected_failures
from cli.terms import DeskTerms
from domain.desk.commands import NewTerms
from domain.desk.states import Mode
from domain.risk.limits import Limits
from storage.database import Database
from storage.desks import DeskRecord, read_desk
from storage.tables import desks
from tests.postgres import Server
from tests.workflows.world import World
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway, SignalUnanswered

T = TypeVar("T")
NOW = datetime(2100, 1, 1, tzinfo=UTC)


class Fading(Database):
    """A database whose server hangs from its `calls`-th call on: a real one, stopped as a whole."""

    calls = 1_000
    hang: Callable[[], object]

    async def run(self, work: Callable[[Connection], T], timeout_seconds: float | None = None) -> T:
        self.calls -= 1
        if self.calls == 0:
            self.hang()
        return await super().run(work, timeout_seconds)


class Scene:
    """A desk that was never started, a real Temporal server, and a real database that can go away between two steps."""

    def __init__(self, client: Client, url: str, server: Server, hung: ExitStack) -> None:
        self.client, self.desk, self._server, self._hung = client, f"desk-{uuid.uuid4().hex[:8]}", server, hung
        self.database = Fading(url, threads=1, timeout_seconds=1.5, application_name="test")
        self.database.hang = lambda: hung.enter_context(server.hung())
        self.plan = DeskTerms(self.desk, Mode.PAPER, ("BTCUSDT",), 0.2, Limits())
        self.lifecycle = Lifecycle(client, self.database, self.plan, say=lambda text: None)

    def goes_away_at(self, call: int) -> None:
        self.database.calls = call

    def comes_back(self) -> None:
        self.database.calls = 1_000
        self._hung.close()

    async def refused(self, kind: str) -> str:
        with pytest.raises(Refused) as refused:
            await (self.lifecycle.start() if kind == "start" else self.restart())
        self.comes_back()
        return str(refused.value)

    async def restart(self) -> str:
        return await self.lifecycle.restart("test", "test", RestartAsked(NOW))

    async def is_open(self) -> bool:
        return await DeskGateway(self.client, self.desk).open_status() == "RUNNING"

    async def row(self) -> DeskRecord | None:
        return await self.database.run(lambda connection: read_desk(connection, self.desk))


@pytest.fixture
async def scene(temporal: Client, postgres: Server, database_url: str) -> AsyncIterator[Scene]:
    with ExitStack() as hung:
        made = Scene(temporal, database_url, postgres, hung)
        yield made
        made.comes_back()
        with contextlib.suppress(RPCError):
            await temporal.get_workflow_handle(names.workflow_id(made.desk)).terminate("test over")
        made.database.close()


@pytest.mark.parametrize("call", [1, 2])
async def test_a_store_that_is_away_for_a_moment_is_worth_another_try(scene: Scene, call: int) -> None:
    """`ais dev` tries again where that is so, and leaves every other refusal to a person."""
    scene.goes_away_at(call)
    with pytest.raises(Refused) as refused:
        await scene.lifecycle.start()
    assert refused.value.passing
    scene.comes_back()
    await scene.lifecycle.start()
    await scene.client.get_workflow_handle(names.workflow_id(scene.desk)).terminate("by hand")
    with pytest.raises(Refused) as refused:
        await scene.lifecycle.start()
    assert not refused.value.passing


@pytest.mark.parametrize(
    ("call", "opened", "told"),
    [
        (1, False, "nothing was started"),
        (2, False, "no coordinator was started"),
        (3, True, "the coordinator is started"),
    ],
)
async def test_a_start_says_what_it_knows_when_the_database_goes_away(
    scene: Scene, call: int, opened: bool, told: str
) -> None:
    scene.goes_away_at(call)
    text = await scene.refused("start")
    assert text.startswith(told)
    assert "did not answer" in text
    assert await scene.is_open() is opened
    assert ("ais status" in text and f"--workflow-id coordinator-{scene.desk} --name kill" in text) is opened
    assert "open already" in await scene.lifecycle.start() if opened else "is started" in await scene.lifecycle.start()
    row = await scene.row()
    assert row
    assert row.started_at


async def test_a_start_of_an_open_desk_that_is_killed_says_so_and_what_brings_it_back(scene: Scene) -> None:
    await scene.lifecycle.start()
    killed = update(desks).where(desks.c.desk == scene.desk)
    values = {"killed": True, "kill_number": 1, "reason": "flash crash", "actor": "http"}
    await scene.database.run(lambda connection: connection.execute(killed.values(values)))
    text = await scene.lifecycle.start()
    assert text.endswith("is open already, and killed (flash crash, by http): only `ais restart` brings it back")


@pytest.mark.parametrize(
    ("call", "opened", "told"),
    [
        (1, False, "nothing was restarted"),
        (2, False, "no coordinator was started"),
        (3, True, "the coordinator is started"),
    ],
)
async def test_a_restart_without_a_coordinator_says_what_it_knows(
    scene: Scene, call: int, opened: bool, told: str
) -> None:
    await scene.lifecycle.start()
    await scene.client.get_workflow_handle(names.workflow_id(scene.desk)).terminate("gone")
    scene.goes_away_at(call)
    text = await scene.refused("restart")
    assert text.startswith(told)
    assert await scene.is_open() is opened
    assert "nothing" not in text or not opened


async def test_a_restart_begins_no_desk_that_nobody_knows(scene: Scene) -> None:
    """Found: `ais restart --desk mian` opened a second desk, which traded."""
    told = await scene.refused("restart")
    assert told.startswith(f"nothing was restarted: neither Temporal nor the database knows a desk '{scene.desk}'")
    assert not await scene.is_open()


@pytest.mark.parametrize("by", ["signal", "cancel"])
async def test_a_restart_finds_the_kill_that_the_closed_coordinator_never_took(scene: Scene, by: str) -> None:
    """No worker is up: Temporal recorded the kill, and then the coordinator was ended."""
    await scene.lifecycle.start()
    gateway = DeskGateway(scene.client, scene.desk)
    if by == "signal":
        await gateway.signal("kill", {"command_id": "lost", "reason": "flash crash", "actor": "http"})
    else:
        await gateway.request_cancel('{"command_id": "lost", "reason": "flash crash", "actor": "http"}')
    await gateway.signal("pause", {"command_id": "later"})
    handle = scene.client.get_workflow_handle(names.workflow_id(scene.desk))
    await handle.terminate("history size exceeds limit")
    told = await scene.restart()
    assert "killed: the closed one had received a kill that was never carried out (flash crash, by http)" in told
    own = names.activity_queue(scene.desk, Mode.PAPER.value)
    async with (
        Worker(scene.client, task_queue=names.TASK_QUEUE, workflows=[Coordinator]),
        Worker(scene.client, task_queue=own, activities=World().activities),
    ):
        found = await DeskGateway(scene.client, scene.desk, patience=60).outcomes(["lost"])
        assert (found.status.state, found.status.kill_number, found.outcomes["lost"].outcome) == (
            "killed",
            1,
            "applied",
        )


@asynccontextmanager
async def a_killed_desk(scene: Scene) -> AsyncIterator[World]:
    world = World()
    await scene.lifecycle.start()
    gateway = DeskGateway(scene.client, scene.desk)
    own = names.activity_queue(scene.desk, Mode.PAPER.value)
    async with (
        Worker(scene.client, task_queue=names.TASK_QUEUE, workflows=[Coordinator]),
        Worker(scene.client, task_queue=own, activities=world.activities),
    ):
        await gateway.signal("kill", {"reason": "test"})
        async with asyncio.timeout(180):
            while not (status := await gateway.status()).kill or not (status.kill.latched and status.kill.row_written):
                await asyncio.sleep(0.05)
        yield world


async def test_a_restart_takes_new_terms_and_a_start_says_where_the_settings_differ(scene: Scene) -> None:
    told = list[str]()
    async with a_killed_desk(scene) as world:
        gateway = DeskGateway(scene.client, scene.desk, patience=60)
        terms = NewTerms(symbols=["BTCUSDT", "SOLUSDT"], cycle_seconds=0.5)
        async with asyncio.timeout(180):
            while not (status := await gateway.status()).kill or not status.kill.verified_at:
                await asyncio.sleep(0.05)
        await scene.lifecycle.restart("more", "test", RestartAsked(NOW), terms)
        status = await gateway.status()
        assert (status.state, status.symbols, status.cycle_seconds) == ("running", ["BTCUSDT", "SOLUSDT"], 0.5)
        async with asyncio.timeout(180):
            while (
                world.database.latch is None
                or world.database.latch.killed
                or world.readings.symbols != {"BTCUSDT", "SOLUSDT"}
            ):
                await asyncio.sleep(0.05)
        again = Lifecycle(scene.client, scene.database, scene.plan, told.append)
        await again.start()
    assert told == [
        "warning: the settings differ from what the desk has: symbols BTCUSDT,SOLUSDT -> BTCUSDT; "
        "cycle_seconds 0.5 -> 0.2. The desk keeps its own; to adopt these: kill it, then `ais restart --from-settings`"
    ]


async def test_a_restart_that_was_recorded_is_never_told_as_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.lifecycle.OUTCOME_SECONDS", 2.0)
    async with a_killed_desk(scene) as world:
        world.database.hangs = True
        text = await scene.refused("restart")
    assert text.startswith(
        "the restart is recorded, but it is not known whether it took effect: the desk may be running"
    )
    assert "ais status" in text
    assert "--name kill" in text


async def test_a_restart_whose_signal_was_not_answered_may_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unanswered(*_: object) -> None:
        raise SignalUnanswered("Temporal did not answer: deadline")

    async with a_killed_desk(scene):
        monkeypatch.setattr(DeskGateway, "signal", unanswered)
        text = await scene.refused("restart")
    assert text.startswith("it is not known whether the restart was recorded: the desk may be running")


async def test_no_traceback_where_temporal_does_not_tell_the_state(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ais start` compares the latch with what is shown, and that reading may fail like any other."""
    await scene.lifecycle.start()

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the connection is gone")

    monkeypatch.setattr("cli.lifecycle.described", broken)
    assert await scene.lifecycle._shown_state() is None


def test_what_a_person_can_cause_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert Refused in EXPECTED
    with pytest.raises(typer.Exit), expected_failures(*EXPECTED):
        raise Refused("why")
    assert capsys.readouterr().err == "why\n"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (
            RPCStatusCode.DEADLINE_EXCEEDED,
            "it is not known whether the coordinator was started: the desk may be running",
        ),
        (RPCStatusCode.PERMISSION_DENIED, "no coordinator was started; only the desk's row was written"),
    ],
)
async def test_a_start_that_temporal_does_not_answer_is_not_one_that_it_refuses(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, status: RPCStatusCode, told: str
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RPCError("as the test wants it", status, b"")

    monkeypatch.setattr(scene.client, "start_workflow", fails)
    assert (await scene.refused("start")).startswith(told)
