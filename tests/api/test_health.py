"""Health says what the probes found, in time, whatever hangs."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.desk.states import Mode
from domain.health.disks import DiskSpace
from tests.api.world import World, make_carried, make_observation
from workflows.gateway import CoordinatorSilent, NoCoordinator, TemporalUnreachable

FINE = {
    "status": "ok",
    "aster_connected": True,
    "db_connected": True,
    "redis_connected": False,
    "temporal_connected": True,
}


async def health(world: World) -> tuple[int, dict[str, Any]]:
    response = await world.stranger.get("/health")
    return response.status_code, response.json()


async def test_health_is_ok_without_redis(world: World) -> None:
    assert await health(world) == (200, FINE)


async def test_it_says_what_time_it_is_for_this_process_whatever_a_proxy_puts_into_the_date(world: World) -> None:
    told = datetime.fromisoformat((await world.stranger.get("/health")).headers["X-AIS-Time"])
    assert abs(datetime.now(UTC) - told) < timedelta(seconds=30)


async def test_a_lost_database_is_degraded(world: World) -> None:
    world.reports.up = False
    assert await health(world) == (200, {**FINE, "status": "degraded", "db_connected": False})


async def test_a_right_that_the_database_role_lacks_is_degraded_and_named(world: World) -> None:
    world.reports.lacking = ["INSERT on public.equity", "SELECT on public.é"]
    response = await world.stranger.get("/health")
    assert (response.json()["status"], response.json()["db_connected"]) == ("degraded", True)
    assert response.headers["X-AIS-Missing-Rights"] == "INSERT on public.equity, SELECT on public.?"
    world.reports.lacking = []
    response = await world.stranger.get("/health")
    assert (response.json(), "X-AIS-Missing-Rights" in response.headers) == (FINE, False)


async def test_an_observation_older_than_three_cycles_is_degraded(world: World) -> None:
    world.gateway.carried.observation = make_observation(age_seconds=14)
    assert (await health(world))[1]["aster_connected"] is True
    world.gateway.carried.observation = make_observation(age_seconds=16)
    assert await health(world) == (200, {**FINE, "status": "degraded", "aster_connected": False})
    # By clocks that differ so much, nobody can tell.
    world.gateway.carried.observation = make_observation(age_seconds=-16)
    assert await health(world) == (200, {**FINE, "status": "degraded", "aster_connected": False})
    world.gateway.carried.observation = None
    assert await health(world) == (200, {**FINE, "status": "degraded", "aster_connected": False})


@pytest.mark.parametrize("error", [NoCoordinator("main", None), CoordinatorSilent("no worker")])
async def test_a_coordinator_that_does_not_answer_is_degraded(world: World, error: Exception) -> None:
    world.gateway.query_error = error
    assert await health(world) == (200, {**FINE, "status": "degraded", "aster_connected": False})


async def test_temporal_out_of_reach_is_503(world: World) -> None:
    world.gateway.query_error = world.gateway.open_error = TemporalUnreachable("gone")
    found = {**FINE, "status": "degraded", "aster_connected": False, "temporal_connected": False}
    assert await health(world) == (503, found)


@pytest.mark.parametrize("changes", [{"mode": Mode.SHADOW}, {"symbols": ["BTCUSDT"]}, {"desk": "other"}])
async def test_a_coordinator_that_differs_from_this_process_is_degraded(world: World, changes: Any) -> None:
    world.gateway.carried = make_carried(**changes)
    assert await health(world) == (200, {**FINE, "status": "degraded"})


async def test_a_part_that_hangs_is_reported_as_not_connected(world: World) -> None:
    world.gateway.no_worker = world.reports.hangs = True
    async with asyncio.timeout(180):
        status, body = await health(world)
    assert status == 200
    assert body == {**FINE, "status": "degraded", "aster_connected": False, "db_connected": False}


async def test_a_flood_of_askers_shares_one_round_of_probes(world: World) -> None:
    found = await asyncio.gather(*(health(world) for _ in range(50)))
    assert found == [(200, FINE)] * 50
    assert world.gateway.queries <= 2


async def test_live_probes_nothing(world: World) -> None:
    world.gateway.no_worker = world.reports.hangs = True
    response = await asyncio.wait_for(world.stranger.get("/health/live"), 0.5)
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_little_disk_space_is_degraded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    full = DiskSpace(folder="data", free_bytes=10**8, size_bytes=10**9)

    async def look() -> list[DiskSpace]:
        return [full]

    monkeypatch.setattr(world.app.state.parts.health._disks, "look", look)
    assert await health(world) == (200, {**FINE, "status": "degraded"})
    full = full.model_copy(update={"free_bytes": 10**10, "size_bytes": 10**10})
    assert await health(world) == (200, FINE)


async def test_a_disk_that_does_not_answer_is_degraded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look() -> list[DiskSpace]:
        raise TimeoutError

    monkeypatch.setattr(world.app.state.parts.health._disks, "look", look)
    assert await health(world) == (200, {**FINE, "status": "degraded"})
