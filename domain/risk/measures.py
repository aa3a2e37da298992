"""A portfolio in numbers, from one reading of the account. The formulas are the standard ones; each names its source."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal

from domain.trading.assessment import Measures, RiskMemory
from domain.trading.market import Market, Position, Reading
from domain.values import ZERO, assembled

# A share of equity if there is no equity left: beyond every limit, but finite, so that it can be stored.
RUINED = Decimal(999)
_ONE_DAY = timedelta(days=1)

Exposures = Mapping[str, Decimal]
Correlations = Mapping[str, float]


def remembered(memory: RiskMemory, reading: Reading) -> RiskMemory:
    """The memory after one more reading: the peak so far, and the equity with which the market's UTC day opened.

    A day opens with the last equity of the day before, so that a gap over midnight belongs to the new day. It does not go back
    to the day before: with two workers whose clocks show different days, every reading would begin a day, and no day would have
    a loss. A day that is farther ahead was never true (a clock that was wrong, bars that are played once more), and ends.
    """
    equity, day = reading.equity, reading.market_time.date()
    if memory.day == day + _ONE_DAY:
        day = memory.day
    opened = memory.day_open
    if opened is None or memory.day != day:
        opened = equity if memory.last_equity is None else memory.last_equity
    peak = equity if memory.peak is None else max(memory.peak, equity)
    if memory.day not in (None, day):
        # The day's loss starts anew, and so do its warnings.
        memory = memory.without_warnings({"daily_loss"})
    return assembled(
        RiskMemory,
        {
            "peak": peak,
            "day": day,
            "day_open": opened,
            "last_equity": equity,
            "levels": memory.levels,
            "warned": memory.warned,
        },
    )


def measured(reading: Reading, memory: RiskMemory, correlations: Correlations, threshold: float) -> Measures:
    """Every measure of the portfolio. `memory` already includes this reading.

    drawdown = (peak - equity) / peak (CFA Institute's maximum drawdown, taken at one moment); daily loss = (opening - equity) /
    opening, 0 for a gain; gross exposure = sum |value| / equity and net exposure = |sum value| / equity (AIFMD's gross
    method, Commission Delegated Regulation 231/2013, article 7, and its plain net); leverage = sum |futures value| /
    equity; position = the largest |value of one symbol| / equity; concentration: see `concentration`.
    """
    equity = reading.equity
    peak, opened = memory.peak or equity, memory.day_open or equity
    several = len(reading.positions) > 1
    return assembled(
        Measures,
        {
            "equity": equity,
            "peak": peak,
            "day_open": opened,
            "drawdown": loss(peak, equity),
            "daily_loss": loss(opened, equity),
            **(_shares(reading, correlations, threshold) if several else _shares_of_one(reading)),
        },
    )


def _shares(reading: Reading, correlations: Correlations, threshold: float) -> dict[str, Decimal]:
    values, equity = exposures(reading.positions), reading.equity
    futures = exposures(p for p in reading.positions if p.market is Market.FUTURES)
    return {
        "leverage": share(gross(futures), equity),
        "gross_exposure": share(gross(values), equity),
        "net_exposure": share(abs(sum(values.values(), ZERO)), equity),
        "position": share(largest(values), equity),
        "concentration": share(concentration(values, correlations, threshold), equity),
    }


def _shares_of_one(reading: Reading) -> dict[str, Decimal]:
    """The same for one position or none, where every share of equity is the same quotient."""
    part, on_margin = ZERO, False
    for position in reading.positions:
        part, on_margin = share(abs(position.notional), reading.equity), position.market is Market.FUTURES
    return {
        "leverage": part if on_margin else ZERO,
        "gross_exposure": part,
        "net_exposure": part,
        "position": part,
        "concentration": part,
    }


def loss(before: Decimal, now: Decimal) -> Decimal:
    """What was lost since `before`, as a fraction of it; 0 for a gain."""
    if now >= before:
        return ZERO
    return (before - now) / before if before > 0 else RUINED


def share(value: Decimal, equity: Decimal) -> Decimal:
    """`value` as a fraction of equity."""
    if not value:
        return ZERO
    return min(value / equity, RUINED) if equity > 0 else RUINED


def exposures(positions: Iterable[Position]) -> dict[str, Decimal]:
    """Signed value of each symbol at its mark price, futures and spot combined."""
    values: dict[str, Decimal] = {}
    for position in positions:
        values[position.symbol] = values.get(position.symbol, ZERO) + position.notional
    return values


def gross(values: Exposures) -> Decimal:
    """Longs plus shorts."""
    return sum(map(abs, values.values()), ZERO)


def largest(values: Exposures) -> Decimal:
    """The largest value of one symbol, long or short."""
    return max(map(abs, values.values()), default=ZERO)


def concentration(values: Exposures, correlations: Correlations, threshold: float) -> Decimal:
    """The largest value that would move together: any symbol plus all symbols correlated with it, signs counted.

    Two symbols whose returns have an absolute correlation of at least `threshold` count as one. A negative correlation
    flips the sign, so that a long and a short of twins cancel out.
    """
    groups = (sum(group(symbol, values, correlations, threshold).values(), ZERO) for symbol in values)
    return max(map(abs, groups), default=ZERO)


def group(symbol: str, values: Exposures, correlations: Correlations, threshold: float) -> dict[str, Decimal]:
    """The values of `symbol` and of everything correlated with it, as if all of it were `symbol`."""
    found = {}
    for other, value in values.items():
        alike = 1.0 if other == symbol else correlation(symbol, other, correlations)
        if abs(alike) >= threshold:
            found[other] = value if alike > 0 else -value
    return found


def correlation(one: str, other: str, correlations: Correlations) -> float:
    """The correlation of two symbols' returns; 0 if unknown."""
    return correlations.get(pair(one, other), 0.0)


def pair(one: str, other: str) -> str:
    """The key of a pair of symbols."""
    return "/".join(sorted((one, other)))
