"""Watches the audit chain: verifies new and old rows, bit by bit, and reports faults (`storage.audit.watching`).

It runs beside the activities, on the auditor's connection, and nothing waits for it. It changes only its own notes. A broken
chain stops no desk, since trading does not depend on it, but people are notified. While the database is down, nothing new is
known, and a fault found before stays reported.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import structlog

from activities.metrics import WorkerMetrics
from domain import notices as domain_notices
from domain.audit import NO_DESK
from domain.health.troubles import KnownTroubles
from storage import notices
from storage.audit import watching
from storage.audit.checkpoints import Checkpoint
from storage.audit.watching import Pace, StandingFault
from storage.database import Database, DatabaseUnavailable
from storage.notices import Watched

ROUND_SECONDS = 5.0
# Longer than the work of a round: a slow database needs longer for one statement.
DATABASE_SECONDS = 20.0

log: Any = structlog.get_logger("audit")


class ChainWatcher:
    """One worker's watcher. It verifies whichever chain is due; its metrics show its own desk's chain and that of the keys."""

    def __init__(
        self,
        desk: str,
        database: Database,
        metrics: WorkerMetrics,
        channels: Mapping[str, bool],
        signed: Callable[[], Checkpoint | None],
        pace: Pace | None = None,
    ) -> None:
        self._desk, self._database, self._metrics, self._signed = desk, database, metrics, signed
        self._pace = pace or Pace()
        self._watched = Watched(desk, channels, may_tell_silence=False)
        self._standing: list[StandingFault] = []
        # Desks whose faults this worker notifies people of: its own, and any in whose chain it found a fault itself.
        self._mine = {desk}
        self._told: set[str] = set()
        self._troubles = KnownTroubles()

    async def run(self) -> NoReturn:
        """Round after round, until it is cancelled. A bug in it ends no worker: a kill needs one."""
        while True:
            await self._guarded_round()
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> None:
        """Verifies a stretch if it is this process's turn, then reports all known faults, whoever found them."""
        signed, pace, shown = self._signed(), self._pace, (self._desk, NO_DESK)
        done = await self._database.run(lambda c: watching.watch(c, signed, pace), DATABASE_SECONDS)
        standing, ages = await self._database.run(lambda c: (watching.faults(c), watching.ages(c, shown)))
        self._metrics.audit_verified(done.rows, ages)
        self._take(standing, shown=ages)
        self._mine |= done.found
        # People are notified once of each fault.
        mine = [each for each in standing if each.fault.desk in self._mine]
        found = [domain_notices.audit_broken(each.fault, each.at) for each in mine]
        if new := [notice for notice in found if notice.event_id not in self._told]:
            await self._database.run(lambda c: notices.tell(c, self._watched, new))
        self._told = {notice.event_id for notice in found}

    def _take(self, standing: list[StandingFault], shown: Iterable[str]) -> None:
        known = {(each.fault.desk, each.at) for each in self._standing}
        for fault in (each.fault for each in standing if (each.fault.desk, each.at) not in known):
            log.error(
                "the audit chain is BROKEN", desk=fault.desk, kind=fault.kind.value, row=fault.seq, what=fault.what
            )
        was_broken, is_broken = _desks(self._standing), _desks(standing)
        for desk in was_broken - is_broken:
            log.warning("the audit chain is whole again, or a person has accepted its fault", desk=desk)
        self._metrics.audit_looked_at((), {*shown, *was_broken} - is_broken)
        self._standing = standing

    async def _guarded_round(self) -> None:
        try:
            await self.round()
        except Exception as error:
            if self._troubles.begin(text=f"{type(error).__name__}: {error}"):
                if isinstance(error, DatabaseUnavailable):
                    log.warning("the audit chain is not verified at the moment", why=str(error))
                else:
                    log.exception("verifying the audit chain failed: a bug")
        else:
            if self._troubles.end():
                log.info("the audit chain is verified again")
        finally:
            # A fault stays on the gauge while nobody can look: it is not over.
            self._metrics.audit_looked_at(_desks(self._standing), ())


def _desks(standing: Iterable[StandingFault]) -> set[str]:
    return {each.fault.desk for each in standing}
