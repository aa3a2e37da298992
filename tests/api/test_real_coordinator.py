"""The API over a real coordinator on a real Temporal server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from api.app import create_app
from settings import DeskSettings
from tests.api.world import AUTHORIZED, FakeReports, make_settings
from tests.workflows.parts import Venue
from tests.workflows.world import Desk, World, running_desk
from workflows import names
from workflows.gateway import DeskGateway

CANCELS = [
    {"tool": "cancel_all_orders", "symbol": "BTCUSDT"},
    {"tool": "cancel_spot_all_orders", "symbol": "BTCUSDT"},
]


@asynccontextmanager
async def api(client: Client, desk: str, seconds: float = 30.0) -> AsyncIterator[httpx.AsyncClient]:
    """The application for one desk."""
    settings = replace(make_settings(ack_timeout=seconds), desk=DeskSettings(desk=desk, symbols=("BTCUSDT",)))
    app = create_app(settings, DeskGateway(client, desk, patience=seconds), FakeReports())
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api", headers=AUTHORIZED) as made,
    ):
        yield made


async def test_every_command_over_a_real_coordinator(temporal: Client) -> None:
    world = World(Venue(position=Decimal("0.5")))
    async with running_desk(temporal, world, cycle_seconds=2) as desk, api(temporal, desk.desk) as client:

        async def post(path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
            response = await client.post(f"/control/{path}", json=body, headers=headers)
            return response.status_code, response.json()

        assert await post("pause", {"reason": "r"}) == (200, {"action": "paused", "reason": "r"})
        assert (await client.get("/control/status")).json() == {"state": "paused"}
        assert await post("resume") == (200, {"action": "resumed"})
        everything = {"action": "cancel_all_prepared", "symbols": ["BTCUSDT"], "cancel_instructions": CANCELS}
        assert await post("cancel-all") == (200, everything)
        assert (await post("cancel-all", {"symbols": ["DOGEUSDT"]}))[0] == 422
        half = {"symbol": "BTC/USDT", "reduce_pct": 0.5}
        for _ in range(2):
            status, body = await post("deleverage", half, **{"Idempotency-Key": "d1"})
            assert (status, body["instruction"]["quantity"], body["instruction"]["side"]) == (200, 0.25, "SELL")
        assert world.venue.position == Decimal("0.25")
        assert await post("kill-switch", {"reason": "k"}, **{"Idempotency-Key": "d1"}) == (
            200, {"action": "killed", "reason": "k", "cancel_instructions": CANCELS},
        )  # fmt: skip
        assert (await post("resume"))[0] == 409
        assert (await client.get("/control/coordinator")).json()["kill"]["reason"] == "k"
        assert (await client.get("/health")).json()["aster_connected"] is True
        assert f'ais_coordinator_state{{desk="{desk.desk}",state="killed"}} 1.0' in (await client.get("/metrics")).text


async def test_a_kill_without_a_worker_is_202_and_holds_when_the_worker_comes(temporal: Client) -> None:
    desk = Desk(temporal, World())
    await desk.start()
    async with api(temporal, desk.desk, seconds=1.0) as client:
        response = await client.post("/control/kill-switch")
        assert (response.status_code, response.json()["cancel_instructions"]) == (202, CANCELS)
        assert (await client.get("/control/status")).status_code == 503
        async with desk.worker(), asyncio.timeout(180):
            while (found := await client.get(response.headers["Location"])).status_code != 200:
                await asyncio.sleep(0.1)
            assert found.json()["action"] == "killed"
            assert (await client.get("/control/status")).json() == {"state": "killed"}
    await desk.handle.terminate("the test is over")


@workflow.defn(name=names.WORKFLOW_TYPE)
class OtherVersion:
    """A coordinator whose answers lack what ours have."""

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal(name="kill")
    def kill(self, payload: dict[str, Any]) -> None:
        """Takes it."""

    @workflow.query(name=names.OUTCOMES_QUERY)
    def outcomes(self, command_ids: list[str]) -> dict[str, Any]:
        return {"status": {"state": "running"}, "outcomes": {}}


async def test_a_kill_on_a_worker_of_another_version_is_202_and_not_a_bug(temporal: Client) -> None:
    workflows, runner = [OtherVersion], UnsandboxedWorkflowRunner()
    async with (
        Worker(temporal, task_queue="other-version", workflows=workflows, workflow_runner=runner),
        api(temporal, "other-version", seconds=1.0) as client,
    ):
        id_ = names.workflow_id("other-version")
        handle = await temporal.start_workflow(OtherVersion.run, id=id_, task_queue="other-version")
        response = await client.post("/control/kill-switch")
        assert (response.status_code, response.json()["cancel_instructions"]) == (202, CANCELS)
        response = await client.get("/control/status")
        assert (response.status_code, "another version" in response.json()["detail"]) == (503, True)
        await handle.terminate("the test is over")


async def test_a_desk_that_was_never_started_or_is_terminated_is_503(temporal: Client) -> None:
    async with api(temporal, "nowhere") as client:
        for response in (await client.get("/control/status"), await client.post("/control/kill-switch")):
            assert response.status_code == 503
            assert "`ais start`" in response.json()["detail"]
    desk = Desk(temporal, World())
    await desk.start()
    await desk.handle.terminate("the test")
    async with api(temporal, desk.desk) as client:
        for response in (await client.get("/control/status"), await client.post("/control/kill-switch")):
            assert response.status_code == 503
            assert "`ais restart`" in response.json()["detail"]


async def test_sixteen_clients_at_once_each_get_their_own_confirmed_answer(temporal: Client) -> None:
    async with running_desk(temporal) as desk, api(temporal, desk.desk) as client:

        async def pause(number: int) -> bool:
            response = await client.post("/control/pause", json={"reason": f"r{number}"})
            return (response.status_code, response.json().get("reason")) == (200, f"r{number}")

        for _ in range(3):
            assert all(await asyncio.gather(*(pause(number) for number in range(16))))
