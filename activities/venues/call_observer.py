"""The interface through which a venue reports its own calls to the worker's metrics."""

from datetime import datetime
from typing import Protocol


class CallObserver(Protocol):
    """Hears of every call to the venue, and of all data that was read."""

    def venue_called(self, tool: str, seconds: float, outcome: str, symbol: str | None = None) -> None:
        """A call to the venue has ended. `outcome` is `ok`, or the name of the error's class."""

    def venue_data(self, kind: str, as_of: datetime) -> None:
        """Data of a kind (ticker, positions, book) was read, as of a moment."""
