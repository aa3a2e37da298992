"""Keeps room for cancels in a server whose calls hang.

The official server runs its tools in forty threads, and one that waits for an exchange that does not answer keeps its
thread for half a minute after we gave the call up. A few cycles of readings fill all forty, and a kill's cancels would queue
behind them. So a part of the threads is never asked for by anything but cancels.
"""

import time
from collections import deque
from collections.abc import Callable

from activities.venues.port import VenueUnavailable

MOST_OWED = 24
OWED_SECONDS = 30.0


class Room:
    """Counts the calls that were given up and may still be running over there."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._owed: deque[float] = deque()

    def given_up(self) -> None:
        """A call ended without an answer."""
        self._owed.append(self._clock())

    def refuse(self, call: str) -> None:
        """Raises while too many answers are owed."""
        while self._owed and self._owed[0] <= self._clock() - OWED_SECONDS:
            self._owed.popleft()
        if len(self._owed) >= MOST_OWED:
            raise VenueUnavailable(
                f"{call}: not sent: {len(self._owed)} earlier calls are unanswered, and the rest of the room is kept for cancels"
            )
