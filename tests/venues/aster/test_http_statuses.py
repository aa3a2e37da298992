"""401 and 403 are settings; 429 means back off at once, since going on earns a ban; 503 means unknown."""

import asyncio
import contextlib

import pytest

from activities.failures import failure
from activities.venues.aster.backoff import (
    BANNED_SECONDS,
    FIRST_TRY_SECONDS,
    LAST_TRY_SECONDS,
    TOO_MANY_SECONDS,
    Backoff,
)
from activities.venues.aster.operation import Urgency
from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueMisconfigured, VenueRateLimited, VenueUnavailable
from domain.trading.instructions import Tool
from domain.trading.market import Known
from domain.trading.orders import Fate
from tests.venues.aster.fake_server import FakeServer
from tests.venues.builders import make_order

FUTURES = Tool.CANCEL_ALL_ORDERS


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_not_accepted_is_a_setting_and_is_not_tried_again(
    fake: FakeServer, venue: AsterVenue, status: int
) -> None:
    fake.faults.errors = {"get_positions": status}
    with pytest.raises(VenueMisconfigured, match=f"HTTP {status}") as caught:
        await venue.observe(["BTCUSDT"], None)
    assert failure(caught.value).non_retryable


@pytest.mark.parametrize("status", [429, 418])
async def test_after_a_429_nothing_goes_out_but_what_a_kill_needs(
    fake: FakeServer, venue: AsterVenue, status: int
) -> None:
    fake.faults.errors = {"get_positions": status}
    with pytest.raises(VenueRateLimited) as caught:
        await venue.observe(["BTCUSDT"], "cycle 1")
    assert failure(caught.value).next_retry_delay == caught.value.retry_after
    fake.faults.errors = {}
    while venue._caller._turns.taken:
        await asyncio.sleep(0.01)
    calls = fake.calls.total()
    assert (await venue.create_order(make_order(quantity="0.5"))).fate is Fate.NOT_SENT
    for call in (venue.observe(["BTCUSDT"], "cycle 2"), venue.ping(), venue.markets(["BTCUSDT"], 1)):
        with pytest.raises(VenueRateLimited):
            await call
    assert fake.calls.total() == calls
    fake.exchange.rest("BTCUSDT")
    for tool, symbol in ((FUTURES, "BTCUSDT"), (Tool.CANCEL_SPOT_ALL_ORDERS, "BTCUSDT"), (FUTURES, "BTCUSDT")):
        await venue.cancel_all(tool, symbol)
    assert not fake.exchange.open_orders("BTCUSDT")


async def test_a_stray_418_on_a_reading_and_a_503_on_a_cancel_hold_up_no_kill(
    fake: FakeServer, venue: AsterVenue
) -> None:
    """The incident behind it: the cancel's one way past the pause was spent on the 503, and the kill took 121 s."""
    fake.faults.errors = {"get_klines": 418}
    with pytest.raises(VenueRateLimited):
        await venue.markets(["BTCUSDT"], 1)
    fake.exchange.rest("BTCUSDT")
    fake.faults.errors, fake.faults.errors_left = {"cancel_all_orders": 503}, 1
    with pytest.raises(VenueUnavailable, match="HTTP 503"):
        await venue.cancel_all(FUTURES, "BTCUSDT")
    await venue.cancel_all(FUTURES, "BTCUSDT")
    assert (await venue.observe(["BTCUSDT"], None)).open_orders == []


async def test_what_verifies_a_kill_does_not_wait_for_a_price(fake: FakeServer, venue: AsterVenue) -> None:
    """Found to be false: while the marks alone were limited, a kill was not verified for a minute."""
    fake.exchange.positions["BTCUSDT"] = make_order(quantity="0.5").instruction.quantity
    fake.faults.errors = {"get_funding_rate": 429, "get_ticker": 429}
    for _ in range(2):
        with pytest.raises(VenueRateLimited):
            await venue.observe(["BTCUSDT"], "cycle 1")
        seen = await venue.observe(["BTCUSDT", "NEWUSDT"], None, Known(verifies=True))
        assert ([p.symbol for p in seen.positions], set(seen.marks), seen.doubts) == (["BTCUSDT"], {"BTCUSDT"}, [])


