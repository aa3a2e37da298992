"""A seeded market: the same bars in every process, for any bar number, without keeping the past.

Bars come in chunks. Each chunk is a Brownian bridge between two anchors in the logarithm of the price: a random walk
whose ends are given (Glasserman, Monte Carlo Methods in Financial Engineering, 2003, section 3.1). Each anchor is drawn
independently, so that any chunk can be made without those before it. The way from one anchor to the next is the chunk's
trend. So prices wander for months and stay near their base.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import NamedTuple

from activities.market.port import MarketSource
from activities.market.steps import rules_near
from domain.trading.market import Bar, SymbolRules

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
BAR = timedelta(minutes=1)
CHUNK_BARS = 96
ANCHOR_SPREAD = 0.012
BAR_VOLATILITY = 0.001
WARM_UP_BARS = 60
CACHED_CHUNKS = 64
# In quote currency, the same for every symbol: the median of a bar, and how far the logarithm spreads around it. A tenth of
# nearly every bar can then take an order of some thousand.
MEDIAN_TURNOVER = 3_000_000.0
TURNOVER_SPREAD = 0.8

_BASE_PRICES = {"BTCUSDT": Decimal(60_000), "ETHUSDT": Decimal(3_000)}
_OTHER_BASE_PRICE = Decimal(100)


class _Candle(NamedTuple):
    """One bar without a time yet; `wick_up` and `wick_down` are fractions of the price, `volume` is in base."""

    open: float
    close: float
    wick_up: float
    wick_down: float
    volume: float


class SimulatedMarket(MarketSource):
    """Random walks with trends, one for each symbol."""

    def __init__(self, symbols: Sequence[str], seed: int) -> None:
        self._rules = {symbol: rules_near(symbol, _base(symbol)) for symbol in symbols}
        self._seed = seed
        self._chunk = lru_cache(maxsize=CACHED_CHUNKS)(self._make_chunk)

    @property
    def warm_up(self) -> int:
        """An hour of the market's own time."""
        return WARM_UP_BARS

    def rules(self, symbol: str) -> SymbolRules | None:
        """The symbol's steps."""
        return self._rules.get(symbol)

    def bar(self, symbol: str, number: int) -> Bar | None:
        """Bar `number`; its open is the close before it."""
        rules = self._rules.get(symbol)
        if rules is None or number < 0:
            return None
        chunk, place = divmod(number, CHUNK_BARS)
        candle, tick = self._chunk(symbol, chunk)[place], rules.tick_size
        open_, close = _price(candle.open, tick), _price(candle.close, tick)
        return Bar(
            open_time=EPOCH + number * BAR,
            open=open_,
            high=max(open_, close, _price(max(candle.open, candle.close) * (1 + candle.wick_up), tick)),
            low=min(open_, close, _price(min(candle.open, candle.close) * (1 - candle.wick_down), tick)),
            close=close,
            volume=Decimal(candle.volume).quantize(Decimal("0.001")),
        )

    def _make_chunk(self, symbol: str, chunk: int) -> list[_Candle]:
        random = Random(f"{self._seed}/{symbol}/{chunk}")  # noqa: S311 - a game, not a secret
        base = math.log(_base(symbol))
        path = _bridge(self._anchor(symbol, chunk), self._anchor(symbol, chunk + 1), random)
        prices = [math.exp(base + step) for step in path]
        candles = []
        for open_, close in pairwise(prices):
            wick_up, wick_down = (abs(random.gauss(0, BAR_VOLATILITY / 2)) for _ in range(2))
            turnover = MEDIAN_TURNOVER * random.lognormvariate(0, TURNOVER_SPREAD)
            candles.append(_Candle(open_, close, wick_up, wick_down, turnover / close))
        return candles

    def _anchor(self, symbol: str, chunk: int) -> float:
        return Random(f"{self._seed}/{symbol}/{chunk}/anchor").gauss(0, ANCHOR_SPREAD)  # noqa: S311


def _bridge(start: float, end: float, random: Random) -> list[float]:
    """A random walk from `start`, bent so that it reaches `end` after CHUNK_BARS steps."""
    walk = [0.0]
    for _ in range(CHUNK_BARS):
        walk.append(walk[-1] + random.gauss(0, BAR_VOLATILITY))
    return [start + w + (end - start - walk[-1]) * i / CHUNK_BARS for i, w in enumerate(walk)]


def _price(value: float, tick: Decimal) -> Decimal:
    return (Decimal(value) / tick).to_integral_value(rounding=ROUND_HALF_EVEN) * tick


def _base(symbol: str) -> Decimal:
    return _BASE_PRICES.get(symbol, _OTHER_BASE_PRICE)
