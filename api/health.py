"""Health: every probe is real; all run at once, for two seconds at most.

Requests that arrive during a round of probes share it: the path is public, and a flood of requests must not become a flood of
calls to Temporal and the database.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

from api.coordinator import CoordinatorClient
from api.models import HealthAnswer
from api.redis_probe import RedisProbe
from api.reporting import Reports
from domain.desk.status import Status
from domain.health.disks import low
from domain.health.troubles import KnownTroubles
from storage.disks import DiskWatch
from workflows.gateway import GatewayError

PROBE_SECONDS = 1.8
FRESH_CYCLES = 3
T = TypeVar("T")

log: Any = structlog.get_logger("api")


class SharedRound(Generic[T]):
    """One round of work at a time: whoever asks while it runs shares its result. So a flood of requests on a public path costs
    what one of them costs."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._round: asyncio.Task[T] | None = None

    async def result(self) -> T:
        """The result of the current round, or of a new one."""
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._work())
        return await asyncio.shield(self._round)


class ExpectedDesk(NamedTuple):
    """The desk that this process is configured for. If the coordinator's differs, health is degraded."""

    desk: str
    mode: str
    symbols: tuple[str, ...]

    def matches(self, status: Status) -> bool:
        """Whether the coordinator runs the same."""
        return (status.desk, status.mode.value, tuple(status.symbols)) == self


class Health:
    """The probes of one API process."""

    def __init__(
        self, desk: CoordinatorClient, reports: Reports, expected: ExpectedDesk, disks: DiskWatch, redis: RedisProbe
    ) -> None:
        self._desk = desk
        self._reports = reports
        self._expected = expected
        self._disks = disks
        self._redis = redis
        # The rights that the role of this process lacked in the last round.
        self.missing_rights: list[str] = []
        self._troubles = KnownTroubles()
        self._round = SharedRound(self._probe)

    async def check(self) -> HealthAnswer:
        """The findings of the current round of probes, or of a new one."""
        return await self._round.result()

    async def _probe(self) -> HealthAnswer:
        temporal, status, (database, rights), database_id, space, redis = await asyncio.gather(
            bounded(self._temporal(), False),
            self.status(),
            asyncio.gather(bounded(self._reports.can_write(), False), self._lacking_rights()),
            bounded(self._reports.database_id(), None),
            self._has_space(),
            bounded(self._redis.connected(), False),
        )
        aster = status is not None and is_fresh(status, datetime.now(UTC))
        # An answer of the coordinator came through Temporal, whatever Temporal's own probe found.
        temporal = temporal or status is not None
        fine = aster and database and temporal and space and not rights and self._agrees(status, database_id)
        return HealthAnswer(
            status="ok" if fine else "degraded",
            aster_connected=aster,
            db_connected=database,
            # Redis alone does not degrade health: AIS reads nothing from it.
            redis_connected=redis,
            temporal_connected=temporal,
        )

    def _agrees(self, status: Status | None, database_id: str | None) -> bool:
        """Whether the coordinator runs what this process is configured for, on the same database if both ids are known."""
        if status is None or not self._expected.matches(status):
            return False
        return None in (database_id, status.database_id) or database_id == status.database_id

    async def _lacking_rights(self) -> list[str]:
        """The rights that the database's role lacks; logs each change."""
        self.missing_rights = lacking = await bounded(self._reports.missing_rights(), list[str]())
        if not lacking:
            self._troubles.end("rights")
        elif self._troubles.begin("rights", ", ".join(lacking)):
            log.warning("the database's role lacks rights: `ais migrate --grant` gives them", missing=lacking)
        return lacking

    async def status(self) -> Status | None:
        """The coordinator's status; None if nobody answers in time."""
        try:
            return (await self._desk.read(seconds=PROBE_SECONDS)).status
        except GatewayError:
            return None

    async def _has_space(self) -> bool:
        """Whether no watched folder is low on space; logs each change."""
        found = await bounded(self._disks.look(), None)
        if found is None:
            return False
        little = low(found)
        if not little:
            self._troubles.end("disks")
        elif self._troubles.begin("disks", ", ".join(disk.folder for disk in little)):
            log.warning("little disk space", disks=[disk.text for disk in little])
        return not little

    async def _temporal(self) -> bool:
        await self._desk.gateway.open_status()
        return True


async def bounded(probe: Awaitable[T], otherwise: T) -> T:
    """The probe's result, or `otherwise` if it fails or takes too long."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await probe
    except (TimeoutError, GatewayError):
        return otherwise


def is_fresh(status: Status, now: datetime) -> bool:
    """Whether the last successful observation is younger than three cycles.

    One that is further ahead than that is not known to be: one of the two clocks is wrong.
    """
    if status.observation is None:
        return False
    return abs((now - status.observation.observed_at).total_seconds()) < FRESH_CYCLES * status.cycle_seconds
