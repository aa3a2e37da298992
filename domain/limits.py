"""Limits of a desk: what an order may lead to, when the desk reduces by itself, and when it kills itself.

Each portfolio limit has up to three numbers. An order that would pass `max_…` is refused. Past `soft_…` the desk reduces by
itself, at `hard_…` it kills itself. Losses have no `max_…`: no order can be blamed for them, so the soft one refuses orders.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from domain.assessment import WARNINGS, Level
from domain.likeness import MAX_NAME_CHARS, Names
from domain.values import ZERO, Value, plain


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


# Last in each type: bounds that follow a validator are checked in Python, five times as slowly.
_CHECKED = BeforeValidator(_no_truth)
Positive = Annotated[Decimal, Field(gt=0, le=1000, decimal_places=9, allow_inf_nan=False), _CHECKED]
Fraction = Annotated[Decimal, Field(gt=0, le=1, decimal_places=9, allow_inf_nan=False), _CHECKED]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), _CHECKED]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), _CHECKED]
Count = Annotated[int, Field(gt=0, le=10_000), _CHECKED]


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


# A level is told again only after its measure has fallen this far below it, and a reduction goes this far inside: prices
# that tremble around a limit would otherwise tell, and trade, without end.
INSIDE = Decimal("0.95")

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


def _about(default: Any, description: str, unit: str = "fraction of NAV", allowed: str = "a number above 0") -> Any:
    """A limit with what docs and error messages say of it."""
    return Field(default, description=description, json_schema_extra={"unit": unit, "allowed": allowed})


def _fraction(default: str, description: str, unit: str = "fraction of NAV") -> Any:
    return _about(Decimal(default), description, unit, "a number above 0, 1 at most")


def _number(default: str, description: str, unit: str = "fraction of NAV") -> Any:
    return _about(Decimal(default), description, unit, "a number above 0, 1000 at most")


class Limits(Value):
    """Limits of a desk, carried by its coordinator."""

    max_position_fraction: Positive = _number("0.25", "Largest position that an order may lead to.")
    soft_position_fraction: Positive = _number("0.35", "A larger position is reduced.")
    hard_position_fraction: Positive = _number("0.5", "A larger position kills.")
    max_gross_exposure_fraction: Positive = _number("1", "Largest sum of longs and shorts that an order may lead to.")
    soft_gross_exposure_fraction: Positive = _number("1.25", "A larger sum of longs and shorts is reduced.")
    hard_gross_exposure_fraction: Positive = _number("1.5", "A larger sum of longs and shorts kills.")
    max_net_exposure_fraction: Positive = _number(
        "1", "Largest difference of longs and shorts that an order may lead to."
    )
    soft_net_exposure_fraction: Positive = _number("1.25", "A larger difference of longs and shorts is reduced.")
    hard_net_exposure_fraction: Positive = _number("1.5", "A larger difference of longs and shorts kills.")
    max_concentration_fraction: Positive = _number(
        "0.5", "Largest sum of correlated positions that an order may lead to."
    )
    soft_concentration_fraction: Positive = _number("0.75", "A larger sum of correlated positions is reduced.")
    hard_concentration_fraction: Positive = _number("1", "A larger sum of correlated positions kills.")
    max_leverage: Positive = _number("2", "Largest value of all futures that an order may lead to.", "times NAV")
    soft_leverage: Positive = _number("2.5", "A larger value of all futures is reduced.", "times NAV")
    hard_leverage: Positive = _number("3", "A larger value of all futures kills.", "times NAV")
    soft_daily_loss: Fraction = _fraction(
        "0.03",
        "From this loss since the UTC day began, all positions are closed and new risk is refused.",
        "fraction of its opening NAV",
    )
    hard_daily_loss: Fraction = _fraction(
        "0.05", "A loss since the UTC day began that kills.", "fraction of its opening NAV"
    )
    soft_drawdown: Fraction = _fraction(
        "0.08",
        "From this loss since the peak, all positions are closed and new risk is refused.",
        "fraction of the peak",
    )
    hard_drawdown: Fraction = _fraction("0.10", "A loss since the peak that kills.", "fraction of the peak")
    max_data_age_seconds: Seconds = _about(180.0, "Oldest market data that an order may rest on.", "seconds")
    max_price_deviation: Fraction = _fraction(
        "0.05", "How far the last price may be from the median of the 20 closes before it.", "fraction of that median"
    )
    max_volume_share: Fraction = _fraction(
        "0.10", "Largest order, as a share of what the last 20 bars traded on average.", "fraction of the value"
    )
    max_orders_per_minute: Count = _about(
        10, "Most orders in a minute of the market's time.", "orders", "a whole number above 0, 10000 at most"
    )
    correlation_threshold: Share = _about(
        0.8, "From this correlation on, positive or negative, symbols count as one.", "correlation", "0 to 1"
    )
    order_fraction: Fraction = _fraction("0.05", "What one order is worth.")

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
                if upper not in filled and _read(filled.get(lower)) > default:
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

    @cached_property
    def wakes(self) -> tuple[tuple[PortfolioLimit, Decimal], ...]:
        """Below the least of these a limit has nothing to say, and nothing that was said is worth remembering."""
        return tuple((limit, min(self.bounds[limit.name].values()) * INSIDE) for limit in PORTFOLIO_LIMITS)

    def _bounds_of(self, limit: PortfolioLimit) -> dict[Level, Decimal]:
        soft = getattr(self, limit.soft)
        warnings = {level: soft * share for level, share in WARNINGS.items()}
        return {**warnings, Level.SOFT: soft, Level.HARD: getattr(self, limit.hard)}


_NAMES = Names(Limits.model_fields)


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
    refuse_unknown(asked)
    try:
        after = Limits.model_validate(limits.model_dump() | dict(asked))
    except ValidationError as error:
        raise ValueError(_problem(error)) from None
    names = [name for name in Limits.model_fields if getattr(after, name) != getattr(limits, name)]
    return after, [_change(name, limits, after) for name in names]


def refuse_unknown(names: Iterable[str]) -> None:
    """ValueError where there is no such limit, naming the nearest."""
    unknown = next((name for name in names if name not in Limits.model_fields), None)
    if unknown is not None:
        raise ValueError(f"there is no limit {unknown[:MAX_NAME_CHARS]!r}; did you mean {_NAMES.nearest(unknown)!r}?")


def _change(name: str, before: Limits, after: Limits) -> Change:
    # Every limit is tighter the lower it is; so is the threshold, which makes more symbols count as one.
    old, new = getattr(before, name), getattr(after, name)
    return Change(name, _shown(old), _shown(new), new > old)


def _read(value: Any) -> Decimal:
    """What `value` may mean as a number, for a comparison; what is wrong with it is told where it is validated."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return ZERO
    return number if number.is_finite() else ZERO


def _shown(number: Any) -> str:
    return str(plain(number)) if isinstance(number, Decimal) else f"{number:g}"


def _problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = f"{first['loc'][0]}: " if first["loc"] else ""
    return where + str(first["msg"]).removeprefix("Value error, ")
