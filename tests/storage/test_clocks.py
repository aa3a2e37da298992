"""The clocks around a worker, as an observation reads them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.calls import Scope
from activities.clocks import of_database, of_exchange
from activities.venues.port import VenueUnavailable
from domain.desk.states import Mode
from domain.health.clocks import ClockReading, OtherClock
from storage.database import Database


class Venue:
    """A venue whose clock is so far from ours, or which does not answer."""

    def __init__(self, clock: timedelta | None) -> None:
        self._clock = clock

    async def time(self, symbol: str) -> datetime:
        if self._clock is None:
            raise VenueUnavailable("nobody there")
        return datetime.now(UTC) + self._clock


def a_scope(mode: Mode = Mode.LIVE) -> Scope:
    return Scope(desk="main", mode=mode)


async def test_the_databases_clock_agrees_with_that_of_its_own_machine(database_url: str) -> None:
    database = Database(database_url, application_name="ais-test")
    reading = await database.run(of_database)
    database.close()
    assert reading == ClockReading(clock=OtherClock.DATABASE, ahead_seconds=0.0)


async def test_an_exchange_that_does_not_answer_says_nothing() -> None:
    silent: Any = Venue(None)
    assert await of_exchange(a_scope(), silent, "BTCUSDT") is None


@pytest.mark.parametrize(("clock", "ahead"), [(timedelta(hours=-1), 3600), (timedelta(minutes=1), -60)])
async def test_the_exchanges_clock_is_compared_where_there_is_one(clock: timedelta, ahead: int) -> None:
    venue: Any = Venue(clock)
    reading = await of_exchange(a_scope(), venue, "BTCUSDT")
    assert reading
    assert (reading.clock, round(reading.ahead_seconds)) == (OtherClock.EXCHANGE, ahead)
    assert await of_exchange(a_scope(Mode.PAPER), venue, "BTCUSDT") is None
