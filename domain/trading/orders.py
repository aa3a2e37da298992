"""Orders and their fates."""

from decimal import Decimal
from enum import StrEnum

from pydantic import Field

from domain.trading.instructions import OrderInstruction
from domain.values import Moment, Value


class Fate(StrEnum):
    """What is known of an order that an activity was to send. An order is sent at most once (I4).

    `PREPARED`: recorded in shadow mode, never sent. `CANCELED`: the venue had accepted it, then it was canceled or expired;
    the unfilled rest will never fill.
    """

    PREPARED = "prepared"
    NOT_SENT = "not_sent"
    REJECTED = "rejected"
    OPEN = "open"
    FILLED = "filled"
    CANCELED = "canceled"
    UNKNOWN = "unknown"

    @property
    def is_known(self) -> bool:
        """Whether the venue need not be asked again."""
        return self is not Fate.UNKNOWN

    @property
    def reached_venue(self) -> bool:
        """Whether the venue accepted it."""
        return self in (Fate.OPEN, Fate.FILLED, Fate.CANCELED)


class Order(Value):
    """An order ready to be sent. No send begins after `not_after`.

    `position_before` is the symbol's signed futures position in the last reading before the send, if known. On a venue
    without client order ids it helps to settle an unknown order. `others` are the venue's ids of the desk's other orders
    that rest on the symbol (None if unknown): none of them is this order, and each may move the position. `agent_id` is the
    agent whose proposal led to the order; None for a reduction.
    """

    order_id: str
    command_id: str
    desk: str
    instruction: OrderInstruction
    not_after: Moment
    prepared_at: Moment
    position_before: Decimal | None = None
    others: list[str | None] = Field(default_factory=list)
    agent_id: str | None = None


class OrderReport(Value):
    """The report on an order, from the venue or from the activity that did not send it.

    `position_before` is the venue adapter's reading immediately before the send, if any: fresher than the order's.
    `venue_order_id` is the venue's id of the order, if known.
    """

    order_id: str
    fate: Fate
    detail: str = ""
    filled_quantity: Decimal = Decimal(0)
    average_price: Decimal | None = None
    position_before: Decimal | None = None
    venue_order_id: str | None = None
