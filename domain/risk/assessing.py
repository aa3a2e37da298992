"""Checks the portfolio's limits: which were crossed, what must be cut, and whether a hard one is reached.

Pure, and called in an activity: Temporal records the result, so a changed rule never changes a replay.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple

from domain.risk.limits import INSIDE, PORTFOLIO_LIMITS, Limits, PortfolioLimit
from domain.risk.measures import Correlations, Exposures, exposures, gross, group, measured, remembered
from domain.trading.assessment import WARNINGS, Assessment, Breach, Crossing, Cut, Level, Measures, RiskMemory
from domain.trading.market import Market, Position, Reading
from domain.values import ZERO, assembled, digits, plain

_INFINITE = Decimal("Infinity")


def assess(
    reading: Reading, limits: Limits, memory: RiskMemory, correlations: Correlations | None = None
) -> Assessment:
    """Checks one reading against the limits, given what earlier readings left in the memory."""
    memory = remembered(memory, reading)
    measures = measured(reading, memory, correlations or {}, limits.correlation_threshold)
    values = vars(measures)
    awake = [limit for limit, bound in limits.wakes if values[limit.name] >= bound]
    if not (awake or memory.levels or memory.warned):
        return _calm(measures, memory)
    found = {limit.name: _level(limit, limits, measures, memory) for limit in awake}
    levels = {name: level for name, level in found.items() if level}
    kept = {limit.name: _warned(limit, limits, measures, memory, found[limit.name]) for limit in awake}
    warned = {name: level for name, level in kept.items() if level}
    if (levels, warned) == (memory.levels, memory.warned) and all(level < Level.SOFT for level in levels.values()):
        # Nothing is new and nothing must be done. Most readings end here.
        return _calm(measures, memory)
    return Assessment(
        measures=measures,
        memory=memory.model_copy(update={"levels": levels, "warned": warned}),
        crossings=_crossings(limits, measures, memory, levels),
        cuts=_cuts(reading, limits, measures, correlations or {}),
        breaches=_breaches(limits, measures),
    )


def _calm(measures: Measures, memory: RiskMemory) -> Assessment:
    nothing: dict[str, Any] = {"crossings": [], "cuts": [], "breaches": []}
    return assembled(Assessment, {"measures": measures, "memory": memory, **nothing})


def bound_of(limit: PortfolioLimit, limits: Limits, level: Level) -> Decimal:
    """Where a limit's level begins."""
    return limits.bounds[limit.name][level]


def reached(limit: PortfolioLimit, value: Decimal, bound: Decimal) -> bool:
    """A loss reaches a limit when it equals it, an exposure only beyond it: an order may go right up to the limit."""
    return value >= bound if limit.is_loss else value > bound


def comparison(limit: PortfolioLimit, value: Decimal, bound: Decimal) -> str:
    """`drawdown_breached: 0.1043 >= 0.1`: the reason as the decision log shows it."""
    sign = ">=" if limit.is_loss else ">"
    return f"{limit.reason}: {digits(value)} {sign} {plain(bound)}"


class Interval(NamedTuple):
    """The open interval between two neighbouring numbers that a measure is compared with. While the measure stays inside, and
    the memory stays the same, each check finds the same as the last one.
    """

    above: Decimal
    below: Decimal


def interval_around(value: Decimal, edges: Sequence[Decimal]) -> Interval:
    """The interval around a measure. `edges` are the numbers it is compared with (`Limits.edges`), lowest first; on one of them
    the interval is empty."""
    number = bisect_left(edges, value)
    if number < len(edges) and edges[number] == value:
        return Interval(value, value)
    return Interval(edges[number - 1] if number else -_INFINITE, edges[number] if number < len(edges) else _INFINITE)


