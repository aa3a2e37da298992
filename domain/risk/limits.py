"""Limits of a desk: which orders it may send, when it reduces by itself, and when it kills itself.

Each portfolio limit has up to three numbers. Guards refuse an order that would pass `max_…`. Past `soft_…` the desk reduces
by itself; at `hard_…` it kills itself. Losses have no `max_…`, since no single order causes them; there `soft_…` also refuses
orders.
"""

from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from domain.likeness import MAX_NAME_CHARS, Names
from domain.trading.assessment import WARNINGS, Level
from domain.values import ZERO, Value, no_truth, plain

# Last in each type: pydantic checks bounds that follow a validator in Python, which takes five times as long.
_CHECKED = BeforeValidator(no_truth)
Positive = Annotated[Decimal, Field(gt=0, le=1000, decimal_places=9, allow_inf_nan=False), _CHECKED]
Fraction = Annotated[Decimal, Field(gt=0, le=1, decimal_places=9, allow_inf_nan=False), _CHECKED]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), _CHECKED]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), _CHECKED]
Count = Annotated[int, Field(gt=0, le=10_000), _CHECKED]


class PortfolioLimit(NamedTuple):
    """A limit on the whole account. `name` names its measure; the text of a breach begins with `reason`."""

    name: str
    reason: str
    soft: str
    hard: str
    maximum: str | None
    title: str
    is_loss: bool = False

    @property
    def numbers(self) -> list[str]:
        """The names of its numbers, from the first that acts to the one that kills."""
        return [name for name in (self.maximum, self.soft, self.hard) if name]


# A level holds until the measure has fallen this far below it, and the desk reduces this far inside a limit. Otherwise
# prices that hover around a limit would cause rows and trades without end.
INSIDE = Decimal("0.95")
# A warning repeats only after the measure has fallen by this share of the soft number, which is the step from the first
# warning to the second. People have then seen it recover by a whole level, and another rise is news. With 5 % of the level
# alone, people were told of a drawdown of 6 % six times in one crash.
WARNING_BAND = Decimal("0.25")

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
# The numbers of each limit that follow each other; the first of two may not be above the second.
_NEIGHBOURS = tuple(pair for limit in PORTFOLIO_LIMITS for pair in pairwise(limit.numbers))


class LevelStep(NamedTuple):
    """One level of a limit: where it begins, and below which value it ends."""

    level: Level
    bound: Decimal
    inside: Decimal


def _limit_field(
    default: Any, description: str, unit: str = "fraction of NAV", allowed: str = "a number above 0"
) -> Any:
    """A field with its texts for docs and error messages."""
    return Field(default, description=description, json_schema_extra={"unit": unit, "allowed": allowed})


def _fraction(default: str, description: str, unit: str = "fraction of NAV") -> Any:
    return _limit_field(Decimal(default), description, unit, "a number above 0, 1 at most")


def _number(default: str, description: str, unit: str = "fraction of NAV") -> Any:
    return _limit_field(Decimal(default), description, unit, "a number above 0, 1000 at most")


# A reading of the venue may be this many cycles old unless somebody sets the limit to something else.
DATA_AGE_CYCLES = 3


