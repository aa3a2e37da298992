"""How long the coordinator's permission to send an order stays valid.

The failure behind this file: a worker was suspended (SIGSTOP, a paused virtual machine) after the coordinator had answered
"running". The kill was acknowledged meanwhile. Eight seconds later the worker continued, and its order was filled. So the
answer carries the time of its question, and is valid for half a second. The questions themselves are in `act.py`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from activities.venues.port import StateTooOld, VenueNotSent

T = TypeVar("T")
Question = Callable[[], Awaitable[str | None]]
"""Answers why an order must not be sent, for example because the desk is killed. None lets it through."""

FRESH_SECONDS = 0.5
# A machine that was slow once recovers by asking again. One that is always slow sends nothing.
MOST_ASKS = 5
TOO_LATE = "too late: its time ran out before it could be sent"


class ClockPair(NamedTuple):
    """One moment on two clocks, in seconds. Neither clock alone notices every way in which a process can be suspended.

    `boot` keeps running while the machine sleeps, and nobody can set it. It may stop in a paused virtual machine; there the wall
    clock jumps when it is corrected afterwards.
    """

    boot: float
    wall: float

    def seconds_since(self, earlier: "ClockPair") -> float:
        """The longer of the two intervals. A wall clock that jumped back counts like one that jumped forward."""
        return max(self.boot - earlier.boot, abs(self.wall - earlier.wall))


def read_clocks() -> ClockPair:
    """The current moment."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return ClockPair(time.monotonic() if boot is None else time.clock_gettime(boot), time.time())


class FreshClearance:
    """Implements `Clearance` of `activities/venues/port.py`. The last of the `questions` goes to the coordinator, and only
    its answer can become too old.

    Without questions nothing becomes too old. `on_too_old` is called for each answer that did.
    """

    def __init__(
        self,
        questions: Sequence[Question] = (),
        not_after: datetime | None = None,
        on_too_old: Callable[[StateTooOld], None] = lambda error: None,
        clocks: Callable[[], ClockPair] = read_clocks,
    ) -> None:
        self._questions = questions
        self._not_after = not_after
        self._on_too_old = on_too_old
        self._clocks = clocks
        self._asked: ClockPair | None = None

    async def refusal(self) -> str | None:
        """Asks the questions. Returns why the order must not be sent; None lets it through, for half a second."""
        try:
            for question in self._questions:
                # The time of the question, not of the answer: the answer says nothing about what happened while it was on
                # its way.
                self._asked = self._clocks()
                if why := await question():
                    return why
        except asyncio.CancelledError:
            return "the worker stopped before it was sent"
        return TOO_LATE if self._is_late else None

    async def send(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Asks and makes the attempt; repeats both if the answer became too old in between. Raises VenueNotSent."""
        old: StateTooOld | None = None
        for _ in range(MOST_ASKS):
            if why := await self.refusal():
                raise VenueNotSent(why)
            try:
                return await attempt()
            except StateTooOld as error:
                old = error
                self._on_too_old(error)
        raise VenueNotSent(f"{old}, {MOST_ASKS} times in a row: the worker keeps being suspended, or is too slow")

    @property
    def seconds_left(self) -> float | None:
        """For how long the answer is still valid; None if none was needed."""
        return None if self._asked is None else FRESH_SECONDS - self._clocks().seconds_since(self._asked)

    def check(self) -> None:
        """The last instruction before the bytes leave. Raises StateTooOld, or VenueNotSent if the order's time has run out."""
        left = self.seconds_left
        if left is not None and left < 0:
            age = FRESH_SECONDS - left
            raise StateTooOld(
                f"the coordinator's answer was {age:.1f} s old before the order could go out (valid {FRESH_SECONDS} s)"
            )
        if self._is_late:
            raise VenueNotSent(TOO_LATE)

    @property
    def _is_late(self) -> bool:
        return self._not_after is not None and datetime.now(UTC) > self._not_after
