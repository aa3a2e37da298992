"""The purpose of a call: how urgent it is, and until when its answer is useful.

Sixty symbols take a hundred and twenty calls. Once one of them fails, the whole reading has failed. Calls that still wait for a
turn must not be sent then: they would take the turns of the next reading, and it would fail as well.
"""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from enum import IntEnum


class Urgency(IntEnum):
    """The order of calls: first those that complete something already begun, then cancels, then whatever a kill, a limit or
    a reduction waits for, then a cycle's readings."""

    UNDER_WAY = 0
    CANCEL = 1
    SOON = 2
    READING = 3


class Operation:
    """One operation and all of its calls. `until` is a monotonic time; None if there is no deadline."""

    def __init__(self, urgency: Urgency, until: float | None = None) -> None:
        self.urgency = urgency
        self.until = until
        self.is_over = False

    def left(self, seconds: float) -> float:
        """The time left, `seconds` at most; 0 once the operation is over."""
        if self.is_over:
            return 0.0
        return seconds if self.until is None else max(0.0, min(seconds, self.until - time.monotonic()))


_OPERATION: ContextVar[Operation | None] = ContextVar("operation", default=None)
_READING = Operation(Urgency.READING)


def current() -> Operation:
    """The operation of this task; an unbounded reading if none was named."""
    return _OPERATION.get() or _READING


@contextlib.contextmanager
def operation(urgency: Urgency, seconds: float) -> Iterator[Operation]:
    """Makes all calls of the block, and of the tasks that it starts, parts of one operation, which may take `seconds` in all."""
    mine = Operation(urgency, time.monotonic() + seconds)
    token = _OPERATION.set(mine)
    try:
        yield mine
    finally:
        mine.is_over = True
        _OPERATION.reset(token)
