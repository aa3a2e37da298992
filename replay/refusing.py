"""Refusals that are certain without an order. A desk at rest is told the same again and again, and mostly refuses it for the same
reason: the position is as large as it may be, or too much was lost.

Every guard of `domain/risk/guards.py` either passes for certain here, or refuses by the same formula. Whatever is not certain
is left to the guards. A test compares the two, and another one knows every guard: a new one has to be thought of here too.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from activities.agents.port import BarArrays
from activities.bar_summaries import TAPE_BARS
from domain.deciding import taken
from domain.risk.assessing import comparison, limit_named
from domain.risk.filling import Leg, filled, sign
from domain.risk.limits import Limits
from domain.risk.measures import share
from domain.trading.assessment import Measures
from domain.trading.market import SymbolRules
from domain.trading.proposals import Proposal

# Binary figures differ from the decimals of a guard by less than this share.
ROUNDING = 1e-9


class Tape(NamedTuple):
    """A bar's figures of `bar_summaries`, in binary floating point: the distance of its close from the median of the closes
    before it, as a share of that, and the value that an average bar traded."""

    deviation: float
    traded: float


NOTHING_CERTAIN = Tape(np.inf, 0.0)
"""Where there are too few bars before."""


def tapes_of(arrays: BarArrays, at: Sequence[int]) -> dict[int, Tape]:
    """The figures of these bars."""
    found, known = dict.fromkeys(at, NOTHING_CERTAIN), [number for number in at if number >= TAPE_BARS]
    if known:
        newest = np.array(known)
        closes = sliding_window_view(arrays.close, TAPE_BARS + 1)[newest - TAPE_BARS]
        reference = np.median(closes[:, :-1], axis=-1)
        deviation = np.abs(closes[:, -1] - reference) / reference
        values = sliding_window_view(arrays.close * arrays.volume, TAPE_BARS)[newest - TAPE_BARS + 1]
        traded = values.sum(axis=-1) / TAPE_BARS
        found.update(zip(known, map(Tape, deviation.tolist(), traded.tolist()), strict=True))
    return found


class Refusals:
    """The reasons of a desk that trades one symbol, of which nothing rests at the venue."""

    def __init__(self, limits: Limits, rules: SymbolRules) -> None:
        self._limits, self._rules = limits, rules
        # These reasons tell the share of equity: left to the guards.
        self._widest = min(limits.max_leverage, limits.max_net_exposure_fraction, limits.max_concentration_fraction)
        self._deviation = float(limits.max_price_deviation) * (1 - ROUNDING)
        self._volume_share = float(limits.max_volume_share) * (1 - ROUNDING)
        self._measures: Measures | None = None
        self._lost: list[str] = []

    def reasons(
        self, proposal: Proposal, measures: Measures, held: Decimal, mark: Decimal, tape: Tape
    ) -> list[str] | None:
        """Why the proposal is refused; None if it may be approved, or another guard may refuse it too. `held` is the quantity of
        the position."""
        if proposal.price is not None or self._rules.halted:
            return None
        quantity = taken(self._limits.order_fraction * measures.equity / mark, mark, self._rules, at_market=True)
        if quantity is None or not self._is_usual(quantity * mark, tape) or _reduces(proposal, quantity, held):
            return None
        leg = Leg(proposal.symbol, proposal.side, quantity, mark)
        part = share(abs(filled(held * mark, held, [leg], mark)), measures.equity)
        if not 0 < part <= self._widest:
            return None
        return [*self._losses(measures), *self._exposures(part)] or None

    def _is_usual(self, value: Decimal, tape: Tape) -> bool:
        """Whether the newest bars let an order of this value through for certain."""
        return tape.deviation < self._deviation and float(value) < tape.traded * self._volume_share

    def _losses(self, measures: Measures) -> list[str]:
        """The reasons of the day's loss and the drawdown; the same as long as the measures are."""
        if measures is not self._measures:
            limits = self._limits
            bounds = {"daily_loss": limits.soft_daily_loss, "drawdown": limits.soft_drawdown}
            found = ((limit_named(name), getattr(measures, name), bound) for name, bound in bounds.items())
            self._measures = measures
            self._lost = [comparison(limit, value, bound) for limit, value, bound in found if value >= bound]
        return self._lost

    def _exposures(self, part: Decimal) -> list[str]:
        """The reasons that follow from all positions, and from the largest one: here they are the same one."""
        gross = ["gross_exposure_exceeded"] if part > self._limits.max_gross_exposure_fraction else []
        return [*gross, "position_too_large"] if part > self._limits.max_position_fraction else gross


def _reduces(proposal: Proposal, quantity: Decimal, held: Decimal) -> bool:
    """Whether the order only makes the position smaller, which every limit allows."""
    left = held + sign(proposal.side) * quantity
    return bool(held) and abs(left) < abs(held) and left * held >= 0
