"""Metrics: the contract's names and labels, few values, no stale state."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api import metrics
from tests.api.world import World, make_observation
from workflows.gateway import CoordinatorSilent


async def samples(world: World) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = (await world.stranger.get("/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_state_that_holds_is_1_and_the_others_0(new_world: World) -> None:
    await new_world.client.post("/control/pause")
    found = {
        labels: value for (name, labels), value in (await samples(new_world)).items() if name == "ais_coordinator_state"
    }
    assert found == {
        (("desk", "main"), ("state", "running")): 0.0,
        (("desk", "main"), ("state", "paused")): 1.0,
        (("desk", "main"), ("state", "killed")): 0.0,
    }


async def test_the_state_is_absent_when_nobody_answers(new_world: World) -> None:
    new_world.gateway.query_error = CoordinatorSilent("no worker")
    assert not [name for name, _ in await samples(new_world) if name == "ais_coordinator_state"]


async def test_what_a_kill_has_left_to_do_and_unwritten_rows_are_reported_while_the_coordinator_answers(
    new_world: World,
) -> None:
    mine = (("desk", "main"),)
    found = await samples(new_world)
    assert (found["ais_coordinator_answers", mine], found["ais_kill_outstanding", mine]) == (1, 0)
    await new_world.client.post("/control/kill-switch")
    found, status = await samples(new_world), await new_world.gateway.status()
    assert status.kill
    assert found["ais_kill_outstanding", mine] == len(status.kill.residue) > 0
    assert found["ais_unwritten_rows", mine] == status.records_waiting > 0
    new_world.gateway.query_error = CoordinatorSilent("no worker")
    found = await samples(new_world)
    assert found["ais_coordinator_answers", mine] == 0
    assert not [name for name, _ in found if name in ("ais_kill_outstanding", "ais_unwritten_rows")]


async def test_a_reading_ages_although_this_machines_clock_is_behind(
    new_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, steady = (("desk", "main"),), time.monotonic()
    monkeypatch.setattr(metrics, "time", SimpleNamespace(monotonic=lambda: steady))
    new_world.gateway.carried.observation = make_observation(age_seconds=-3_600)
    assert (await samples(new_world))["ais_observation_age_seconds", mine] == 0
    steady += 301
    assert (await samples(new_world))["ais_observation_age_seconds", mine] == 301
    new_world.gateway.carried.observation = make_observation(age_seconds=-3_600)
    assert (await samples(new_world))["ais_observation_age_seconds", mine] == 0


async def test_the_age_of_the_keys_is_reported_from_their_first_reading_on(new_world: World) -> None:
    ring, mine = new_world.app.state.parts.ring, (("desk", "main"),)
    ring.__dict__.update(_read_at=None)
    assert ("ais_keys_age_seconds", mine) not in await samples(new_world)
    ring.take(None)
    assert 0 <= (await samples(new_world))["ais_keys_age_seconds", mine] < 10


async def test_each_scrape_has_a_connection_of_its_own_and_so_sees_all_processes_in_turn(new_world: World) -> None:
    assert (await new_world.stranger.get("/metrics")).headers["connection"] == "close"


async def test_commands_are_counted_by_what_became_of_them(new_world: World) -> None:
    for path in ("pause", "pause", "kill-switch", "resume"):
        await new_world.client.post(f"/control/{path}")
    found = await samples(new_world)

    def count(command: str, outcome: str) -> float:
        labels = (("command", command), ("desk", "main"), ("outcome", outcome))
        return found.get(("ais_commands_total", labels), 0.0)

    assert [count("pause", "applied"), count("pause", "repeated"), count("kill", "applied")] == [1, 1, 1]
    assert count("resume", "refused") == 1
    assert found["ais_command_seconds_count", (("command", "pause"),)] == 2


async def test_routes_are_templates_and_strange_paths_and_methods_share_one_value(new_world: World) -> None:
    await new_world.client.get("/control/commands/one")
    await new_world.client.get("/control/commands/two")
    await new_world.stranger.get("/made/up/1")
    await new_world.stranger.get("/made/up/2")
    await new_world.stranger.request("BREW", "/made/up/3")
    await new_world.stranger.get("/control/status")
    found = await samples(new_world)

    def count(method: str, route: str, status: str) -> float:
        return found["ais_http_requests_total", (("method", method), ("route", route), ("status", status))]

    assert count("GET", "/control/commands/{command_id:path}", "404") == 2
    assert count("GET", "unmatched", "404") == 2
    assert count("other", "unmatched", "404") == 1
    assert count("GET", "unmatched", "401") == 1


async def test_no_money_is_public(new_world: World) -> None:
    text = (await new_world.stranger.get("/metrics")).text
    assert not [word for word in ("nav", "pnl", "64000", "100000") if word in text]


async def test_a_flood_of_strangers_shares_one_scrape(new_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Measured: each took 5 ms of the loop that serves kills.
    instruments, made = new_world.app.state.parts.instruments, list[bytes]()
    really = instruments.scrape

    def noted(*facts: Any) -> bytes:
        made.append(really(*facts))
        return made[-1]

    monkeypatch.setattr(instruments, "scrape", noted)
    answers = await asyncio.gather(*(new_world.stranger.get("/metrics") for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(made) < 5
