"""Orders and what became of them."""

from decimal import Decimal
from enum import StrEnum

from domain.instructions import OrderInstruction
from domain.values import Moment, Value


class Fate(StrEnum):
    """What is known of an order that was handed to an activity. An order is sent at most once (I4).

    `PREPARED`: written down in shadow mode, and never to be sent. `CANCELED`: the venue had accepted it, and what was not
    filled by then never will be (canceled or expired).
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
        """Whether nothing more has to be asked of the venue."""
        return self is not Fate.UNKNOWN

    @property
    def reached_venue(self) -> bool:
        """Whether the venue accepted it."""
        return self in (Fate.OPEN, Fate.FILLED, Fate.CANCELED)


class Order(Value):
    """An order ready to be sent. No send begins after `not_after`.

    `position_before` is the signed futures position of the symbol as it was last read before the send, where it is known:
    a venue without client order ids settles an unknown order by it.
    """

    order_id: str
    command_id: str
    desk: str
    instruction: OrderInstruction
    not_after: Moment
    prepared_at: Moment
    position_before: Decimal | None = None


class OrderReport(Value):
    """What the venue, or the activity that did not send, said of an order.

    `position_before` is the venue's own reading immediately before the send, where it made one: fresher than the order's.
    `venue_order_id` is the order's id there, where the venue has told it.
    """

    order_id: str
    fate: Fate
    detail: str = ""
    filled_quantity: Decimal = Decimal(0)
    average_price: Decimal | None = None
    position_before: Decimal | None = None
    venue_order_id: str | None = None
