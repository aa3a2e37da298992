"""Pairs of samples, and what follows from them: the ratio of the medians, and how sure it is."""

import random
import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from bench.machine import Watch
from bench.subject import Pair, Remark, Row, Subject

RESAMPLES = 10_000
CONFIDENCE = 0.95


def orders(seed: str, samples: int) -> Iterator[bool]:
    """For each pair, whether ours comes first: whatever comes second may find something warm, or worn out."""
    chance = random.Random(seed)
    return (chance.random() < 0.5 for _ in range(samples))


def ratio_of(ours: Sequence[float], floor: Sequence[float]) -> float:
    """Of the medians: one sample that something else has slowed down does not move it."""
    return statistics.median(ours) / statistics.median(floor)


def interval(ours: Sequence[float], floor: Sequence[float]) -> tuple[float, float]:
    """The bootstrap's 95 % interval of that ratio. Pairs are drawn, not samples: the two of a pair saw the same machine."""
    drawn = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    ratios = np.median(np.asarray(ours)[drawn], axis=1) / np.median(np.asarray(floor)[drawn], axis=1)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def taken(pair: Pair, subject: Subject, seed: int, samples: int | None = None) -> Row:
    """Measures a pair. The same seed makes the same order."""
    for _ in range(pair.warm_up):
        pair.ours()
        pair.floor()
    ours: list[float] = []
    floor: list[float] = []
    watch = Watch()
    for ours_first in orders(f"{seed} {subject.name} {pair.what}", samples or pair.samples):
        turns = [(pair.ours, ours), (pair.floor, floor)]
        for take, into in turns if ours_first else reversed(turns):
            into.append(take())
    low, high = interval(ours, floor)
    name = pair.floor_name or subject.floor
    return Row(pair.what, name, pair.unit, ours, floor, ratio_of(ours, floor), low, high, watch.others(), pair.allowed)


def measured(subject: Subject, seed: int, samples: int | None, size: int | None) -> Iterator[Row | Remark]:
    """Everything of a subject, as it comes. What it has opened is closed, however this ends."""
    steps = subject.pairs(size or subject.size)
    row: Row | None = None
    try:
        while True:
            step = steps.send(row)
            if isinstance(step, Pair):
                row = taken(step, subject, seed, samples)
                yield row
            else:
                row = None
                yield step
    except StopIteration:
        return
    finally:
        steps.close()
