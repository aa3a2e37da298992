"""Health: every probe is real, all run at once, two seconds at most.

Whoever asks while a round of probes runs shares it: the path is public, and a flood of askers must not become a flood
of calls on Temporal and the database.
"""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from api.desk import Desk
from api.models import HealthAnswer
from api.reporting import Reports
from domain.status import Status
from workflows.gateway import GatewayError

PROBE_SECONDS = 1.8
FRESH_CYCLES = 3
T = TypeVar("T")


class Expected(NamedTuple):
    """What this process is configured for; a coordinator that differs is degraded."""

    desk: str
    mode: str
    symbols: tuple[str, ...]

    def matches(self, status: Status) -> bool:
        """Whether the coordinator runs the same."""
        return (status.desk, status.mode.value, tuple(status.symbols)) == self


class Health:
    """The probes of one API process."""

    def __init__(self, desk: Desk, reports: Reports, expected: Expected) -> None:
        self._desk = desk
        self._reports = reports
        self._expected = expected
        self._round: asyncio.Task[HealthAnswer] | None = None

    async def check(self) -> HealthAnswer:
        """The findings of the round that runs, or of a new one."""
        if self._round is None:
            self._round = asyncio.create_task(self._probe())
            self._round.add_done_callback(self._finish)
        return await asyncio.shield(self._round)

    def _finish(self, _: object) -> None:
        self._round = None

    async def _probe(self) -> HealthAnswer:
        temporal, status, database, database_id = await asyncio.gather(
            bounded(self._temporal(), False),
            self.status(),
            bounded(self._reports.ping(), False),
            bounded(self._reports.database_id(), None),
        )
        aster = status is not None and is_fresh(status, datetime.now(UTC))
        # An answer of the coordinator came through Temporal, whatever became of the probe of its own.
        temporal = temporal or status is not None
        fine = aster and database and temporal and status is not None and self._expected.matches(status)
        if status is not None and None not in (database_id, status.database_id):
            fine = fine and database_id == status.database_id
        return HealthAnswer(
            status="ok" if fine else "degraded",
            aster_connected=aster,
            db_connected=database,
            # AIS has no Redis yet; this alone does not degrade.
            redis_connected=False,
            temporal_connected=temporal,
        )

    async def status(self) -> Status | None:
        """The coordinator's status; None where nobody answers in the probe's time."""
        try:
            return (await self._desk.read(seconds=PROBE_SECONDS)).status
        except GatewayError:
            return None

    async def _temporal(self) -> bool:
        await self._desk.gateway.open_status()
        return True


async def bounded(probe: Awaitable[T], otherwise: T) -> T:
    """What the probe says within its time, or `otherwise`."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await probe
    except (TimeoutError, GatewayError):
        return otherwise


def is_fresh(status: Status, now: datetime) -> bool:
    """Whether the last successful observation is younger than three cycles."""
    if status.observation is None:
        return False
    return (now - status.observation.observed_at).total_seconds() < FRESH_CYCLES * status.cycle_seconds
