"""Cancels a single order by the exchange's id: used to replace a quote, never by a kill.

Two sources have to confirm that the order is over: the answer of the cancel (or the order's own status), and a list of open
orders requested after it. An order that filled or was canceled before is over as well.
"""

import asyncio

from activities.venues.aster.account import OVER
from activities.venues.aster.answers import BadRequest
from activities.venues.aster.caller import Caller
from activities.venues.aster.results import Row, Unreadable, rows
from activities.venues.port import VenueError, VenueNotSent, VenueRateLimited, VenueUnavailable
from domain.values import printable

# The exchange may list an order a moment longer than it lives.
LOOKS_AGAIN_SECONDS = (0.1, 0.3)
_FORGOTTEN = "forgotten"


async def cancel_one(caller: Caller, symbol: str, order_id: int) -> None:
    """Cancels the order; raises VenueError unless it is known to be over."""
    failed: VenueError | None = None
    try:
        row = Row("cancel_order", await caller.call("cancel_order", symbol, order_id=order_id)).of_order(order_id)
        if row.text("status") not in OVER:
            raise Unreadable(row.call, "it does not say that the order is over")
    except (VenueNotSent, VenueRateLimited):
        raise  # Nothing was sent, so there is nothing to confirm.
    except VenueError as error:
        failed = error
    for pause in (*LOOKS_AGAIN_SECONDS, None):
        asked = asyncio.sleep(0, "CANCELED") if failed is None else _status(caller, symbol, order_id)
        listed, status = await asyncio.gather(caller.call("get_open_orders", symbol), asked)
        if any(row.number("orderId") == order_id for row in rows("get_open_orders", listed)):
            why = f"order {order_id} is still listed as open"
        elif status not in (*OVER, _FORGOTTEN):
            why = f"order {order_id} is {printable(status)[:40]}"
        else:
            return
        if pause is None:
            raise VenueUnavailable(f"cancel_order {symbol}: {why}{f' ({failed})' if failed else ''}")
        await asyncio.sleep(pause)


async def _status(caller: Caller, symbol: str, order_id: int) -> str:
    """The order's status at the exchange. It forgets orders after a week, so one that it does not know is not open."""
    try:
        row = Row("get_order", await caller.call("get_order", symbol, order_id=order_id))
    except BadRequest:
        return _FORGOTTEN
    return row.of_order(order_id).text("status")
