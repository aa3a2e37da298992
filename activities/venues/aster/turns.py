"""Turns at a server that runs one call after another.

Measured against such a one, with calls of 200 ms: thirty-two cancels sent at once wait in the server, are given up after
three seconds, are carried out all the same, and are sent again; a kill of forty took 80 s. So calls wait here instead, where
the most urgent one goes first and one that runs out of time was never sent.
"""

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator
from enum import IntEnum

from activities.venues.port import VenueNotSent


class Urgency(IntEnum):
    """What goes first: the end of what has begun, then cancels, then readings."""

    UNDER_WAY = 0
    CANCEL = 1
    READING = 2


class Turns:
    """Lets one call through at a time; of those that wait, the most urgent, and then whoever came first."""

    def __init__(self) -> None:
        self._taken = False
        self._order = itertools.count()
        self._waiting: list[tuple[Urgency, int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def turn(self, call: str, urgency: Urgency, seconds: float) -> AsyncIterator[None]:
        """Holds the turn. Raises VenueNotSent where it does not come within `seconds`."""
        if self._taken:
            await self._wait(call, urgency, seconds)
        self._taken = True
        try:
            yield
        finally:
            self._hand_on()

    async def _wait(self, call: str, urgency: Urgency, seconds: float) -> None:
        mine = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._order), mine))
        try:
            done, _ = await asyncio.wait({mine}, timeout=seconds)
        except asyncio.CancelledError:
            self._leave(mine)
            raise
        if not done:
            mine.cancel()
            raise VenueNotSent(f"{call}: not sent: the MCP server runs one call at a time, and others were first")

    def _leave(self, mine: asyncio.Future[None]) -> None:
        if mine.done():
            self._hand_on()
        else:
            mine.cancel()

    def _hand_on(self) -> None:
        self._taken = False
        while self._waiting:
            _, _, next_one = heapq.heappop(self._waiting)
            if not next_one.done():
                self._taken = True
                next_one.set_result(None)
                return
