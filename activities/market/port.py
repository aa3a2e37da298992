"""What the paper venue wants of a market."""

from typing import Protocol

from domain.market import Bar, SymbolRules


class MarketError(Exception):
    """A market that cannot be built; the text is fit for the person who configured it."""


class MarketSource(Protocol):
    """Bars by number: pure, and the same in every process, so that several workers see one market."""

    @property
    def warm_up(self) -> int:
        """How many bars have passed when a new desk first looks, so that agents have a past to judge by."""

    def bar(self, symbol: str, number: int) -> Bar | None:
        """Bar `number`, from 0; None where there is none."""

    def rules(self, symbol: str) -> SymbolRules | None:
        """The symbol's steps; None for a symbol without data."""
