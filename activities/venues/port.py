"""What the coordinator's activities want of a venue, and the errors by which a venue says no.

VenueError
├── VenueUnavailable         nobody answered, or with 5xx: for a send, the outcome is unknown
│   └── VenueRateLimited     it asked us to wait, or we still do; carries for how long
├── VenueNotSent             nothing was sent: its turn did not come, or something stood in the way
│   └── WordTooOld           the coordinator's word was too old by then; it may be asked again
└── VenueRefused             it answered and refused: nothing was done
    ├── VenueMisconfigured   401, 403, a missing tool: a setting, which no retry mends
    └── HedgeMode            the account holds LONG and SHORT side by side, which cannot be traded here
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Protocol, TypeVar

from domain.instructions import Tool
from domain.market import NOTHING_KNOWN, Known, MarketView, Observation, SymbolReading
from domain.orders import Order, OrderReport

T = TypeVar("T")


class VenueError(Exception):
    """Base of a venue's errors; the text holds no secret and is fit for people.

    `retryable` says whether the same call may succeed a moment later; every class says it for itself.
    """

    retryable: ClassVar[bool] = True
    retry_after: timedelta | None = None


class VenueUnavailable(VenueError):
    """The venue did not answer; whether it did what it was asked is not known."""

    retryable = True


class VenueRateLimited(VenueUnavailable):
    """The venue asks for a pause. Going on earns a ban."""

    retryable = True

    def __init__(self, call: str, wait: timedelta) -> None:
        super().__init__(f"{call}: the venue asks for a pause, {wait.total_seconds():.0f} s more")
        self.retry_after = wait


class VenueNotSent(VenueError):
    """Nothing was sent: other calls were before it, or it was stopped."""

    retryable = True


class WordTooOld(VenueNotSent):
    """Nothing was sent, since the coordinator's word was too old by then; it may be asked again."""

    retryable = True


class VenueRefused(VenueError):
    """The venue answered and refused; nothing was done."""

    retryable = False


class VenueMisconfigured(VenueRefused):
    """The venue refuses us, and will until somebody changes a setting."""

    retryable = False


class HedgeMode(VenueRefused):
    """The account is in hedge mode."""

    retryable = False

    def __init__(self) -> None:
        super().__init__("the account is in hedge mode: switch it to one-way; nothing is traded")


class Clearance(Protocol):
    """One order's leave to go out: asked for immediately before the send, looked at once more in its last instruction."""

    async def send(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Asks and makes the attempt; asks again where the answer grew too old in between. Raises VenueNotSent."""

    @property
    def seconds_left(self) -> float | None:
        """For how long the answer is still good; None where none was needed."""

    def check(self) -> None:
        """The last instruction before the bytes leave. Raises VenueNotSent where the answer is not good any more."""


class Cleared:
    """Lets an order through without asking anybody."""

    seconds_left: float | None = None

    async def send(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Makes the attempt."""
        return await attempt()

    def check(self) -> None:
        """Nothing grows old."""


CLEARED = Cleared()


class Venue(Protocol):
    """One account at one venue. Every method may raise VenueError."""

    settles_after: timedelta
    """How long past its `not_after` an order that the venue has never seen may still arrive there."""

    counts_its_calls: bool
    """Whether it counts its own calls; the activities count those of a venue that does not."""

    async def observe(self, symbols: Sequence[str], cycle_id: str | None, known: Known = NOTHING_KNOWN) -> Observation:
        """A reading of prices, positions, orders and account; its `latch` is left empty.

        Idempotent by `cycle_id`: a new one moves a market that moves with the cycles on by one bar; None only reads. What is
        gone since `known` is confirmed by a second source, or told as one of the reading's `doubts`.
        """

    async def look(self, symbol: str) -> SymbolReading | Observation:
        """One symbol's positions and rules, now, as cheaply as they are to be had; a position that is not there is never
        guessed from less than `observe` goes by.
        """

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        """Each symbol's newest `bars` bars, its book and its next funding rate, as of the last observation.

        A symbol without data is left out.
        """

    async def cancel_all(self, tool: Tool, symbol: str) -> None:
        """Cancels every open order of `symbol` on the tool's market; returns once the venue has confirmed it."""

    async def create_order(self, order: Order, clearance: Clearance = CLEARED) -> OrderReport:
        """Sends an order once. Idempotent by `order_id`; refuses to begin after `not_after`.

        Sends through `clearance`, after whatever takes time, and lets it check in the last instruction before the bytes leave: a
        kill that was acknowledged meanwhile stops the order (I3), also where this process stood still in between.
        """

    async def find_order(self, order: Order) -> OrderReport | None:
        """What the venue knows of an order; None where it has never seen it."""

    async def time(self, symbol: str) -> datetime | None:
        """The venue's own clock, now; None where it does not tell. `symbol` is one that it knows."""

    async def close(self) -> None:
        """Ends whatever it holds open."""
