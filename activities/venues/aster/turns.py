"""Turns at a server that runs only a fixed number of calls at once.

The official server runs its tools in forty threads. A call whose exchange does not answer keeps its thread for up to half a
minute after we have given it up. So the readings of a cycle may use only part of the threads, a kill's readings may use more,
and cancels wait for nobody. A call returns its turn when it has really ended, not when we stopped waiting for it.

A server of fastmcp 2 runs one call after another. Measured with calls of 200 ms: thirty-two cancels sent at once wait in
the server, are given up after three seconds, are still carried out, and are sent again. A kill of forty cancels took 80 s. So
calls wait here instead: the most urgent goes first, and a call whose time runs out is never sent.
"""

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from activities.venues.aster.operation import Urgency
from activities.venues.port import VenueNotSent

# By urgency: a call may begin while fewer calls than this are under way.
ONE_AT_A_TIME: Mapping[Urgency, int] = MappingProxyType(dict.fromkeys(Urgency, 1))
_NO_BOUND = 1_000_000
FORTY_THREADS: Mapping[Urgency, int] = MappingProxyType(
    {Urgency.UNDER_WAY: _NO_BOUND, Urgency.CANCEL: _NO_BOUND, Urgency.SOON: 36, Urgency.READING: 24}
)


class Turn:
    """One call's turn. It lasts until the call has really ended."""

    def __init__(self) -> None:
        self.running: asyncio.Future[Any] | None = None

    def lasts_as_long_as(self, running: asyncio.Future[Any]) -> None:
        """From now on the turn ends with this call, even if nobody waits for it any more."""
        self.running = running


class Turns:
    """Lets through as many calls at once as their urgency permits. Of the waiting calls the most urgent goes first, then
    the oldest.
    """

    def __init__(self, widths: Mapping[Urgency, int] = ONE_AT_A_TIME) -> None:
        self._widths = widths
        self._taken = 0
        self._order = itertools.count()
        self._waiting: list[tuple[Urgency, int, asyncio.Future[None]]] = []

    @property
    def taken(self) -> int:
        """The number of calls under way, including those that nobody waits for any more."""
        return self._taken

    @contextlib.asynccontextmanager
    async def turn(self, call: str, urgency: Urgency, seconds: float) -> AsyncIterator[Turn]:
        """Waits for a turn and holds it. Raises VenueNotSent if it does not come within `seconds`."""
        while self._waiting and self._waiting[0][2].done():
            heapq.heappop(self._waiting)
        # An earlier call that is at least as urgent goes first.
        is_behind = bool(self._waiting) and self._waiting[0][0] <= urgency
        if self._taken < self._widths[urgency] and not is_behind:
            self._taken += 1
        else:
            await self._wait(call, urgency, seconds)
        turn = Turn()
        try:
            yield turn
        finally:
            if turn.running is None or turn.running.done():
                self._hand_on()
            else:
                turn.running.add_done_callback(lambda _: self._hand_on())

    async def _wait(self, call: str, urgency: Urgency, seconds: float) -> None:
        mine = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._order), mine))
        try:
            done, _ = await asyncio.wait({mine}, timeout=seconds)
        except asyncio.CancelledError:
            if mine.done():
                self._hand_on()
            else:
                mine.cancel()
            raise
        if not done:
            mine.cancel()
            raise VenueNotSent(f"{call}: not sent: {self._taken} earlier calls are unanswered, and others are ahead")

    def _hand_on(self) -> None:
        self._taken -= 1
        while self._waiting:
            urgency, _, next_one = self._waiting[0]
            if not next_one.done() and self._taken >= self._widths[urgency]:
                return
            heapq.heappop(self._waiting)
            if not next_one.done():
                self._taken += 1
                next_one.set_result(None)