def limit_named(name: str) -> PortfolioLimit:
    """The portfolio limit of that name. A worker of a newer release may report one that this release does not know: it has a
    name then, and no numbers. An error here would fail every workflow task that shows it, a kill's too."""
    unknown = PortfolioLimit(name, name, soft="", hard="", maximum=None, title=name.replace("_", " "))
    return next((limit for limit in PORTFOLIO_LIMITS if limit.name == name), unknown)


def _level(limit: PortfolioLimit, limits: Limits, measures: Measures, memory: RiskMemory) -> Level:
    """The current level: the one reached, or the previous one until the measure has clearly fallen below it.

    HARD is reported by whoever kills, after a second reading: see `domain/desk/enforcing.py`.
    """
    value, held = getattr(measures, limit.name), memory.levels.get(limit.name, Level.CALM)
    found = Level.CALM
    for level, bound, inside in limits.steps[limit.name]:
        if value < inside or (level is Level.HARD and held is not Level.HARD):
            break
        if level <= held or reached(limit, value, bound):
            found = level
    return found


def _warned(limit: PortfolioLimit, limits: Limits, measures: Measures, memory: RiskMemory, now: Level) -> Level:
    """The highest warning that is not repeated: people were told of it (or `now` tells them), and the measure has not yet
    fallen below its band."""
    value, highest = getattr(measures, limit.name), max(_warned_before(memory, limit.name), now)
    kept = (level for level, bound in limits.forgets[limit.name].items() if level <= highest and value >= bound)
    return max(kept, default=Level.CALM)


def _warned_before(memory: RiskMemory, name: str) -> Level:
    """The highest warning told before. A memory from before there was a band knows only the level: people were told of that
    one."""
    return max(memory.warned.get(name, Level.CALM), memory.levels.get(name, Level.CALM))


def _crossings(limits: Limits, measures: Measures, memory: RiskMemory, levels: dict[str, Level]) -> list[Crossing]:
    """Each level that is reached now and was not before. Warnings count only if people were not told of them yet."""
    found = []
    for name, now in levels.items():
        held, warned = memory.levels.get(name, Level.CALM), _warned_before(memory, name)
        for level, bound in limits.bounds[name].items():
            if (warned if level in WARNINGS else held) < level <= now:
                found.append(Crossing(limit=name, level=level, value=getattr(measures, name), bound=bound))
    return found


def _breaches(limits: Limits, measures: Measures) -> list[Breach]:
    found = []
    for limit in PORTFOLIO_LIMITS:
        value, bound = getattr(measures, limit.name), bound_of(limit, limits, Level.HARD)
        if reached(limit, value, bound):
            found.append(Breach(limit=limit.name, reason=comparison(limit, value, bound), value=value, bound=bound))
    return found


# --- what must be cut -----------------------------------------------------------------------------------------------


def _cuts(reading: Reading, limits: Limits, measures: Measures, correlations: Correlations) -> list[Cut]:
    """Reductions that bring every limit past its soft number back inside, the largest position first.

    Reducing cannot undo a loss, only keep it from growing, so a loss closes every position.
    """
    breached = {
        limit.name: limit
        for limit in PORTFOLIO_LIMITS
        if reached(limit, getattr(measures, limit.name), bound_of(limit, limits, Level.SOFT))
    }
    if not breached:
        return []
    held = sorted(_futures(reading), key=lambda p: (-abs(p.notional), p.symbol))
    if closing := [name for name, limit in breached.items() if limit.is_loss]:
        return [Cut(symbol=p.symbol, quantity=abs(p.quantity), limits=closing) for p in held]
    plan = _Plan(reading, limits, measures.equity, correlations, held)
    for name in _ORDER:
        if name in breached:
            plan.bring_inside(breached[name])
    return plan.cuts()


def _futures(reading: Reading) -> list[Position]:
    return [p for p in reading.positions if p.market is Market.FUTURES and p.quantity]


# From the narrowest limit to the widest: a cut for one symbol also counts for the whole portfolio.
_ORDER = ("position", "concentration", "net_exposure", "leverage", "gross_exposure")


