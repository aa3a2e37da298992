"""Decides when an order that a venue has never seen can no longer arrive there.

A stalled attempt may still begin to send until the order's `not_after`, and the send itself takes time. A worker whose clock
was an hour ahead settled such an order's fate at once. So two clocks must agree: this machine's and the venue's.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from activities.venues.port import VenueError
from domain.trading.orders import Order

VenueTime = Callable[[str], Awaitable[datetime | None]]


async def none_can_arrive(order: Order, settles_after: timedelta, venue_time: VenueTime) -> bool:
    """By both clocks; False where the venue does not tell its own. Ask before the venue is looked at, not after."""
    last = order.not_after + settles_after
    if datetime.now(UTC) <= last:
        return False
    try:
        told = await venue_time(order.instruction.symbol)
    except VenueError:
        return False
    return told is not None and told > last
