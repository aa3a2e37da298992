"""A symbol's trading rules, from the exchange's filters."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from activities.venues.aster.caller import Caller
from activities.venues.aster.operation import Urgency, current
from activities.venues.aster.results import Row, Unreadable, rows
from activities.venues.port import VenueError
from domain.trading.market import SymbolRules
from domain.values import ZERO

# Filters change with days of notice, but a symbol may stop trading at any moment.
FRESH_SECONDS = 60.0
STALE_SECONDS = 3600.0
BRACKETS_FRESH_SECONDS = 1800.0
TRADING = "TRADING"
NOT_LISTED = "not listed"
# How a market order is sent.
_ORDER_TYPE, _TIME_IN_FORCE = "LIMIT", "IOC"
_NO_FILTER: dict[str, Any] = {}


class RuleBook:
    """The rules of every symbol: up to a minute old, or up to an hour while they cannot be read.

    Concurrent callers wait for the same reading, except those that a kill or a reduction waits for: they take what is known. A
    symbol that a later list leaves out keeps its rules, so that its position can be closed, but takes no new order."""

    def __init__(self, caller: Caller, clock: Callable[[], float] = time.monotonic, *, public: bool = False) -> None:
        self._caller = caller
        self._public = public
        self._clock = clock
        self._rules: dict[str, SymbolRules] = {}
        self._read_at: float | None = None
        self._expired = False
        self._ratios: dict[str, Decimal] = {}
        self._ratios_read_at: float | None = None
        self._lock = asyncio.Lock()
        # How many readings have ended, and the error of the last one if it failed.
        self._readings = 0
        self._error: VenueError | None = None

    async def rules(self, seconds: float | None = None) -> dict[str, SymbolRules]:
        """Rules by symbol, without symbols that the exchange does not list or whose filters make no sense."""
        before = self._readings
        if self._lock.locked() and current().urgency <= Urgency.SOON and self._age() <= STALE_SECONDS:
            # A kill and a reduction do not wait for a cycle's reading, which may itself be waiting for its turn.
            return self._rules
        async with self._lock:
            if not self._expired and self._age() <= FRESH_SECONDS:
                return self._rules
            if self._readings > before and self._error:
                # The reading that this caller waited for has failed. If each tried again in turn, the last would wait for all.
                return self._known(self._error)
            # One that is given up has no error, not that of an earlier one: whoever waited for it makes another.
            self._error = None
            try:
                answer, ratios = await asyncio.gather(
                    self._caller.call("get_exchange_info", seconds=seconds), self._maintenance_ratios(seconds)
                )
                found = rules_of(answer, ratios)
            except VenueError as error:
                self._error = error
                return self._known(error)
            else:
                left_out = {symbol: it.model_copy(update={"halted": NOT_LISTED}) for symbol, it in self._rules.items()}
                self._rules = left_out | found
                self._read_at, self._expired = self._clock(), False
            finally:
                self._readings += 1
            return self._rules

    def _known(self, error: VenueError) -> dict[str, SymbolRules]:
        """The rules while they cannot be read."""
        if self._age() > STALE_SECONDS:
            raise error
        return self._rules

    @property
    def remembered(self) -> Mapping[str, SymbolRules]:
        """The rules as they were last read, however old: for what only reduces. The exchange checks them once more."""
        return self._rules

    def expire(self) -> None:
        """Makes the next caller read the rules again."""
        self._expired = True

    def trading_besides(self, symbol: str) -> str | None:
        """Another symbol that trades, by the rules as they are known now; None if none is known."""
        return next((name for name, rules in self._rules.items() if not rules.halted and name != symbol), None)

    def _age(self) -> float:
        return float("inf") if self._read_at is None else self._clock() - self._read_at

    async def _maintenance_ratios(self, seconds: float | None) -> dict[str, Decimal]:
        """The ratio of each symbol's first bracket. It takes an account; otherwise the domain's cautious default applies."""
        read_at = self._ratios_read_at
        if self._public or (read_at is not None and self._clock() - read_at <= BRACKETS_FRESH_SECONDS):
            return self._ratios
        with contextlib.suppress(VenueError):
            answer = await self._caller.call("get_leverage_bracket", seconds=seconds)
            for row in rows("get_leverage_bracket", answer):
                # One unreadable symbol must not cost the others their brackets.
                with contextlib.suppress(Unreadable):
                    if brackets := row.listed("brackets"):
                        first = Row(row.call, brackets[0])
                        self._ratios |= {row.text("symbol"): first.number("maintMarginRatio")}
            self._ratios_read_at = self._clock()
        return self._ratios


def rules_of(answer: object, ratios: dict[str, Decimal] | None = None) -> dict[str, SymbolRules]:
    """Rules by symbol, from the answer of get_exchange_info. Raises Unreadable for an empty list."""
    listed = [Row("get_exchange_info", symbol) for symbol in Row("get_exchange_info", answer).listed("symbols")]
    if not listed:
        raise Unreadable("get_exchange_info", "it lists no symbol")
    found = {}
    for symbol in listed:
        # One unreadable symbol must not cost the others their rules.
        with contextlib.suppress(VenueError):
            if rules := _from_filters(symbol, ratios or {}):
                found[rules.symbol] = rules
    return found


def _from_filters(listed: Row, ratios: dict[str, Decimal]) -> SymbolRules | None:
    filters = {row.text("filterType"): row for row in rows(listed.call, listed.listed("filters"))}

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
        halted=_halted(listed),
        **{name: value for name, value in extra.items() if value is not None},
    )


def _halted(listed: Row) -> str | None:
    """Why a symbol takes no new order now, in the exchange's terms. A symbol without a status does not trade."""
    if not listed.has("status"):
        return "no status"
    words = [listed.text("status")]
    if listed.has("contractStatus"):
        words.append(listed.text("contractStatus"))
    words = [word for word in dict.fromkeys(words) if word != TRADING]
    taken = (("OrderType", _ORDER_TYPE), ("orderTypes", _ORDER_TYPE), ("timeInForce", _TIME_IN_FORCE))
    words += [f"no {word} in {name}" for name, word in taken if listed.has(name) and word not in listed.listed(name)]
    return ", ".join(words) or None
