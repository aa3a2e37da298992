"""However a run ends, what it was handed in the task in which it ends is in what it carries over.

The incident behind this file: a run that was due to end in its very first task ended before the SDK had delivered the
cancellation that came with it, and a kill that had been answered 202 was lost.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner

from domain.desk.arrivals import TURN_SIGNALS
from domain.desk.states import State
from tests.workflows import world
from tests.workflows.parts import Cancels, Database
from tests.workflows.world import Desk, World, running_desk
from workflows import coordinator
from workflows.patience import LONGEST_RUN_EVENTS

# More than a turn, and a part of another.
BACKLOG = TURN_SIGNALS + 100
KILL = {"command_id": "the-kill", "actor": "http", "reason": "flash crash"}
TEMPORAL = str(Path(sys.executable).parent / "temporal")


async def flooded(client: Client, signals: int, cycle_seconds: float = 600) -> Desk:
    """A desk whose first workflow task finds so many signals."""
    desk = Desk(client, World())
    await desk.start(cycle_seconds=cycle_seconds)
    for begin in range(0, signals, 100):
        await asyncio.gather(*(desk.signal("pause") for _ in range(begin, min(begin + 100, signals))))
    return desk


async def pauses_without_end(desk: Desk) -> None:
    while True:
        await desk.signal("pause")
        await asyncio.sleep(0.05)


async def is_killed(desk: Desk) -> None:
    async with desk.worker():
        status = await desk.until(lambda s: s.kill is not None and s.kill.latched and s.kill.row_written)
        assert status.state is State.KILLED
        await desk.assert_healthy_history()
    await desk.handle.terminate("the test is over")


async def test_a_run_ends_at_a_length_that_can_be_replayed_though_the_server_would_take_more(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a tenth of the real length, which `test_dear_runs.py` judges. The sandbox would import a module of its own."""
    monkeypatch.setattr(coordinator, "LONGEST_RUN_EVENTS", LONGEST_RUN_EVENTS // 10)
    monkeypatch.setattr(world, "timely", lambda *_: UnsandboxedWorkflowRunner())
    desk = await flooded(temporal, LONGEST_RUN_EVENTS // 10, cycle_seconds=1)
    first = (await desk.handle.describe()).run_id
    async with desk.worker():
        # During a flood it would take long to end, and begin no cycle meanwhile.
        flood = asyncio.create_task(pauses_without_end(desk))
        status = await desk.until(lambda s: s.cycle_number >= 2)
        flood.cancel()
        assert status.run_id == first
        await desk.until(lambda s: s.run_id != first and s.state is State.PAUSED)
    await desk.handle.terminate("the test is over")


# With the last of them the run is too long, too: it would end in its first task.
@pytest.mark.parametrize("signals", [0, 1, 150, pytest.param(LONGEST_RUN_EVENTS, marks=pytest.mark.long)])
async def test_a_cancellation_in_the_first_task_kills_under_its_own_id(temporal: Client, signals: int) -> None:
    desk = await flooded(temporal, signals)
    await desk.gateway.request_cancel(json.dumps(KILL))
    async with desk.worker():
        await desk.until(lambda s: s.kill is not None and s.kill.latched and s.kill.row_written)
        found = await desk.outcomes("the-kill")
        kill = found.status.kill
        assert kill is not None
        assert (kill.command_id, kill.actor, kill.reason, kill.source) == ("the-kill", "http", "flash crash", "cancel")
        assert found.outcomes["the-kill"].outcome == "applied"
        assert any(row.command_id == "the-kill" for row in desk.world.database.decisions.values())
    await desk.handle.terminate("the test is over")


async def test_a_cancellation_that_comes_twice_or_beside_a_kill_signal_kills(temporal: Client) -> None:
    desk = await flooded(temporal, 150)
    await desk.gateway.request_cancel("one")
    await desk.gateway.request_cancel("two")
    assert await desk.gateway.standing_cancellation(10) == "one"
    await desk.signal("kill", {"command_id": "signalled"})
    await is_killed(desk)


async def test_temporal_workflow_cancel_kills_a_flooded_desk(temporal: Client) -> None:
    desk = await flooded(temporal, 150)
    address = temporal.service_client.config.target_host
    command = [TEMPORAL, "workflow", "cancel", "--workflow-id", desk.handle.id, "--address", address]
    subprocess.run(command, check=True, capture_output=True)
    await is_killed(desk)


async def test_a_cancellation_while_the_run_winds_down_kills(temporal: Client) -> None:
    async with running_desk(temporal, cycle_seconds=600) as desk:
        await desk.until(lambda s: s.cycle_number == 1)
        desk.world.cancels.seconds = 0.5
        await desk.signal("kill", {"command_id": "first"})
        await desk.handle.cancel()
        await desk.until(lambda s: s.kill is not None and s.kill.verified_at is not None and s.kill.latched)
        status = await desk.until(lambda s: s.kill_number == 2)
        await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "r"})
        await desk.until(lambda s: s.state is State.RUNNING)
        await desk.handle.cancel()
        await desk.until(lambda s: s.state is State.KILLED)


