"""Guards: each one risk rule, a pure function from a candidate order, the portfolio and the limits to a verdict.

To add one: write the function, add it to `GUARDS`, its limit to `Limits`, and a row to docs/risk.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from domain.assessing import comparison, limit_named
from domain.instructions import OrderInstruction, Side
from domain.limits import Limits
from domain.market import Market, Observation
from domain.measures import Correlations, concentration, exposures, gross, share
from domain.values import ZERO, digits, plain

RATE_WINDOW = timedelta(minutes=1)


class Tape(NamedTuple):
    """What the newest bars of a symbol tell: the median of the closes before the last, and an average bar's volume.

    Both in quote currency; None where there are too few bars.
    """

    reference_price: Decimal | None = None
    bar_volume: Decimal | None = None


@dataclass(frozen=True)
class Circumstances:
    """What a cycle's order is weighed against. `sent` are the times of earlier orders, by the market's clock; `barless` the
    symbols whose bars could not be read."""

    observation: Observation
    limits: Limits
    symbols: Sequence[str]
    now: datetime
    blocked: Mapping[str, str] = field(default_factory=dict)
    tapes: Mapping[str, Tape] = field(default_factory=dict)
    correlations: Correlations = field(default_factory=dict)
    sent: Sequence[datetime] = ()
    barless: Sequence[str] = ()


@dataclass(frozen=True)
class Candidate:
    """An order before it is weighed, with the circumstances that it is weighed against."""

    instruction: OrderInstruction
    given: Circumstances

    @property
    def limits(self) -> Limits:
        """The desk's limits."""
        return self.given.limits

    @property
    def observation(self) -> Observation:
        """The reading."""
        return self.given.observation

    @property
    def equity(self) -> Decimal:
        """Net asset value."""
        return self.observation.account.nav

    @property
    def mark(self) -> Decimal:
        """Mark price of the order's symbol; 0 where there is none."""
        return self.observation.marks.get(self.instruction.symbol, ZERO)

    @property
    def signed_notional(self) -> Decimal:
        """The order's value at the mark price, negative for a sale."""
        sign = 1 if self.instruction.side is Side.BUY else -1
        return sign * self.instruction.quantity * self.mark

    @property
    def tape(self) -> Tape:
        """What the newest bars of the order's symbol tell."""
        return self.given.tapes.get(self.instruction.symbol, Tape())

    @cached_property
    def before(self) -> dict[str, Decimal]:
        """Signed values by symbol, without the order."""
        return exposures(self.observation.positions)

    @cached_property
    def after(self) -> dict[str, Decimal]:
        """Signed values by symbol once the order is filled, and all that rests in its direction too."""
        symbol = self.instruction.symbol
        return {**self.before, symbol: self.before.get(symbol, ZERO) + self.signed_notional + self._resting}

    @property
    def _resting(self) -> Decimal:
        sign = 1 if self.instruction.side is Side.BUY else -1
        left = (
            order.quantity - order.filled_quantity
            for order in self.observation.open_orders
            if order.symbol == self.instruction.symbol and order.side is self.instruction.side and not order.reduce_only
        )
        return sign * sum(left, ZERO) * self.mark

    @property
    def reduces(self) -> bool:
        """Whether the order only takes risk off: it makes its symbol's position smaller and does not turn it."""
        symbol = self.instruction.symbol
        held, left = self.before.get(symbol, ZERO), self.after[symbol]
        return bool(held) and abs(left) < abs(held) and left * held >= 0


Guard = Callable[[Candidate], str | None]


def kill_switch_triggered(candidate: Candidate) -> str | None:
    """Refuses where the database's latch says killed: the coordinator kills itself by the same reading."""
    latch = candidate.observation.latch
    return "kill_switch_triggered" if latch is not None and latch.killed else None


def limits_unwatched(candidate: Candidate) -> str | None:
    """Refuses on a reading that nobody held against the portfolio's limits (I7)."""
    return "limits_unwatched" if candidate.observation.assessment is None else None


def data_stale(candidate: Candidate) -> str | None:
    """Refuses on a price older than the limit."""
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
    """Refuses a symbol that takes no new order now, in the venue's own word."""
    rules = candidate.observation.rules.get(candidate.instruction.symbol)
    return f"symbol_not_trading: {rules.halted}" if rules and rules.halted else None


def account_not_trading(candidate: Candidate) -> str | None:
    """Refuses where the account may not trade, in the venue's own word."""
    halted = candidate.observation.account.halted
    return f"account_not_trading: {halted}" if halted else None


def reading_doubtful(candidate: Candidate) -> str | None:
    """Refuses on a reading that is no fact (I6)."""
    doubt = candidate.observation.doubt
    return f"reading_doubtful: {doubt}" if doubt else None