class Limits(Value):
    """Limits of a desk, carried by its coordinator."""

    max_position_fraction: Positive = _number("0.25", "Largest position that an order may create.")
    soft_position_fraction: Positive = _number("0.35", "The desk reduces a larger position.")
    hard_position_fraction: Positive = _number("0.5", "A larger position kills the desk.")
    max_gross_exposure_fraction: Positive = _number("1", "Largest sum of longs and shorts that an order may create.")
    soft_gross_exposure_fraction: Positive = _number("1.25", "The desk reduces a larger sum of longs and shorts.")
    hard_gross_exposure_fraction: Positive = _number("1.5", "A larger sum of longs and shorts kills the desk.")
    max_net_exposure_fraction: Positive = _number(
        "1", "Largest difference between longs and shorts that an order may create."
    )
    soft_net_exposure_fraction: Positive = _number(
        "1.25", "The desk reduces a larger difference between longs and shorts."
    )
    hard_net_exposure_fraction: Positive = _number(
        "1.5", "A larger difference between longs and shorts kills the desk."
    )
    max_concentration_fraction: Positive = _number(
        "0.5", "Largest sum of correlated positions that an order may create."
    )
    soft_concentration_fraction: Positive = _number("0.75", "The desk reduces a larger sum of correlated positions.")
    hard_concentration_fraction: Positive = _number("1", "A larger sum of correlated positions kills the desk.")
    max_leverage: Positive = _number("2", "Largest total value of futures that an order may create.", "times NAV")
    soft_leverage: Positive = _number("2.5", "The desk reduces a larger total value of futures.", "times NAV")
    hard_leverage: Positive = _number("3", "A larger total value of futures kills the desk.", "times NAV")
    soft_daily_loss: Fraction = _fraction(
        "0.03",
        "At this loss since the UTC day began, the desk closes all positions and refuses new risk.",
        "fraction of its opening NAV",
    )
    hard_daily_loss: Fraction = _fraction(
        "0.05", "This loss since the UTC day began kills the desk.", "fraction of its opening NAV"
    )
    soft_drawdown: Fraction = _fraction(
        "0.08",
        "At this loss since the peak, the desk closes all positions and refuses new risk.",
        "fraction of the peak",
    )
    hard_drawdown: Fraction = _fraction("0.10", "This loss since the peak kills the desk.", "fraction of the peak")
    max_data_age_seconds: Seconds = _limit_field(180.0, "Maximum age of the market data behind an order.", "seconds")
    max_price_deviation: Fraction = _fraction(
        "0.05", "How far the last price may be from the median of the 20 closes before it.", "fraction of that median"
    )
    max_volume_share: Fraction = _fraction(
        "0.10", "Largest order, as a share of the average volume of the last 20 bars.", "fraction of the value"
    )
    max_orders_per_minute: Count = _limit_field(
        10, "Maximum number of orders in one minute of market time.", "orders", "a whole number above 0, 10000 at most"
    )
    correlation_threshold: Share = _limit_field(
        0.8, "At or above this correlation, positive or negative, symbols move together.", "correlation", "0 to 1"
    )
    order_fraction: Fraction = _fraction("0.05", "Value of one order.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        """Makes missing numbers no stricter than the given ones, so that a desk from when there was only `max_…` still
        runs."""
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        for lower, upper in _NEIGHBOURS:
            if upper not in filled and _read(filled.get(lower)) > cls.model_fields[upper].default:
                filled[upper] = filled[lower]
        return filled

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        values = vars(self)
        for lower, upper in _NEIGHBOURS:
            if values[lower] > values[upper]:
                both = f"{lower} ({values[lower]}) is above {upper} ({values[upper]})"
                raise ValueError(f"{both}; give both, with {lower} <= {upper}")
        return self

    @cached_property
    def bounds(self) -> dict[str, dict[Level, Decimal]]:
        """Where each level of each portfolio limit begins. Warnings are shares of the soft number. There is no
        warning at a value that the guards let an order create."""
        found = {}
        for limit in PORTFOLIO_LIMITS:
            soft = getattr(self, limit.soft)
            allowed = getattr(self, limit.maximum) if limit.maximum else ZERO
            warnings = {level: soft * share for level, share in WARNINGS.items() if soft * share > allowed}
            found[limit.name] = {**warnings, Level.SOFT: soft, Level.HARD: getattr(self, limit.hard)}
        return found

    @cached_property
    def forgets(self) -> dict[str, dict[Level, Decimal]]:
        """The value below which each warning of each limit is forgotten, so that it can be repeated."""
        return {
            limit.name: {
                level: bound - WARNING_BAND * getattr(self, limit.soft)
                for level, bound in self.bounds[limit.name].items()
                if level in WARNINGS
            }
            for limit in PORTFOLIO_LIMITS
        }

    @cached_property
    def steps(self) -> dict[str, tuple[LevelStep, ...]]:
        """The levels of each portfolio limit, lowest first."""
        return {
            name: tuple(LevelStep(level, bound, bound * INSIDE) for level, bound in bounds.items())
            for name, bounds in self.bounds.items()
        }

    @cached_property
    def wakes(self) -> tuple[tuple[PortfolioLimit, Decimal], ...]:
        """The value below which a limit has nothing to report, and its past reports no longer matter."""
        return tuple(
            (limit, min([self.bounds[limit.name][Level.SOFT] * INSIDE, *self.forgets[limit.name].values()]))
            for limit in PORTFOLIO_LIMITS
        )

    @cached_property
    def edges(self) -> dict[str, tuple[Decimal, ...]]:
        """Every number that a check compares each measure with, lowest first: between two of them it finds the same."""
        return {
            limit.name: tuple(
                sorted(
                    {
                        bound,
                        *(number for step in self.steps[limit.name] for number in (step.bound, step.inside)),
                        *self.forgets[limit.name].values(),
                    }
                )
            )
            for limit, bound in self.wakes
        }

    @cached_property
    def exposure_edges(self) -> tuple[Decimal, ...]:
        """The same for a number that is every exposure at once, as it is with one position."""
        names = (limit.name for limit in PORTFOLIO_LIMITS if not limit.is_loss)
        return tuple(sorted({edge for name in names for edge in self.edges[name]}))


# A flood of changes asks for them again and again, and `model_fields` finds them anew each time.
_IN_ORDER = tuple(Limits.model_fields)
LIMIT_NAMES = frozenset(_IN_ORDER)
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
    """The limits with the requested changes, and the list of what changed. Raises ValueError with a text for people."""
    refuse_unknown(asked)
    try:
        after = Limits.model_validate(limits.model_dump() | dict(asked))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        raise ValueError(where + str(first["msg"]).removeprefix("Value error, ")) from None
    old, new = vars(limits), vars(after)
    # A limit is tighter the lower it is. So is the correlation threshold: a lower one makes more symbols count as one.
    return after, [
        Change(name, _shown(old[name]), _shown(new[name]), loosens=new[name] > old[name])
        for name in _IN_ORDER
        if old[name] != new[name]
    ]


def refuse_unknown(names: Collection[str]) -> None:
    """Raises ValueError for an unknown limit, naming the nearest one."""
    if not LIMIT_NAMES.issuperset(names):
        unknown = next(name for name in names if name not in LIMIT_NAMES)
        raise ValueError(f"there is no limit {unknown[:MAX_NAME_CHARS]!r}; did you mean {_NAMES.nearest(unknown)!r}?")


def _read(value: Any) -> Decimal:
    """The number that `value` may mean, for comparisons. Validation reports what is wrong with it."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return ZERO
    return number if number.is_finite() else ZERO


@lru_cache(512, typed=True)
def _shown(number: Any) -> str:
    """What a change became is what the next one of a flood begins with."""
    if not isinstance(number, Decimal):
        return f"{number:g}"
    text = str(number)
    return str(plain(number)) if "E" in text or text[-1] == "0" else text