async def test_a_backlog_is_taken_in_turns_and_loses_nothing(temporal: Client) -> None:
    desk = Desk(temporal, World())
    await desk.start(cycle_seconds=600)
    for number in range(BACKLOG):
        await desk.signal("pause" if number % 2 else "resume", {"command_id": f"c{number}"})
    await desk.signal("kill", {"command_id": "last"})
    async with desk.worker():
        await desk.until(lambda s: s.state is State.KILLED)
        await desk.until(lambda s: s.commands_pending == 0 and s.records_waiting == 0)
        found = await desk.outcomes("last", *(f"c{number}" for number in range(BACKLOG)))
        assert len(found.outcomes) == BACKLOG + 1
        assert {outcome.outcome for name, outcome in found.outcomes.items() if name != "last"} == {"refused"}
    await desk.handle.terminate("the test is over")


@pytest.mark.long
async def test_a_kill_behind_9_000_commands_without_a_database_keeps_its_row_over_every_run(temporal: Client) -> None:
    """Rows wait in thousands and are carried over, some of them left in the history of a closed run: never a kill's."""
    desk = Desk(temporal, World(Database(up=False)))
    await desk.start(cycle_seconds=600)
    async with desk.worker():
        for begin in range(0, 9_000, 100):
            ids = range(begin, begin + 100)
            await asyncio.gather(*(desk.signal("pause", {"command_id": f"c{n}", "reason": f"{n} " * 40}) for n in ids))
        await desk.signal("kill", {"command_id": "the-kill", "reason": "database away"})
        first = await desk.until(lambda s: s.state is State.KILLED and s.commands_pending == 0)
        assert first.kill is not None
        assert not first.kill.row_written
        # Ends the run: what waits has to be carried over.
        await desk.handle.cancel()
        second = await desk.until(lambda s: s.run_id != first.run_id and s.kill_number == 2)
        assert second.kill is not None
        assert not second.kill.row_written
        await desk.signal("restart", {"kill_number": second.kill_number, "command_id": "too-early"})
        await desk.until(lambda s: s.commands_pending == 0)
        assert (await desk.outcomes("too-early")).outcomes["too-early"].outcome == "refused"
        desk.world.database.up = True
        await desk.until(
            lambda s: s.kill is not None and s.kill.row_written and s.kill.latched and not s.records_waiting
        )
        told = {row.command_id for row in desk.world.database.decisions.values()}
        assert {"the-kill", "too-early"} <= told
        left = sum(
            row.cycles
            for row in desk.world.database.decisions.values()
            if "remain in Temporal's history" in row.summary
        )
        assert len(told & {f"c{n}" for n in range(9_000)}) + left >= 9_000
    await desk.handle.terminate("the test is over")


@pytest.mark.parametrize("by", ["cancel", pytest.param("signal", marks=pytest.mark.thorough)])
async def test_a_kill_waits_for_nothing_that_a_run_does_at_its_end(short_history_temporal: Client, by: str) -> None:
    """Not for the look at the search attributes, either: no query says `running` behind a kill that was recorded."""
    async with running_desk(short_history_temporal, cycle_seconds=600, search_attributes=True) as desk:
        await desk.until(lambda s: s.cycle_number == 1 and desk.world.server.looks > 0)
        before = desk.world.server.looks
        desk.world.server.gate = asyncio.Event()
        for _ in range(150):
            await desk.signal("cancel_all")
        async with asyncio.timeout(180):
            while desk.world.server.looks == before:
                await asyncio.sleep(0.02)
        late = {"command_id": "late"}
        await (desk.signal("kill", late) if by == "signal" else desk.gateway.request_cancel(json.dumps(late)))
        found = await desk.outcomes("late")
        assert (found.status.state, found.outcomes["late"].outcome) == (State.KILLED, "applied")
        desk.world.server.gate.set()
        await desk.until(lambda s: s.kill is not None and s.kill.latched and s.kill.row_written)


async def test_no_restart_waits_in_a_run_whose_cancellation_is_spent(temporal: Client) -> None:
    """The server swallows a second cancellation: a restart that waited for the next run would undo a kill nobody heard of."""
    async with running_desk(temporal, World(Cancels(seconds=3)), cycle_seconds=600) as desk:
        await desk.until(lambda s: s.cycle_number == 1)
        await desk.handle.cancel()
        status = await desk.until(lambda s: s.kill is not None and s.kill.latched and s.kill.row_written)
        assert status.run_ending
        await desk.signal("restart", {"kill_number": status.kill_number, "command_id": "early"})
        assert (await desk.outcomes("early")).outcomes["early"].outcome == "refused"
        await desk.handle.cancel()
        second = await desk.until(lambda s: s.run_id != status.run_id and not s.run_ending)
        assert (second.state, second.restart_pending) == (State.KILLED, False)
        await desk.signal("restart", {"kill_number": second.kill_number})
        await desk.until(lambda s: s.state is State.RUNNING)
