"""Limits of a desk: what an order may lead to, when the desk reduces by itself, and when it kills itself.

Each portfolio limit has up to three numbers. An order that would pass `max_…` is refused. Past `soft_…` the desk reduces by
itself, at `hard_…` it kills itself. Losses have no `max_…`: no order can be blamed for them, so the soft one refuses orders.
"""

import difflib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from domain.assessment import WARNINGS, Level
from domain.values import ZERO, Value, plain


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


_CHECKED = BeforeValidator(_no_truth)
Positive = Annotated[Decimal, _CHECKED, Field(gt=0, le=1000, decimal_places=9, allow_inf_nan=False)]
Fraction = Annotated[Decimal, _CHECKED, Field(gt=0, le=1, decimal_places=9, allow_inf_nan=False)]


class PortfolioLimit(NamedTuple):
    """A limit that acts. `name` is that of its measure; `reason` begins the text of what breaks it."""

    name: str
    reason: str
    soft: str
    hard: str
    maximum: str | None
    told: str
    is_loss: bool = False

    @property
    def numbers(self) -> list[str]:
        """Names of its numbers, from the one that comes first to the one that kills."""
        return [name for name in (self.maximum, self.soft, self.hard) if name]


PORTFOLIO_LIMITS: tuple[PortfolioLimit, ...] = (
    PortfolioLimit("drawdown", "drawdown_breached", "soft_drawdown", "hard_drawdown", None, "drawdown", is_loss=True),
    PortfolioLimit(
        "daily_loss", "daily_loss_breached", "soft_daily_loss", "hard_daily_loss", None, "loss of the day", is_loss=True
    ),
    PortfolioLimit("leverage", "leverage_breached", "soft_leverage", "hard_leverage", "max_leverage", "leverage"),
    PortfolioLimit(
        "gross_exposure",
        "gross_exposure_exceeded",
        "soft_gross_exposure_fraction",
        "hard_gross_exposure_fraction",
        "max_gross_exposure_fraction",
        "gross exposure",
    ),
    PortfolioLimit(
        "net_exposure",
        "net_exposure_exceeded",
        "soft_net_exposure_fraction",
        "hard_net_exposure_fraction",
        "max_net_exposure_fraction",
        "net exposure",
    ),
    PortfolioLimit(
        "position",
        "position_too_large",
        "soft_position_fraction",
        "hard_position_fraction",
        "max_position_fraction",
        "largest position",
    ),
    PortfolioLimit(
        "concentration",
        "concentration_exceeded",
        "soft_concentration_fraction",
        "hard_concentration_fraction",
        "max_concentration_fraction",
        "correlated positions",
    ),
)


