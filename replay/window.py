"""The newest bars in the form that agents get: never more than agents see, plus one block of the bars to come."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from activities.agents.port import MAX_BARS, BarArrays, columns_of
from activities.market.replay import Block, Columns
from domain.trading.market import Bar

BLOCK = 512
"""How many bars are converted to arrays at once."""


def blocks_of(bars: Iterable[Bar]) -> Iterator[Block]:
    """Bars in blocks."""
    left = iter(bars)
    while block := [*islice(left, BLOCK)]:
        yield Block("", block)


class Window:
    """One symbol's newest bars. They are loaded in blocks, then shown one by one."""

    def __init__(self) -> None:
        self._bars: list[Bar] = []
        self._arrays = columns_of([])
        self._end = 0

    def take(self, bars: Sequence[Bar], columns: Columns | None = None) -> BarArrays:
        """Loads the next bars, whose arrays may be known; the previous block must have been shown completely. Returns the arrays
        that end with the new bars."""
        kept = max(0, self._end - MAX_BARS)
        self._bars = [*self._bars[kept : self._end], *bars]
        new, old = columns or columns_of(bars).columns, self._arrays
        # Fresh arrays: an agent may have kept the old ones, which must not change under it.
        self._arrays = BarArrays(*(np.concatenate((a[kept:], b)) for a, b in zip(old.columns, new, strict=True)))
        self._end -= kept
        return self._arrays

    def show(self, count: int = 1) -> None:
        """Makes the next bar of the block the newest, or the one so many later."""
        self._end += count

    def bars(self) -> list[Bar]:
        """The newest bars, oldest first."""
        return self._bars[max(0, self._end - MAX_BARS) : self._end]

    def arrays(self) -> BarArrays:
        """The newest bars as an agent gets them. Views: nothing is copied."""
        return self._arrays.part(slice(max(0, self._end - MAX_BARS), self._end))
