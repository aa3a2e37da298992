"""Which database is the desk's, as the coordinator last said: reports of another are never shown as the desk's.

Asked at most once in a while, and for a second: reports are there while Temporal or the worker is away.
"""

import time

from api.desk import Desk
from workflows.gateway import GatewayError

ASK_EVERY_SECONDS = 5.0
ASK_SECONDS = 1.0


class Belonging:
    """What this process knows of the desk's own database; None where nobody has said."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._asked_at: float | None = None
        self._database_id: str | None = None

    async def database_id(self) -> str | None:
        """The id, which may be some seconds old."""
        if self._asked_at is None or time.monotonic() - self._asked_at > ASK_EVERY_SECONDS:
            await self.ask()
        return self._database_id

    async def ask(self) -> str | None:
        """The id as the coordinator says it now, or as it last did."""
        self._asked_at = time.monotonic()
        try:
            self._database_id = (await self._desk.read(seconds=ASK_SECONDS)).status.database_id
        except GatewayError:
            pass
        return self._database_id
