"""Funding rate: if one side pays the other much, take the side that is paid."""

import numpy as np
from numpy.typing import NDArray

from activities.agents.port import BarArrays, Bars, Book, Floats, Funding, Positions, Suggestion, screened, suggested
from domain.trading.instructions import Side

EXTREME = 0.0003
FULL_CONFIDENCE = 0.0012


def _is_extreme(bars: BarArrays, funding: Floats) -> NDArray[np.bool_]:
    return np.abs(funding) >= EXTREME  # False for NaN.


@screened(_is_extreme, sees_market_alone=True)
def funding_rate(bars: Bars, book: Book, funding: Funding, positions: Positions) -> list[Suggestion]:
    """Takes the side that receives the next funding, if the rate is extreme.

    The exchange's rule: every eight hours longs pay shorts the rate times their notional; if it is negative, shorts pay
    longs. It tends to 0.0001 when the perpetual trades at its index. From |rate| >= 0.0003 on, the agent proposes to sell if
    the rate is positive and to buy if it is negative. Confidence is |rate| / 0.0012, at most 1, and the
    rate is the expected return.

    Source: He, Manela, Ross and von Wachter, "Fundamentals of perpetual futures" (2022): the rate is what ties the
    perpetual to its index, so that an extreme one is both paid to the other side and a gap that tends to close.
    """
    return [
        suggested(
            symbol=symbol,
            side=Side.SELL if rate > 0 else Side.BUY,
            confidence=round(min(abs(rate) / FULL_CONFIDENCE, 1.0), 4),
            expected_return=abs(rate),
            rationale=f"the next funding is {rate:+.4%}",
        )
        for symbol, rate in funding.items()
        if abs(rate) >= EXTREME
    ]
