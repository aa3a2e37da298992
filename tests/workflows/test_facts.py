"""Readings that are no facts: the coordinator takes no new risk by them, and no kill is flat or verified."""

from decimal import Decimal

import pytest
from temporalio.client import Client

from domain.desk.states import State
from domain.trading.decisions import DecisionType
from tests.domain.builders import an_open_order
from tests.workflows.parts import Readings, Venue
from tests.workflows.world import BTC, TIGHT, World, running_desk

DOUBT = f"{BTC}: get_positions says 0, get_account_v4 1"


async def test_a_doubtful_reading_allows_no_order_and_the_last_good_one_stays(temporal: Client) -> None:
    world = World(Venue(position=Decimal(1)))
    async with running_desk(temporal, world, cycle_seconds=0.3) as desk:
        good = await desk.until(lambda s: s.observation is not None)
        assert good.observation
        world.readings.doubts = [DOUBT]
        # A reading that began before it has been taken in, and may lead to an order.
        await desk.until(lambda s: s.observation_error)
        world.agents.propose = True
        cycle = (await desk.status()).cycle_number
        status = await desk.until(lambda s: s.cycle_number > cycle + 2 and s.observation_error)
        assert (world.orders.sent, status.observation_error) == ([], DOUBT)
        assert status.observation
        assert [position.quantity for position in status.observation.positions] == [Decimal(1)]
        await desk.until(lambda s: any(DOUBT in summary for summary in world.summaries(DecisionType.NO_ACTION)))
        world.readings.doubts = []
        await desk.until(lambda s: world.orders.sent and s.observation_error is None)
        assert any(known.held == {BTC: Decimal(1)} for known in world.readings.known)


# Cheaper: tests/domain/test_killing.py: test_a_doubtful_reading_closes_what_it_shows_and_is_never_flat.
@pytest.mark.thorough
async def test_a_flattening_kill_on_doubtful_readings_closes_and_is_neither_flat_nor_verified(temporal: Client) -> None:
    world = World(Venue(position=Decimal(2)))
    async with running_desk(temporal, world, kill_flattens=True) as desk:
        await desk.until(lambda s: s.cycle_number >= 1)
        world.readings.doubts = [DOUBT]
        await desk.signal("kill")
        await desk.until(lambda s: world.venue.position == 0)
        again = world.readings.again
        status = await desk.until(
            lambda s: world.readings.again > again + 2 and s.kill.quiet_at and s.kill.latched and s.kill.row_written
        )
        assert status.kill
        assert (status.kill.flat_at, status.kill.verified_at) == (None, None)
        assert status.kill.residue[0] == f"the account cannot be read: {DOUBT}"
        assert [text.split(":")[0] for text in status.kill.residue[1:]] == ["not verified yet", "not flat yet"]
        world.readings.doubts = []
        status = await desk.until(lambda s: s.kill.flat_at and s.kill.verified_at)
        await desk.until(lambda s: s.kill.residue == [])
        assert len(world.orders.sent) == 1
        assert {(known.flattens, known.verifies) for known in world.readings.known} >= {(True, True)}


# Cheaper: tests/domain/test_killing.py: test_a_doubtful_reading_verifies_nothing_and_cancels_what_it_shows.
@pytest.mark.thorough
async def test_an_order_that_only_a_doubtful_reading_shows_is_canceled(temporal: Client) -> None:
    world = World()
    async with running_desk(temporal, world, cycle_seconds=600) as desk:
        await desk.until(lambda s: s.cycle_number == 1)
        world.readings.doubts = ["order 7 of SHIBUSDT: open, and get_open_orders does not list it"]
        world.venue.open_orders.append(an_open_order("SHIBUSDT"))
        await desk.signal("kill")
        await desk.until(lambda s: "cancel_all_orders SHIBUSDT" in world.cancels.done)
        assert (await desk.status()).kill.verified_at is None  # type: ignore[union-attr]
        world.readings.doubts = []
        await desk.until(lambda s: s.kill.verified_at)


async def test_a_limit_kills_by_no_doubtful_reading(temporal: Client) -> None:
    world = World(Venue(position=Decimal(4)), Readings(second_doubts=[DOUBT]))
    async with running_desk(temporal, world, limits=TIGHT) as desk:
        await desk.until(lambda s: any("could not be confirmed" in text for text in s.warnings))
        assert await desk.state() is State.RUNNING
        # So much that a reduction which is still on its way leaves it above the limit.
        world.venue.position, world.readings.second_doubts = Decimal(40), []
        await desk.until(lambda s: s.state is State.KILLED)
