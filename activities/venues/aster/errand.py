"""What a call is for: how urgent it is, and until when its answer is of any use to whoever waits.

Sixty symbols take a hundred and twenty calls. Once one of them fails, the reading as a whole has failed, and what still waits
for its turn must not be sent: it would take the turns of the next reading, which then fails as well.
"""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from enum import IntEnum


class Urgency(IntEnum):
    """What goes first: the end of what has begun, then cancels, then what a kill, a limit or a reduction waits for, then
    the readings of a cycle.
    """

    UNDER_WAY = 0
    CANCEL = 1
    SOON = 2
    READING = 3


class Errand:
    """One operation and all of its calls. `until` is a monotonic time, None where nothing bounds it."""

    def __init__(self, urgency: Urgency, until: float | None = None) -> None:
        self.urgency = urgency
        self.until = until
        self.is_over = False

    def left(self, seconds: float) -> float:
        """At most `seconds`, or what the errand still has; 0 once it is over."""
        if self.is_over:
            return 0.0
        return seconds if self.until is None else max(0.0, min(seconds, self.until - time.monotonic()))


_ERRAND: ContextVar[Errand | None] = ContextVar("errand", default=None)
_READING = Errand(Urgency.READING)


def current() -> Errand:
    """The errand that this task is on; a reading that nothing bounds where nobody named one."""
    return _ERRAND.get() or _READING


@contextlib.contextmanager
def errand(urgency: Urgency, seconds: float) -> Iterator[Errand]:
    """All calls of the block, and of the tasks that it starts, are for the same thing, which may take `seconds` in all."""
    mine = Errand(urgency, time.monotonic() + seconds)
    token = _ERRAND.set(mine)
    try:
        yield mine
    finally:
        mine.is_over = True
        _ERRAND.reset(token)
