"""A kill on a running coordinator: in parallel and bounded, verified at the venue, and in shadow sent to nobody."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from temporalio.client import Client

from activities import options
from domain.desk import ordering
from domain.desk.states import Mode, State
from domain.desk.status import KillStatus
from domain.trading.instructions import InstructionOutcome
from domain.trading.orders import Fate
from tests.domain.builders import an_open_order
from tests.workflows.parts import Agents, Cancels, Orders, Readings, Venue
from tests.workflows.world import BTC, Desk, World, running_desk
from workflows.cancelling import MAX_TOGETHER
from workflows.lanes import FIRST_BACKOFF_SECONDS, LAST_VENUE_SECONDS, MAX_CANCELS_AT_ONCE
from workflows.outbox import BETWEEN_ORDERS_SECONDS

CONFIRMED, PREPARED = InstructionOutcome.CONFIRMED, InstructionOutcome.PREPARED
TWENTY = [f"S{number:02}USDT" for number in range(20)]


async def kill_that(desk: Desk, fits: Callable[[KillStatus], Any]) -> KillStatus:
    """The kill, once it is as asked."""
    status = await desk.until(lambda s: s.kill is not None and fits(s.kill))
    assert status.kill
    return status.kill


async def verified(desk: Desk) -> KillStatus:
    return await kill_that(desk, lambda kill: kill.verified_at)


def outcomes(desk: Desk) -> Counter[str]:
    return Counter(row.outcome.value for row in desk.world.database.instructions.values())


async def test_forty_cancels_go_out_at_once_within_a_bound_and_one_that_is_stuck_holds_up_no_other(
    temporal: Client,
) -> None:
    world = World(Cancels(stuck={"S07USDT"}, seconds=0.2))
    async with running_desk(temporal, world, symbols=TWENTY) as desk:
        await desk.signal("kill", "flash crash")
        kill = await kill_that(desk, lambda kill: kill.confirmed == 38)
        assert kill.progress == "38 of 40 cancels confirmed"
        stuck = [f"{tool} S07USDT: HTTP 503" for tool in ("cancel_all_orders", "cancel_spot_all_orders")]
        await desk.until(lambda s: (s.kill.residue, len(world.database.instructions)) == (stuck, 40))
        await desk.until(
            lambda s: (
                {row.detail for row in world.database.instructions.values() if row.outcome is PREPARED} == set(stuck)
            )
        )
        assert 2 < world.cancels.most_at_once <= MAX_CANCELS_AT_ONCE
        world.cancels.stuck.clear()
        kill = await verified(desk)
        assert (kill.confirmed, kill.residue) == (40, [])
        await desk.until(lambda s: outcomes(desk) == {"confirmed": 40})


# Cheaper: tests/domain/test_killing.py: test_it_is_verified_only_by_a_reading_without_an_open_order.
@pytest.mark.thorough
async def test_it_is_not_over_before_the_venue_shows_no_open_order(temporal: Client) -> None:
    world = World(Venue(open_orders=[an_open_order("DOGEUSDT")]))
    async with running_desk(temporal, world, cycle_seconds=600) as desk:
        await desk.until(lambda s: s.cycle_number == 1)
        # Nobody has seen this one before the kill: the desk finds it when it reads the account.
        world.venue.open_orders.append(an_open_order("SHIBUSDT"))
        await desk.signal("kill")
        kill = await verified(desk)
        assert {f"cancel_all_orders {symbol}" for symbol in (BTC, "DOGEUSDT", "SHIBUSDT")} <= set(world.cancels.done)
        assert (world.venue.open_orders, kill.progress.split(" 2")[0]) == ([], "every cancel confirmed")
        assert kill.cancels == kill.confirmed == 6


async def test_a_reading_that_fails_verifies_nothing_and_is_repeated(temporal: Client) -> None:
    async with running_desk(temporal, cycle_seconds=600) as desk:
        await desk.until(lambda s: s.cycle_number == 1)
        desk.world.readings.possible = False
        await desk.signal("kill")
        await desk.until(lambda s: s.kill.quiet_at is not None and s.observation_error)
        kill = await kill_that(desk, lambda kill: kill.latched and kill.row_written)
        assert (kill.verified_at, len(kill.residue)) == (None, 2)
        assert kill.residue[0] == "the account cannot be read: the venue does not answer"
        assert kill.residue[1].startswith("not verified yet")
        desk.world.readings.possible = True
        await verified(desk)


async def test_an_order_that_a_person_puts_there_after_it_was_verified_is_left_alone(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.signal("kill")
        await verified(desk)
        sent = len(desk.world.cancels.done)
        desk.world.venue.open_orders.append(an_open_order(BTC))
        await desk.until(lambda s: s.kill.residue == [f"1 open futures order of {BTC}"])
        assert len(desk.world.cancels.done) == sent


# Cheaper: tests/domain/test_killing.py: test_a_repeated_kill_adds_to_what_is_counted_and_is_verified_anew.
@pytest.mark.thorough
async def test_a_kill_that_comes_while_it_is_verified_is_verified_itself(temporal: Client) -> None:
    async with running_desk(temporal, cycle_seconds=600) as desk:
        await desk.until(lambda s: s.cycle_number == 1)
        await desk.signal("kill")
        await desk.signal("kill")
        kill = await verified(desk)
        assert (kill.cancels, kill.confirmed) == (4, 4)


async def test_shadow_sends_nothing_and_says_so(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # An order whose commit takes longer is one that failed, in shadow too; here a busy machine is given the time.
    monkeypatch.setattr(ordering, "SHORTEST_ORDER_SECONDS", 60.0)
    world = World(Agents(propose=True), Venue(position=Decimal(1)))
    async with running_desk(temporal, world, mode=Mode.SHADOW) as desk:
        await desk.until(lambda s: len(world.database.decisions) >= 2)
        await desk.signal("deleverage", {"symbol": BTC, "reduce_pct": 1, "command_id": "d"})
        await desk.until(lambda s: s.commands_pending == 0)
        assert (await desk.outcomes("d")).outcomes["d"].outcome == "applied"
        # A kill between an order's decision and its commit makes it one that failed; here all are to stay prepared.
        world.agents.propose = False
        cycle = (await desk.status()).cycle_number
        await desk.until(lambda s: s.cycle_number >= cycle + 2)
        await desk.signal("kill")
        await desk.until(lambda s: s.state is State.KILLED and s.kill.latched and not s.records_waiting)
        await desk.until(lambda s: outcomes(desk) == {"prepared": len(world.database.instructions)})
        kill = await kill_that(desk, lambda kill: True)
        assert kill.progress == "shadow: 2 cancels prepared, none is sent"
        assert (world.orders.sent, world.cancels.done, kill.quiet_at) == ([], [], None)
        assert {row.detail for row in world.database.instructions.values()} == {"shadow: prepared, not sent"}


async def test_a_cancel_that_had_no_turn_at_the_venue_asks_again_soon(temporal: Client) -> None:
    """One that failed waits longer each time; one that was never sent must not be away when its turn comes."""
    async with running_desk(temporal, World(Cancels(busy=6)), symbols=[BTC]) as desk:
        await desk.signal("kill")
        await verified(desk)
        history = await desk.handle.fetch_history()
    timers = [
        event.timer_started_event_attributes
        for event in history.events
        if event.HasField("timer_started_event_attributes")
    ]
    waited = [timer.start_to_fire_timeout.ToTimedelta().total_seconds() for timer in timers]
    waited = [seconds for seconds in waited if seconds != options.WATCH_SECONDS]
    # It grows (`test_waiting.py`), less what the attempts themselves took: nothing is left of that on a busy machine.
    assert FIRST_BACKOFF_SECONDS <= max(waited) <= FIRST_BACKOFF_SECONDS * 4 < LAST_VENUE_SECONDS


async def test_a_reading_verifies_only_the_kill_that_it_began_after(temporal: Client) -> None:
    world = World(Readings(again_gate=asyncio.Event()))
    async with running_desk(temporal, world, cycle_seconds=600) as desk:
        await desk.until(lambda s: s.cycle_number == 1)
        await desk.signal("kill", "first")
        # It has read the venue, and nothing was open; an order appears, and the second kill is for it.
        await asyncio.wait_for(world.readings.begun.wait(), 20)
        world.venue.open_orders.append(an_open_order("SHIBUSDT"))
        await desk.signal("kill", "second")
        await kill_that(desk, lambda kill: kill.confirmed == 4)
        assert world.readings.again_gate
        world.readings.again_gate.set()
        kill = await verified(desk)
        status = await desk.status()
        assert kill.verified_at
        assert status.last_kill_at
        assert kill.verified_at > status.last_kill_at
        assert "cancel_all_orders SHIBUSDT" in world.cancels.done


# Cheaper: tests/domain/test_enforcing.py: test_a_repeated_kill_does_not_begin_the_flattening_anew_and_a_restart_ends_it.
@pytest.mark.thorough
async def test_a_restart_while_a_flattening_kill_reads_ends_the_flattening(temporal: Client) -> None:
    world = World(Venue(position=Decimal(1)), Readings(again_gate=asyncio.Event()))
    async with running_desk(temporal, world, kill_flattens=True) as desk:
        await desk.until(lambda s: s.cycle_number >= 1)
        await desk.signal("kill")
        await asyncio.wait_for(world.readings.begun.wait(), 20)
        status = await desk.until(lambda s: s.kill.latched and s.kill.row_written)
        await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "again"})
        await desk.until(lambda s: s.state is State.RUNNING)
        assert world.readings.again_gate
        world.readings.again_gate.set()
        before = await desk.status()
        await desk.until(lambda s: s.cycle_number > before.cycle_number + 1)
        assert (await desk.status()).state is State.RUNNING


async def test_the_latch_of_the_cancel_button_does_not_wait_for_a_venue_that_hangs(temporal: Client) -> None:
    """Cancels that hang hold up the next run; the kill's latch and row are in the database before it."""
    world = World(Cancels(seconds=600))
    async with running_desk(temporal, world, symbols=TWENTY, cycle_seconds=600) as desk:
        first = await desk.until(lambda s: s.cycle_number >= 1 and s.last_cycle_at)
        await desk.handle.cancel()
        status = await desk.until(lambda s: s.kill and s.kill.latched and s.kill.row_written)
        assert status.run_id == first.run_id
        assert world.database.latch
        assert world.database.latch.killed


