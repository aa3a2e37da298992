"""Point 8: calls run at the same time over one open session, and one that hangs holds up no other where the server lets it."""

import asyncio
import sys
import time

import pytest

from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueUnavailable
from domain.instructions import Tool
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import Heard, OwnProcess, make_venue

FUTURES = Tool.CANCEL_ALL_ORDERS


async def test_fifty_cancels_run_at_the_same_time_over_one_session(
    fake: FakeServer, venue: AsterVenue, heard: Heard
) -> None:
    await venue.ping()
    fake.faults.slow = {"*": 0.2}
    began = time.monotonic()
    await asyncio.gather(*(venue.cancel_all(FUTURES, "BTCUSDT") for _ in range(50)))
    assert fake.most_at_once >= 45
    # One after another they would take twenty seconds; how fast they are is the machine's to say.
    assert time.monotonic() - began < 10
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
    fake.faults.slow = {"get_ticker": 0.7}
    with pytest.raises(VenueUnavailable):
        await hasty._caller.call("get_ticker", "BTCUSDT")
    for _ in range(20):
        await hasty.ping()
        await asyncio.sleep(0.02)
    fake.faults.slow = {}
    assert await hasty._caller.call("get_ticker", "BTCUSDT")


async def test_a_server_that_runs_one_call_at_a_time_is_served_as_well(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.serial = True
    await asyncio.gather(*(venue.cancel_all(FUTURES, "BTCUSDT") for _ in range(10)))
    assert (await venue.observe(["BTCUSDT"], None)).marks


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
        await process.control("faults", slow={"*": 0.2})
        await asyncio.gather(*(venue.cancel_all(FUTURES, "BTCUSDT") for _ in range(20)))
        assert (await process.control("faults"))["most_at_once"] >= 15
        assert (await venue.observe(["BTCUSDT"], None)).marks
    finally:
        await venue.close()
        await process.kill()


async def test_a_server_of_our_own_is_spoken_to_over_stdio() -> None:
    venue = make_venue(f"stdio:{sys.executable} -m tests.venues.aster.fake_server --stdio", seconds=20)
    try:
        await venue.ping()
        assert (await venue.observe(["BTCUSDT"], None)).marks
        await venue.cancel_all(FUTURES, "BTCUSDT")
    finally:
        await venue.close()
