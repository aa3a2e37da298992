"""A desk moves to another mode: at a real Temporal server, with a worker of each mode, a crash between two steps, and a kill."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client

from activities import options
from domain.desk.carried import Outcome
from domain.desk.states import Mode, State
from domain.desk.status import Status
from tests.workflows.test_queues import queues
from tests.workflows.world import Desk, World, running_desk
from workflows import names

ACCOUNT = "1a2b3c"


async def killed(desk: Desk) -> Status:
    """Killed, verified, and read since."""
    await desk.signal("kill", "the mode changes")
    return await desk.until(
        lambda s: (
            s.kill is not None
            and s.kill.latched
            and s.kill.row_written
            and s.kill.verified_at
            and s.observation.observed_at > s.kill.verified_at
            and not s.run_ending
        )
    )


async def ask(desk: Desk, status: Status, mode: Mode = Mode.SHADOW, **facts: Any) -> None:
    head = {"command_id": "move", "actor": "cli:anna", "reason": "drill", "kill_number": status.kill_number}
    await desk.signal("restart", {**head, "mode": mode.value, "account": ACCOUNT, **facts})


async def test_from_the_restart_on_the_workers_of_the_new_mode_serve_the_desk(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        there = World(desk.world.database)
        there.venue.position = there.venue.position + 1
        async with desk.activity_worker(graceful_seconds=0, mode=Mode.SHADOW, world=there):
            status = await killed(desk)
            await ask(desk, status)
            moved = await desk.until(lambda s: s.state is State.RUNNING and s.run_id != status.run_id and s.observation)
            assert (moved.mode, moved.account) == (Mode.SHADOW, ACCOUNT)
            assert moved.observation is not None
            assert [position.quantity for position in moved.observation.positions] == [1], "read at the new venue"
            before = desk.world.readings.count
            await desk.until(lambda s: s.cycle_number > moved.cycle_number + 2)
            assert desk.world.readings.count == before, "nothing is read at the old one"
            assert not there.readings.known[0].held, "what was known of the old account says nothing of this one"
            assert (await queues(desk))[moved.run_id] == {names.activity_queue(desk.desk, "shadow")}
            described = await desk.handle.describe()
            assert described.typed_search_attributes.get(names.MODE_ATTRIBUTE) == "shadow"
            told = f"restart applied by cli:anna: drill; mode paper -> shadow; account none -> {ACCOUNT}"
            assert told in desk.world.summaries()


async def test_a_crash_between_two_steps_ends_in_the_new_mode_or_in_the_old_one_killed(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        there = World(desk.world.database)
        # It clears the latch, and its answer is lost with the worker.
        status = await killed(desk)
        gate = desk.world.database.clear_gate = asyncio.Event()
        async with AsyncExitStack() as first:
            await first.enter_async_context(desk.activity_worker(graceful_seconds=0, mode=Mode.SHADOW, world=there))
            await ask(desk, status)
            pending = await desk.until(lambda s: s.restart_pending)
            assert (pending.state, pending.mode) == (State.KILLED, Mode.PAPER)
        gate.set()
        async with desk.activity_worker(graceful_seconds=0, mode=Mode.SHADOW, world=there):
            moved = await desk.until(lambda s: not s.restart_pending)
            assert (moved.state, moved.mode) in {(State.RUNNING, Mode.SHADOW), (State.KILLED, Mode.PAPER)}
            if moved.state is State.KILLED:
                await ask(desk, await killed(desk), command_id="again")
            await desk.until(lambda s: (s.state, s.mode) == (State.RUNNING, Mode.SHADOW) and s.observation)


async def test_a_kill_meanwhile_wins_and_is_latched_in_the_old_mode(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        status = await killed(desk)
        gate = desk.world.database.clear_gate = asyncio.Event()
        async with desk.activity_worker(graceful_seconds=0, mode=Mode.SHADOW, world=World(desk.world.database)):
            await ask(desk, status)
            await desk.until(lambda s: s.restart_pending)
            await desk.signal("kill", {"command_id": "k2", "reason": "stop"})
            gate.set()
            after = await desk.until(lambda s: not s.restart_pending and s.kill.latched)
            assert (after.state, after.mode) == (State.KILLED, Mode.PAPER)
            assert after.kill_number > status.kill_number
            found = await desk.outcomes("move")
            assert found.outcomes["move"].outcome is Outcome.REFUSED
            latch = desk.world.database.latch
            assert latch is not None
            assert (latch.killed, latch.kill_number) == (True, after.kill_number)


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(options.CLEAR_LATCH, "schedule_to_close_timeout", timedelta(seconds=1))


@pytest.mark.usefixtures("little_patience")
async def test_without_a_worker_of_the_new_mode_the_desk_stays_killed_in_the_old_one(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await ask(desk, await killed(desk))
        after = await desk.until(lambda s: not s.restart_pending and s.kill.latched and s.kill_number == 2)
        assert (after.state, after.mode, after.account) == (State.KILLED, Mode.PAPER, None)
        found = await desk.outcomes("move")
        assert "could not be cleared by a worker of mode shadow" in (found.outcomes["move"].detail or "")


# Cheaper: test_queues.py: test_every_activity_goes_to_the_queue_of_its_desk_and_mode.
# And: test_from_the_restart_on_the_workers_of_the_new_mode_serve_the_desk.
@pytest.mark.thorough
async def test_a_kill_right_after_the_move_goes_to_the_new_venue(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        there = World(desk.world.database)
        async with desk.activity_worker(graceful_seconds=0, mode=Mode.LIVE, world=there):
            status = await killed(desk)
            await ask(desk, status, Mode.LIVE)
            await desk.until(lambda s: s.mode is Mode.LIVE)
            desk.world.cancels.done.clear()
            await desk.signal("kill", "at once")
            after = await desk.until(lambda s: s.kill is not None and s.kill.verified_at and s.kill.latched)
            assert (after.state, after.mode) == (State.KILLED, Mode.LIVE)
            assert there.cancels.done
            assert not desk.world.cancels.done
