"""Guards: each is one risk rule, a pure function from a candidate order, the portfolio and the limits to a verdict.

To add one: write the function, add it to `GUARDS`, its limit to `Limits`, and a row to docs/risk.md. A test then asks what
`replay/refusing.py` makes of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from domain.risk.assessing import comparison, limit_named
from domain.risk.filling import (
    Leg,
    Reach,
    filled,
    legs_of,
    quantities,
    reaches,
    sign,
    together,
    unlisted_legs,
    unsettled_legs,
    with_twins,
)
from domain.risk.limits import Limits
from domain.risk.measures import Correlations, gross, share
from domain.trading.instructions import OrderInstruction, Side
from domain.trading.market import Market, Observation
from domain.trading.quotes import AgentQuote
from domain.values import ZERO, digits, plain

RATE_WINDOW = timedelta(minutes=1)
_MARKETS = frozenset(Market)
_FUTURES = frozenset({Market.FUTURES})


class BarSummary(NamedTuple):
    """Figures from a symbol's newest bars: the median of the closes before the last, and an average bar's volume.

    Both are in quote currency; None if there are too few bars.
    """

    reference_price: Decimal | None = None
    bar_volume: Decimal | None = None


NO_BARS = BarSummary()


@dataclass(frozen=True)
class MarketContext:
    """What a cycle's order is checked against. `sent` are the times of earlier orders, by the market's clock; `barless` the
    symbols whose bars are not known; `quotes` the agents' orders resting at the venue; `unsettled` orders of unknown fate."""

    observation: Observation
    limits: Limits
    symbols: Sequence[str]
    now: datetime
    blocked: Mapping[str, str] = field(default_factory=dict)
    tapes: Mapping[str, BarSummary] = field(default_factory=dict)
    correlations: Correlations = field(default_factory=dict)
    sent: Sequence[datetime] = ()
    barless: Sequence[str] = ()
    quotes: Sequence[AgentQuote] = ()
    unsettled: Sequence[OrderInstruction] = ()


