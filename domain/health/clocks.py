"""Compares the clock of a worker's machine with others. One clock alone never settles an order's fate, nor permits new risk.

The incident behind this file: a worker whose clock was an hour ahead declared, too early, that the venue had never seen an
order, and so that a kill was verified.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from domain.values import Value

WARN_SECONDS = 1.0


class OtherClock(StrEnum):
    """Whose clock the worker's is compared with."""

    DATABASE = "database"
    EXCHANGE = "exchange"


class ClockReading(Value):
    """How far the worker's clock is ahead of another (negative: behind). 0 if no difference can be measured."""

    clock: OtherClock
    ahead_seconds: float

    @property
    def differs(self) -> bool:
        """Whether the clocks are more than a second apart."""
        return abs(self.ahead_seconds) > WARN_SECONDS

    @property
    def text(self) -> str:
        """The warning."""
        way = "ahead" if self.ahead_seconds > 0 else "behind"
        differs = f"the worker's clock differs from the {self.clock}'s"
        return f"{differs}: {abs(self.ahead_seconds):.1f} s {way}; correct whichever is wrong"


def compared(clock: OtherClock, began: datetime, theirs: datetime, ended: datetime) -> ClockReading:
    """Compares what another clock said with our own time before and after asking. The delay of the answer never counts as a
    difference."""
    ahead = max((began - theirs).total_seconds(), 0.0) or min((ended - theirs).total_seconds(), 0.0)
    return ClockReading(clock=clock, ahead_seconds=ahead)


def newest(before: Iterable[ClockReading], now: Iterable[ClockReading]) -> list[ClockReading]:
    """The newest reading of each clock. A clock that was not read this time keeps its last reading, since nothing says that
    it is right again."""
    found = {reading.clock: reading for reading in [*before, *now]}
    return [found[clock] for clock in OtherClock if clock in found]


def too_far(readings: Iterable[ClockReading], cycle_seconds: float) -> str | None:
    """Why the desk takes no new risk: if a clock is off by more than a cycle, nobody knows which order is late. None if no
    clock is."""
    far = (reading for reading in readings if reading.differs and abs(reading.ahead_seconds) > cycle_seconds)
    return next((f"{reading.text}; that is more than one cycle" for reading in far), None)
