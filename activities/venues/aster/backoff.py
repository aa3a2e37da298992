"""How long to leave the exchange alone after 429 or 418.

Going on after a 429 earns a ban of the whole address: two minutes at first, three days for who does not learn. So one
429 stops every call but the cancels, and of those each is let through once for each pause: a kill must be able to try.
"""

import time
from collections.abc import Callable
from datetime import timedelta

from activities.venues.port import VenueRateLimited

TOO_MANY_SECONDS = 10.0
TOO_MANY_MOST_SECONDS = 60.0
BANNED_SECONDS = 120.0
BANNED_MOST_SECONDS = 3600.0
_BANNED = 418


class Backoff:
    """The pause that holds, if one does. The exchange counts by address, so it holds for every tool."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0
        self._pause = 0.0
        self._next_pass: dict[str, float] = {}

    def refuse(self, call: str, lane: str | None = None) -> None:
        """Raises while a pause holds. A `lane`, one cancel and its reading back, passes once for each pause."""
        left = self._until - self._clock()
        if left > 0 and (lane is None or self._clock() < self._next_pass.get(lane, 0.0)):
            raise VenueRateLimited(call, timedelta(seconds=left))
        if left > 0 and lane is not None:
            self._next_pass[lane] = self._clock() + self._pause

    def told(self, call: str, status: int) -> VenueRateLimited:
        """The venue asked for a pause: each one is twice as long as the last, until a call gets through."""
        first, most = (
            (BANNED_SECONDS, BANNED_MOST_SECONDS) if status == _BANNED else (TOO_MANY_SECONDS, TOO_MANY_MOST_SECONDS)
        )
        # Several calls that were on their way together are told together: that is one request for a pause.
        if self._clock() >= self._until or first > self._pause:
            self._pause = max(self._pause, min(max(2 * self._pause, first), most))
            self._until = self._clock() + self._pause
        return VenueRateLimited(call, timedelta(seconds=self._until - self._clock()))

    def answered(self) -> None:
        """A call got through after the pause."""
        if self._pause and self._clock() >= self._until:
            self._pause = 0.0
            self._next_pass.clear()
