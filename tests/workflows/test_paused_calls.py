"""Somebody pauses an activity (`temporal activity pause`, the web UI) and forgets it: no time limit of the server ends it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from temporalio.client import Client

from activities import options
from domain.desk.states import State
from tests.workflows.pausing import pause
from tests.workflows.world import Desk, World


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough to pause a call before it ends by itself."""
    monkeypatch.setattr(options, "SERVER_IS_LATE", timedelta(seconds=0.5))
    monkeypatch.setattr(options, "WATCH_SECONDS", 1.0)
    for how in (options.OBSERVE, options.RECORD, options.CANCEL):
        monkeypatch.setitem(how, "schedule_to_close_timeout", timedelta(seconds=2.5))


@asynccontextmanager
async def paused(temporal: Client, activity: str, signal: str | None = None) -> AsyncIterator[Desk]:
    """A desk whose call of this activity is paused before any worker has begun it."""
    desk = Desk(temporal, World())
    await desk.start()
    async with desk.worker(activities=False):
        async with desk.activity_worker(graceful_seconds=0):
            await desk.until(lambda s: s.last_cycle_at is not None and s.records_waiting == 0)
        if signal:
            await desk.signal(signal)
        await pause(desk, activity)
        async with desk.activity_worker(graceful_seconds=0):
            yield desk


async def test_a_paused_reading_holds_up_no_kill_and_no_restart(temporal: Client) -> None:
    async with paused(temporal, "observe") as desk:
        await desk.signal("kill")
        status = await desk.until(lambda s: s.kill is not None and s.kill.verified_at and s.kill.latched)
        await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "r"})
        cycle = status.cycle_number
        await desk.until(lambda s: s.state is State.RUNNING and s.cycle_number > cycle)


@pytest.mark.parametrize(("activity", "signal"), [("cancel_many", "cancel_all"), ("record", "pause")])
async def test_a_paused_cancel_or_write_holds_up_no_kill(temporal: Client, activity: str, signal: str) -> None:
    async with paused(temporal, activity, signal) as desk:
        await desk.signal("kill")
        await desk.until(lambda s: s.kill is not None and s.kill.verified_at and s.kill.latched and s.kill.row_written)


async def test_the_paused_write_of_the_latch_holds_up_no_later_kill_and_no_end_of_the_run(temporal: Client) -> None:
    async with paused(temporal, "write_desk", "kill") as desk:
        first = await desk.until(lambda s: s.state is State.KILLED)
        await desk.handle.cancel()
        await desk.until(lambda s: s.kill_number == 2 and s.kill.latched and s.run_id != first.run_id)
