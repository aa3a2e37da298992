"""A choice that comes with the reading: used in a quiet cycle, and dropped wherever anything came between."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from bench.cycle import costs_of
from domain.desk import ahead
from domain.desk.states import State
from domain.health.clocks import ClockReading, OtherClock
from domain.trading.decisions import DecisionType
from domain.trading.orders import Fate
from tests.replay.builders import liquid, made_bars, written
from tests.workflows.parts import Agents, Orders, Readings, Venue
from tests.workflows.test_metrics import PaperDesk
from tests.workflows.world import BTC, PROPOSAL, TIGHT, Desk, World, running_desk
from workflows import cycle, names

# As `make bench ARGS=cycle` measures them (docs/performance.md).
EVENTS_OF_A_QUIET_CYCLE, BYTES_OF_A_QUIET_CYCLE = 17, 6_000


async def activities(desk: Desk) -> Counter[str]:
    """How many of each kind were scheduled."""
    events = desk.handle.fetch_history_events()
    names = [e.activity_task_scheduled_event_attributes.activity_type.name async for e in events]
    return Counter(name for name in names if name)


@asynccontextmanager
async def while_it_is_read(client: Client, *unusual: Any, **changes: Any) -> AsyncIterator[Desk]:
    """A desk with agents that want to buy, in the middle of its second reading: the first took its account."""
    world = (
        World(*unusual) if any(isinstance(part, Agents) for part in unusual) else World(Agents(propose=True), *unusual)
    )
    world.readings.gate = asyncio.Event()
    async with running_desk(client, world, **{"cycle_seconds": 30} | changes) as desk:
        await asyncio.wait_for(world.readings.begun.wait(), 180)
        yield desk


def go_on(desk: Desk) -> None:
    assert desk.world.readings.gate
    desk.world.readings.gate.set()


async def decided(desk: Desk) -> None:
    await desk.until(lambda s: s.last_cycle_at is not None and not s.records_waiting)


# --- it is used -----------------------------------------------------------------------------------------------------


async def test_a_quiet_cycle_is_two_activities_and_seventeen_events(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.until(lambda s: s.cycle_number >= 6)
        found = [event async for event in desk.handle.fetch_history_events()]
        starts = [
            number
            for number, event in enumerate(found)
            if event.activity_task_scheduled_event_attributes.activity_type.name == "observe"
        ]
        lengths = [later - earlier for earlier, later in pairwise(starts)]
        assert Counter(lengths).most_common(1)[0][0] == EVENTS_OF_A_QUIET_CYCLE
        assert (await activities(desk))["decide"] == 0
        agents = desk.world.agents
        assert agents.asked == agents.chosen_ahead > 0


async def test_a_quiet_cycle_of_a_real_worker_stays_under_six_kilobytes_of_history(
    temporal: Client, database_url: str, tmp_path: Path
) -> None:
    bars = written(tmp_path / "bars.csv", liquid(made_bars(500)))
    with closing(PaperDesk(temporal, database_url, bars, "quiet")) as desk:
        async with desk.running():
            # It buys until its limits refuse more.
            await desk.until("ais_risk_rejections_total{")
            began = (await desk.gateway.status()).cycle_number
            while (await desk.gateway.status()).cycle_number < began + 8:
                await asyncio.sleep(0.05)
            handle = temporal.get_workflow_handle(names.workflow_id("quiet"))
            costs = await costs_of(handle, "observe")
    # Some have a write of their own, of the latch or of what the buyer did before. On a busy machine a choice may come too late
    # to be used, and is asked for again.
    events, sizes = (sorted(each) for each in zip(*costs, strict=True))
    assert events[len(costs) // 4] <= EVENTS_OF_A_QUIET_CYCLE
    assert sizes[len(costs) // 4] <= BYTES_OF_A_QUIET_CYCLE


async def test_an_order_that_is_chosen_beside_the_reading_is_committed_and_sent(temporal: Client) -> None:
    world = World(Agents(propose=True))
    async with running_desk(temporal, world, cycle_seconds=30) as desk:
        await desk.until(lambda s: s.last_cycle_at is not None and not s.records_waiting)
        assert len(world.orders.sent) == 1
        assert await activities(desk) >= Counter(observe=1, record=2, place_order=1)
        assert (await activities(desk))["decide"] == 0


async def test_agents_health_is_carried_from_a_choice_beside_the_reading(temporal: Client) -> None:
    async with running_desk(temporal, World(Agents(fail=True))) as desk:
        await desk.until(lambda s: len(desk.world.agents.health) >= 3)
        assert [known["x"].failures for known in desk.world.agents.health[1:3]] == [1, 2]
        assert (await activities(desk))["decide"] == 0


# --- it is not even asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["pause", pytest.param("kill", marks=pytest.mark.thorough)])
async def test_a_desk_that_takes_no_risk_asks_for_no_choice(temporal: Client, command: str) -> None:
    async with running_desk(temporal) as desk:
        await desk.signal(command)
        status = await desk.until(lambda s: s.state is not State.RUNNING)
        before = len(desk.world.agents.asked_ahead)
        await desk.until(lambda s: s.cycle_number >= status.cycle_number + 3)
        assert set(desk.world.agents.asked_ahead[before + 1 :]) == {None}


async def test_a_run_of_an_older_schema_asks_for_no_choice_and_decides_as_before(temporal: Client) -> None:
    async with running_desk(temporal, schema_version=5) as desk:
        await desk.until(lambda s: s.cycle_number >= 3)
        assert set(desk.world.agents.asked_ahead) == {None}
        assert (await activities(desk))["decide"] >= 2


async def test_a_worker_that_brings_no_choice_is_asked_for_a_decision(temporal: Client) -> None:
    """One of an older release, or agents that are slow."""
    async with running_desk(temporal, World(Agents(ahead=False, propose=True)), cycle_seconds=30) as desk:
        await decided(desk)
        assert None not in desk.world.agents.asked_ahead[:1]
        assert (await activities(desk))["decide"] == 1
        assert len(desk.world.orders.sent) == 1


# --- it is dropped --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["kill", pytest.param("pause", marks=pytest.mark.thorough)])
async def test_a_command_that_stops_the_desk_while_it_is_read_stops_the_order(temporal: Client, command: str) -> None:
    async with while_it_is_read(temporal) as desk:
        await desk.signal(command, {"command_id": "c"})
        assert (await desk.outcomes("c")).outcomes["c"].outcome == "applied"
        go_on(desk)
        await decided(desk)
        assert desk.world.agents.chosen_ahead == 1
        assert desk.world.orders.sent == []
        assert desk.world.summaries(DecisionType.ORDER_INTENT) == []
        assert (await activities(desk))["decide"] == 0


# Cheaper: tests/domain/test_ahead.py: test_a_choice_is_dropped_if_anything_has_changed_that_it_was_made_from.
@pytest.mark.thorough
async def test_limits_that_are_tightened_while_it_is_read_are_those_of_the_decision(temporal: Client) -> None:
    async with while_it_is_read(temporal) as desk:
        await desk.signal("set_limits", {"max_leverage": "1", "command_id": "c"})
        assert (await desk.outcomes("c")).outcomes["c"].outcome == "applied"
        go_on(desk)
        await decided(desk)
        assert (desk.world.agents.chosen_ahead, desk.world.agents.asked) == (1, 2)
        assert (await activities(desk))["decide"] == 1
        assert len(desk.world.orders.sent) == 1


async def test_a_proposal_that_arrives_while_it_is_read_is_taken_up(temporal: Client) -> None:
    async with while_it_is_read(temporal, Agents()) as desk:
        await desk.signal("propose", PROPOSAL | {"command_id": "p", "ttl_seconds": 60})
        assert (await desk.outcomes("p")).outcomes["p"].outcome == "pending"
        go_on(desk)
        await decided(desk)
        assert (desk.world.agents.chosen_ahead, desk.world.agents.asked) == (1, 2)
        assert any(row.agent_votes == {"mine": 0.8} for row in desk.world.database.decisions.values())


# Cheaper: tests/domain/test_ahead.py: test_a_choice_is_dropped_if_anything_has_changed_that_it_was_made_from.
@pytest.mark.thorough
async def test_a_proposal_that_is_replaced_while_it_is_read_is_not_followed(temporal: Client) -> None:
    async with while_it_is_read(temporal, Agents(), before=_a_proposal_waits) as desk:
        await desk.signal("propose", PROPOSAL | {"command_id": "new", "confidence": 0.3, "ttl_seconds": 60})
        assert (await desk.outcomes("old")).outcomes["old"].detail == "replaced by new"
        go_on(desk)
        await decided(desk)
        assert (desk.world.agents.chosen_ahead, desk.world.agents.asked) == (1, 2)
        (row,) = [row for row in desk.world.database.decisions.values() if row.agent_votes]
        assert row.agent_votes == {"mine": 0.3}


async def _a_proposal_waits(desk: Desk) -> None:
    await desk.signal("propose", PROPOSAL | {"command_id": "old", "ttl_seconds": 60})


# Cheaper: tests/domain/test_ahead.py: test_a_choice_is_dropped_if_anything_has_changed_that_it_was_made_from.
@pytest.mark.thorough
async def test_no_order_goes_to_a_symbol_that_was_blocked_while_it_was_read(temporal: Client) -> None:
    async with while_it_is_read(temporal, Orders(fate=Fate.UNKNOWN), Venue(position=Decimal(1))) as desk:
        await desk.signal("deleverage", {"symbol": BTC, "reduce_pct": 1, "command_id": "d"})
        (unknown,) = (await desk.until(lambda s: s.unknown_orders)).unknown_orders
        go_on(desk)
        await decided(desk)
        assert (desk.world.agents.chosen_ahead, desk.world.agents.asked) == (1, 2)
        assert desk.world.orders.sent == [unknown]
        assert desk.world.summaries(DecisionType.ORDER_INTENT) == []


# Cheaper: tests/domain/test_ahead.py: test_a_reading_that_has_to_be_acted_on_first_brings_none.
@pytest.mark.thorough
async def test_a_breach_is_acted_on_before_anybody_is_asked(temporal: Client) -> None:
    async with while_it_is_read(temporal, Venue(position=Decimal(4)), limits=TIGHT) as desk:
        go_on(desk)
        await desk.until(lambda s: s.state is State.KILLED)
        assert desk.world.agents.asked == 0
        assert desk.world.summaries(DecisionType.ORDER_INTENT) == []


async def test_a_reading_that_holds_the_desk_drops_the_choice(temporal: Client) -> None:
    """Of clocks that differ the activity cannot tell whether they differ too much."""
    apart = ClockReading(clock=OtherClock.DATABASE, ahead_seconds=3600.0)
    async with while_it_is_read(temporal, Readings(clocks=[apart])) as desk:
        go_on(desk)
        await decided(desk)
        assert desk.world.agents.chosen_ahead == 1
        assert desk.world.orders.sent == []
        assert "more than one cycle" in desk.world.summaries(DecisionType.NO_ACTION)[0]


async def test_no_answer_is_used_that_lay_until_a_worker_was_up_again(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after hours without a worker: whatever an answer took, it took too long."""
    monkeypatch.setattr(ahead, "READING_LASTS", timedelta(seconds=-1))
    # For the worker, which reads the name anew in its sandbox, and for the replay, which has none.
    for module in (ahead, cycle):
        monkeypatch.setattr(module, "DECISION_LASTS", timedelta(seconds=-1))
    async with running_desk(temporal, World(Agents(propose=True)), cycle_seconds=30) as desk:
        await decided(desk)
        assert (await activities(desk))["decide"] == 1
        assert desk.world.orders.sent == []
        (said,) = desk.world.summaries(DecisionType.NO_ACTION)
        assert "its answer waited until a worker was up again" in said
