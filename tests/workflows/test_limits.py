"""Limits on a running coordinator: warned, reduced, killed, each once, before the next decision."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from temporalio.client import Client

from domain.desk.states import State
from domain.health.books_seen import BooksSeen
from domain.health.clocks import ClockReading, OtherClock
from domain.trading.decisions import DecisionType
from domain.trading.orders import Fate
from tests.workflows.parts import Agents, Database, Orders, Readings, Venue
from tests.workflows.world import BTC, PROPOSAL, TIGHT, Desk, World, running_desk

D = Decimal
RISK = DecisionType.RISK_ACTION
KILLED = State.KILLED


async def cycles(desk: Desk, count: int = 2) -> None:
    """Lets that many cycles pass."""
    first = (await desk.status()).cycle_number
    await desk.until(lambda s: s.cycle_number >= first + count)


async def test_warned_reduced_and_killed_each_once(temporal: Client) -> None:
    async with running_desk(temporal, limits=TIGHT) as desk:
        world = desk.world
        world.venue.position = D("0.8")
        await desk.until(lambda s: len(world.summaries(RISK)) == 2)
        await cycles(desk)
        assert world.summaries(RISK) == [
            "Largest position 0.8 % has reached 50 % of its soft limit of 1 %",
            "Largest position 0.8 % has reached 75 % of its soft limit of 1 %",
        ]
        world.venue.position = D(2)
        await desk.until(lambda s: world.venue.position < 1)
        await cycles(desk)
        assert world.venue.position == D("0.95")
        assert len(world.orders.sent) == 1
        world.venue.position = D(4)
        status = await desk.until(lambda s: s.state is KILLED and s.kill.row_written and world.venue.position < 1)
        await cycles(desk)
        assert status.kill is not None
        assert (status.kill_number, status.actor, status.kill.source) == (1, "risk", "risk")
        told = world.summaries(RISK)[2:]
        assert [text for text in told if "hard" in text] == [
            "Largest position 4 % has passed its hard limit of 3 %: killed"
        ]
        assert [text for text in world.summaries() if "kill" in text] == [
            "kill applied by risk: position_too_large: 0.04 > 0.03"
        ]
        assert len(world.orders.sent) == 2
        await desk.until(lambda s: s.kill.verified_at is not None)
        # One that confirmed the breach, and one that verified the kill.
        assert world.readings.again == 2


async def test_a_reduction_comes_before_the_next_decision(temporal: Client) -> None:
    # One cycle: the rows of two may be written as one.
    async with running_desk(temporal, World(Venue(position=D(2))), limits=TIGHT, cycle_seconds=600) as desk:
        world = desk.world
        await desk.until(lambda s: world.venue.position < 1)
        await desk.until(lambda s: world.summaries(DecisionType.NO_ACTION))
        assert world.summaries(DecisionType.NO_ACTION)[0] == "No new order: reducing BTCUSDT"


# Cheaper: tests/domain/test_enforcing.py: test_a_reduction_that_came_to_nothing_is_asked_for_again.
@pytest.mark.thorough
async def test_what_fills_in_part_is_reduced_until_it_is_inside(temporal: Client) -> None:
    async with running_desk(temporal, World(Venue(position=D(2)), Orders(fill_at_most=D("0.4"))), limits=TIGHT) as desk:
        world = desk.world
        await desk.until(lambda s: world.venue.position < 1)
        await cycles(desk)
        assert world.venue.position == D("0.95")
        assert len(world.orders.sent) == 3
        assert len([text for text in world.summaries(RISK) if "reducing" in text]) == 1


# Cheaper: tests/domain/test_enforcing.py: test_a_breach_that_a_second_reading_does_not_show_does_not_kill.
@pytest.mark.thorough
async def test_a_breach_that_is_gone_when_read_again_does_not_kill(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        world = desk.world
        await cycles(desk, 1)
        world.readings.second_equity, world.venue.equity = D(10_000), D(5_000)
        await desk.until(lambda s: s.warnings)
        world.venue.equity = D(10_000)
        await desk.until(lambda s: not s.warnings)
        assert await desk.state() is State.RUNNING
        assert world.readings.again >= 1


# Cheaper: tests/domain/test_enforcing.py: test_a_restart_measures_losses_anew.
@pytest.mark.thorough
async def test_a_breach_kills_a_paused_desk_and_a_restart_measures_losses_anew(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await cycles(desk, 1)
        await desk.signal("pause")
        desk.world.venue.equity = D(8_000)
        status = await desk.until(lambda s: s.state is KILLED and s.kill.row_written and s.kill.latched)
        await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "looked at it"})
        await desk.until(lambda s: s.state is State.RUNNING)
        await cycles(desk)
        assert await desk.state() is State.RUNNING


async def test_a_breach_kills_though_the_database_is_away(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await cycles(desk, 1)
        desk.world.database.up = False
        desk.world.venue.equity = D(8_000)
        await desk.until(lambda s: s.state is KILLED and s.kill.quiet_at is not None)
        desk.world.database.up = True
        await desk.until(lambda s: s.kill.row_written and s.kill.latched)


async def test_limits_are_tightened_at_once_and_act_with_the_next_reading(temporal: Client) -> None:
    async with running_desk(temporal, World(Venue(position=D(4)))) as desk:
        await cycles(desk, 1)
        await desk.signal("set_limits", {"limits": {"max_leverage": 3}, "command_id": "a"})
        tighter = {"max_position_fraction": "0.01", "soft_position_fraction": "0.01"}
        await desk.signal("set_limits", {"limits": tighter, "command_id": "b"})
        outcomes = (await desk.outcomes("a", "b")).outcomes
        assert (outcomes["a"].outcome, outcomes["b"].outcome) == ("refused", "applied")
        await desk.until(lambda s: desk.world.venue.position < 1)
        await desk.until(lambda s: s.limits["soft_position_fraction"] == "0.01" and not s.records_waiting)
        told = "set_limits applied by temporal: max_position_fraction 0.25 -> 0.01; soft_position_fraction 0.35 -> 0.01"
        assert told in desk.world.summaries()


async def test_an_order_decided_under_looser_limits_is_not_sent(temporal: Client) -> None:
    world = World(Agents(propose=True), Database(commit_gate=asyncio.Event()))
    async with running_desk(temporal, world, cycle_seconds=30) as desk:
        await world.database.commit_begun.wait()
        await desk.signal("set_limits", {"max_leverage": 1})
        await desk.until(lambda s: s.limits["max_leverage"] == "1")
        assert world.database.commit_gate
        world.database.commit_gate.set()
        why = "the limits were changed while it was being decided"
        await desk.until(lambda s: [row.detail for row in world.database.instructions.values()] == [why])
        assert world.orders.sent == []


async def test_limits_and_what_was_reported_survive_a_continuation(short_history_temporal: Client) -> None:
    async with running_desk(
        short_history_temporal, World(Venue(position=D("0.8"))), limits=TIGHT, cycle_seconds=0.05
    ) as desk:
        first = await desk.until(lambda s: len(desk.world.summaries(RISK)) == 2)
        await desk.until(lambda s: s.run_id != first.run_id)
        await cycles(desk)
        assert len(desk.world.summaries(RISK)) == 2
        assert (await desk.status()).limits["hard_position_fraction"] == "0.03"


async def test_a_reduction_that_was_being_sized_when_an_operator_killed_is_not_sent(temporal: Client) -> None:
    world = World(Venue(position=D(2)), Orders(plan_gate=asyncio.Event()))
    async with running_desk(temporal, world, limits=TIGHT) as desk:
        await world.orders.plan_begun.wait()
        await desk.signal("kill")
        await desk.until(lambda s: s.state is KILLED)
        assert world.orders.plan_gate
        world.orders.plan_gate.set()
        await desk.until(lambda s: s.kill.quiet_at is not None and s.kill.row_written)
        await cycles(desk)
        assert (world.orders.sent, world.venue.position) == ([], D(2))


# --- a kill that flattens -------------------------------------------------------------------------------------------


async def test_a_kill_that_flattens_cancels_closes_and_verifies(temporal: Client) -> None:
    world = World(Venue(position=D(2)), Orders(fill_at_most=D("1.5")))
    async with running_desk(temporal, world, kill_flattens=True) as desk:
        await desk.signal("kill", "enough")
        status = await desk.until(lambda s: s.kill is not None and s.kill.flat_at is not None)
        assert (status.state, world.venue.position) == (KILLED, D(0))
        assert len(world.orders.sent) == 2
        await desk.until(lambda s: not s.records_waiting)
        assert world.summaries(RISK) == ["Kill 1 has flattened the desk: no futures position is left at the venue"]
        orders = [row for row in world.database.instructions.values() if row.tool == "create_order"]
        assert all(row.order and row.order.reduce_only for row in orders)


# Cheaper: tests/domain/test_growth.py: test_what_arrives_after_a_flattening_kill_was_flat_is_closed_as_well.
@pytest.mark.thorough
async def test_a_position_that_arrives_after_the_desk_was_flat_is_reported_and_closed_by_the_next_round(
    temporal: Client,
) -> None:
    world = World(Venue(position=D(2)))
    async with running_desk(temporal, world, kill_flattens=True) as desk:
        await desk.until(lambda s: s.observation is not None)
        await desk.signal("kill")
        await desk.until(lambda s: s.kill is not None and s.kill.flat_at and s.kill.verified_at)
        # An order whose bytes were on their way for longer than anybody thought possible.
        world.venue.position = D("0.5")
        status = await desk.until(lambda s: s.kill.grown)
        assert [(g.symbol, g.before, g.now) for g in status.kill.grown] == [(BTC, D(0), D("0.5"))]  # type: ignore[union-attr]
        await cycles(desk)
        assert len(world.orders.sent) == 1
        await desk.signal("kill")
        await desk.until(lambda s: world.venue.position == 0 and s.kill.flat_at and not s.kill.grown and not s.warnings)
        assert len(world.orders.sent) == 2
        await desk.until(lambda s: not s.records_waiting)
        assert [text.split(":")[0] for text in world.summaries(RISK)] == [
            "Kill 1 has flattened the desk",
            "Kill 1",
            "Kill 2 has flattened the desk",
        ]


async def test_a_close_of_unknown_fate_is_settled_before_another_is_sent(temporal: Client) -> None:
    world = World(Venue(position=D(2)), Orders(fate=Fate.UNKNOWN))
    async with running_desk(temporal, world, kill_flattens=True) as desk:
        await desk.signal("kill")
        await desk.until(lambda s: s.unknown_orders)
        await cycles(desk)
        assert len(world.orders.sent) == 1
        assert (await desk.status()).kill.flat_at is None  # type: ignore[union-attr]
        world.orders.settled_as, world.venue.position = Fate.FILLED, D(0)
        await desk.until(lambda s: s.kill.flat_at is not None)
        assert len(world.orders.sent) == 1


# Cheaper: tests/domain/test_enforcing.py: test_a_position_is_closed_once_its_cancels_are_confirmed.
@pytest.mark.thorough
async def test_positions_are_closed_once_the_venue_is_back(temporal: Client) -> None:
    world = World(Venue(position=D(2), up=False))
    async with running_desk(temporal, world, kill_flattens=True) as desk:
        await desk.signal("kill")
        await desk.until(lambda s: s.open_instructions and s.open_instructions[0].attempts >= 2)
        assert world.orders.sent == []
        world.venue.up = True
        await desk.until(lambda s: s.kill.flat_at is not None)
        assert world.venue.position == 0


# Cheaper: tests/domain/test_enforcing.py: test_by_default_a_kill_leaves_positions_alone.
@pytest.mark.thorough
async def test_by_default_a_kill_leaves_the_position(temporal: Client) -> None:
    async with running_desk(temporal, World(Venue(position=D(2)))) as desk:
        await desk.signal("kill")
        await desk.until(lambda s: s.kill is not None and s.kill.quiet_at is not None)
        await cycles(desk)
        assert (desk.world.venue.position, desk.world.orders.sent) == (D(2), [])


# --- proposals from outside, and agents that fail -------------------------------------------------------------------


async def test_a_proposal_from_outside_is_taken_up_by_the_next_cycle(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.signal("propose", PROPOSAL | {"command_id": "p", "ttl_seconds": 60})
        await desk.until(
            lambda s: any(row.agent_votes == {"mine": 0.8} for row in desk.world.database.decisions.values())
        )
        outcome = (await desk.outcomes("p")).outcomes["p"]
        (row,) = [row for row in desk.world.database.decisions.values() if row.agent_votes]
        assert outcome.detail == f"taken up by {row.decision_id}: position_too_large"
        assert row.selected_signal_id == outcome.proposal_id
        assert (await desk.status()).proposals_waiting == 0


# Cheaper: tests/domain/test_inbox.py: test_a_proposal_expires_when_it_says.
# And: test_a_proposal_that_expires_while_the_venue_is_read_is_not_taken_up.
@pytest.mark.thorough
async def test_one_that_no_decision_could_take_up_waits_until_it_expires(temporal: Client) -> None:
    async with running_desk(temporal, World(Agents(decide=False))) as desk:
        await desk.until(lambda s: s.cycle_number >= 1)
        await desk.signal("propose", PROPOSAL | {"command_id": "p", "ttl_seconds": 5})
        waiting = await desk.until(lambda s: s.proposals_waiting == 1)
        over = await desk.until(lambda s: s.proposals_waiting == 0)
        # At least one whole cycle, with a decision that failed, lies between.
        assert over.cycle_number > waiting.cycle_number + 1
        assert any("decision failed" in row.summary for row in desk.world.database.decisions.values())
        assert (await desk.outcomes("p")).outcomes["p"].detail == "it expired before a cycle took it up"
        await desk.until(
            lambda s: "propose refused by mine: it expired before a cycle took it up" in desk.world.summaries()
        )


# Cheaper: test_ahead.py: test_agents_health_is_carried_from_a_choice_beside_the_reading.
@pytest.mark.thorough
async def test_an_agents_failures_are_carried_from_cycle_to_cycle(temporal: Client) -> None:
    async with running_desk(temporal, World(Agents(fail=True))) as desk:
        await desk.until(lambda s: len(desk.world.agents.health) >= 3)
        assert [known["x"].failures for known in desk.world.agents.health[1:3]] == [1, 2]
        desk.world.agents.fail = False
        await desk.until(lambda s: not s.failing_agents)


async def test_a_proposal_that_expires_while_the_venue_is_read_is_not_taken_up(temporal: Client) -> None:
    world = World(Readings(gate=asyncio.Event()))
    async with running_desk(temporal, world) as desk:
        await asyncio.wait_for(world.readings.begun.wait(), 20)
        await desk.signal("propose", PROPOSAL | {"command_id": "p", "ttl_seconds": 0.5})
        expires_at = (await desk.outcomes("p")).outcomes["p"].expires_at
        while expires_at and datetime.now(UTC) <= expires_at:
            await desk.status()
        assert world.readings.gate
        world.readings.gate.set()
        await desk.until(lambda s: s.proposals_waiting == 0)
        outcome = (await desk.outcomes("p")).outcomes["p"]
        assert (outcome.outcome, outcome.detail) == ("refused", "it expired before a cycle took it up")


async def test_limits_that_are_tightened_stop_an_order_that_no_worker_has_begun(temporal: Client) -> None:
    world = World(Agents(propose=True), Database(commit_gate=asyncio.Event()))
    desk = Desk(temporal, world)
    await desk.start(cycle_seconds=30)
    async with desk.worker(activities=False):
        one = desk.activity_worker()
        working = asyncio.create_task(one.run())
        await asyncio.wait_for(world.database.commit_begun.wait(), 20)
        stopping = asyncio.create_task(one.shutdown())
        assert world.database.commit_gate
        world.database.commit_gate.set()
        await asyncio.gather(stopping, working)
        await scheduled(desk, "place_order")
        await desk.signal("set_limits", {"max_position_fraction": "0.001", "command_id": "tight"})
        assert (await desk.outcomes("tight")).outcomes["tight"].outcome == "applied"
        async with desk.activity_worker():
            await desk.until(lambda s: not s.open_instructions and not s.records_waiting)
        assert world.orders.sent == []
        await desk.assert_healthy_history()
    await desk.handle.terminate()


async def scheduled(desk: Desk, activity: str) -> None:
    """Waits until an activity of that name is in the history."""
    async with asyncio.timeout(180):
        while True:
            async for event in desk.handle.fetch_history_events():
                if event.activity_task_scheduled_event_attributes.activity_type.name == activity:
                    return


async def test_no_second_order_of_a_symbol_goes_out_while_the_fate_of_one_is_unknown(temporal: Client) -> None:
    """A deleverage may become unknown after the cycle has looked, and before its order is sent."""
    world = World(Agents(propose=True, gate=asyncio.Event()), Orders(fate=Fate.UNKNOWN), Venue(position=D(1)))
    async with running_desk(temporal, world, cycle_seconds=30) as desk:
        await asyncio.wait_for(world.agents.begun.wait(), 20)
        await desk.signal("deleverage", {"symbol": "BTCUSDT", "reduce_pct": 1, "command_id": "d"})
        (unknown,) = (await desk.until(lambda s: s.unknown_orders)).unknown_orders
        assert world.agents.gate
        world.agents.gate.set()
        await desk.until(
            lambda s: any("another order of BTCUSDT" in str(row.detail) for row in world.database.instructions.values())
        )
        assert world.orders.sent == [unknown]


# Cheaper: tests/domain/test_clocks.py: test_more_than_a_second_warns_and_more_than_a_cycle_takes_no_new_risk.
# And: test_ahead.py: test_a_reading_that_holds_the_desk_drops_the_choice.
@pytest.mark.thorough
async def test_a_worker_whose_clock_is_an_hour_ahead_takes_no_new_risk_and_still_reduces(temporal: Client) -> None:
    apart = ClockReading(clock=OtherClock.DATABASE, ahead_seconds=3600.0)
    world = World(Agents(propose=True), Venue(position=D(1)), Readings(clocks=[apart]))
    async with running_desk(temporal, world) as desk:
        await cycles(desk)
        status = await desk.status()
        assert (world.orders.sent, status.observation.clocks if status.observation else None) == ([], [apart])
        assert status.warnings == [
            "the worker's clock differs from the database's: 3600.0 s ahead; correct whichever is wrong"
        ]
        assert any("more than one cycle" in text for text in world.summaries(DecisionType.NO_ACTION))
        await desk.signal("deleverage", {"symbol": BTC, "reduce_pct": 1})
        await desk.until(lambda s: world.venue.position == 0)
        # A reading agrees again.
        world.readings.clocks = [apart.model_copy(update={"ahead_seconds": 0.0})]
        await desk.until(lambda s: world.venue.position > 0 and not s.warnings)


async def test_on_an_account_of_another_desk_no_new_risk_is_taken_and_what_there_is_can_be_reduced(
    temporal: Client,
) -> None:
    """The database was away when the worker came up, and the claim could not be read."""
    world = World(Agents(propose=True), Venue(position=D(1)), Readings(books=BooksSeen(holder="first")))
    async with running_desk(temporal, world) as desk:
        await cycles(desk)
        status = await desk.status()
        assert world.orders.sent == []
        assert status.warnings == [
            "the account belongs to another desk: 'first': two desks may not trade on one account; kill one of them"
        ]
        assert "belongs to another desk: 'first'" in world.summaries(DecisionType.NO_ACTION)[0]
        await desk.signal("deleverage", {"symbol": BTC, "reduce_pct": 1})
        await desk.until(lambda s: world.venue.position == 0)
        world.readings.books = BooksSeen()
        await desk.until(lambda s: world.venue.position > 0 and not s.warnings)
