"""Who is connected, whom to send away for a newcomer, and a count of everybody who was sent away.

Strangers are connections that have shown no key. The oldest of them makes room: whoever just came with a kill is the
last to go. What is sent away is counted one by one, and logged at most once in ten seconds a reason.
"""

import asyncio
from collections import Counter
from enum import StrEnum
from typing import Any, Protocol

import structlog

from api.metrics import Instruments

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


class Doorkeeper:
    """The connections of one process, at most `limit`. Coming and going cost the same however many there are."""

    def __init__(self, limit: int, instruments: Instruments) -> None:
        self._limit = limit
        self._instruments = instruments
        # Ordered by arrival.
        self._strangers: dict[Visitor, None] = {}
        self._known: dict[Visitor, None] = {}
        self._untold: Counter[Reason] = Counter()
        self._quiet: set[Reason] = set()

    def enter(self, visitor: Visitor) -> None:
        """Takes a newcomer in, and has somebody else leave where there are too many."""
        self._strangers[visitor] = None
        if len(self._strangers) + len(self._known) > self._limit:
            leaving = self._who_leaves(visitor)
            self.leave(leaving)
            self.count(Reason.ROOM)
            leaving.make_room()

    def leave(self, visitor: Visitor) -> None:
        """Forgets a connection that is closed."""
        self._strangers.pop(visitor, None)
        self._known.pop(visitor, None)

    def _who_leaves(self, newcomer: Visitor) -> Visitor:
        """The oldest stranger; else whoever holds a key and is idle; else the newcomer itself."""
        while (oldest := next(iter(self._strangers))).has_shown_a_key:
            # Each connection is moved once in its life.
            self._known[oldest] = self._strangers.pop(oldest)
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
        return len(self._strangers) + len(self._known)
