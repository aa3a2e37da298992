"""Compares the worker's clock with the database's and the exchange's."""

from datetime import UTC, datetime

from sqlalchemy import Connection

from activities.calls import Scope
from activities.venues.port import Venue, VenueError
from domain.desk.states import Mode
from domain.health.clocks import ClockReading, OtherClock, compared
from storage.clock import server_time


def of_database(connection: Connection) -> ClockReading:
    """The database's clock. The paper venue has none of its own; it uses this one."""
    began = datetime.now(UTC)
    theirs = server_time(connection)
    return compared(OtherClock.DATABASE, began, theirs, datetime.now(UTC))


async def of_exchange(scope: Scope, venue: Venue, symbol: str) -> ClockReading | None:
    """The exchange's clock. None on paper, or if the exchange does not tell its time."""
    if scope.mode is Mode.PAPER:
        return None
    began = datetime.now(UTC)
    try:
        theirs = await venue.time(symbol)
    except VenueError:
        return None
    return compared(OtherClock.EXCHANGE, began, theirs, datetime.now(UTC)) if theirs else None
