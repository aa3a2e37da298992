"""Checks, before a worker takes its first activity, whether it belongs to the desk. It asks the coordinator.

A worker with another database stands by: it takes no work from a worker that can serve the desk, and exits once it has seen that
there is one. If nobody serves the desk's own database, it goes on: that database may be lost, and a kill's cancels need none. No
clock is compared with another, and nothing here waits for a database.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from activities.calls import Scope
from activities.scope import account_text, other_account
from domain.desk.states import Mode
from domain.desk.status import Status
from storage.installation import wrong_database_text

POLL_SECONDS = 0.5
# Longer than a cancel at a slow venue: a worker that is trying one is not away.
STUCK_SECONDS = 5.0
LONGEST_SECONDS = 300.0

StatusQuery = Callable[[], Awaitable[Status | None]]
"""The coordinator's status; None if nobody answers in time."""


def somebody_else(found: str, wanted: str | None) -> str:
    """Why a worker with another database than the desk's exits."""
    return f"{wrong_database_text(found, wanted)}. Another worker serves the desk's database, so this one exits"


class Standby:
    """One worker's check. `say` tells people that it waits, and why."""

    def __init__(self, mine: Scope, ask: StatusQuery, say: Callable[[str], object]) -> None:
        self._mine = mine
        self._ask = ask
        self._say = say

    async def refusal(self) -> str | None:
        """Why this worker must exit; None once it may take activities."""
        status = await self._ask()
        if status is None or status.mode is not self._mine.mode:
            # Another mode has another queue: none of this coordinator's activities arrive there.
            return None
        asked = Scope(desk=status.desk, mode=status.mode, account=status.account)
        if other_account(self._mine, asked):
            return account_text(self._mine, asked)
        return await self._stand_by(status) if self._has_other_database(status) else None

    def _has_other_database(self, status: Status) -> bool:
        return None not in (self._mine.database_id, status.database_id) and (
            status.database_id != self._mine.database_id
        )

    async def _stand_by(self, first: Status) -> str | None:
        """Waits for about two cycles: a worker that serves the desk's own database shows itself within that time."""
        why = wrong_database_text(self._mine.database_id, first.database_id)
        self._say(f"{why}. Standing by, to see whether another worker serves the desk's database")
        started, waiting_since = time.monotonic(), time.monotonic()
        waiting = _waiting(first)
        while time.monotonic() - started < min(2 * first.cycle_seconds + STUCK_SECONDS, LONGEST_SECONDS):
            await asyncio.sleep(POLL_SECONDS)
            status = await self._ask()
            if status is None or not self._has_other_database(status):
                return None
            if status.database_seen_at != first.database_seen_at:
                return somebody_else(self._mine.database_id or "", first.database_id)
            if not (waiting := waiting & _waiting(status)):
                waiting, waiting_since = _waiting(status), time.monotonic()
            # Cancels are waiting and nobody tries them, so this worker must. Not on paper: that account is in its database.
            if waiting and self._mine.mode is not Mode.PAPER and time.monotonic() - waiting_since > STUCK_SECONDS:
                return None
        return None


def _waiting(status: Status) -> set[tuple[str, int]]:
    return {(i.instruction_id, i.attempts) for i in status.open_instructions}