def daily_loss_breached(candidate: Candidate) -> str | None:
    """Refuses new risk from the soft limit of the day's loss on."""
    return _loss_breached(candidate, "daily_loss", candidate.limits.soft_daily_loss)


def drawdown_breached(candidate: Candidate) -> str | None:
    """Refuses new risk from the soft limit of the drawdown on."""
    return _loss_breached(candidate, "drawdown", candidate.limits.soft_drawdown)


def leverage_breached(candidate: Candidate) -> str | None:
    """Refuses an order after which the futures positions are worth more than so many times the equity."""
    symbol = candidate.instruction.symbol
    futures = exposures(p for p in candidate.observation.positions if p.market is Market.FUTURES)
    futures[symbol] = futures.get(symbol, ZERO) + candidate.signed_notional
    return _exceeded(candidate, "leverage", share(gross(futures), candidate.equity), candidate.limits.max_leverage)


def gross_exposure_exceeded(candidate: Candidate) -> str | None:
    """Refuses an order after which all positions together are worth more than their share of equity."""
    value = share(gross(candidate.after), candidate.equity)
    exceeded = _exceeded(candidate, "gross_exposure", value, candidate.limits.max_gross_exposure_fraction)
    return "gross_exposure_exceeded" if exceeded else None


def net_exposure_exceeded(candidate: Candidate) -> str | None:
    """Refuses an order after which longs less shorts are worth more than their share of equity."""
    value = share(abs(sum(candidate.after.values(), ZERO)), candidate.equity)
    return _exceeded(candidate, "net_exposure", value, candidate.limits.max_net_exposure_fraction)


def position_too_large(candidate: Candidate) -> str | None:
    """Refuses an order after which one position is worth more than its share of equity."""
    value = share(abs(candidate.after[candidate.instruction.symbol]), candidate.equity)
    exceeded = _exceeded(candidate, "position", value, candidate.limits.max_position_fraction)
    return "position_too_large" if exceeded else None


def concentration_exceeded(candidate: Candidate) -> str | None:
    """Refuses an order after which positions that move together are worth more than their share of equity.

    A position whose bars could not be read may move with the order's symbol, so it counts as if it did (I7).
    """
    limits, symbol = candidate.limits, candidate.instruction.symbol
    value = concentration(candidate.after, candidate.given.correlations, limits.correlation_threshold)
    unknown = [abs(candidate.after[other]) for other in candidate.given.barless if other in candidate.after]
    if unknown and symbol not in candidate.given.barless:
        value = max(value, abs(candidate.after[symbol]) + sum(unknown, ZERO))
    return _exceeded(candidate, "concentration", share(value, candidate.equity), limits.max_concentration_fraction)


def liquidity_insufficient(candidate: Candidate) -> str | None:
    """Refuses an order that is too large for the market: more than its share of an average bar's volume."""
    needed = abs(candidate.signed_notional) / candidate.limits.max_volume_share
    found = candidate.tape.bar_volume or ZERO
    return f"liquidity_insufficient: {found:.0f} < {needed:.0f}" if found < needed else None


def price_deviation_exceeded(candidate: Candidate) -> str | None:
    """Refuses where the last price is far from the median of the closes before it: a bad print, or a crash under way."""
    reference, limit = candidate.tape.reference_price, candidate.limits.max_price_deviation
    if not reference:
        return "price_deviation_exceeded: no price to compare with"
    deviation = abs(candidate.mark - reference) / reference
    return f"price_deviation_exceeded: {digits(deviation)} > {plain(limit)}" if deviation > limit else None


def order_rate_exceeded(candidate: Candidate) -> str | None:
    """Refuses more orders in a minute of the market's time than allowed."""
    since = candidate.observation.market_time - RATE_WINDOW
    count = sum(1 for sent in candidate.given.sent if sent > since) + 1
    limit = candidate.limits.max_orders_per_minute
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
    order_rate_exceeded,
)


def refusals(candidate: Candidate) -> list[str]:
    """The reason of every guard that says no, in the order of `GUARDS`; empty means approved."""
    return [reason for guard in GUARDS if (reason := guard(candidate))]


def _loss_breached(candidate: Candidate, name: str, bound: Decimal) -> str | None:
    assessment = candidate.observation.assessment
    if assessment is None or candidate.reduces:
        return None
    value: Decimal = getattr(assessment.measures, name)
    return comparison(limit_named(name), value, bound) if value >= bound else None


def _exceeded(candidate: Candidate, name: str, value: Decimal, bound: Decimal) -> str | None:
    """What takes risk off is let through, however far past its limit the portfolio is."""
    if candidate.reduces or value <= bound:
        return None
    return comparison(limit_named(name), value, bound)
