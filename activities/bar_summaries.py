"""Figures from the newest bars: the median price, an average bar's volume, and which symbols move together."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from statistics import median

import numpy as np

from domain.risk.guards import BarSummary
from domain.risk.measures import pair
from domain.trading.market import Bar

TAPE_BARS = 20
# Fewer returns than these do not show what moves together.
MIN_RETURNS = 20
PLACES = 4


def tape_of(bars: Sequence[Bar]) -> BarSummary:
    """The median of the closes before the newest one, and the mean value that a bar traded, over the last bars."""
    before, newest = bars[-TAPE_BARS - 1 : -1], bars[-TAPE_BARS:]
    traded = sum([bar.volume * bar.close for bar in newest], Decimal(0))
    return BarSummary(
        reference_price=median([bar.close for bar in before]) if before else None,
        bar_volume=traded / len(newest) if newest else None,
    )


def correlations_of(bars: Mapping[str, Sequence[Bar]]) -> dict[str, float]:
    """Pearson's correlation of the logarithmic returns of each pair of symbols, over the bars that both have. Pairs with too few
    common bars are left out, and so are pairs with a symbol whose price does not move."""
    found = {}
    for one, other in combinations(sorted(bars), 2):
        closes = {bar.open_time: bar.close for bar in bars[one]}
        both = [(closes[bar.open_time], bar.close) for bar in bars[other] if bar.open_time in closes]
        if len(both) <= MIN_RETURNS:
            continue
        returns = np.diff(np.log(np.array(both, dtype=float)), axis=0)
        if returns.std(axis=0).all():
            found[pair(one, other)] = round(float(np.corrcoef(returns, rowvar=False)[0, 1]), PLACES)
    return found
