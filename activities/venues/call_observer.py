"""The interface through which a venue reports its own calls to the worker's metrics."""

from datetime import datetime
from typing import Protocol


class CallObserver(Protocol):
    """Is called after every call to the venue, and whenever data was read."""

    def venue_called(self, tool: str, seconds: float, outcome: str, symbol: str | None = None) -> None:
        """One call of the venue, ended. `outcome` is `ok`, or the class of what went wrong."""

    def venue_data(self, kind: str, as_of: datetime) -> None:
        """Data of a kind (ticker, positions, book) as of a moment."""
