"""What the coordinator's activities want of a venue, and the errors by which a venue says no.

VenueError
├── VenueUnavailable   nobody answered: for a send, the outcome is unknown
└── VenueRefused       it answered and refused: nothing was done
"""

from collections.abc import Sequence
from typing import Protocol

from domain.instructions import Tool
from domain.market import MarketView, Observation
from domain.orders import Order, OrderReport


class VenueError(Exception):
    """Base of a venue's errors; the text holds no secret and is fit for people."""


class VenueUnavailable(VenueError):
    """The venue did not answer; whether it did what it was asked is not known."""


class VenueRefused(VenueError):
    """The venue answered and refused; nothing was done."""


class Venue(Protocol):
    """One account at one venue. Every method may raise VenueError."""

    async def observe(self, symbols: Sequence[str], cycle_id: str | None) -> Observation:
        """A reading of prices, positions, orders and account; its `latch` is left empty.

        Idempotent by `cycle_id`: a new one moves a market that moves with the cycles on by one bar; None only reads.
        """

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        """Each symbol's newest `bars` bars, its book and its next funding rate, as of the last observation.

        A symbol without data is left out.
        """

    async def cancel_all(self, tool: Tool, symbol: str) -> None:
        """Cancels every open order of `symbol` on the tool's market; returns once the venue has confirmed it."""

    async def create_order(self, order: Order) -> OrderReport:
        """Sends an order once. Idempotent by `order_id`; refuses to begin after `not_after`."""

    async def find_order(self, order: Order) -> OrderReport | None:
        """What the venue knows of an order; None where it has never seen it."""
