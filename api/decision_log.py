"""The decision log as the API reads it. Reports and the health probe have threads and connections of their own."""

from typing import Protocol

from sqlalchemy import Connection

from api.errors import InvalidRequest, ReportsUnavailable
from domain.decisions import Decision
from storage import decisions
from storage.database import Database, DatabaseUnavailable
from storage.decisions import DecisionFilter, InvalidCursor

Page = tuple[list[Decision], str | None]
REPORT_THREADS = 4
REPORT_SECONDS = 5.0
PROBE_SECONDS = 1.5


class Reports(Protocol):
    """What the API asks of the database."""

    async def page(self, wanted: DecisionFilter) -> Page:
        """One page of decisions and the next cursor; raises ApiError."""

    async def ping(self) -> bool:
        """Whether the database answers, within the probe's time."""

    def close(self) -> None:
        """Ends what is running."""


class PostgresReports:
    """Reports from PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._database = Database(
            url, threads=REPORT_THREADS, timeout_seconds=REPORT_SECONDS, application_name="ais-api-reports"
        )
        self._probe = Database(url, threads=1, timeout_seconds=PROBE_SECONDS, application_name="ais-api-health")

    async def page(self, wanted: DecisionFilter) -> Page:
        def work(connection: Connection) -> Page:
            return decisions.page(connection, wanted)

        try:
            return await self._database.run(work)
        except InvalidCursor as error:
            raise InvalidRequest(("query", "cursor"), str(error)) from error
        except DatabaseUnavailable as error:
            raise ReportsUnavailable(error) from error

    async def ping(self) -> bool:
        return await self._probe.ping()

    def close(self) -> None:
        self._database.close()
        self._probe.close()
