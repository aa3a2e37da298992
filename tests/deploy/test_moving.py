"""`ais restart --mode`: what has to be there first, what a person is told, and that it can be repeated after every step."""

import asyncio
import contextlib
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker
from typer.testing import CliRunner

from activities.calls import ClearLatchCall, Scope
from activities.metrics import WorkerMetrics
from activities.record import RecordActivities
from cli import connecting
from cli import desk as desk_commands
from cli import status as status_commands
from cli.app import app
from cli.lifecycle import Lifecycle, RestartAsked
from cli.moving import NewMode, explain
from cli.refusals import Refused
from cli.terms import DeskTerms
from domain.books import EXCHANGE
from domain.desk.commands import SAME_TERMS, NewTerms
from domain.desk.states import Mode, State
from domain.desk.status import Status
from domain.risk.limits import Limits
from storage import claims
from storage.claims import AccountKey
from storage.database import Database
from tests.workflows.world import World
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, threads=2, timeout_seconds=60, application_name="ais-test")
    yield database
    database.close()


class Scene:
    """A paper desk with a worker of its own, and workers of other modes where a test wants them."""

    def __init__(self, client: Client, database: Database) -> None:
        self.client, self.database = client, database
        self.desk, self.account = f"desk-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex[:16]
        self.plan = DeskTerms(self.desk, Mode.PAPER, ("BTCUSDT",), 0.2, Limits(), account="")
        self.lifecycle = Lifecycle(client, database, self.plan, say=lambda text: None)
        self.gateway = DeskGateway(client, self.desk, patience=60)
        self.world = World()

    def worker(self, mode: Mode, world: World | None = None) -> Worker:
        queue = names.activity_queue(self.desk, mode.value)
        return Worker(self.client, task_queue=queue, activities=(world or World(self.world.database)).activities)

    async def until_done(self) -> Status:
        """Killed, verified, and read since."""
        async with asyncio.timeout(180):
            while True:
                status = await self.gateway.status()
                kill, seen = status.kill, status.observation
                done = kill is not None and kill.latched and kill.row_written and kill.verified_at
                if done and kill and kill.verified_at and seen and seen.observed_at > kill.verified_at:
                    return status
                await asyncio.sleep(0.05)

    def live(self, **facts: bool) -> NewMode:
        return NewMode(Mode.LIVE, self.account, **facts)

    async def restart(self, new: NewMode, terms: NewTerms = SAME_TERMS) -> str:
        return await self.lifecycle.restart("real now", "cli:anna", RestartAsked(LATER), terms, new)

    async def holder(self) -> str | None:
        key = AccountKey(EXCHANGE, self.account)
        found = await self.database.run(lambda connection: claims.holder(connection, key))
        return found.desk if found else None


@pytest.fixture
async def scene(temporal: Client, database: Database) -> AsyncIterator[Scene]:
    made = Scene(temporal, database)
    await made.lifecycle.start()
    async with AsyncExitStack() as workers:
        shared = Worker(temporal, task_queue=names.TASK_QUEUE, workflows=[Coordinator])
        await workers.enter_async_context(shared)
        await workers.enter_async_context(made.worker(Mode.PAPER, made.world))
        yield made
    with contextlib.suppress(RPCError):
        await temporal.get_workflow_handle(names.workflow_id(made.desk)).terminate("test over")


