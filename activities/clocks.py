"""Compares the worker's clock with the database's and the exchange's."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from activities.calls import Scope
from activities.venues.port import Venue, VenueError
from domain.desk.states import Mode
from domain.health.clocks import ClockReading, OtherClock, compared
from storage.clock import server_time
from storage.database import Database, DatabaseUnavailable

SECONDS = 2.0


class Clocks:
    """The clocks that one worker is compared with. The paper venue has none of its own; it uses the database's."""

    def __init__(self, scope: Scope, venue: Venue, database: Database) -> None:
        self._scope = scope
        self._venue = venue
        self._database = database

    async def of_database(self) -> ClockReading | None:
        """The database's clock. None if it does not answer; other checks report that."""
        try:
            return await _read(OtherClock.DATABASE, lambda: self._database.run(server_time, SECONDS))
        except DatabaseUnavailable:
            return None

    async def of_exchange(self, symbol: str) -> ClockReading | None:
        """The exchange's clock. None on paper, or if the exchange does not tell its time."""
        if self._scope.mode is Mode.PAPER:
            return None
        try:
            return await _read(OtherClock.EXCHANGE, lambda: self._venue.time(symbol))
        except VenueError:
            return None


async def _read(clock: OtherClock, ask: Callable[[], Awaitable[datetime | None]]) -> ClockReading | None:
    began = datetime.now(UTC)
    told = await ask()
    return compared(clock, began, told, datetime.now(UTC)) if told else None