@dataclass(frozen=True)
class Candidate:
    """An order for the guards to check, with its context."""

    instruction: OrderInstruction
    given: MarketContext

    @cached_property
    def limits(self) -> Limits:
        """The desk's limits."""
        return self.given.limits

    @cached_property
    def observation(self) -> Observation:
        """The reading."""
        return self.given.observation

    @cached_property
    def equity(self) -> Decimal:
        """Net asset value."""
        return self.observation.account.nav

    @cached_property
    def mark(self) -> Decimal:
        """Mark price of the order's symbol; 0 if there is none."""
        return self.observation.marks.get(self.instruction.symbol, ZERO)

    @cached_property
    def price(self) -> Decimal:
        """The price that guards use: the order's limit or the mark price, whichever is higher. Once filled, the order
        counts at the mark."""
        return max(self.mark, self.instruction.price or ZERO)

    @property
    def notional(self) -> Decimal:
        """The order's value, without a sign."""
        return self.instruction.quantity * self.price

    @property
    def tape(self) -> BarSummary:
        """Figures from the newest bars of the order's symbol."""
        return self.given.tapes.get(self.instruction.symbol, NO_BARS)

    @cached_property
    def after(self) -> dict[str, Decimal]:
        """Signed values by symbol once the order and all resting orders that matter have filled: on its own symbol those in
        its direction, on others whichever are worse."""
        return self._worst(self._reach)

    @cached_property
    def reach_after(self) -> dict[str, Reach]:
        """How far each symbol's value may move. The order's own symbol is fixed at its value once the order has filled."""
        own = self.after[self.instruction.symbol]
        return self._reach | {self.instruction.symbol: Reach(own, own)}

    @cached_property
    def after_in_its_direction(self) -> dict[str, Decimal]:
        """Like `after`, but on other symbols the orders in this order's direction fill."""
        return {symbol: reach.towards(self.instruction.side) for symbol, reach in self._reach.items()}

    @cached_property
    def futures_after(self) -> dict[str, Decimal]:
        """Like `after`, for futures alone."""
        seen = self.observation
        markets = {*(held.market for held in seen.positions), *(order.market for order in seen.open_orders)}
        return self.after if markets <= _FUTURES else self._worst(self._reaches(_FUTURES))

    @cached_property
    def only_share(self) -> Decimal | None:
        """Every exposure once the order has filled, as a share of equity, where all of them are one number: nothing rests, and
        no other symbol is held, nor this one on spot. None otherwise, and if nothing is left."""
        seen, order, held = self.observation, self.instruction, next(iter(self.observation.positions), None)
        own = held is None or (held.symbol == order.symbol and held.market is Market.FUTURES)
        if not own or len(seen.positions) > 1 or seen.open_orders or self.given.quotes or self.given.unsettled:
            return None
        value, quantity = (held.notional, held.quantity) if held else (ZERO, ZERO)
        leg = Leg(order.symbol, order.side, order.quantity, self.price)
        return share(abs(filled(value, quantity, [leg], self.mark)), self.equity) or None

    def _worst(self, found: Mapping[str, Reach]) -> dict[str, Decimal]:
        symbol, side = self.instruction.symbol, self.instruction.side
        return {each: reach.towards(side) if each == symbol else reach.worst for each, reach in found.items()}

    @cached_property
    def _reach(self) -> dict[str, Reach]:
        return self._reaches(_MARKETS)

    def _reaches(self, counted: frozenset[Market]) -> dict[str, Reach]:
        seen, order = self.observation, self.instruction
        own = Leg(order.symbol, order.side, order.quantity, self.price)
        return reaches([p for p in seen.positions if p.market in counted], [*self._legs(counted), own], seen.marks)

    def _legs(self, counted: frozenset[Market]) -> list[Leg]:
        """Everything that may fill besides this order."""
        given, seen = self.given, self.observation
        legs = legs_of((o for o in seen.open_orders if o.market in counted), seen.marks)
        legs += unlisted_legs(given.quotes, seen.open_orders, seen.marks)
        return legs + unsettled_legs(given.unsettled, seen.marks)

    @cached_property
    def reduces(self) -> bool:
        """Whether the order only reduces risk: together with everything that rests in its direction, it makes its symbol's
        position smaller without flipping it."""
        return self._reduces(_MARKETS)

    @cached_property
    def reduces_futures(self) -> bool:
        """The same for futures alone, which a sale of futures against a spot holding does not make smaller."""
        return self.reduces and self._reduces(_FUTURES)

    def _reduces(self, counted: frozenset[Market]) -> bool:
        order, seen = self.instruction, self.observation
        if not seen.positions:
            return False
        held = quantities(p for p in seen.positions if p.market in counted).get(order.symbol, ZERO)
        # Reduce-only orders too: if one fills first, nothing is left for this order to reduce.
        resting = [leg.quantity for leg in self._legs(counted) if (leg.symbol, leg.side) == (order.symbol, order.side)]
        left = held + sign(order.side) * sum(resting, order.quantity)
        return bool(held) and abs(left) < abs(held) and left * held >= 0


Guard = Callable[[Candidate], str | None]


def kill_switch_triggered(candidate: Candidate) -> str | None:
    """Refuses if the database's latch says killed. The coordinator kills itself on the same reading."""
    latch = candidate.observation.latch
    return "kill_switch_triggered" if latch is not None and latch.killed else None


def limits_unwatched(candidate: Candidate) -> str | None:
    """Refuses if nobody has checked the reading against the portfolio's limits (I7)."""
    return "limits_unwatched" if candidate.observation.assessment is None else None


def data_stale(candidate: Candidate) -> str | None:
    """Refuses if the newest price is older than the limit."""
    age = (candidate.given.now - candidate.observation.data_time).total_seconds()
    limit = candidate.limits.max_data_age_seconds
    return f"data_stale: {age:.1f}s > {limit:.1f}s" if age > limit else None


