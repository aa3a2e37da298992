"""Decides when an order that a venue has never seen can no longer arrive there.

A stalled attempt may begin to send as late as the order's `not_after`, and the send itself takes time. A worker whose clock was
an hour ahead once settled such an order's fate at once. So two clocks must agree: this machine's and the venue's.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from activities.venues.port import VenueError
from domain.trading.orders import Order

VenueTime = Callable[[str], Awaitable[datetime | None]]


async def none_can_arrive(order: Order, settles_after: timedelta, venue_time: VenueTime) -> bool:
    """True once both clocks say so; False if the venue does not tell its time. Ask before looking at the venue, not after."""
    last = order.not_after + settles_after
    if datetime.now(UTC) <= last:
        return False
    try:
        theirs = await venue_time(order.instruction.symbol)
    except VenueError:
        return False
    return theirs is not None and theirs > last
