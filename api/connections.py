"""Who is connected, whom to send away for a newcomer, and a count of everybody who was sent away.

Whoever dawdles makes room first: half a request, or one answered without a key, and nothing since. Then the oldest of
the others, then who has shown a key and is idle. A kill comes in one piece and so never dawdles: measured, 1,100 strangers
who came again as soon as they were sent away took the place of a kill before it was read, when simply the oldest went.
What is sent away is counted one by one, and logged at most once in ten seconds a reason.
"""

import asyncio
from collections import Counter
from enum import StrEnum
from typing import Any, Protocol

import structlog

from api.metrics import ApiMetrics

LOG_SECONDS = 10.0
# Where the server's state has it, from the application's start on.
STATE_KEY = "doorkeeper"

log: Any = structlog.get_logger("api")


class Reason(StrEnum):
    """Why a connection was closed before its client wanted it."""

    HEAD_TIME = "head_too_slow"
    BODY_TIME = "body_too_slow"
    UNREAD = "answer_not_read"
    ROOM = "no_room"
    BROKEN = "not_http"
    MENDED = "kill_mended"


class Visitor(Protocol):
    """One connection."""

    @property
    def has_shown_a_key(self) -> bool:
        """Whether one of its requests was authenticated."""

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""

    def make_room(self) -> None:
        """Closes it at once."""


class Connections:
    """The connections of one process, at most `limit`. Coming and going cost the same however many there are.

    The three are ordered by when their connections came to stand there; each connection stands in one.
    """

    def __init__(self, limit: int, instruments: ApiMetrics) -> None:
        self._limit = limit
        self._instruments = instruments
        self._new: dict[Visitor, None] = {}
        self._dawdling: dict[Visitor, None] = {}
        self._known: dict[Visitor, None] = {}
        self._untold: Counter[Reason] = Counter()
        self._quiet: set[Reason] = set()

    def enter(self, visitor: Visitor) -> None:
        """Takes a newcomer in, and has somebody else leave where there are too many."""
        self._new[visitor] = None
        if self.open > self._limit:
            leaving = self._who_leaves(visitor)
            self.leave(leaving)
            self.count(Reason.ROOM)
            leaving.make_room()

    def leave(self, visitor: Visitor) -> None:
        """Forgets a connection that is closed."""
        for place in (self._new, self._dawdling, self._known):
            place.pop(visitor, None)

    def asks(self, visitor: Visitor) -> None:
        """Its request is whole."""
        if visitor in self._dawdling:
            self._new[visitor] = self._dawdling.pop(visitor)

    def dawdles(self, visitor: Visitor) -> None:
        """Its request is not whole, or answered without a key."""
        if visitor in self._new:
            place = self._known if visitor.has_shown_a_key else self._dawdling
            place[visitor] = self._new.pop(visitor)

    def _who_leaves(self, newcomer: Visitor) -> Visitor:
        if self._dawdling:
            return next(iter(self._dawdling))
        while (oldest := next(iter(self._new))).has_shown_a_key:
            # Each connection comes this way once in its life.
            self._known[oldest] = self._new.pop(oldest)
        if oldest is not newcomer:
            return oldest
        return next((visitor for visitor in self._known if visitor.is_idle), newcomer)

    def count(self, reason: Reason) -> None:
        """Counts one, and sees to it that the log tells of it."""
        self._instruments.turned_away(reason.value)
        self._untold[reason] += 1
        if reason not in self._quiet:
            self._quiet.add(reason)
            self._tell(reason)

    def _tell(self, reason: Reason) -> None:
        number = self._untold.pop(reason, 0)
        if not number:
            self._quiet.discard(reason)
            return
        log.warning("connections turned away", reason=reason.value, count=number, open=self.open)
        asyncio.get_running_loop().call_later(LOG_SECONDS, self._tell, reason)

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._new) + len(self._dawdling) + len(self._known)
