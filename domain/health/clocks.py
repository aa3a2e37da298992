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
        """By more than a second."""
        return abs(self.ahead_seconds) > WARN_SECONDS

    @property
    def text(self) -> str:
        """The warning."""
        way = "ahead" if self.ahead_seconds > 0 else "behind"
        differs = f"the worker's clock differs from the {self.clock}'s"
        return f"{differs}: {abs(self.ahead_seconds):.1f} s {way}; correct whichever is wrong"


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
