"""What the coordinator's activities need from a venue, and the errors of a venue.

VenueError
├── VenueUnavailable         no answer, or a 5xx: the outcome of a send is unknown
│   └── VenueRateLimited     the venue asked us to wait, or we still wait; says for how long
├── VenueNotSent             nothing was sent: its turn did not come, or something prevented it
│   └── StateTooOld          the coordinator's answer was too old by then; ask again
└── VenueRefused             the venue answered and refused: nothing was done
    ├── VenueMisconfigured   401, 403, a missing tool: a wrong setting, which no retry fixes
    └── HedgeMode            the account holds LONG and SHORT side by side, which AIS cannot trade
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Protocol, TypeVar

from domain.trading.instructions import Tool
from domain.trading.market import NOTHING_KNOWN, Known, MarketView, Observation, SymbolReading
from domain.trading.orders import Order, OrderReport

T = TypeVar("T")


class VenueError(Exception):
    """Base of a venue's errors; the text holds no secret and is fit for people.

    `retryable` says whether the same call may succeed a moment later; every class says it for itself.
    """

    retryable: ClassVar[bool] = True
    retry_after: timedelta | None = None


class VenueUnavailable(VenueError):
    """The venue did not answer; it is not known whether it carried out the request."""

    retryable = True


class VenueRateLimited(VenueUnavailable):
    """The venue asks for a pause. Going on earns a ban."""

    retryable = True

    def __init__(self, call: str, wait: timedelta) -> None:
        super().__init__(f"{call}: the venue asks for a pause, {wait.total_seconds():.0f} s more")
        self.retry_after = wait


class VenueNotSent(VenueError):
    """Nothing was sent: other calls came first, or something prevented it."""

    retryable = True


class StateTooOld(VenueNotSent):
    """Nothing was sent, because the coordinator's answer was too old by then; ask it again."""

    retryable = True


class VenueRefused(VenueError):
    """The venue answered and refused; nothing was done."""

    retryable = False


class VenueMisconfigured(VenueRefused):
    """The venue refuses us until somebody changes a setting."""

    retryable = False


class HedgeMode(VenueRefused):
    """The account is in hedge mode."""

    retryable = False

    def __init__(self) -> None:
        super().__init__("the account is in hedge mode: switch it to one-way; nothing is traded")


# Wrong, and wrong until somebody changes a setting or the account.
CERTAIN = (VenueMisconfigured, HedgeMode)


class Clearance(Protocol):
    """One order's permission to go out: obtained immediately before the send, and checked again in its last instruction."""

    async def send(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Asks and makes the attempt; asks again where the answer grew too old in between. Raises VenueNotSent."""

    @property
    def seconds_left(self) -> float | None:
        """For how long the answer is still good; None where none was needed."""

    def check(self) -> None:
        """The last instruction before the bytes leave. Raises VenueNotSent where the answer is not good any more."""


class AlwaysCleared:
    """Permits every order without a check."""

    seconds_left: float | None = None

    async def send(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Makes the attempt."""
        return await attempt()

    def check(self) -> None:
        """Nothing grows old."""


CLEARED = AlwaysCleared()


class Venue(Protocol):
    """One account at one venue. Every method may raise VenueError."""

    settles_after: timedelta
    """How long past its `not_after` an order that the venue has never seen may still arrive there."""

    counts_its_calls: bool
    """Whether it counts its own calls; the activities count those of a venue that does not."""

    async def check(self) -> None:
        """Raises one of CERTAIN where two answers in a row say that the account cannot be traded; VenueError where nobody
        can tell now.
        """

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

    async def cancel_order(self, symbol: str, order_id: str) -> None:
        """Cancels one futures order by the id that the venue gave it; returns once the venue has confirmed that it is open no
        longer, also where it had ended before. Nothing of a kill waits for it.
        """

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
