"""The values of a limits check: measures, levels, crossings, breaches, and the cuts that are needed."""

from collections.abc import Collection
from datetime import date
from decimal import Decimal
from enum import IntEnum

from pydantic import Field

from domain.values import ZERO, Value


class Level(IntEnum):
    """How near a measure is to its limits. The warnings are at 50, 75 and 90 % of the soft limit."""

    CALM = 0
    WARN_50 = 1
    WARN_75 = 2
    WARN_90 = 3
    SOFT = 4
    HARD = 5


WARNINGS = {Level.WARN_50: Decimal("0.50"), Level.WARN_75: Decimal("0.75"), Level.WARN_90: Decimal("0.90")}


class Measures(Value):
    """A portfolio in numbers. All but the first three are fractions of equity (formulas: `domain/risk/measures.py`)."""

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
    """What limits checks remember from one reading to the next. The coordinator carries it; a restart resets it.

    `levels` holds the current level of each limit. `warned` holds the highest warning that people were told of. It outlasts
    the level by a band, so that a measure hovering around a level warns only once.
    """

    peak: Decimal | None = None
    day: date | None = None
    day_open: Decimal | None = None
    last_equity: Decimal | None = None
    levels: dict[str, Level] = Field(default_factory=dict)
    warned: dict[str, Level] = Field(default_factory=dict)

    def without_warnings(self, limits: Collection[str]) -> "RiskMemory":
        """The memory as if nobody had been warned of these limits yet. What a soft or a hard number did stays known."""
        levels = {name: level for name, level in self.levels.items() if name not in limits or level >= Level.SOFT}
        warned = {name: level for name, level in self.warned.items() if name not in limits}
        return self.model_copy(update={"levels": levels, "warned": warned})


class Crossing(Value):
    """A measure has reached a level that people have not been told of since it last recovered. `bound` is where the level
    begins."""

    limit: str
    level: Level
    value: Decimal
    bound: Decimal


class Cut(Value):
    """A futures position to reduce by `quantity` (base asset, above 0), and the limits that require it."""

    symbol: str
    quantity: Decimal
    limits: list[str]


class Breach(Value):
    """A hard limit that was reached. `reason` is the text in the decision log."""

    limit: str
    reason: str
    value: Decimal
    bound: Decimal


class Assessment(Value):
    """The limits check of one reading. `memory` replaces the coordinator's; a second reading must confirm `breaches`."""

    measures: Measures
    memory: RiskMemory
    crossings: list[Crossing] = Field(default_factory=list)
    cuts: list[Cut] = Field(default_factory=list)
    breaches: list[Breach] = Field(default_factory=list)

    @property
    def is_calm(self) -> bool:
        """Whether there is nothing to report and nothing to do."""
        return not (self.crossings or self.cuts or self.breaches)
