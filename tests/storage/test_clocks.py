"""The clocks around a worker, as an observation reads them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.calls import Scope
from activities.clocks import Clocks
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


def clocks(database: Any, venue: Any, mode: Mode = Mode.LIVE) -> Clocks:
    return Clocks(Scope(desk="main", mode=mode), venue, database)


async def test_the_databases_clock_agrees_with_that_of_its_own_machine(database_url: str) -> None:
    database = Database(database_url, application_name="ais-test")
    reading = await clocks(database, None).of_database()
    database.close()
    assert reading == ClockReading(clock=OtherClock.DATABASE, ahead_seconds=0.0)


async def test_a_database_or_an_exchange_that_does_not_answer_says_nothing() -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:1/none", application_name="ais-test")
    assert await clocks(nowhere, Venue(None)).of_database() is None
    assert await clocks(nowhere, Venue(None)).of_exchange("BTCUSDT") is None
    nowhere.close()


@pytest.mark.parametrize(("clock", "ahead"), [(timedelta(hours=-1), 3600), (timedelta(minutes=1), -60)])
async def test_the_exchanges_clock_is_compared_where_there_is_one(clock: timedelta, ahead: int) -> None:
    reading = await clocks(None, Venue(clock)).of_exchange("BTCUSDT")
    assert reading
    assert (reading.clock, round(reading.ahead_seconds)) == (OtherClock.EXCHANGE, ahead)
    assert await clocks(None, Venue(clock), Mode.PAPER).of_exchange("BTCUSDT") is None