async def test_a_cancel_button_in_one_task_with_the_report_of_an_order_kills(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK drops the report of an activity that is cancelled in the task that brings it, and raises a CancelledError."""
    # The order waits for the end of a worker, which may take two minutes (tests/conftest.py).
    monkeypatch.setitem(options.ORDER, "start_to_close_timeout", timedelta(seconds=180))
    orders = Orders(gate=asyncio.Event(), settled_as=Fate.FILLED)
    desk = Desk(temporal, World(orders, Agents(propose=True)))
    await desk.start()
    async with desk.activity_worker(graceful_seconds=0):
        async with desk.worker(activities=False):
            await asyncio.wait_for(orders.begun.wait(), 180)
        await desk.handle.cancel()
        desk.world.open_gates()
        async with asyncio.timeout(60):
            while not orders.sent:
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        async with desk.worker(activities=False):
            assert (await verified(desk)).quiet_at
        await desk.assert_healthy_history()


async def test_cancels_that_are_due_together_share_an_activity(temporal: Client) -> None:
    async with running_desk(temporal, World(Cancels(seconds=0.05)), symbols=TWENTY, cycle_seconds=600) as desk:
        await desk.until(lambda s: s.cycle_number == 1)
        await desk.signal("kill")
        kill = await verified(desk)
        assert (kill.confirmed, len(desk.world.cancels.done)) == (40, 40)
        assert max(desk.world.cancels.together) == MAX_TOGETHER
        # One more where a cancel was alone in its moment.
        assert len(desk.world.cancels.together) <= 40 // MAX_TOGETHER + 2


async def test_one_that_takes_long_is_asked_for_alone_and_holds_up_no_other(temporal: Client) -> None:
    world = World(Cancels(slow={"S07USDT"}, stuck={"S07USDT"}))
    async with running_desk(temporal, world, symbols=TWENTY, cycle_seconds=600) as desk:
        await desk.until(lambda s: s.cycle_number == 1)
        await desk.signal("kill")
        await kill_that(desk, lambda kill: kill.confirmed == 38 and "S07USDT: HTTP 503" in str(kill.residue))
        world.cancels.stuck.clear()
        await verified(desk)
        assert world.cancels.done.count("cancel_all_orders S07USDT") == 1


async def test_a_desk_is_flattened_by_halves_without_a_pause(temporal: Client) -> None:
    """The incident behind it: progress counted as failure, and after a minute one order went out in ten seconds."""
    world = World(Venue(position=Decimal("0.032")), Orders(fill_half=True))
    async with running_desk(temporal, world, kill_flattens=True, cycle_seconds=600) as desk:
        await desk.until(lambda s: s.cycle_number == 1)
        await desk.signal("kill")
        kill = await kill_that(desk, lambda kill: kill.flat_at)
        assert world.venue.position == 0
        history = await desk.handle.fetch_history()
    assert kill.flat_at
    waited = [
        event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta().total_seconds()
        for event in history.events
        if event.HasField("timer_started_event_attributes")
    ]
    between = [seconds for seconds in waited if seconds <= BETWEEN_ORDERS_SECONDS]
    assert len(between) >= len(world.orders.sent) - 1 >= 4
