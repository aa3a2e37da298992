"""Who is connected, whom to turn away for a newcomer, and a count of all that were turned away.

Dawdling connections make room first: those with half a request, or with a request answered without a key and nothing since. Then
goes the oldest of the others, then one that has shown a key and is idle. A kill arrives in one piece, so it never dawdles. When
simply the oldest had to go, 1,100 strangers that reconnected at once pushed out a kill before it was read (measured). Each
connection turned away is counted; the log gets one line per reason in ten seconds.
"""

import asyncio
from collections import Counter
from enum import StrEnum
from typing import Any, Protocol

import structlog

from api.metrics import ApiMetrics

LOG_SECONDS = 10.0
# The key of the `Connections` in the server's state.
STATE_KEY = "doorkeeper"

log: Any = structlog.get_logger("api")


class CloseReason(StrEnum):
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
        """Whether none of its requests is being answered."""

    def make_room(self) -> None:
        """Closes it at once."""


class Connections:
    """The connections of one process, at most `limit`. Entering and leaving cost the same however many there are.

    Each connection is in one of three ordered sets (`_new`, `_dawdling`, `_known`), in the order in which it got there.
    """

    def __init__(self, limit: int, instruments: ApiMetrics) -> None:
        self._limit = limit
        self._instruments = instruments
        self._new: dict[Visitor, None] = {}
        self._dawdling: dict[Visitor, None] = {}
        self._known: dict[Visitor, None] = {}
        self._untold: Counter[CloseReason] = Counter()
        self._quiet: set[CloseReason] = set()

    def enter(self, visitor: Visitor) -> None:
        """Admits a newcomer, and closes another connection if there are too many."""
        self._new[visitor] = None
        if self.open > self._limit:
            leaving = self._who_leaves(visitor)
            self.leave(leaving)
            self.count(CloseReason.ROOM)
            leaving.make_room()

    def leave(self, visitor: Visitor) -> None:
        """Forgets a connection that is closed."""
        for place in (self._new, self._dawdling, self._known):
            place.pop(visitor, None)

    def asks(self, visitor: Visitor) -> None:
        """Its request is complete."""
        if visitor in self._dawdling:
            self._new[visitor] = self._dawdling.pop(visitor)

    def dawdles(self, visitor: Visitor) -> None:
        """Its request is incomplete, or was answered without a key."""
        if visitor in self._new:
            place = self._known if visitor.has_shown_a_key else self._dawdling
            place[visitor] = self._new.pop(visitor)

    def _who_leaves(self, newcomer: Visitor) -> Visitor:
        if self._dawdling:
            return next(iter(self._dawdling))
        while (oldest := next(iter(self._new))).has_shown_a_key:
            # This happens once in the life of a connection.
            self._known[oldest] = self._new.pop(oldest)
        if oldest is not newcomer:
            return oldest
        return next((visitor for visitor in self._known if visitor.is_idle), newcomer)

    def count(self, reason: CloseReason) -> None:
        """Counts a connection turned away, and has it logged."""
        self._instruments.turned_away(reason.value)
        self._untold[reason] += 1
        if reason not in self._quiet:
            self._quiet.add(reason)
            self._tell(reason)

    def _tell(self, reason: CloseReason) -> None:
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