class Limits(Value):
    """Limits of a desk, carried by its coordinator. Fractions are of net asset value unless they say otherwise.

    `max_volume_share`: an order's part of an average bar's volume. `max_price_deviation`: of the last price from the
    median of the closes before it. `correlation_threshold`: from this absolute correlation on, symbols count as one.
    `order_fraction`: what an order is worth. `max_orders_per_minute` counts in the market's time.
    """

    max_position_fraction: Positive = Decimal("0.25")
    soft_position_fraction: Positive = Decimal("0.35")
    hard_position_fraction: Positive = Decimal("0.5")
    max_gross_exposure_fraction: Positive = Decimal("1.0")
    soft_gross_exposure_fraction: Positive = Decimal("1.25")
    hard_gross_exposure_fraction: Positive = Decimal("1.5")
    max_net_exposure_fraction: Positive = Decimal("1.0")
    soft_net_exposure_fraction: Positive = Decimal("1.25")
    hard_net_exposure_fraction: Positive = Decimal("1.5")
    max_concentration_fraction: Positive = Decimal("0.5")
    soft_concentration_fraction: Positive = Decimal("0.75")
    hard_concentration_fraction: Positive = Decimal("1.0")
    max_leverage: Positive = Decimal("2")
    soft_leverage: Positive = Decimal("2.5")
    hard_leverage: Positive = Decimal("3")
    soft_daily_loss: Fraction = Decimal("0.03")
    hard_daily_loss: Fraction = Decimal("0.05")
    soft_drawdown: Fraction = Decimal("0.08")
    hard_drawdown: Fraction = Decimal("0.10")
    max_data_age_seconds: Annotated[float, _CHECKED, Field(gt=0, allow_inf_nan=False)] = 180.0
    max_price_deviation: Fraction = Decimal("0.05")
    max_volume_share: Fraction = Decimal("0.10")
    max_orders_per_minute: Annotated[int, _CHECKED, Field(gt=0, le=10_000)] = 10
    correlation_threshold: Annotated[float, _CHECKED, Field(gt=0, le=1, allow_inf_nan=False)] = 0.8
    order_fraction: Fraction = Decimal("0.05")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        """What is not given is never stricter than what is: a desk started when there was only `max_…` goes on."""
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        for limit in PORTFOLIO_LIMITS:
            for lower, upper in pairwise(limit.numbers):
                default = cls.model_fields[upper].default
                if upper not in filled and _number(filled.get(lower)) > default:
                    filled[upper] = filled[lower]
        return filled

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for limit in PORTFOLIO_LIMITS:
            for lower, upper in pairwise(limit.numbers):
                if getattr(self, lower) > getattr(self, upper):
                    values = f"{lower} ({getattr(self, lower)}) is above {upper} ({getattr(self, upper)})"
                    raise ValueError(f"{values}; give both, with {lower} <= {upper}")
        return self

    @cached_property
    def bounds(self) -> dict[str, dict[Level, Decimal]]:
        """Where each level of each portfolio limit begins. The warnings are shares of the soft number."""
        return {limit.name: self._bounds_of(limit) for limit in PORTFOLIO_LIMITS}

    def _bounds_of(self, limit: PortfolioLimit) -> dict[Level, Decimal]:
        soft = getattr(self, limit.soft)
        warnings = {level: soft * share for level, share in WARNINGS.items()}
        return {**warnings, Level.SOFT: soft, Level.HARD: getattr(self, limit.hard)}


class Change(NamedTuple):
    """One limit that became another."""

    name: str
    before: str
    after: str
    loosens: bool

    def __str__(self) -> str:
        return f"{self.name} {self.before} -> {self.after}"


def changed(limits: Limits, asked: Mapping[str, Any]) -> tuple[Limits, list[Change]]:
    """The limits with what was asked, and what that changes; ValueError with a text for people."""
    unknown = next((name for name in asked if name not in Limits.model_fields), None)
    if unknown is not None:
        raise ValueError(f"there is no limit {unknown[:64]!r}; did you mean {_nearest(unknown)!r}?")
    try:
        after = Limits.model_validate(limits.model_dump() | dict(asked))
    except ValidationError as error:
        raise ValueError(_problem(error)) from None
    names = [name for name in Limits.model_fields if getattr(after, name) != getattr(limits, name)]
    return after, [_change(name, limits, after) for name in names]


def _change(name: str, before: Limits, after: Limits) -> Change:
    # Every limit is tighter the lower it is; so is the threshold, which makes more symbols count as one.
    old, new = getattr(before, name), getattr(after, name)
    return Change(name, _shown(old), _shown(new), new > old)


def _number(value: Any) -> Decimal:
    """What `value` may mean as a number, for a comparison; what is wrong with it is told where it is validated."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return ZERO
    return number if number.is_finite() else ZERO


def _shown(number: Any) -> str:
    return str(plain(number)) if isinstance(number, Decimal) else f"{number:g}"


def _nearest(name: str) -> str:
    return difflib.get_close_matches(name[:64], list(Limits.model_fields), n=1, cutoff=0.0)[0]


def _problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = f"{first['loc'][0]}: " if first["loc"] else ""
    return where + str(first["msg"]).removeprefix("Value error, ")