async def test_a_desk_goes_live_and_back_and_its_account_is_claimed(scene: Scene) -> None:
    with pytest.raises(Refused, match="is running: only the restart of a killed desk can change its mode"):
        await scene.restart(scene.live())
    await scene.gateway.signal("kill", {"reason": "ready"})
    await scene.until_done()
    with pytest.raises(Refused, match=rf"no worker of mode live is up.*AIS_DESK={scene.desk} AIS_MODE=live") as refused:
        await scene.restart(scene.live())
    assert "Nothing was restarted" in str(refused.value)
    assert await scene.holder() is None, "no claim without a desk that can use it"
    async with scene.worker(Mode.LIVE):
        said = await scene.restart(scene.live(), NewTerms(cycle_seconds=0.3))
        assert said.startswith(
            f"desk {scene.desk!r} runs again; kill 1 is cleared; its mode is live now. Now set AIS_MODE=live"
        )
        status = await scene.gateway.status()
        assert (status.state, status.mode, status.account, status.cycle_seconds) == (
            "running",
            "live",
            scene.account,
            0.3,
        )
        assert await scene.holder() == scene.desk
        with pytest.raises(Refused, match="is running and may still act on its account"):
            await scene.lifecycle.release("moving", "test")
        await scene.gateway.signal("kill", {"reason": "back"})
        await scene.until_done()
        await scene.restart(NewMode(Mode.PAPER, ""))
        status = await scene.gateway.status()
        assert (status.state, status.mode, status.account) == ("running", "paper", "")
        assert await scene.holder() == scene.desk, "until a person gives it back"
        assert "has given back" in await scene.lifecycle.release("done", "test")


async def test_another_desks_account_is_refused_before_anything_happens(scene: Scene) -> None:
    await scene.gateway.signal("kill", {"reason": "ready"})
    await scene.until_done()
    await scene.database.run(lambda connection: claims.take(connection, AccountKey(EXCHANGE, scene.account), "first"))
    async with scene.worker(Mode.LIVE):
        with pytest.raises(Refused, match="the account belongs to desk 'first'"):
            await scene.restart(scene.live())
    status = await scene.gateway.status()
    assert (status.state, status.mode, status.restart_pending, status.kill_number) == ("killed", "paper", False, 1)


async def test_after_a_break_behind_the_claim_the_same_command_finishes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object, **__: object) -> None:
        raise Refused("the connection is gone")

    await scene.gateway.signal("kill", {"reason": "ready"})
    await scene.until_done()
    async with scene.worker(Mode.LIVE):
        with monkeypatch.context() as broken:
            broken.setattr(Lifecycle, "_restart_signal", breaks)
            with pytest.raises(Refused, match="the connection is gone"):
                await scene.restart(scene.live())
        status = await scene.gateway.status()
        assert (status.state, status.mode, await scene.holder()) == ("killed", "paper", scene.desk)
        await scene.restart(scene.live())
        assert (await scene.gateway.status()).mode is Mode.LIVE


async def test_positions_are_left_behind_only_if_a_person_says_so(scene: Scene) -> None:
    scene.world.venue.position = Decimal(1)
    await scene.gateway.signal("kill", {"reason": "ready"})
    status = await scene.until_done()
    async with scene.worker(Mode.SHADOW):
        new = NewMode(Mode.SHADOW, scene.account)
        with pytest.raises(Refused, match=r"open at the venue of mode paper: BTCUSDT.*--with-positions"):
            await scene.restart(new)
        assert "(BTCUSDT): they stay there, and nothing manages them" in explain(status, new)
        await scene.restart(new._replace(with_positions=True))
        assert (await scene.gateway.status()).mode is Mode.SHADOW


async def test_the_mode_of_the_settings_alone_changes_no_mode(scene: Scene) -> None:
    await scene.gateway.signal("kill", {"reason": "ready"})
    await scene.until_done()
    plan = replace(scene.plan, mode=Mode.LIVE)
    with pytest.raises(Refused, match="AIS_MODE is live: to change the mode, add --mode live"):
        await scene.lifecycle.restart("new settings", "test", RestartAsked(LATER), plan.terms())
    assert (await scene.gateway.status()).mode is Mode.PAPER


async def test_a_person_reads_what_the_move_means_for_real_money(scene: Scene) -> None:
    await scene.gateway.signal("kill", {"reason": "ready"})
    status = await scene.until_done()
    assert explain(status, scene.live()).startswith(
        f"REAL MONEY: from its first cycle on desk {scene.desk!r} sends orders"
    )
    assert scene.account in explain(status, scene.live())
    assert explain(status, NewMode(Mode.SHADOW, scene.account)).startswith("No real money, before or after")
    was_live = status.model_copy(update={"mode": Mode.LIVE})
    assert explain(was_live, NewMode(Mode.PAPER, "")).startswith("NO MORE REAL ORDERS")


