"""Before a live worker takes its first activity: whether the account is its desk's.

A worker of a second desk leaves, and names the first. Not where its desk is killed: then there is nothing to trade, and the
cancels of that kill need a worker. Nor where the database does not answer: a claim that nobody can read refuses nobody.
"""

from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Connection

from activities.standby import Ask
from domain.states import State
from storage import claims
from storage.claims import AccountKey, Claim
from storage.database import Database, DatabaseUnavailable
from storage.desks import read_desk

ASKED = 3
CLAIM_SECONDS = 2.0


class Refusing(Protocol):
    """Somebody who may say that this worker must leave."""

    async def refusal(self) -> str | None:
        """Why; None where it may stay."""


class ClaimCheck:
    """Asks `first`, and then whose the account is. `say` tells people what was found."""

    def __init__(
        self, first: Refusing, database: Database, desk: str, key: AccountKey, ask: Ask, say: Callable[[str], object]
    ) -> None:
        self._first = first
        self._database = database
        self._desk = desk
        self._key = key
        self._ask = ask
        self._say = say

    async def refusal(self) -> str | None:
        """Why this worker must leave; None once it may take activities."""
        if why := await self._first.refusal():
            return why
        claim, killed = await self._look()
        if claim is None or claim.desk == self._desk:
            return None
        told = claims.held_text(self._desk, claim)
        if killed or await self._is_killed():
            self._say(f"serving a killed desk on another's account; it takes no new risk: {told}")
            return None
        return told

    async def _look(self) -> tuple[Claim | None, bool]:
        def work(connection: Connection) -> tuple[Claim | None, bool]:
            desk = read_desk(connection, self._desk)
            return claims.holder(connection, self._key), desk is not None and desk.killed

        try:
            return await self._database.run(work, CLAIM_SECONDS)
        except DatabaseUnavailable:
            return None, False

    async def _is_killed(self) -> bool:
        """By the coordinator, whose kill may not have reached the database."""
        for _ in range(ASKED):
            if (status := await self._ask()) is not None:
                return status.state is State.KILLED
        return False
