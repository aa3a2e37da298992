"""The newest bars, kept as agents want them: arrays that grow bar by bar, and never with the length of the file."""

from collections import deque

import numpy as np

from activities.agents.port import MAX_BARS, BarArrays
from domain.trading.market import Bar

# Bars are appended until the arrays are full; then the newest few move to the front. So a bar costs one assignment.
CAPACITY = 4096


class Window:
    """One symbol's newest bars."""

    def __init__(self) -> None:
        self._bars: deque[Bar] = deque(maxlen=MAX_BARS)
        self._time = np.empty(CAPACITY, dtype=np.int64)
        self._values = np.empty((5, CAPACITY), dtype=np.float64)
        self._end = 0

    def add(self, bar: Bar) -> None:
        """Takes the next bar in."""
        if self._end == CAPACITY:
            # Fresh arrays: an agent may have kept the old ones, which must not change under it.
            time, values = np.empty_like(self._time), np.empty_like(self._values)
            time[:MAX_BARS], values[:, :MAX_BARS] = self._time[-MAX_BARS:], self._values[:, -MAX_BARS:]
            self._time, self._values, self._end = time, values, MAX_BARS
        self._bars.append(bar)
        self._time[self._end] = round(bar.open_time.timestamp() * 1000)
        self._values[:, self._end] = [float(x) for x in (bar.open, bar.high, bar.low, bar.close, bar.volume)]
        self._end += 1

    def bars(self) -> list[Bar]:
        """The newest bars, oldest first."""
        return list(self._bars)

    def arrays(self) -> BarArrays:
        """The newest bars as an agent gets them. Views: nothing is copied."""
        newest = slice(max(0, self._end - MAX_BARS), self._end)
        return BarArrays(self._time[newest], *self._values[:, newest])
