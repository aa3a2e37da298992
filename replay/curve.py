"""An equity curve with at most a few thousand points, whatever the number of bars."""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

MAX_POINTS = 4096


class Point(NamedTuple):
    """A point: several bars in a row, with their last time, price and equity, the ranges of both, and the deepest drawdown (a
    fraction)."""

    time: datetime
    price: Decimal
    low: Decimal
    high: Decimal
    equity: Decimal
    poorest: Decimal
    richest: Decimal
    drawdown: Decimal


class Curve:
    """A curve that merges its points in pairs when there are too many; extremes are kept."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._bars_a_point = 1
        self._open: Point | None = None
        self._bars_open = 0

    def add(self, point: Point) -> None:
        """Adds one bar."""
        self._open = point if self._open is None else _merged(self._open, point)
        self._bars_open += 1
        if self._bars_open == self._bars_a_point:
            self._points.append(self._open)
            self._open, self._bars_open = None, 0
            if len(self._points) == MAX_POINTS:
                self._points = [_merged(a, b) for a, b in zip(self._points[::2], self._points[1::2], strict=True)]
                self._bars_a_point *= 2

    def points(self) -> list[Point]:
        """The points so far."""
        return [*self._points, *([self._open] if self._open else [])]


def _merged(one: Point, other: Point) -> Point:
    _, _, low, high, _, poorest, richest, drawdown = one
    time, price, newest_low, newest_high, equity, poor, rich, depth = other
    # Comparisons and no `min`: this runs for every bar.
    return Point(
        time,
        price,
        newest_low if newest_low < low else low,
        newest_high if newest_high > high else high,
        equity,
        poor if poor < poorest else poorest,
        rich if rich > richest else richest,
        depth if depth > drawdown else drawdown,
    )
