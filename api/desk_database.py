"""Which database is the desk's, and in which mode it is, as the coordinator last said: reports from another database or account
are never shown as the desk's.

The coordinator is asked only every few seconds, for a second at most: reports must work while Temporal or the worker is down.
"""

import time

from api.coordinator import CoordinatorClient
from domain.desk.states import Mode
from workflows.gateway import GatewayError

ASK_EVERY_SECONDS = 5.0
ASK_SECONDS = 1.0


class DeskDatabase:
    """What this process knows about the desk's own database; None until the coordinator has reported it."""

    def __init__(self, desk: CoordinatorClient) -> None:
        self._desk = desk
        self._asked_at: float | None = None
        self._database_id: str | None = None
        self.mode: Mode | None = None
        """The desk's mode as the coordinator last reported it; None until it has."""

    async def database_id(self) -> str | None:
        """The id, which may be some seconds old."""
        if self._asked_at is None or time.monotonic() - self._asked_at > ASK_EVERY_SECONDS:
            await self.ask()
        return self._database_id

    async def ask(self) -> str | None:
        """Asks the coordinator for the id; the last known one if it does not answer."""
        self._asked_at = time.monotonic()
        try:
            status = (await self._desk.read(seconds=ASK_SECONDS)).status
            self._database_id, self.mode = status.database_id, status.mode
        except GatewayError:
            pass
        return self._database_id
