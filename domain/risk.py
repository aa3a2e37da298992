"""Guards: each one risk rule, a pure function from a candidate order, the portfolio and the limits to a verdict.

To add one: write the function, add it to `GUARDS`, its limit to `Limits`, and a row to docs/risk.md.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from domain.instructions import OrderInstruction, Side
from domain.market import Observation
from domain.values import ZERO, Value


class Limits(Value):
    """Limits of a desk, carried by its coordinator. Fractions are of net asset value."""

    max_position_fraction: Decimal = Decimal("0.25")
    max_gross_exposure_fraction: Decimal = Decimal("1.0")
    max_data_age_seconds: float = 180.0
    order_fraction: Decimal = Decimal("0.05")


class Candidate(Value):
    """An order before it is weighed, with the reading that it is weighed against."""

    instruction: OrderInstruction
    observation: Observation
    limits: Limits
    now: datetime

    @property
    def mark(self) -> Decimal:
        """Mark price of the order's symbol; 0 where there is none."""
        return self.observation.marks.get(self.instruction.symbol, ZERO)

    @property
    def signed_quantity(self) -> Decimal:
        """Quantity, negative for a sale."""
        sign = 1 if self.instruction.side is Side.BUY else -1
        return sign * self.instruction.quantity

    def position_notional_after(self) -> Decimal:
        """Absolute value of the symbol's position once the order is filled and all that rests in its direction too."""
        held = sum((p.quantity for p in self.observation.positions if p.symbol == self.instruction.symbol), ZERO)
        return abs(held + self.signed_quantity) * self.mark

    def gross_exposure_after(self) -> Decimal:
        """Sum of the absolute values of all positions once the order is filled."""
        others = (abs(p.notional) for p in self.observation.positions if p.symbol != self.instruction.symbol)
        return sum(others, ZERO) + self.position_notional_after()


Guard = Callable[[Candidate], str | None]


def data_stale(candidate: Candidate) -> str | None:
    """Refuses on a price older than the limit."""
    age = (candidate.now - candidate.observation.data_time).total_seconds()
    limit = candidate.limits.max_data_age_seconds
    return f"data_stale: {age:.1f}s > {limit:.1f}s" if age > limit else None


def symbol_unknown(candidate: Candidate) -> str | None:
    """Refuses a symbol without a price or without rules (I7)."""
    known = candidate.mark > 0 and candidate.instruction.symbol in candidate.observation.rules
    return None if known else f"symbol_unknown: {candidate.instruction.symbol}"


def position_too_large(candidate: Candidate) -> str | None:
    """Refuses an order after which one position is worth more than its share of net asset value."""
    allowed = candidate.limits.max_position_fraction * candidate.observation.account.nav
    return "position_too_large" if candidate.position_notional_after() > allowed else None


def gross_exposure_exceeded(candidate: Candidate) -> str | None:
    """Refuses an order after which all positions together are worth more than their share of net asset value."""
    allowed = candidate.limits.max_gross_exposure_fraction * candidate.observation.account.nav
    return "gross_exposure_exceeded" if candidate.gross_exposure_after() > allowed else None


GUARDS: tuple[Guard, ...] = (data_stale, symbol_unknown, position_too_large, gross_exposure_exceeded)


def refusals(candidate: Candidate) -> list[str]:
    """The reason of every guard that says no, in the order of `GUARDS`; empty means approved."""
    return [reason for guard in GUARDS if (reason := guard(candidate))]
