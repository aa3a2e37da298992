"""Somebody pauses an activity (`temporal activity pause`, the web UI) and forgets it: no time limit of the server ends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from temporalio.client import Client

from activities import options
from domain.desk import ordering
from domain.desk.states import State
from domain.desk.status import Status
from domain.trading.orders import Fate
from tests.workflows.parts import Agents, Orders, Venue
from tests.workflows.pausing import STARTED, pause
from tests.workflows.world import BTC, Desk, World, running_desk


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough to pause a call before it ends by itself."""
    monkeypatch.setattr(options, "SERVER_IS_LATE", timedelta(seconds=0.5))
    monkeypatch.setattr(options, "WATCH_SECONDS", 1.0)
    for how in (options.OBSERVE, options.RECORD, options.CANCEL):
        monkeypatch.setitem(how, "schedule_to_close_timeout", timedelta(seconds=2.5))
    monkeypatch.setitem(options.ORDER, "start_to_close_timeout", timedelta(seconds=2))
    monkeypatch.setattr(ordering, "REDUCTION_SECONDS", 2.0)


@asynccontextmanager
async def paused(
    temporal: Client, activity: str, signal: str | None = None, cycle_seconds: float = 0.5
) -> AsyncIterator[Desk]:
    """A desk whose call of this activity is paused before any worker has begun it."""
    desk = Desk(temporal, World())
    await desk.start(cycle_seconds=cycle_seconds)
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


async def test_a_desk_whose_reading_is_paused_reads_again_without_any_command(temporal: Client) -> None:
    async with paused(temporal, "observe") as desk:
        cycle = (await desk.status()).cycle_number
        await desk.until(lambda s: s.cycle_number > cycle + 1 and not s.observation_error)
        await desk.assert_healthy_history()


async def test_a_desk_whose_first_reading_of_the_latch_is_paused_runs_without_any_command(temporal: Client) -> None:
    desk = Desk(temporal, World())
    await desk.start()
    async with desk.worker(activities=False):
        await pause(desk, "read_latch")
        async with desk.activity_worker(graceful_seconds=0):
            await desk.until(lambda s: s.last_cycle_at is not None and not s.observation_error)
        await desk.assert_healthy_history()


async def test_a_desk_whose_order_is_paused_goes_on_without_any_command(temporal: Client) -> None:
    orders = Orders(gate=asyncio.Event(), settled_as=Fate.FILLED)
    async with running_desk(temporal, World(orders, Agents(propose=True))) as desk:
        await orders.begun.wait()
        await pause(desk, "place_order", STARTED)
        cycle = (await desk.status()).cycle_number
        await desk.until(lambda s: s.cycle_number > cycle)
        assert orders.sent == []


@pytest.mark.parametrize(("activity", "signal"), [("cancel_many", "cancel_all"), ("record", "pause")])
async def test_a_paused_cancel_or_write_holds_up_no_kill(temporal: Client, activity: str, signal: str) -> None:
    async with paused(temporal, activity, signal) as desk:
        await desk.signal("kill")
        await desk.until(lambda s: s.kill is not None and s.kill.verified_at and s.kill.latched and s.kill.row_written)


async def test_a_paused_cancel_is_repeated_long_before_the_next_cycle(temporal: Client) -> None:
    async with paused(temporal, "cancel_many", "cancel_all", cycle_seconds=3600) as desk:
        await desk.until(lambda s: not s.open_instructions_total)


async def test_the_paused_write_of_the_latch_holds_up_no_later_kill_and_no_end_of_the_run(temporal: Client) -> None:
    async with paused(temporal, "write_desk", "kill") as desk:
        first = await desk.until(lambda s: s.state is State.KILLED)
        await desk.handle.cancel()
        await desk.until(lambda s: s.kill_number == 2 and s.kill.latched and s.run_id != first.run_id)


def _is_done(status: Status) -> bool:
    kill = status.kill
    return bool(kill and kill.verified_at and kill.latched and kill.row_written and not status.open_instructions_total)


async def test_a_paused_closing_order_that_nobody_has_begun_holds_up_no_kill(temporal: Client) -> None:
    world = World(Venue(position=Decimal(1)), Orders(settled_as=Fate.NOT_SENT, plan_gate=asyncio.Event()))
    desk = Desk(temporal, world)
    await desk.start()
    async with desk.worker(activities=False):
        async with desk.activity_worker():
            await desk.signal("deleverage", {"symbol": BTC, "reduce_pct": 0.5})
            await asyncio.wait_for(world.orders.plan_begun.wait(), 60)
            # By then the worker takes no further activity.
            asyncio.get_running_loop().call_later(1, world.open_gates)
        await pause(desk, "place_order")
        await desk.signal("kill")
        async with desk.activity_worker(graceful_seconds=0):
            await desk.until(_is_done)
        assert world.orders.sent == []
        await desk.assert_healthy_history()


@pytest.mark.parametrize("agents", [True, False], ids=["an agent's", "a person's"])
async def test_a_paused_order_whose_worker_hangs_holds_up_no_kill_and_is_settled_at_the_venue(
    temporal: Client, agents: bool
) -> None:
    """The server applies no time limit to an attempt that somebody has paused, and a cancellation does not reach it."""
    orders = Orders(gate=asyncio.Event(), settled_as=Fate.FILLED)
    async with running_desk(temporal, World(Venue(position=Decimal(1)), orders, Agents(propose=agents))) as desk:
        if not agents:
            await desk.signal("deleverage", {"symbol": BTC, "reduce_pct": 0.5})
        # A server that is late by `REDUCTION_SECONDS` gives no worker the order of a person, nor another one.
        await asyncio.wait_for(orders.begun.wait(), 60)
        await pause(desk, "place_order", STARTED)
        await desk.signal("kill")
        await desk.until(_is_done)
        outcomes = [row.outcome for row in desk.world.database.instructions.values() if row.order]
        assert (outcomes, orders.sent) == (["confirmed"], [])


async def test_the_report_of_a_late_order_counts_if_it_comes_in_one_task_with_a_kill(temporal: Client) -> None:
    """The kill is taken first. The venue cannot tell the fate of this order, so that no kill would be quiet any more."""
    orders = Orders(gate=asyncio.Event(), settled_as=Fate.UNKNOWN)
    desk = Desk(temporal, World(Venue(position=Decimal(1)), orders))
    await desk.start()
    async with desk.activity_worker(graceful_seconds=0):
        async with desk.worker(activities=False):
            await desk.signal("deleverage", {"symbol": BTC, "reduce_pct": 0.5})
            await pause(desk, "place_order", STARTED)
        await asyncio.sleep(5)
        desk.world.open_gates()
        await asyncio.sleep(0.5)
        await desk.signal("kill")
        async with desk.worker(activities=False):
            await desk.until(_is_done)
        await desk.assert_healthy_history()
