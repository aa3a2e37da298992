"""Time-series momentum: what has risen is bought, what has fallen is sold."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from activities.agents.port import BarArrays, Bars, Book, Floats, Funding, Positions, Suggestion, screened, suggested
from domain.trading.instructions import Side

LOOKBACK_BARS = 12
THRESHOLD = 2.0
FULL_CONFIDENCE = 4.0


# By how much the same figures may differ between one window and many: numpy adds up in another order.
ROUNDING = 1e-12


def _moved(logs: Floats) -> tuple[Floats, Floats]:
    """The move over the last axis, and the noise along it: each return's distance from their mean."""
    change = logs[..., -1] - logs[..., 0]
    return change, logs[..., 1:] - logs[..., :-1] - (change / LOOKBACK_BARS)[..., np.newaxis]


def _may_follow(bars: BarArrays, funding: Floats) -> NDArray[np.bool_]:
    found = np.ones(len(bars), dtype=np.bool_)
    if len(bars) > LOOKBACK_BARS:
        change, noise = _moved(sliding_window_view(np.log(bars.close), LOOKBACK_BARS + 1))
        chance = np.sqrt(np.square(noise).sum(axis=-1))
        found[LOOKBACK_BARS:] = np.abs(change) * (1 + ROUNDING) + ROUNDING >= THRESHOLD * chance
    return found


@screened(_may_follow, sees_market_alone=True)
def momentum(bars: Bars, book: Book, funding: Funding, positions: Positions) -> list[Suggestion]:
    """Follows the price's move, measured against the noise of its bars.

    With r_i the log return of one bar, over the last N = 12 bars: score = (r_1 + … + r_N) / (stdev(r) * sqrt(N)), the
    move in units of what chance alone would explain. Below THRESHOLD it abstains; from there, confidence grows with the
    score, up to 1 at FULL_CONFIDENCE. It expects one more bar at the mean pace of the twelve.

    Source: Moskowitz, Ooi and Pedersen, "Time series momentum", Journal of Financial Economics 104 (2012): the sign of
    the past return, scaled by past volatility; twelve periods back, one period ahead.
    """
    return [found for symbol, seen in bars.items() if (found := _follow(symbol, seen))]


def _follow(symbol: str, bars: BarArrays) -> Suggestion | None:
    if len(bars) <= LOOKBACK_BARS:
        return None
    logs = np.log(bars.close[-LOOKBACK_BARS - 1 :])
    moved, noise = _moved(logs)
    # The length of `noise` is stdev(r) * sqrt(N).
    change, explained_by_chance = float(moved), math.sqrt(noise @ noise)
    # Without noise, any move counts fully, and no move counts as none.
    score = math.copysign(FULL_CONFIDENCE, change) if change else 0.0
    if explained_by_chance > abs(change) / FULL_CONFIDENCE:
        score = change / explained_by_chance
    if abs(score) < THRESHOLD:
        return None
    return suggested(
        symbol=symbol,
        side=Side.BUY if score > 0 else Side.SELL,
        confidence=round(min(abs(score) / FULL_CONFIDENCE, 1.0), 4),
        expected_return=abs(change) / LOOKBACK_BARS,
        rationale=f"{LOOKBACK_BARS} bars moved {score:+.2f} standard deviations",
    )
