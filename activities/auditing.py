"""Maintains the audit chain: adds the entries that had to wait and kills that were never queued, and signs checkpoints.

A checkpoint is signed once a day, and after each kill and restart. It is sent as a notification too: only a copy kept elsewhere
proves anything against somebody who can write to the database. The auditor runs beside the activities, with its own connection;
no cycle, kill or shutdown waits for it.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import structlog
from sqlalchemy import Connection

from domain import notices as domain_notices
from domain.health.troubles import KnownTroubles
from storage import notices
from storage.audit import chain, checkpoints
from storage.audit.checkpoints import Checkpoint, CheckpointLookout, MadeCheckpoint, NotSigned
from storage.audit.late_kills import chain_late_kills
from storage.database import Database, DatabaseUnavailable
from storage.notices import Watched

ROUND_SECONDS = 5.0
# Counting a chain of many million rows takes a while.
DATABASE_SECONDS = 60.0

log = structlog.get_logger("audit")


class Auditor:
    """One desk's auditor. Without a key file it signs nothing. `channels` are those of `storage.notices.Watched`."""

    def __init__(self, desk: str, key_file: str | None, channels: Mapping[str, bool], database: Database) -> None:
        self._desk = desk
        self._key_file = Path(key_file) if key_file else None
        self._watched = Watched(desk, channels, may_tell_silence=False)
        self._database = database
        self._lookout = CheckpointLookout(desk)
        self._troubles = KnownTroubles()
        # Ids of kills that are in the chain already.
        self._chained: set[str] = set()

    @property
    def signed(self) -> Checkpoint | None:
        """The newest checkpoint signed with this key, for the watcher to compare with."""
        return self._lookout.newest

    async def run(self) -> NoReturn:
        """Round after round, until it is cancelled. A bug in it ends no worker: a kill needs one."""
        try:
            while True:
                await self._guarded_round()
                await asyncio.sleep(ROUND_SECONDS)
        finally:
            self._database.close()

    async def round(self) -> None:
        """Chains waiting entries and kills that were never queued, then makes a checkpoint if one is due."""
        await self._database.run(chain.append_waiting)
        self._chained |= await self._database.run(
            lambda connection: chain_late_kills(connection, self._desk, self._chained), DATABASE_SECONDS
        )
        if (key_file := self._key_file) is None:
            return
        made = await self._database.run(lambda connection: self._checkpoint(connection, key_file), DATABASE_SECONDS)
        if made is not None:
            self._lookout.made(made.checkpoint)
            log.info("audit checkpoint", chains=len(made.checkpoint.chains), at=made.checkpoint.at.isoformat())

    def _checkpoint(self, connection: Connection, key_file: Path) -> MadeCheckpoint | None:
        # Read here, in the database's thread: a file system that hangs then holds up only this thread.
        key = checkpoints.read_key(key_file)
        made = checkpoints.make_if_due(connection, key, self._lookout)
        if made is not None:
            notices.tell(connection, self._watched, [domain_notices.checkpoint(made.checkpoint.at, made.document)])
        return made

    async def _guarded_round(self) -> None:
        try:
            await self.round()
        except Exception as error:
            if not self._troubles.begin(text=f"{type(error).__name__}: {error}"):
                return
            if isinstance(error, NotSigned):
                log.error("no audit checkpoint is made: AIS_AUDIT_KEY cannot be used", why=str(error))
            elif isinstance(error, DatabaseUnavailable):
                log.warning("the audit chain is not maintained: the database is down", why=str(error))
            else:
                log.exception("maintaining the audit chain failed: a bug")
        else:
            if self._troubles.end():
                log.info("the audit chain is maintained again")
