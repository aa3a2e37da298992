"""A server that dies takes the whole client block with it. Connections are made anew, and not in a hurry."""

import asyncio
import logging
import time

import pytest

from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueUnavailable
from domain.trading.instructions import Tool
from domain.trading.orders import Fate
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import OwnProcess, make_venue, serving
from tests.venues.builders import make_order
from tests.venues.variants import THOROUGH


async def until_it_answers(venue: AsterVenue) -> None:
    async with asyncio.timeout(180):
        while True:
            try:
                await venue.ping()
            except VenueUnavailable:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize(("path", "flags"), [("/mcp", ()), THOROUGH("/mcp", ("--legacy",)), THOROUGH("/sse", ())])
async def test_pending_calls_fail_at_once_and_the_next_ones_connect_anew(path: str, flags: tuple[str, ...]) -> None:
    process = OwnProcess(*flags)
    await process.start()
    venue = make_venue(process.base + path)
    try:
        await venue.ping()
        await process.control("faults", hangs=["create_order", "get_ticker"])
        order = make_order(quantity="0.5")
        sending = asyncio.create_task(venue.create_order(order))
        pending = [asyncio.create_task(venue._caller.call("get_ticker", "BTCUSDT")) for _ in range(5)]
        while (await process.control("faults"))["calls"].get("create_order") != 1:
            await asyncio.sleep(0.01)
        await process.kill()
        # Not after their own time-outs: the connection's end is told to all of them.
        async with asyncio.timeout(180):
            assert (await sending).fate is Fate.UNKNOWN
            for outcome in await asyncio.gather(*pending, return_exceptions=True):
                assert isinstance(outcome, VenueUnavailable)
        with pytest.raises(VenueUnavailable):
            await venue.ping()
        heir = FakeServer(legacy="--legacy" in flags)
        async with serving(heir, process.port):
            await until_it_answers(venue)
            assert (await venue.observe(["BTCUSDT"], None)).marks
            # The order is not sent again over the new connection: it is asked about.
            assert heir.calls["create_order"] == 0
            assert await venue.find_order(order) is None
            await venue.close()
    finally:
        await venue.close()
        await process.kill()


async def test_a_server_that_is_gone_is_not_hammered(caplog: pytest.LogCaptureFixture) -> None:
    process = OwnProcess()
    venue = make_venue(f"{process.base}/mcp", seconds=1)
    with caplog.at_level(logging.WARNING):
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            outcomes = await asyncio.gather(*(venue.ping() for _ in range(20)), return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {VenueUnavailable}
    await venue.close()
    # 20 callers at a time share each attempt, and attempts come with growing pauses: 0.1, 0.2, 0.4, 0.8 s.
    assert venue._caller._session._failures <= 6


async def test_an_order_for_a_server_that_is_gone_is_not_sent() -> None:
    process = OwnProcess()
    venue = make_venue(f"{process.base}/mcp", seconds=1)
    report = await venue.create_order(make_order(quantity="0.5"))
    assert report.fate is Fate.NOT_SENT
    with pytest.raises(VenueUnavailable, match="cannot be reached"):
        await venue.cancel_all(Tool.CANCEL_ALL_ORDERS, "BTCUSDT")
    await venue.close()


async def test_what_listens_there_and_is_no_mcp_server_is_no_connection() -> None:
    async def shut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for habit in (shut, mute):
        server = await asyncio.start_server(habit, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for path in ("/mcp", "/sse"):
            venue = make_venue(f"http://127.0.0.1:{port}{path}", seconds=0.5)
            async with asyncio.timeout(180):
                with pytest.raises(VenueUnavailable):
                    await venue.ping()
            await venue.close()
        server.close()
        await server.wait_closed()
