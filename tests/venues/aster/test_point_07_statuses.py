"""Point 7: 401 and 403 are settings; 429 means back off at once, since going on earns a ban; 503 means unknown."""

from datetime import timedelta

import pytest

from activities.failures import failure
from activities.venues.aster.backoff import BANNED_SECONDS, TOO_MANY_SECONDS, Backoff
from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueMisconfigured, VenueRateLimited
from domain.instructions import Tool
from domain.orders import Fate
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
async def test_after_a_429_nothing_goes_out_but_one_cancel_of_a_kind(
    fake: FakeServer, venue: AsterVenue, status: int
) -> None:
    fake.faults.errors = {"get_positions": status}
    with pytest.raises(VenueRateLimited) as caught:
        await venue.check_one_way()
    assert failure(caught.value).next_retry_delay == caught.value.retry_after
    fake.faults.errors = {}
    calls = fake.calls.total()
    assert (await venue.create_order(make_order(quantity="0.5"))).fate is Fate.NOT_SENT
    for call in (venue.observe(["BTCUSDT"], None), venue.ping(), venue.markets(["BTCUSDT"], 1)):
        with pytest.raises(VenueRateLimited):
            await call
    assert fake.calls.total() == calls
    fake.exchange.rest("BTCUSDT")
    await venue.cancel_all(FUTURES, "BTCUSDT")
    await venue.cancel_all(Tool.CANCEL_SPOT_ALL_ORDERS, "BTCUSDT")
    await venue.cancel_all(FUTURES, "ETHUSDT")
    with pytest.raises(VenueRateLimited):
        await venue.cancel_all(FUTURES, "BTCUSDT")
    assert fake.calls["cancel_all_orders"] == 2
    assert not fake.exchange.open_orders("BTCUSDT")


async def test_a_cancel_that_is_told_to_wait_does_not_go_on_reading(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"*": 429}
    with pytest.raises(VenueRateLimited):
        await venue.cancel_all(FUTURES, "BTCUSDT")
    assert fake.calls.total() == 1


def test_a_pause_doubles_until_a_call_gets_through() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    waits = []
    for _ in range(5):
        waits.append(backoff.told("ping", 429).retry_after)
        clock.now += 3600
    assert waits == [timedelta(seconds=seconds) for seconds in (10, 20, 40, 60, 60)]
    backoff.answered()
    assert backoff.told("ping", 429).retry_after == timedelta(seconds=TOO_MANY_SECONDS)


def test_calls_that_were_told_together_are_one_request_for_a_pause() -> None:
    backoff = Backoff(Clock())
    waits = {backoff.told("ping", 429).retry_after for _ in range(20)}
    assert waits == {timedelta(seconds=TOO_MANY_SECONDS)}


def test_a_ban_lasts_longer_than_a_pause() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    backoff.told("ping", 429)
    assert backoff.told("ping", 418).retry_after == timedelta(seconds=BANNED_SECONDS)
    clock.now += BANNED_SECONDS - 1
    with pytest.raises(VenueRateLimited):
        backoff.refuse("ping")
    clock.now += 1
    backoff.refuse("ping")


def test_a_cancel_passes_once_for_each_pause() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    backoff.told("ping", 418)
    backoff.refuse("cancel", "btc")
    backoff.refuse("cancel", "eth")
    with pytest.raises(VenueRateLimited):
        backoff.refuse("cancel", "btc")
    clock.now += 60
    with pytest.raises(VenueRateLimited):
        backoff.refuse("cancel", "btc")
