"""The strategy that each peer runs: the rule of our agent `momentum`, and the sizes that a desk has by default.

It imports nothing of AIS: a peer's environment has none of it. tests/bench compares the rule with the agent's.
"""

import math

import numpy as np

LOOKBACK_BARS = 12
THRESHOLD = 2.0
FULL_CONFIDENCE = 4.0
BALANCE = 100_000
ORDER_FRACTION, MAX_POSITION_FRACTION = 0.05, 0.25
FEE = 0.0004


def score(closes: np.ndarray) -> float:
    """The move of the last 12 bars in units of what chance alone would explain; 0 where it is too small to follow."""
    logs = np.log(closes[-LOOKBACK_BARS - 1 :])
    change = float(logs[-1] - logs[0])
    noise = logs[1:] - logs[:-1] - change / LOOKBACK_BARS
    explained_by_chance = math.sqrt(noise @ noise)
    found = math.copysign(FULL_CONFIDENCE, change) if change else 0.0
    if explained_by_chance > abs(change) / FULL_CONFIDENCE:
        found = change / explained_by_chance
    return found if abs(found) >= THRESHOLD else 0.0


def may_send(direction: float, position_value: float, equity: float) -> bool:
    """Whether another order stays within the largest position, or lowers it."""
    return abs(position_value + math.copysign(ORDER_FRACTION * equity, direction)) <= MAX_POSITION_FRACTION * equity
