"""Looks after the audit chain: chains what had to wait, or could not even do that, and signs a checkpoint a day, and one after
each kill and restart.

It runs beside the activities, with its own connection; no cycle, kill or shutdown waits for it. A checkpoint goes to the
notifications too: only a copy that lies elsewhere proves anything against somebody who may write the database.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import structlog
from sqlalchemy import Connection

from domain import notices as domain_notices
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
    """Of one desk. Without a key file it signs nothing. `channels` as `storage.notices.Watched` has them."""

    def __init__(self, desk: str, key_file: str | None, channels: Mapping[str, bool], database: Database) -> None:
        self._desk = desk
        self._key_file = Path(key_file) if key_file else None
        self._watched = Watched(desk, channels, may_tell_silence=False)
        self._database = database
        self._lookout = CheckpointLookout(desk)
        self._trouble: str | None = None
        # Kills that the chain has.
        self._chained: set[str] = set()

    @property
    def signed(self) -> Checkpoint | None:
        """The newest checkpoint of this key, for whoever compares with it."""
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
        """Chains what waits, and kills that could not even wait; and makes a checkpoint if one is due."""
        await self._database.run(chain.append_waiting)
        self._chained |= await self._database.run(self._late_kills, DATABASE_SECONDS)
        if (key_file := self._key_file) is None:
            return
        made = await self._database.run(lambda connection: self._checkpoint(connection, key_file), DATABASE_SECONDS)
        if made is not None:
            self._lookout.made(made.checkpoint)
            log.info("audit checkpoint", chains=len(made.checkpoint.chains), at=made.checkpoint.at.isoformat())

    def _late_kills(self, connection: Connection) -> set[str]:
        return chain_late_kills(connection, self._desk, self._chained)

    def _checkpoint(self, connection: Connection, key_file: Path) -> MadeCheckpoint | None:
        # Here and not before: a file system may hang, and then holds up this one thread.
        key = checkpoints.read_key(key_file)
        made = checkpoints.make_if_due(connection, key, self._lookout)
        if made is not None:
            notices.tell(connection, self._watched, [domain_notices.checkpoint(made.checkpoint.at, made.document)])
        return made

    async def _guarded_round(self) -> None:
        """Each trouble stands in the log once."""
        try:
            await self.round()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if text == self._trouble:
                return
            self._trouble = text
            if isinstance(error, NotSigned):
                log.error("no audit checkpoint is made: AIS_AUDIT_KEY cannot be used", why=str(error))
            elif isinstance(error, DatabaseUnavailable):
                log.warning("the audit chain is not looked after: the database is away", why=str(error))
            else:
                log.exception("looking after the audit chain failed: a bug")
        else:
            self._trouble = None
