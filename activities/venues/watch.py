"""What a venue tells of its own calls; the worker's instruments listen."""

from datetime import datetime
from typing import Protocol


class Watch(Protocol):
    """Hears of every call when it has ended, and of data when it has been read."""

    def venue_called(self, tool: str, seconds: float, failed: bool) -> None:
        """One call of the venue, ended."""

    def venue_data(self, kind: str, as_of: datetime) -> None:
        """Data of a kind (ticker, positions, book) as of a moment."""
