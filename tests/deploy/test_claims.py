"""An account belongs to one desk: a second one is refused, by the name of the first, until that one gives it back."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.claiming import ClaimCheck
from cli.lifecycle import Lifecycle, RestartAsked
from cli.refusals import Refused
from cli.terms import DeskTerms
from domain.books import EXCHANGE
from domain.desk.states import Mode, State
from domain.risk.limits import Limits
from domain.trading.decisions import Decision
from domain.trading.market import LatchRow
from storage import claims
from storage.claims import AccountKey
from storage.database import Database
from storage.decisions import DecisionFilter, page
from storage.desks import write_desk
from tests.deploy.dev_stack import ais, ais_here
from tests.storage.builders import make_desk_row
from tests.workflows.world import World
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway

NOW = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, threads=2, timeout_seconds=60, application_name="ais-test")
    yield database
    database.close()


class Scene:
    """Desks on one account."""

    def __init__(self, client: Client, database: Database) -> None:
        self.client, self.database = client, database
        self.account = uuid.uuid4().hex[:16]
        self.desks: list[str] = []

    @property
    def key(self) -> AccountKey:
        return AccountKey(EXCHANGE, self.account)

    def desk(self, mode: Mode = Mode.LIVE) -> Lifecycle:
        name = f"desk-{uuid.uuid4().hex[:8]}"
        self.desks.append(name)
        plan = DeskTerms(name, mode, ("BTCUSDT",), 0.2, Limits(), account=self.account)
        return Lifecycle(self.client, self.database, plan, say=lambda text: None)

    async def holder(self) -> str | None:
        claim = await self.database.run(lambda connection: claims.holder(connection, self.key))
        return claim.desk if claim else None

    @contextlib.asynccontextmanager
    async def served(self, name: str) -> AsyncIterator[DeskGateway]:
        """Its coordinator with a worker, and its latch in the database as a worker writes it."""
        own = names.activity_queue(name, Mode.LIVE.value)
        async with AsyncExitStack() as workers:
            shared = Worker(self.client, task_queue=names.TASK_QUEUE, workflows=[Coordinator])
            await workers.enter_async_context(shared)
            await workers.enter_async_context(Worker(self.client, task_queue=own, activities=World().activities))
            yield DeskGateway(self.client, name, patience=60)


@pytest.fixture
async def scene(temporal: Client, database: Database) -> AsyncIterator[Scene]:
    made = Scene(temporal, database)
    yield made
    for name in made.desks:
        with contextlib.suppress(RPCError):
            await temporal.get_workflow_handle(names.workflow_id(name)).terminate("test over")


async def test_a_second_desk_on_an_account_is_refused_and_told_of_the_first(scene: Scene) -> None:
    first, second = scene.desk(), scene.desk()
    assert (await first.start()).endswith("its account belongs to this desk alone: nobody else may send orders on it")
    with pytest.raises(Refused, match=f"the account belongs to desk '{scene.desks[0]}' \\(claimed") as refused:
        await second.start()
    assert f"AIS_DESK={scene.desks[0]} ais release" in str(refused.value)
    assert await DeskGateway(scene.client, scene.desks[1]).open_status() is None
    assert await scene.holder() == scene.desks[0]
    assert "open already" in await first.start()


async def test_shadow_sends_nothing_and_claims_nothing(scene: Scene) -> None:
    await scene.desk().start()
    assert "alone" not in await scene.desk(Mode.SHADOW).start()
    assert await scene.holder() == scene.desks[0]


async def test_a_desk_gives_its_account_back_once_its_kill_is_verified(scene: Scene) -> None:
    first, second = scene.desk(), scene.desk()
    await first.start()
    async with scene.served(scene.desks[0]) as gateway:
        with pytest.raises(Refused, match="is running and may still act on its account: kill it"):
            await first.release("moving", "test")
        await gateway.signal("kill", {"reason": "moving"})
        async with asyncio.timeout(180):
            while (kill := (await gateway.status()).kill) is None or kill.verified_at is None:
                await asyncio.sleep(0.05)
        assert "another desk can use it now" in await first.release("moving", "test")
        with pytest.raises(Refused, match="has no account to give back"):
            await first.release("moving", "test")
        assert "is started" in await second.start()
        with pytest.raises(Refused, match=f"the account belongs to desk '{scene.desks[1]}'"):
            await first.restart("back", "test", RestartAsked(NOW))
        assert (await gateway.status()).state is State.KILLED
    rows = await scene.database.run(lambda c: [row.summary for row in _decisions(c, scene.desks[0])])
    assert rows == ["release applied by test: moving"]


def _decisions(connection: Connection, desk: str) -> list[Decision]:
    return page(connection, DecisionFilter(desk=desk))[0]


async def test_a_desk_that_is_gone_can_be_released_and_not_restarted_beside_another(scene: Scene) -> None:
    first, second = scene.desk(), scene.desk()
    await first.start()
    await scene.client.get_workflow_handle(names.workflow_id(scene.desks[0])).terminate("gone")
    with pytest.raises(Refused, match="belongs to desk"):
        await second.start()
    await first.release("gone", "test")
    await second.start()
    with pytest.raises(Refused, match=f"belongs to desk '{scene.desks[1]}'"):
        await first.restart("back", "test", RestartAsked(NOW))
    assert await DeskGateway(scene.client, scene.desks[0]).open_status() == "TERMINATED"


# --- a worker --------------------------------------------------------------------------------------------------------------


class Standing:
    """Whoever is asked first."""

    async def refusal(self) -> str | None:
        return None


async def refusal(scene: Scene, desk: str, status: Any = None, database: Database | None = None) -> str | None:
    async def ask() -> Any:
        return status

    told: list[str] = []
    check = ClaimCheck(Standing(), database or scene.database, desk, scene.key, ask, told.append)
    return await check.refusal()


async def test_a_worker_of_a_second_desk_leaves_and_names_the_first(scene: Scene) -> None:
    await scene.database.run(lambda connection: claims.take(connection, scene.key, "first"))
    assert await refusal(scene, "first") is None
    why = await refusal(scene, "second")
    assert why
    assert why.startswith("the account belongs to desk 'first'")


async def test_a_worker_whose_desk_is_killed_serves_the_kill_whosever_the_account_is(scene: Scene) -> None:
    await scene.database.run(lambda connection: claims.take(connection, scene.key, "first"))
    assert await refusal(scene, "second", _Told(State.RUNNING))
    assert await refusal(scene, "second", _Told(State.KILLED)) is None
    killed = make_desk_row(f"late-{scene.account}", killed=True, number=1)
    assert isinstance(killed.latch, LatchRow)
    await scene.database.run(lambda connection: write_desk(connection, killed))
    assert await refusal(scene, killed.desk) is None, "the coordinator may not answer, and the row says it"


class _Told:
    def __init__(self, state: State) -> None:
        self.state = state


async def test_a_database_that_does_not_answer_keeps_no_worker_from_starting(scene: Scene) -> None:
    nowhere = Database("postgresql://nobody:nothing@127.0.0.1:1/none", timeout_seconds=1, application_name="ais-test")
    assert await refusal(scene, "second", database=nowhere) is None
    nowhere.close()


def test_release_wants_a_reason(tmp_path: Any) -> None:
    assert ais("release", cwd=tmp_path).returncode == 2
    assert ais_here("release", "--reason", " ", cwd=tmp_path).returncode == 2
