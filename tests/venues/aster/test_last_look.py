"""Between an order's leave and its bytes nothing grows old unseen, and no other call suffers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from activities.venues.port import AlwaysCleared, StateTooOld
from domain.trading.orders import Fate
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import make_venue
from tests.venues.builders import D, make_order

T = TypeVar("T")


class OldAt(AlwaysCleared):
    """Leave that is found too old at one of its checks: before the SDK, before the request's head, before its body."""

    def __init__(self, number: int) -> None:
        self.checks = 0
        self._number = number

    async def send(self, attempt: Callable[[], Awaitable[T]]) -> T:
        try:
            return await attempt()
        except StateTooOld:
            return await attempt()

    def check(self) -> None:
        self.checks += 1
        if self.checks == self._number:
            raise StateTooOld("too old")


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("transport", ["mcp", "sse"])
async def test_it_looks_before_head_and_body_and_what_is_held_back_disturbs_no_other_call(
    fake: FakeServer, address: str, transport: str, number: int
) -> None:
    venue = make_venue(address.replace("/mcp", f"/{transport}"))
    await venue.ping()
    fake.faults.slow = {"get_ticker": 0.5}
    other = asyncio.create_task(venue._caller.call("get_ticker", "BTCUSDT"))
    while not fake.calls["get_ticker"]:
        await asyncio.sleep(0.005)
    leave = OldAt(number)
    try:
        report = await venue.create_order(make_order(quantity="0.5"), leave)
        assert (report.fate, fake.calls["create_order"], fake.exchange.position("BTCUSDT")) == (
            Fate.FILLED,
            1,
            D("0.5"),
        )
        # So many checks for the attempt that was held back, and three for the one that went out. Over SSE the SDK takes back, in
        # two more, what it believes to have sent.
        assert leave.checks in (number + 3, number + 5)
        assert await other
    finally:
        await venue.close()
