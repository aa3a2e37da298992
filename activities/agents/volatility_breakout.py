"""Volatility breakout: a price that leaves its range with a large bar is followed."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from activities.agents.port import BarArrays, Bars, Book, Floats, Funding, Positions, Suggestion, screened, suggested
from domain.trading.instructions import Side

CHANNEL_BARS = 20
LARGE = 1.5
FULL_CONFIDENCE = 4.0

# By how much the same figures may differ between one window and many, as a share: numpy adds up in another order.
ROUNDING = 1e-9


def _may_break_out(bars: BarArrays, funding: Floats) -> NDArray[np.bool_]:
    found = np.ones(len(bars), dtype=np.bool_)
    if len(bars) > CHANNEL_BARS + 1:
        highs, lows = (sliding_window_view(column[1:], CHANNEL_BARS + 1) for column in (bars.high, bars.low))
        before, close = sliding_window_view(bars.close[:-1], CHANNEL_BARS + 1), bars.close[CHANNEL_BARS + 1 :]
        outside = (close > highs[:, :-1].max(axis=-1)) | (close < lows[:, :-1].min(axis=-1))
        average, newest = _ranges(highs, lows, before)
        found[CHANNEL_BARS + 1 :] = outside & (newest * (1 + ROUNDING) >= LARGE * average)
    return found


def _ranges(highs: Floats, lows: Floats, before: Floats) -> tuple[Floats, Floats]:
    """The average true range of the channel, and the newest one, along the last axis; `before` are the closes before each."""
    ranges = np.maximum(highs, before) - np.minimum(lows, before)
    return ranges[..., :-1].sum(axis=-1) / CHANNEL_BARS, ranges[..., -1]


@screened(_may_break_out, sees_market_alone=True)
def volatility_breakout(bars: Bars, book: Book, funding: Funding, positions: Positions) -> list[Suggestion]:
    """Buys a close above the highest high of the 20 bars before, sells one below their lowest low, if the bar is large.

    Large is a true range of at least 1.5 times the average true range of those 20 bars; the true range of a bar is the
    largest of high - low, |high - last close| and |low - last close|. Confidence is a quarter of that ratio, at most 1.
    It expects the move to go on by one average true range.

    Sources: Donchian's channel rule, as tested by Brock, Lakonishok and LeBaron, "Simple technical trading rules and the
    stochastic properties of stock returns", Journal of Finance 47 (1992), "trading range break"; Wilder, "New Concepts in
    Technical Trading Systems" (1978), for the true range and the volatility that a breakout needs.
    """
    return [found for symbol, seen in bars.items() if (found := _break_out(symbol, seen))]


def _break_out(symbol: str, bars: BarArrays) -> Suggestion | None:
    if len(bars) < CHANNEL_BARS + 2:
        return None
    close, highs, lows = bars.close[-1], bars.high[-CHANNEL_BARS - 1 :], bars.low[-CHANNEL_BARS - 1 :]
    side = Side.BUY if close > np.max(highs[:-1]) else Side.SELL
    if side is Side.SELL and not close < np.min(lows[:-1]):
        return None
    # The true ranges of the newest bar and of the channel before it.
    average, newest = map(float, _ranges(highs, lows, bars.close[-CHANNEL_BARS - 2 : -1]))
    if newest < LARGE * average:
        return None
    # A market that stood still has no average range: any move is as large as can be.
    ratio = min(newest / average, FULL_CONFIDENCE) if average else FULL_CONFIDENCE
    return suggested(
        symbol=symbol,
        side=side,
        confidence=round(ratio / FULL_CONFIDENCE, 4),
        expected_return=average / float(close),
        rationale=f"left the range of {CHANNEL_BARS} bars, {ratio:.2f} times as fast as usual",
    )
