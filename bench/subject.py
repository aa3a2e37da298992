"""What a subject is: something of ours, and the floor that each of its samples is paired with."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

Sample = Callable[[], float]
"""Takes one sample, and returns its figure in the unit of its pair."""
SECONDS, MEGABYTES, BYTES, EVENTS = "s", "MB", "bytes", "events"


@dataclass(frozen=True)
class Pair:
    """Two things that take turns in random order. `floor_name` where the floor is not the subject's."""

    what: str
    ours: Sample
    floor: Sample
    samples: int
    unit: str = SECONDS
    floor_name: str = ""
    # What nobody counts: caches, connections and lazy imports are warm before the first sample.
    warm_up: int = 1
    allowed: float | None = None


@dataclass(frozen=True)
class Remark:
    """What has no floor, but belongs beside the figures."""

    text: str


@dataclass(frozen=True)
class Row:
    """A pair that was measured. `others` is the share of the machine's time that processes other than the bench's used."""

    what: str
    floor_name: str
    unit: str
    ours: list[float]
    floor: list[float]
    ratio: float
    low: float
    high: float
    others: float
    allowed: float | None = None


Steps = Generator[Pair | Remark, Row | None, None]
"""Whatever the next pair needs is open while a subject is suspended in it. What is sent back is the row that it became."""


@dataclass(frozen=True)
class Subject:
    """One command of `python -m bench`. `size` is how many `size_of` it measures, unless the command line says otherwise."""

    name: str
    what: str
    floor: str
    pairs: Callable[[int], Steps]
    size: int = 1
    size_of: str = ""
    # Not part of a run of all: it needs what `make install` does not install.
    extra: bool = False