def symbol_not_whitelisted(candidate: Candidate) -> str | None:
    """Refuses a symbol that the desk does not trade."""
    symbol = candidate.instruction.symbol
    return None if symbol in candidate.given.symbols else f"symbol_not_whitelisted: {symbol}"


def symbol_unknown(candidate: Candidate) -> str | None:
    """Refuses a symbol without a price or without rules (I7)."""
    known = candidate.mark > 0 and candidate.instruction.symbol in candidate.observation.rules
    return None if known else f"symbol_unknown: {candidate.instruction.symbol}"


def symbol_not_trading(candidate: Candidate) -> str | None:
    """Refuses a symbol that takes no new order now, in the venue's own term."""
    rules = candidate.observation.rules.get(candidate.instruction.symbol)
    return f"symbol_not_trading: {rules.halted}" if rules and rules.halted else None


def account_not_trading(candidate: Candidate) -> str | None:
    """Refuses if the account may not trade, in the venue's own term."""
    halted = candidate.observation.account.halted
    return f"account_not_trading: {halted}" if halted else None


def reading_doubtful(candidate: Candidate) -> str | None:
    """Refuses if the reading is doubtful (I6)."""
    doubt = candidate.observation.doubt
    return f"reading_doubtful: {doubt}" if doubt else None


def daily_loss_breached(candidate: Candidate) -> str | None:
    """Refuses new risk once the day's loss has reached its soft limit."""
    return _loss_breached(candidate, "daily_loss", candidate.limits.soft_daily_loss)


def drawdown_breached(candidate: Candidate) -> str | None:
    """Refuses new risk once the drawdown has reached its soft limit."""
    return _loss_breached(candidate, "drawdown", candidate.limits.soft_drawdown)


def leverage_breached(candidate: Candidate) -> str | None:
    """Refuses an order after which the futures positions would be worth more than the allowed multiple of equity."""
    value = candidate.only_share or share(gross(candidate.futures_after), candidate.equity)
    bound = candidate.limits.max_leverage
    if value <= bound or candidate.reduces_futures:
        return None
    return comparison(limit_named("leverage"), value, bound)


def gross_exposure_exceeded(candidate: Candidate) -> str | None:
    """Refuses an order after which all positions together would be worth more than their share of equity."""
    value = candidate.only_share or share(gross(candidate.after), candidate.equity)
    exceeded = _exceeded(candidate, "gross_exposure", value, candidate.limits.max_gross_exposure_fraction)
    return "gross_exposure_exceeded" if exceeded else None


def net_exposure_exceeded(candidate: Candidate) -> str | None:
    """Refuses an order after which longs less shorts would be worth more than their share of equity."""
    value = candidate.only_share or share(abs(sum(candidate.after_in_its_direction.values(), ZERO)), candidate.equity)
    return _exceeded(candidate, "net_exposure", value, candidate.limits.max_net_exposure_fraction)


def position_too_large(candidate: Candidate) -> str | None:
    """Refuses an order after which one position would be worth more than its share of equity."""
    value = candidate.only_share or share(abs(candidate.after[candidate.instruction.symbol]), candidate.equity)
    exceeded = _exceeded(candidate, "position", value, candidate.limits.max_position_fraction)
    return "position_too_large" if exceeded else None


def concentration_exceeded(candidate: Candidate) -> str | None:
    """Refuses an order after which positions that move together would be worth more than their share of equity.

    A position whose bars are not known may move with the order's symbol, so it counts as if it did (I7).
    """
    limits, symbol = candidate.limits, candidate.instruction.symbol
    if candidate.only_share:
        return _exceeded(candidate, "concentration", candidate.only_share, limits.max_concentration_fraction)
    known = candidate.reach_after, candidate.given.correlations, limits.correlation_threshold
    value = together(*known)
    unknown = [abs(candidate.after[other]) for other in candidate.given.barless if other in candidate.after]
    if unknown and symbol not in candidate.given.barless:
        value = max(value, with_twins(symbol, *known) + sum(unknown, ZERO))
    return _exceeded(candidate, "concentration", share(value, candidate.equity), limits.max_concentration_fraction)


