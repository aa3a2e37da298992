"""The clock of a worker's machine against others: a fate is never declared by one machine's clock, nor is risk taken by one.

The incident behind it: a worker whose clock was an hour ahead declared an order never seen by the venue before its time was up,
and a kill verified.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from domain.values import Value

WARN_SECONDS = 1.0
WARNING = "the worker's clock differs"


class OtherClock(StrEnum):
    """Whose clock the worker's is compared with."""

    DATABASE = "database"
    EXCHANGE = "exchange"


class ClockReading(Value):
    """How far the worker's clock is ahead of another, behind where negative; 0 where no difference can be told."""

    clock: OtherClock
    ahead_seconds: float

    @property
    def differs(self) -> bool:
        """By more than a second."""
        return abs(self.ahead_seconds) > WARN_SECONDS

    @property
    def text(self) -> str:
        """The warning."""
        way = "ahead" if self.ahead_seconds > 0 else "behind"
        return f"{warning_of(self.clock)}: {abs(self.ahead_seconds):.1f} s {way}; correct whichever is wrong"


def warning_of(clock: OtherClock) -> str:
    """How the warning about one clock begins."""
    return f"{WARNING} from the {clock}'s"


def compared(clock: OtherClock, began: datetime, told: datetime, ended: datetime) -> ClockReading:
    """From what another clock told between two moments of ours. How long the answer took is never taken for a difference."""
    ahead = max((began - told).total_seconds(), 0.0) or min((ended - told).total_seconds(), 0.0)
    return ClockReading(clock=clock, ahead_seconds=ahead)


def newest(before: Iterable[ClockReading], now: Iterable[ClockReading]) -> list[ClockReading]:
    """One for each clock: what was not read this time stands as it was, since nothing says that it is over."""
    found = {reading.clock: reading for reading in [*before, *now]}
    return [found[clock] for clock in OtherClock if clock in found]


def too_far(readings: Iterable[ClockReading], cycle_seconds: float) -> str | None:
    """Why no new risk is taken: by more than a cycle nobody knows which order is late. None where there is no such reason."""
    far = (reading for reading in readings if reading.differs and abs(reading.ahead_seconds) > cycle_seconds)
    return next((f"{reading.text}; that is more than one cycle" for reading in far), None)
