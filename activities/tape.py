"""What the newest bars say about a market: what a price is compared with, what a bar trades, what moves together."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import combinations

import numpy as np

from domain.market import Bar
from domain.measures import pair
from domain.risk import Tape

TAPE_BARS = 20
# Fewer returns than these say nothing about what moves together.
MIN_RETURNS = 20
PLACES = 4


def tape_of(bars: Sequence[Bar]) -> Tape:
    """The median of the closes before the newest one, and the mean value that a bar traded, over the last bars."""
    before, newest = bars[-TAPE_BARS - 1 : -1], bars[-TAPE_BARS:]
    traded = sum((bar.volume * bar.close for bar in newest), Decimal(0))
    return Tape(
        reference_price=_median([bar.close for bar in before]) if before else None,
        bar_volume=traded / len(newest) if newest else None,
    )


def _median(prices: Sequence[Decimal]) -> Decimal:
    ranked, middle = sorted(prices), len(prices) // 2
    return ranked[middle] if len(prices) % 2 else (ranked[middle - 1] + ranked[middle]) / 2


def correlations_of(bars: Mapping[str, Sequence[Bar]]) -> dict[str, float]:
    """Pearson's correlation of the logarithmic returns of each two symbols, over the bars that both have."""
    found = {pair(one, other): _correlation(bars[one], bars[other]) for one, other in combinations(sorted(bars), 2)}
    return {names: value for names, value in found.items() if value is not None}


def _correlation(one: Sequence[Bar], other: Sequence[Bar]) -> float | None:
    """None where there are too few bars, or one of the two does not move."""
    closes = {bar.open_time: bar.close for bar in one}
    both = [(closes[bar.open_time], bar.close) for bar in other if bar.open_time in closes]
    if len(both) <= MIN_RETURNS:
        return None
    returns = np.diff(np.log(np.array(both, dtype=float)), axis=0)
    spread = returns.std(axis=0)
    if not spread.all():
        return None
    return round(float(np.corrcoef(returns, rowvar=False)[0, 1]), PLACES)
