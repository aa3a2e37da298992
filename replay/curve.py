"""An equity curve with at most a few thousand points, whatever the number of bars."""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from domain.trading.market import Bar
from domain.values import ZERO

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
        self._bars_open = 0
        self._newest: Bar
        self._low = self._high = self._equity = self._poorest = self._richest = self._drawdown = ZERO

    def add(self, bar: Bar, equity: Decimal, drawdown: Decimal) -> None:
        """Adds one bar, and the account after it."""
        if self._bars_open:
            self._widen(bar.low, bar.high, equity, drawdown)
        else:
            self._low, self._high, self._drawdown = bar.low, bar.high, drawdown
            self._poorest = self._richest = equity
        self._newest, self._equity = bar, equity
        self._bars_open += 1
        if self._bars_open == self._bars_a_point:
            self._close()

    def _widen(self, low: Decimal, high: Decimal, equity: Decimal, drawdown: Decimal) -> None:
        # Comparisons and no `min`: this runs for every bar.
        if low < self._low:
            self._low = low
        if high > self._high:
            self._high = high
        if drawdown > self._drawdown:
            self._drawdown = drawdown
        if equity is self._equity:
            # An account that holds nothing.
            return
        if equity < self._poorest:
            self._poorest = equity
        if equity > self._richest:
            self._richest = equity

    def _close(self) -> None:
        self._points.append(self._point())
        self._bars_open = 0
        if len(self._points) == MAX_POINTS:
            self._points = [_merged(a, b) for a, b in zip(self._points[::2], self._points[1::2], strict=True)]
            self._bars_a_point *= 2

    def _point(self) -> Point:
        """The open point: the bars since the last one was closed."""
        bar, range_ = self._newest, (self._low, self._high)
        account = self._equity, self._poorest, self._richest, self._drawdown
        return Point(bar.open_time, bar.close, *range_, *account)

    def points(self) -> list[Point]:
        """The points so far."""
        return [*self._points, *([self._point()] if self._bars_open else [])]


def _merged(one: Point, other: Point) -> Point:
    return other._replace(
        low=min(one.low, other.low),
        high=max(one.high, other.high),
        poorest=min(one.poorest, other.poorest),
        richest=max(one.richest, other.richest),
        drawdown=max(one.drawdown, other.drawdown),
    )
