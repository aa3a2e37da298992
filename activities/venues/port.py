"""What the coordinator's activities need from a venue, and the errors of a venue.

VenueError
├── VenueUnavailable         no answer, or a 5xx: the outcome of a send is unknown
│   └── VenueRateLimited     the venue asked for a pause, which is not over; says how long it lasts
├── VenueNotSent             nothing was sent: its turn did not come, or something prevented it
│   └── StateTooOld          the coordinator's answer had become too old; ask again
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
    """Base of a venue's errors. The text holds no secret and may be shown to people.

    `retryable` says whether the same call may succeed a moment later; every class sets it explicitly.
    """

    retryable: ClassVar[bool] = True
    retry_after: timedelta | None = None


class VenueUnavailable(VenueError):
    """The venue did not answer; it is not known whether it carried out the request."""

    retryable = True


class VenueRateLimited(VenueUnavailable):
    """The venue asks for a pause. Calling on would earn a ban."""

    retryable = True

    def __init__(self, call: str, wait: timedelta) -> None:
        super().__init__(f"{call}: the venue asks for a pause, {wait.total_seconds():.0f} s more")
        self.retry_after = wait


class VenueNotSent(VenueError):
    """Nothing was sent: other calls came first, or something prevented it."""

    retryable = True


class StateTooOld(VenueNotSent):
    """Nothing was sent, because the coordinator's answer had become too old; ask again."""

    retryable = True


class VenueRefused(VenueError):
    """The venue answered and refused; nothing was done."""

    retryable = False


class VenueMisconfigured(VenueRefused):
    """The venue refuses our calls until somebody changes a setting."""

    retryable = False


class HedgeMode(VenueRefused):
    """The account is in hedge mode."""

    retryable = False

    def __init__(self) -> None:
        super().__init__("the account is in hedge mode: switch it to one-way; nothing is traded")


# Errors that last until somebody changes a setting or the account.
CERTAIN = (VenueMisconfigured, HedgeMode)


class Clearance(Protocol):
    """One order's permission to go out: obtained immediately before the send, and checked again in its last instruction."""

    async def send(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Asks and makes the attempt; repeats both if the answer became too old in between. Raises VenueNotSent."""

    @property
    def seconds_left(self) -> float | None:
        """For how long the answer is still valid; None if none was needed."""

    def check(self) -> None:
        """The last instruction before the bytes leave. Raises VenueNotSent if the answer is no longer valid."""


class AlwaysCleared:
    """Permits every order without a check."""

    seconds_left: float | None = None

    async def send(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Makes the attempt."""
        return await attempt()

    def check(self) -> None:
        """Passes: nothing becomes too old."""


CLEARED = AlwaysCleared()


class Venue(Protocol):
    """One account at one venue. Every method may raise VenueError."""

    settles_after: timedelta
    """How long past its `not_after` an order that the venue has never seen may still arrive there."""

    counts_its_calls: bool
    """Whether it counts its own calls. If not, the activities count them."""

    async def check(self) -> None:
        """Raises one of CERTAIN if two answers in a row say that the account cannot be traded, or VenueError if that cannot be
        known now.
        """

    async def observe(self, symbols: Sequence[str], cycle_id: str | None, known: Known = NOTHING_KNOWN) -> Observation:
        """A reading of prices, positions, orders and account; its `latch` is left empty.

        Idempotent by `cycle_id`: a new one moves a market that is driven by cycles one bar further; None only reads. If something
        in `known` is gone, a second source confirms it, or it becomes one of the reading's `doubts`.
        """

    async def look(self, symbol: str) -> SymbolReading | Observation:
        """One symbol's current positions and rules, read as cheaply as possible. That a position is gone is never concluded
        from less than `observe` needs for it.
        """

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        """Each symbol's newest `bars` bars, its book and its next funding rate, as of the last observation.

        A symbol without data is left out.
        """

    async def cancel_all(self, tool: Tool, symbol: str) -> None:
        """Cancels every open order of `symbol` on the tool's market; returns once the venue has confirmed it."""

    async def cancel_order(self, symbol: str, order_id: str) -> None:
        """Cancels one futures order by the venue's own id. Returns once the venue has confirmed that it is no longer open, also
        if it had ended before. No part of a kill waits for this.
        """

    async def create_order(self, order: Order, clearance: Clearance = CLEARED) -> OrderReport:
        """Sends an order once. Idempotent by `order_id`; refuses to begin after `not_after`.

        Sends through `clearance`, after everything that takes time, and has it check in the last instruction before the bytes
        leave: a kill acknowledged meanwhile stops the order (I3), even if this process was suspended in between.
        """

    async def find_order(self, order: Order) -> OrderReport | None:
        """What the venue knows of an order; None if it has never seen it."""

    async def time(self, symbol: str) -> datetime | None:
        """The venue's own clock, now; None if it does not tell. `symbol` is any that it knows."""

    async def close(self) -> None:
        """Closes whatever it holds open."""
