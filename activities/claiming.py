"""Checks, before a live worker takes its first activity, that the account belongs to its desk.

A worker of a second desk exits and names the first. There are two exceptions. If its desk is killed, it stays: it will not
trade, and the kill's cancels need a worker. If the database does not answer, it stays as well: an unreadable claim is no
reason to refuse.
"""

from collections.abc import Callable
from typing import Protocol

import structlog
from sqlalchemy import Connection

from activities.standby import StatusQuery
from domain.desk.states import State
from storage import claims
from storage.claims import AccountKey, Claim
from storage.database import Database, DatabaseUnavailable
from storage.desks import read_desk

log = structlog.get_logger("worker")

ASKED = 3
CLAIM_SECONDS = 2.0


class StartCheck(Protocol):
    """A check that may say that this worker must exit."""

    async def refusal(self) -> str | None:
        """Why it must exit; None if it may stay."""


class ClaimCheck:
    """Runs the check `first`, then checks whose the account is. `say` reports the result to people."""

    def __init__(
        self,
        first: StartCheck,
        database: Database,
        desk: str,
        key: AccountKey,
        ask: StatusQuery,
        say: Callable[[str], object],
    ) -> None:
        self._first = first
        self._database = database
        self._desk = desk
        self._key = key
        self._ask = ask
        self._say = say

    async def refusal(self) -> str | None:
        """Why this worker must exit; None once it may take activities."""
        if why := await self._first.refusal():
            return why

        def work(connection: Connection) -> tuple[Claim | None, bool]:
            desk = read_desk(connection, self._desk)
            return claims.holder(connection, self._key), desk is not None and desk.killed

        try:
            claim, killed = await self._database.run(work, CLAIM_SECONDS)
        except Exception as error:
            # A row that cannot be read is no reason to refuse either: a kill needs a worker.
            if not isinstance(error, DatabaseUnavailable):
                log.exception("the claim or the desk's row cannot be read: a bug, or somebody has changed the tables")
            return None
        if claim is None or claim.desk == self._desk:
            return None
        why = claims.held_text(self._desk, claim)
        if not killed and not await self._coordinator_is_killed():
            return why
        self._say(f"serving a killed desk on another's account; it takes no new risk: {why}")
        return None

    async def _coordinator_is_killed(self) -> bool:
        """Whether the coordinator says killed: its kill may not have reached the database."""
        for _ in range(ASKED):
            if (status := await self._ask()) is not None:
                return status.state is State.KILLED
        return False
