"""Point 8: calls run at the same time over one open session, and one that hangs holds up no other where the server lets it."""

import asyncio
import shlex
import sys

import pytest

from activities.venues.aster.room import MOST_OWED, OWED_SECONDS, Room
from activities.venues.aster.session import GivenUp
from activities.venues.aster.turns import Turns, Urgency
from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueNotSent, VenueUnavailable
from domain.instructions import Tool
from domain.orders import Fate
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import Heard, OwnProcess, make_venue, serving
from tests.venues.builders import make_order

FUTURES = Tool.CANCEL_ALL_ORDERS


async def test_fifty_cancels_run_at_the_same_time_over_one_session(
    fake: FakeServer, venue: AsterVenue, heard: Heard
) -> None:
    """None of them is answered before all fifty are under way."""
    await venue.ping()
    fake.faults.gathers = {"cancel_all_orders": 50}
    await asyncio.gather(*(venue.cancel_all(FUTURES, "BTCUSDT") for _ in range(50)))
    assert fake.most_at_once >= 50
    assert heard.calls.count(("cancel_all_orders", False)) == heard.calls.count(("get_open_orders", False)) == 50


async def test_a_call_that_hangs_holds_up_no_other_and_is_given_up(fake: FakeServer, hasty: AsterVenue) -> None:
    await hasty.ping()
    fake.faults.hangs = ["get_ticker"]
    caller = hasty._caller
    hanging = asyncio.create_task(caller.call("get_ticker", "BTCUSDT"))
    await asyncio.gather(*(hasty.ping() for _ in range(5)))
    assert not hanging.done()
    with pytest.raises(VenueUnavailable, match="get_ticker BTCUSDT: the MCP server did not answer within"):
        await hanging


async def test_an_answer_that_comes_too_late_is_dropped_and_poisons_nothing(
    fake: FakeServer, hasty: AsterVenue
) -> None:
    await hasty.ping()
    fake.faults.slow = {"get_ticker": 1.3}
    with pytest.raises(VenueUnavailable):
        await hasty._caller.call("get_ticker", "BTCUSDT")
    while fake.most_at_once and fake._at_once:
        await hasty.ping()
    fake.faults.slow = {}
    assert await hasty._caller.call("get_ticker", "BTCUSDT")


async def test_a_server_that_runs_one_call_at_a_time_is_served_as_well(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.serial = True
    await asyncio.gather(*(venue.cancel_all(FUTURES, "BTCUSDT") for _ in range(10)))
    assert (await venue.observe(["BTCUSDT"], None)).marks


async def test_a_server_of_the_old_version_gets_one_call_after_another() -> None:
    fake = FakeServer(version="2.14.7")
    async with serving(fake) as base:
        venue = make_venue(f"{base}/mcp")
        await asyncio.gather(*(venue.cancel_all(FUTURES, "BTCUSDT") for _ in range(10)))
        assert (await venue.observe(["BTCUSDT"], None)).marks
        assert fake.most_at_once == 1
        await venue.close()


async def test_what_had_no_turn_was_never_sent() -> None:
    fake = FakeServer(version="2.14.7")
    async with serving(fake) as base:
        venue = make_venue(f"{base}/mcp", seconds=1)
        await venue.observe(["BTCUSDT"], None)
        connection = await venue._caller._session.connection(1)
        assert connection._turns is not None
        async with connection._turns.turn("somebody else's", Urgency.READING, 1):
            with pytest.raises(VenueNotSent, match="cancel_all_orders BTCUSDT: not sent: the MCP server runs one call"):
                await venue.cancel_all(FUTURES, "BTCUSDT")
            assert (await venue.create_order(make_order())).fate is Fate.NOT_SENT
        assert not {"cancel_all_orders", "create_order"} & fake.calls.keys()
        await venue.close()


async def test_the_most_urgent_call_has_the_next_turn() -> None:
    turns, order = Turns(), list[Urgency]()

    async def call(urgency: Urgency) -> None:
        async with turns.turn("call", urgency, 5):
            order.append(urgency)

    async with turns.turn("first", Urgency.READING, 5):
        asked = [Urgency.READING, Urgency.CANCEL, Urgency.READING, Urgency.UNDER_WAY, Urgency.CANCEL]
        calls = [asyncio.create_task(call(urgency)) for urgency in asked]
        await asyncio.sleep(0)
        assert order == []
    await asyncio.gather(*calls)
    assert order == sorted(asked)


async def test_a_turn_that_nobody_takes_any_more_is_handed_on() -> None:
    turns = Turns()

    async def call() -> None:
        async with turns.turn("call", Urgency.READING, 5):
            pass

    async with turns.turn("first", Urgency.READING, 5):
        gone, stays = asyncio.create_task(call()), asyncio.create_task(call())
        await asyncio.sleep(0)
    # It has been given the turn in this moment, and leaves before it runs.
    gone.cancel()
    await stays
    async with turns.turn("another", Urgency.READING, 0):
        assert gone.cancelled()


async def test_a_server_that_answers_nothing_any_more_is_left_for_a_new_connection(
    fake: FakeServer, hasty: AsterVenue
) -> None:
    await hasty.ping()
    first = await hasty._caller._session.connection(1)
    fake.faults.hangs = ["ping"]
    for _ in range(3):
        with pytest.raises(VenueUnavailable):
            await hasty.ping()
    assert not first.is_open
    fake.faults.hangs = []
    await hasty.ping()
    assert await hasty._caller._session.connection(1) is not first


@pytest.mark.parametrize(("path", "flags"), [("/mcp", ()), ("/mcp", ("--legacy",)), ("/sse", ())])
async def test_either_protocol_works_over_either_http_transport(path: str, flags: tuple[str, ...]) -> None:
    process = OwnProcess(*flags)
    await process.start()
    venue = make_venue(process.base + path)
    try:
        await process.control("faults", gathers={"cancel_all_orders": 20})
        await asyncio.gather(*(venue.cancel_all(FUTURES, "BTCUSDT") for _ in range(20)))
        assert (await venue.observe(["BTCUSDT"], None)).marks
    finally:
        await venue.close()
        await process.kill()


async def test_a_server_of_our_own_is_spoken_to_over_stdio() -> None:
    venue = make_venue(f"stdio:{shlex.quote(sys.executable)} -m tests.venues.aster.fake_server --stdio", seconds=20)
    try:
        await venue.ping()
        assert (await venue.observe(["BTCUSDT"], None)).marks
        await venue.cancel_all(FUTURES, "BTCUSDT")
    finally:
        await venue.close()


async def test_calls_that_hang_leave_room_for_the_cancels(fake: FakeServer, hasty: AsterVenue) -> None:
    await hasty.ping()
    fake.faults.hangs = ["get_ticker"]
    caller = hasty._caller
    hanging = (caller.call("get_ticker", "BTCUSDT") for _ in range(MOST_OWED))
    assert {type(error) for error in await asyncio.gather(*hanging, return_exceptions=True)} == {GivenUp}
    with pytest.raises(VenueUnavailable, match="room is kept for cancels"):
        await hasty.observe(["BTCUSDT"], None)
    fake.exchange.rest("BTCUSDT")
    await hasty.cancel_all(FUTURES, "BTCUSDT")
    assert fake.exchange.open_orders() == []


def test_the_room_is_given_back_when_the_server_must_have_let_go() -> None:
    now = [0.0]
    room = Room(lambda: now[0])
    for _ in range(MOST_OWED):
        room.given_up()
    with pytest.raises(VenueUnavailable):
        room.refuse("ping")
    now[0] = OWED_SECONDS
    room.refuse("ping")