async def test_of_cancels_that_are_refused_themselves_one_at_a_time_goes_on_trying(
    fake: FakeServer, hasty: AsterVenue
) -> None:
    fake.faults.errors = {"*": 429}
    cancels = [hasty.cancel_all(FUTURES, symbol) for symbol in ("BTCUSDT", "ETHUSDT", "DOGEUSDT")]
    assert {type(e) for e in await asyncio.gather(*cancels, return_exceptions=True)} == {VenueRateLimited}
    # Those that were on their way; none of them went on to read what is left.
    assert fake.calls.total() == 3
    fake.faults.errors = {}
    async with asyncio.timeout(180):
        while not fake.calls["get_open_orders"]:
            with contextlib.suppress(VenueRateLimited):
                await hasty.cancel_all(FUTURES, "BTCUSDT")
            await asyncio.sleep(0.02)
    assert fake.calls["cancel_all_orders"] == 4
    await hasty.cancel_all(FUTURES, "ETHUSDT")


def told(backoff: Backoff, status: int, tool: str = "ping", urgency: Urgency = Urgency.READING) -> float:
    """For how long a call that begins now is told to wait, in seconds."""
    wait = backoff.paused(tool, tool, urgency, status, backoff.now()).retry_after
    assert wait
    return wait.total_seconds()


def waits(backoff: Backoff, tool: str, urgency: Urgency = Urgency.READING) -> bool:
    try:
        backoff.refuse(tool, tool, urgency)
    except VenueRateLimited:
        return True
    return False


def test_a_pause_doubles_until_a_call_gets_through() -> None:
    clock = Clock()
    backoff, paused = Backoff(clock), []
    for _ in range(5):
        paused.append(told(backoff, 429))
        clock.now += 3600
    assert paused == [10, 20, 40, 60, 60]
    backoff.answered("ping", Urgency.READING, clock.now)
    assert told(backoff, 429) == TOO_MANY_SECONDS


def test_calls_that_were_told_together_are_one_request_for_a_pause() -> None:
    backoff = Backoff(Clock())
    assert {told(backoff, 429) for _ in range(20)} == {TOO_MANY_SECONDS}


def test_a_ban_lasts_longer_than_a_pause() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    told(backoff, 429)
    assert told(backoff, 418) == BANNED_SECONDS
    clock.now += BANNED_SECONDS - 1
    assert waits(backoff, "ping")
    clock.now += 1
    assert not waits(backoff, "ping")


def test_what_a_kill_reads_waits_for_its_own_tool_alone() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    told(backoff, 418, "get_klines")
    assert waits(backoff, "get_positions")
    assert not waits(backoff, "get_positions", Urgency.SOON)
    assert waits(backoff, "get_klines", Urgency.SOON)


def test_an_address_that_gets_an_answer_is_not_banned() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    began = clock.now
    clock.now += 1
    told(backoff, 418, "get_positions", Urgency.SOON)
    backoff.answered("get_open_orders", Urgency.SOON, began)
    clock.now += TOO_MANY_SECONDS
    assert waits(backoff, "get_positions", Urgency.SOON), "an answer to what began before says nothing"
    backoff.answered("get_open_orders", Urgency.SOON, clock.now)
    assert not waits(backoff, "get_positions", Urgency.SOON)
    assert told(backoff, 418, "get_positions", Urgency.SOON) == 2 * BANNED_SECONDS, (
        "its own doubles until it is answered"
    )


def test_cancels_try_one_at_a_time_at_growing_distances_until_one_gets_through() -> None:
    clock = Clock()
    backoff, tried = Backoff(clock), []
    for _ in range(32):
        told(backoff, 418, "cancel", Urgency.CANCEL)
    began = clock.now
    for _ in range(480):
        clock.now += 0.125
        if not waits(backoff, "cancel", Urgency.CANCEL):
            assert waits(backoff, "cancel", Urgency.CANCEL), "another one at the same time"
            tried.append(round(clock.now - began))
            told(backoff, 418, "cancel", Urgency.CANCEL)
    assert tried == [1, 3, 7, 15, 25, 35, 45, 55]
    clock.now += LAST_TRY_SECONDS
    backoff.answered("cancel", Urgency.CANCEL, clock.now)
    assert not any(waits(backoff, "cancel", Urgency.CANCEL) for _ in range(32))


def test_a_try_that_failed_otherwise_costs_no_more_than_its_turn() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    told(backoff, 429, "cancel", Urgency.CANCEL)
    clock.now += FIRST_TRY_SECONDS
    assert not waits(backoff, "cancel", Urgency.CANCEL)
    # It was answered 503.
    clock.now += FIRST_TRY_SECONDS
    assert not waits(backoff, "cancel", Urgency.CANCEL)