class _Plan:
    """Values that shrink as cuts are planned, and the limits that each cut is for."""

    def __init__(
        self,
        reading: Reading,
        limits: Limits,
        equity: Decimal,
        correlations: Correlations,
        held: Iterable[Position],
    ) -> None:
        self._limits = limits
        self._equity = max(equity, ZERO)
        self._correlations = correlations
        self._rules = reading.rules
        self._held = {p.symbol: p for p in held}
        self._futures = exposures(self._held.values())
        self._values = exposures(reading.positions)
        self._why: dict[str, list[str]] = {}

    def bring_inside(self, limit: PortfolioLimit) -> None:
        """Plans cuts until the limit's measure is inside."""
        target = bound_of(limit, self._limits, Level.SOFT) * INSIDE * self._equity
        match limit.name:
            case "position":
                for symbol, value in self._values.items():
                    self._shrink([symbol], value, target, limit)
            case "concentration":
                for symbol in self._values:
                    alike, futures = self._group(symbol, self._values), self._group(symbol, self._futures)
                    self._shrink(list(alike), sum(alike.values(), ZERO), target, limit, futures)
            case "net_exposure":
                self._shrink(list(self._values), sum(self._values.values(), ZERO), target, limit)
            case "leverage":
                self._shrink_gross(gross(self._futures), target, limit, self._futures)
            case "gross_exposure":
                self._shrink_gross(gross(self._values), target, limit, self._values)

    def _group(self, symbol: str, values: Exposures) -> Exposures:
        return group(symbol, values, self._correlations, self._limits.correlation_threshold)

    def _shrink(
        self,
        symbols: list[str],
        total: Decimal,
        target: Decimal,
        limit: PortfolioLimit,
        signed: Exposures | None = None,
    ) -> None:
        """Cuts futures that push a total which is too large. With `signed`, the futures of correlated symbols count with the
        sign that they have as one symbol."""
        excess = abs(total) - target
        for symbol in self._largest_first(symbols):
            value = (signed or self._futures)[symbol] if symbol in self._futures else ZERO
            if excess > 0 and value * total > 0:
                excess -= self._cut(symbol, excess, limit)

    def _shrink_gross(self, total: Decimal, target: Decimal, limit: PortfolioLimit, values: Exposures) -> None:
        """Cuts futures from a sum of these absolute values. One that hedges a larger spot holding only makes its symbol's value
        smaller, and stays."""
        excess = total - target
        for symbol in self._largest_first(self._futures):
            if excess > 0 and values[symbol] * self._futures[symbol] > 0:
                excess -= self._cut(symbol, min(excess, abs(values[symbol])), limit)

    def _largest_first(self, symbols: Iterable[str]) -> list[str]:
        held = [symbol for symbol in symbols if symbol in self._futures]
        return sorted(held, key=lambda symbol: (-abs(self._futures[symbol]), symbol))

    def _cut(self, symbol: str, excess: Decimal, limit: PortfolioLimit) -> Decimal:
        """Cuts up to `excess` from a position. Returns how much."""
        value = self._futures[symbol]
        taken = min(abs(value), excess)
        if taken:
            signed = taken if value > 0 else -taken
            self._futures[symbol] -= signed
            self._values[symbol] -= signed
            self._why.setdefault(symbol, []).append(limit.name)
        return taken

    def cuts(self) -> list[Cut]:
        """The cut of each position, rounded up to its lot step and never more than is held."""
        found = []
        for symbol, position in self._held.items():
            if names := self._why.get(symbol):
                taken = abs(position.notional) - abs(self._futures[symbol])
                quantity = taken / position.mark_price
                if rules := self._rules.get(symbol):
                    lots = (quantity / rules.lot_step).to_integral_value(rounding=ROUND_CEILING)
                    quantity = plain(lots * rules.lot_step)
                found.append(Cut(symbol=symbol, quantity=min(quantity, abs(position.quantity)), limits=names))
        return found
