"""What watching a portfolio's limits comes to, as values: measures, levels, crossings, and what has to be cut."""

from datetime import date
from decimal import Decimal
from enum import IntEnum

from pydantic import Field

from domain.values import ZERO, Value


class Level(IntEnum):
    """How near a measure has come to its limits. The warnings are at 50, 75 and 90 % of the soft limit."""

    CALM = 0
    WARN_50 = 1
    WARN_75 = 2
    WARN_90 = 3
    SOFT = 4
    HARD = 5


WARNINGS = {Level.WARN_50: Decimal("0.50"), Level.WARN_75: Decimal("0.75"), Level.WARN_90: Decimal("0.90")}


class Measures(Value):
    """A portfolio in numbers; all but the first three are fractions of equity (`domain.measures` has the formulas)."""

    equity: Decimal
    peak: Decimal
    day_open: Decimal
    drawdown: Decimal = ZERO
    daily_loss: Decimal = ZERO
    leverage: Decimal = ZERO
    gross_exposure: Decimal = ZERO
    net_exposure: Decimal = ZERO
    position: Decimal = ZERO
    concentration: Decimal = ZERO


class RiskMemory(Value):
    """What has to be remembered from reading to reading; carried by the coordinator, begun anew by a restart.

    `levels` holds what was told of each limit, so that each crossing is told once.
    """

    peak: Decimal | None = None
    day: date | None = None
    day_open: Decimal | None = None
    last_equity: Decimal | None = None
    levels: dict[str, Level] = Field(default_factory=dict)


class Crossing(Value):
    """A measure that has come to a level for the first time since it was below it. `bound` is where that level begins."""

    limit: str
    level: Level
    value: Decimal
    bound: Decimal


class Cut(Value):
    """A futures position to be reduced by `quantity` (base asset, above 0), and the limits that ask for it."""

    symbol: str
    quantity: Decimal
    limits: list[str]


class Breach(Value):
    """A hard limit that is reached; `reason` is the text of the decision log."""

    limit: str
    reason: str
    value: Decimal
    bound: Decimal


class Assessment(Value):
    """One reading, watched. `memory` replaces the coordinator's; `breaches` have to be confirmed by a second reading."""

    measures: Measures
    memory: RiskMemory
    crossings: list[Crossing] = Field(default_factory=list)
    cuts: list[Cut] = Field(default_factory=list)
    breaches: list[Breach] = Field(default_factory=list)
