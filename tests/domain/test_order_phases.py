"""How an order moves from its decision to its fate."""

import pytest

from domain.desk.carried import OrderEvent, OrderPhase, PendingOrder
from domain.trading.orders import Order
from tests.domain.builders import NOW, an_order


def an_order_in(phase: OrderPhase) -> PendingOrder:
    order = Order(order_id="ord_1", command_id="c", desk="main", instruction=an_order(), not_after=NOW, prepared_at=NOW)
    return PendingOrder(order=order, phase=phase, since=NOW)


@pytest.mark.parametrize("phase", [OrderPhase.SENDING, OrderPhase.UNKNOWN, OrderPhase.SETTLED])
def test_an_order_that_was_sent_is_never_sent_again(phase: OrderPhase) -> None:
    pending = an_order_in(phase)
    with pytest.raises(KeyError):
        pending.move(OrderEvent.SENT)
    assert pending.phase is phase


@pytest.mark.parametrize("phase", [OrderPhase.DECIDED, OrderPhase.SENDING, OrderPhase.UNKNOWN])
def test_any_order_takes_any_report(phase: OrderPhase) -> None:
    # A report that raised would fail every later workflow task, and hold up the next kill.
    known, unknown = an_order_in(phase), an_order_in(phase)
    known.move(OrderEvent.KNOWN)
    unknown.move(OrderEvent.NOT_KNOWN)
    assert (known.phase, unknown.phase) == (OrderPhase.SETTLED, OrderPhase.UNKNOWN)