async def test_a_closed_coordinator_starts_anew_in_the_mode_that_was_named(scene: Scene) -> None:
    await scene.client.get_workflow_handle(names.workflow_id(scene.desk)).terminate("gone")
    assert "is started" in await scene.restart(scene.live())
    assert await scene.holder() == scene.desk
    status = await scene.gateway.status()
    assert (status.mode, status.account, status.state) == (Mode.LIVE, scene.account, State.RUNNING)


async def test_a_live_worker_clears_no_latch_while_the_account_is_anothers(scene: Scene) -> None:
    """Whoever signals past `ais restart` meets it here, in the transaction that would clear the latch."""
    await scene.database.run(lambda connection: claims.take(connection, AccountKey(EXCHANGE, scene.account), "first"))
    scope = Scope(desk=scene.desk, mode=Mode.LIVE, account=scene.account)
    recording = RecordActivities(scope, scene.database, WorkerMetrics(scene.desk, 1.0))
    row = scene.lifecycle._control_row("restart", "why", "test")
    with pytest.raises(Exception, match="the account belongs to desk 'first'"):
        await recording.clear_latch(ClearLatchCall(scope=scope, kill_number=0, kill_id="", row=row))


async def test_the_status_says_where_the_settings_differ_from_what_the_desk_has(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, no_settings: Path
) -> None:
    async def same_client() -> Client:
        return scene.client

    said = list[str]()
    monkeypatch.setenv("AIS_DESK", scene.desk)
    monkeypatch.setattr(status_commands, "connect_lazily", same_client)
    monkeypatch.setattr(connecting, "STATUS_SECONDS", 60.0)
    await status_commands.status(False, said.append)
    assert said == [], f"a default in {no_settings} says nothing of a desk"
    monkeypatch.setenv("AIS_CYCLE_SECONDS", "1")
    await status_commands.status(False, said.append)
    (text,) = said
    assert text.startswith("warning: the settings differ from what the desk has: cycle_seconds 0.2 -> 1")
    assert text.endswith("kill it, then `ais restart --from-settings`")


# --- at the command line ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_settings")
def test_a_mode_needs_its_settings_and_real_money_a_typed_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        Refused, match="--mode live needs AIS_ASTER_ACCOUNT_ID; AIS_ENABLE_LIVE_TRADING=true; an AIS_API_KEY"
    ):
        desk_commands.named_mode("live", False)
    monkeypatch.setenv("AIS_ASTER_ACCOUNT_ID", "mine")
    found = desk_commands.named_mode("shadow", True)
    assert found is not None
    assert (found.mode, bool(found.account), found.with_positions) == (Mode.SHADOW, True, True)
    assert desk_commands.named_mode("paper", False) == NewMode(Mode.PAPER, "")
    assert desk_commands.named_mode(None, False) is None


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize(("answer", "code"), [("y\n", 1), ("\n", 1), ("main\n", 0)])
def test_into_live_only_who_types_the_desks_name_or_yes(
    monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    done = list[NewMode | None]()

    async def preview(*_: object) -> str:
        return "REAL MONEY"

    async def restart(_reason: str, _at: datetime, _terms: NewTerms, new: NewMode | None, _say: object) -> str:
        done.append(new)
        return "done"

    for name, value in [
        ("ASTER_ACCOUNT_ID", "mine"),
        ("ENABLE_LIVE_TRADING", "true"),
        ("API_KEY", secrets.token_urlsafe(32)),
    ]:
        monkeypatch.setenv(f"AIS_{name}", value)
    monkeypatch.setattr(desk_commands, "preview", preview)
    monkeypatch.setattr(desk_commands, "restart", restart)
    monkeypatch.setattr("cli.commands.lifecycle.is_terminal", lambda: True)
    asked = ["restart", "--reason", "go", "--mode", "live"]
    assert CliRunner().invoke(app, asked, input=answer).exit_code == code
    assert len(done) == (code == 0)
    assert CliRunner().invoke(app, [*asked, "--yes"]).exit_code == 0
    assert done[-1]