def liquidity_insufficient(candidate: Candidate) -> str | None:
    """Refuses an order that is too large for the market: more than its share of an average bar's volume."""
    needed = candidate.notional / candidate.limits.max_volume_share
    found = candidate.tape.bar_volume or ZERO
    return f"liquidity_insufficient: {found:.0f} < {needed:.0f}" if found < needed else None


def price_deviation_exceeded(candidate: Candidate) -> str | None:
    """Refuses if the last price is far from the median of the closes before it: a bad print, or a crash under way."""
    reference, limit = candidate.tape.reference_price, candidate.limits.max_price_deviation
    if not reference:
        return "price_deviation_exceeded: no price to compare with"
    deviation = abs(candidate.mark - reference) / reference
    return f"price_deviation_exceeded: {digits(deviation)} > {plain(limit)}" if deviation > limit else None


def price_outside_band(candidate: Candidate) -> str | None:
    """Refuses a limit price that the venue would refuse: a purchase too far above the mark price, a sale too far below it."""
    order, rules = candidate.instruction, candidate.observation.rules.get(candidate.instruction.symbol)
    if order.price is None or rules is None:
        return None
    buys = order.side is Side.BUY
    multiplier = rules.multiplier_up if buys else rules.multiplier_down
    bound = None if multiplier is None else candidate.mark * multiplier
    if bound is None or (order.price <= bound if buys else order.price >= bound):
        return None
    return f"price_outside_band: {plain(order.price)} {'>' if buys else '<'} {plain(bound)}"


def order_rate_exceeded(candidate: Candidate) -> str | None:
    """Refuses more orders per minute of the market's time than allowed.

    That time may go back by months, to other bars or from a clock that was wrong. Orders sent before then lie in the future,
    and would count until it has caught up: a desk at its limit would never trade again.
    """
    limit, sent = candidate.limits.max_orders_per_minute, candidate.given.sent
    if len(sent) < limit:
        return None
    now = candidate.observation.market_time
    count = sum(1 for at in sent if abs(now - at) < RATE_WINDOW) + 1
    return f"order_rate_exceeded: {count} > {limit}" if count > limit else None


GUARDS: tuple[Guard, ...] = (
    kill_switch_triggered,
    limits_unwatched,
    reading_doubtful,
    data_stale,
    symbol_not_whitelisted,
    symbol_unknown,
    symbol_not_trading,
    account_not_trading,
    daily_loss_breached,
    drawdown_breached,
    leverage_breached,
    gross_exposure_exceeded,
    net_exposure_exceeded,
    position_too_large,
    concentration_exceeded,
    liquidity_insufficient,
    price_deviation_exceeded,
    price_outside_band,
    order_rate_exceeded,
)


def refusals(candidate: Candidate) -> list[str]:
    """The reason of every guard that refuses, in the order of `GUARDS`. Empty means approved."""
    return [reason for guard in GUARDS if (reason := guard(candidate))]


def _loss_breached(candidate: Candidate, name: str, bound: Decimal) -> str | None:
    assessment = candidate.observation.assessment
    value: Decimal = getattr(assessment.measures, name) if assessment else ZERO
    if value < bound or candidate.reduces:
        return None
    return comparison(limit_named(name), value, bound)


def _exceeded(candidate: Candidate, name: str, value: Decimal, bound: Decimal) -> str | None:
    """The reason if the value exceeds its bound. An order that only reduces risk passes, however far past the limit the
    portfolio is."""
    if value <= bound or candidate.reduces:
        return None
    return comparison(limit_named(name), value, bound)
