"""When a kill has to come so that it races: a window that is measured first, with the trials spread over all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

GOLDEN = 0.618


@dataclass(frozen=True)
class Window:
    """Seconds before and after the beginning of what a kill races with.

    A kill that comes `before` earlier has taken effect by then; one that comes `after` later finds the other carried out.
    """

    before: float
    after: float


# In a trial the other shares the machine with the kill, which may hold up its end as well.
TOGETHER = 1.5


def measured(kills: Sequence[float], others: Sequence[float]) -> Window:
    """From how long each took alone. The slowest of each is left out: after one pause of the machine hardly a trial of a window
    that wide would be a race."""
    return Window(_longest(kills), TOGETHER * _longest(others))


def _longest(seconds: Sequence[float]) -> float:
    return sorted(seconds)[-2:][0]


def moments(window: Window, trials: int) -> list[float]:
    """The middles of so many equal parts of the window, in seconds from the other's beginning.

    Neighbours come long after each other: what the machine does meanwhile falls on no part of the window alone.
    """
    part = (window.before + window.after) / trials
    spread = [(number + 0.5) * part - window.before for number in range(trials)]
    stride = next(n for n in range(max(1, round(GOLDEN * trials)), 2 * trials + 1) if gcd(n, trials) == 1)
    return [spread[number * stride % trials] for number in range(trials)]
