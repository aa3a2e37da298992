"""Mean reversion: a price far from its mean is expected back, unless a trend took it there."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from activities.agents.port import BarArrays, Bars, Book, Floats, Funding, Positions, Suggestion, screened, suggested
from domain.trading.instructions import Side

WINDOW_BARS = 20
BAND_WIDTH = 2.0
FULL_CONFIDENCE = 4.0
TREND = 0.5
"""The bars before the newest one count as a trend from this efficiency ratio on."""

SHARE_OF_THE_WAY_BACK = 0.5

# Ten times as fast as `mean` on so few numbers.
_MEAN = np.full(WINDOW_BARS, 1 / WINDOW_BARS)

# By how much the same figures may differ between one window and many, as a share of the price: numpy adds up in another order.
ROUNDING = 1e-11


def _may_fade(bars: BarArrays, funding: Floats) -> NDArray[np.bool_]:
    found = np.ones(len(bars), dtype=np.bool_)
    if len(bars) > WINDOW_BARS:
        windows, rounding = sliding_window_view(bars.close, WINDOW_BARS), ROUNDING * bars.close[WINDOW_BARS:]
        away = _deviations(windows[1:])
        stdev = np.sqrt(np.square(away).sum(axis=-1) / WINDOW_BARS)
        net, way = _trend(windows[:-1])
        outside = np.abs(away[:, -1]) + rounding >= BAND_WIDTH * stdev
        found[WINDOW_BARS:] = outside & (net * np.sign(away[:, -1]) <= TREND * way + rounding)
    return found


def _deviations(windows: Floats) -> Floats:
    """Distances from the mean of the last axis."""
    means: Floats = windows.dot(_MEAN)[..., np.newaxis]
    return windows - means


def _trend(trails: Floats) -> tuple[Floats, Floats]:
    """The net change along the last axis, and the sum of the single changes: their quotient is the efficiency ratio."""
    return trails[..., -1] - trails[..., 0], np.abs(trails[..., 1:] - trails[..., :-1]).sum(axis=-1)


@screened(_may_fade, sees_market_alone=True)
def mean_reversion(bars: Bars, book: Book, funding: Funding, positions: Positions) -> list[Suggestion]:
    """Sells above the upper Bollinger band, buys below the lower one.

    With mean and standard deviation of the last 20 closes: z = (close - mean) / stdev. At |z| >= 2 it takes the other
    side; confidence grows with |z|, up to 1 at FULL_CONFIDENCE. It expects the price to come half of the way back.

    It abstains if that would trade against a trend: if the efficiency ratio of the bars before the newest one (their net change
    over the sum of their single changes) is TREND or more in the direction that it would fade.

    Sources: Bollinger, "Bollinger on Bollinger Bands" (2001), for bands and their numbers; Poterba and Summers, "Mean
    reversion in stock prices", Journal of Financial Economics 22 (1988), and Lo and MacKinlay, "When are contrarian
    profits due to stock market overreaction?", Review of Financial Studies 3 (1990), for the effect; Kaufman, "Smarter
    Trading" (1995), for the efficiency ratio.
    """
    return [found for symbol, seen in bars.items() if (found := _fade(symbol, seen))]


def _fade(symbol: str, bars: BarArrays) -> Suggestion | None:
    if len(bars) < WINDOW_BARS + 1:
        return None
    window = bars.close[-WINDOW_BARS:]
    away = _deviations(window)
    stdev, distance = math.sqrt(away @ away / WINDOW_BARS), float(away[-1])
    # The second condition: if the closes do not move, they still differ from their mean by its rounding.
    if abs(distance) < BAND_WIDTH * stdev or stdev < float(window[-1]) * 1e-12:
        return None
    # The efficiency ratio: from -1, straight down, to 1, straight up.
    net, way = map(float, _trend(bars.close[-WINDOW_BARS - 1 : -1]))
    efficiency = net / way if way else 0.0
    if efficiency * math.copysign(1, distance) >= TREND:
        return None
    z = distance / stdev
    return suggested(
        symbol=symbol,
        side=Side.SELL if z > 0 else Side.BUY,
        confidence=round(min(abs(z) / FULL_CONFIDENCE, 1.0), 4),
        expected_return=SHARE_OF_THE_WAY_BACK * abs(distance) / float(window[-1]),
        rationale=f"{z:+.2f} standard deviations from the mean of {WINDOW_BARS} bars",
    )
