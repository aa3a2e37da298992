"""A symbol's trading rules, from the exchange's filters."""

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from activities.venues.aster.caller import Caller
from activities.venues.aster.results import Row, rows
from activities.venues.port import VenueError
from domain.market import SymbolRules
from domain.values import ZERO

# Rules change on announcement, days ahead. Read anew at half the age at which they no longer count.
FRESH_SECONDS = 1800.0
STALE_SECONDS = 3600.0
_NO_FILTER: dict[str, Any] = {}


class RuleBook:
    """The rules of every symbol, at most an hour old. Whoever needs them meanwhile waits for the same reading."""

    def __init__(self, caller: Caller, clock: Callable[[], float] = time.monotonic, *, public: bool = False) -> None:
        self._caller = caller
        self._public = public
        self._clock = clock
        self._rules: dict[str, SymbolRules] = {}
        self._read_at: float | None = None
        self._lock = asyncio.Lock()

    async def rules(self, seconds: float | None = None) -> dict[str, SymbolRules]:
        """By symbol; one that the exchange does not list, or whose filters make no sense, is left out."""
        async with self._lock:
            if self._age() > FRESH_SECONDS:
                await self._read(seconds)
            return self._rules

    def _age(self) -> float:
        return float("inf") if self._read_at is None else self._clock() - self._read_at

    async def _read(self, seconds: float | None) -> None:
        try:
            answer, ratios = await asyncio.gather(
                self._caller.call("get_exchange_info", seconds=seconds), self._maintenance_ratios(seconds)
            )
            self._rules = rules_of(answer, ratios)
        except VenueError:
            if self._age() > STALE_SECONDS:
                raise
        else:
            self._read_at = self._clock()

    async def _maintenance_ratios(self, seconds: float | None) -> dict[str, Decimal]:
        """Of each symbol's first bracket. An extra, for which it takes an account: else the domain's own, cautious one holds."""
        if self._public:
            return {}
        try:
            answer = await self._caller.call("get_leverage_bracket", seconds=seconds)
            brackets = {row.text("symbol"): row.listed("brackets") for row in rows("get_leverage_bracket", answer)}
            return {
                symbol: Row("get_leverage_bracket", listed[0]).number("maintMarginRatio")
                for symbol, listed in brackets.items()
                if listed
            }
        except VenueError:
            return {}


def rules_of(answer: object, ratios: dict[str, Decimal] | None = None) -> dict[str, SymbolRules]:
    """By symbol, from what get_exchange_info answers."""
    listed = [Row("get_exchange_info", symbol) for symbol in Row("get_exchange_info", answer).listed("symbols")]
    found = (_rules(symbol, ratios or {}) for symbol in listed)
    return {rules.symbol: rules for rules in found if rules}


def _rules(listed: Row, ratios: dict[str, Decimal]) -> SymbolRules | None:
    try:
        filters = {row.text("filterType"): row for row in rows(listed.call, listed.listed("filters"))}
        return _from_filters(listed, filters, ratios)
    except VenueError:
        # One symbol that cannot be read costs no other its rules.
        return None


def _from_filters(listed: Row, filters: dict[str, Row], ratios: dict[str, Decimal]) -> SymbolRules | None:
    def of(name: str) -> Row:
        return filters.get(name) or Row(listed.call, _NO_FILTER)

    lot, percent = of("LOT_SIZE"), of("PERCENT_PRICE")
    tick, step = of("PRICE_FILTER").positive("tickSize"), lot.positive("stepSize")
    if tick is None or step is None:
        return None
    symbol = listed.text("symbol")
    extra = {"maintenance_ratio": ratios.get(symbol), "liquidation_fee": listed.positive("liquidationFee")}
    return SymbolRules(
        symbol=symbol,
        tick_size=tick,
        lot_step=step,
        min_quantity=lot.positive("minQty") or step,
        min_notional=of("MIN_NOTIONAL").positive("notional") or ZERO,
        max_quantity=lot.positive("maxQty"),
        market_max_quantity=of("MARKET_LOT_SIZE").positive("maxQty"),
        multiplier_up=percent.positive("multiplierUp"),
        multiplier_down=percent.positive("multiplierDown"),
        **{name: value for name, value in extra.items() if value is not None},
    )
