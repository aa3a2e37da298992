"""`ais desks` on a real Temporal server: open and closed coordinators, and what is not known of them."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from temporalio.client import Client

from cli import desks as listing
from cli.desks import DeskLine
from domain.desk.states import State
from tests.deploy.dev_stack import ais, ais_here
from tests.workflows.world import Desk, World, running_desk


@pytest.fixture
def address(temporal: Client, no_settings: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """This process finds the tests' Temporal by its settings, as `ais` does."""
    found = temporal.service_client.config.target_host
    monkeypatch.setenv("TEMPORAL_ADDRESS", found)
    monkeypatch.setattr(listing, "ASK_SECONDS", 1.0)
    return found


async def line_of(desk: str, condition: Callable[[DeskLine], bool]) -> DeskLine:
    """Temporal's list is late; the time bound only ends a broken test."""
    async with asyncio.timeout(180):
        while True:
            for line in await listing.desks(print):
                if line.desk == desk and condition(line):
                    return line
            await asyncio.sleep(0.1)


async def test_an_open_desk_is_told_as_its_coordinator_says(temporal: Client, address: str) -> None:
    async with running_desk(temporal, cycle_seconds=2) as desk:
        await desk.signal("kill", {"command_id": "k1", "reason": "drill"})
        await desk.until(lambda status: status.state is State.KILLED)
        line = await line_of(desk.desk, lambda found: found.confirmed)
        assert (line.coordinator, line.state, line.mode, line.symbols) == ("open", "killed", "paper", ["BTCUSDT"])
        assert "KILLED" in listing.table([line])


async def test_the_state_of_a_coordinator_that_does_not_answer_is_not_known(temporal: Client, address: str) -> None:
    desk = Desk(temporal, World())
    await desk.start(search_attributes=False)
    line = await line_of(desk.desk, lambda found: True)
    assert (line.coordinator, line.state, line.mode, line.confirmed) == ("open", None, None, False)
    told = listing.table([line])
    assert "not known" in told
    assert "no worker answered" in told
    await desk.handle.terminate("the test is over")


async def test_of_a_closed_desk_the_newest_run_is_listed(temporal: Client, address: str) -> None:
    desk = Desk(temporal, World())
    for _ in range(2):
        await desk.start(search_attributes=False)
        await desk.handle.terminate("the test is over")
    line = await line_of(desk.desk, lambda found: found.coordinator == "terminated")
    newest = await desk.handle.describe()
    assert (line.closed_at, line.confirmed, line.since) == (newest.close_time, False, None)


def test_a_state_that_is_only_listed_is_not_told_as_one() -> None:
    listed = DeskLine(desk="main", coordinator="open", state="running", error="no worker answered")
    assert "listed as running" in listing.table([listed])
    assert "RUNNING" not in listing.table([listed])


async def test_the_command_prints_a_list_of_objects(temporal: Client, address: str, tmp_path: Path) -> None:
    done = await asyncio.to_thread(ais, "desks", "--json", cwd=tmp_path, TEMPORAL_ADDRESS=address)
    assert done.returncode == 0, done.stderr
    assert all(line.keys() == DeskLine.model_fields.keys() for line in json.loads(done.stdout))


def test_without_temporal_it_is_one_line(tmp_path: Path) -> None:
    done = ais_here("desks", cwd=tmp_path, TEMPORAL_ADDRESS="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Temporal cannot be reached")
    assert done.stderr.count("\n") == 1
