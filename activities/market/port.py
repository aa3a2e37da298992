"""What the paper venue needs from a market."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from domain.trading.market import Bar, SymbolRules


class MarketError(Exception):
    """A market that cannot be built; the text is fit for the person who configured it."""


class MarketSource(Protocol):
    """Bars by number, the same in every process, so that several workers see one market.

    The defaults suit a market that moves on by one bar per cycle. A market that moves with time, and must be read first,
    overrides them.
    """

    is_live: bool = False
    """Whether it moves with time: then a cycle may find no new bar, or several."""

    @property
    def warm_up(self) -> int:
        """The number of bars before a new desk's first look, so that agents have a past to judge by."""

    def bar(self, symbol: str, number: int) -> Bar | None:
        """Bar `number`, from 0; None if there is none."""

    def rules(self, symbol: str) -> SymbolRules | None:
        """The symbol's steps; None for a symbol without data."""

    async def refresh(self, symbols: Sequence[str], seconds: float) -> None:
        """Reads new data of these symbols, unless that was done within the last `seconds`. Raises VenueError."""
        return

    def due(self, after: int, *, idle: bool) -> range:
        """The numbers of the bars to show to an account that has seen bar `after`; `idle`: no bar can change the account."""
        return range(after + 1, after + 2)

    def good_until(self, bar_time: datetime) -> datetime | None:
        """Until when a bar opened at `bar_time` can be the newest; None if only a cycle brings the next one."""
        return None

    async def close(self) -> None:
        """Closes whatever it holds open."""
        return
