"""Time-series momentum: what has risen is bought, what has fallen is sold."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import pstdev

from activities.agents.port import AgentOpinion, Bars, Suggestion
from domain.instructions import Side
from domain.market import Bar

AGENT_ID = "momentum"
LOOKBACK_BARS = 12
THRESHOLD = 2.0
FULL_CONFIDENCE = 4.0


class Momentum:
    """Follows the sign of the return over the last bars, measured against the noise of those bars.

    With r_i the log return of one bar, over N bars: score = (r_1 + … + r_N) / (stdev(r) * sqrt(N)), the way that the
    price has come in units of what chance alone would explain. Below THRESHOLD it abstains; from there, confidence
    grows with the score, up to 1 at FULL_CONFIDENCE. After Moskowitz, Ooi and Pedersen, "Time series momentum",
    Journal of Financial Economics 104 (2012): the sign of the past return, scaled by past volatility.
    """

    def __init__(
        self,
        lookback_bars: int = LOOKBACK_BARS,
        threshold: float = THRESHOLD,
        full_confidence: float = FULL_CONFIDENCE,
    ) -> None:
        self._lookback_bars = lookback_bars
        self._threshold = threshold
        self._full_confidence = full_confidence

    @property
    def agent_id(self) -> str:
        """Its name in the decision log."""
        return AGENT_ID

    def propose(self, bars: Bars) -> AgentOpinion:
        """A suggestion for each symbol that moved more than noise explains; the vote is the strongest of them."""
        scores = {symbol: self._score(history) for symbol, history in bars.items()}
        strong = {symbol: score for symbol, score in scores.items() if abs(score) >= self._threshold}
        suggestions = [self._suggest(symbol, score) for symbol, score in strong.items()]
        votes = (s.confidence if s.side is Side.BUY else -s.confidence for s in suggestions)
        return AgentOpinion(proposals=suggestions, vote=max(votes, key=abs, default=0.0))

    def _score(self, history: Sequence[Bar]) -> float:
        window = history[-self._lookback_bars - 1 :]
        if len(window) <= self._lookback_bars:
            return 0.0
        logs = [math.log(bar.close) for bar in window]
        noise = pstdev(b - a for a, b in pairwise(logs)) * math.sqrt(self._lookback_bars)
        change = logs[-1] - logs[0]
        # Without any noise a move is as certain as it can be, and no move is none.
        return change / noise if noise > abs(change) / self._full_confidence else _sign(change) * self._full_confidence

    def _suggest(self, symbol: str, score: float) -> Suggestion:
        return Suggestion(
            symbol=symbol,
            side=Side.BUY if score > 0 else Side.SELL,
            confidence=round(min(abs(score) / self._full_confidence, 1.0), 4),
            rationale=f"{self._lookback_bars} bars moved {score:+.2f} standard deviations",
        )


def _sign(number: float) -> float:
    return (number > 0) - (number < 0)
