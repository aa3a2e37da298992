"""I7: closed when in doubt."""

from collections.abc import Iterator

from tests.chaos.invariants.i3_silence import orders_within
from tests.chaos.reading import Reading

Found = Iterator[tuple[float, str]]


def no_order_while_paused(reading: Reading) -> Found:
    """Nothing that adds risk is sent once a pause is acknowledged."""
    yield from orders_within(reading, "pause", ("resume", "restart"), "pause")


def strangers_are_turned_away(reading: Reading) -> Found:
    """Whoever has no key is told 401, and nothing that he says is recorded."""
    said = [event.payload for event in reading.signals if isinstance(event.payload, dict)]
    for call in reading.e.calls:
        if "key" not in call.args:
            continue
        if call.status is not None and call.status != 401:
            yield call.start, f"a stranger's {call.kind} was answered {call.status}"
        if any(call.token and payload.get("reason") == call.token for payload in said):
            yield call.start, f"a stranger's {call.kind} {call.token} was recorded"


def every_order_passed_the_guards(reading: Reading) -> Found:
    """An order that adds risk belongs to a decision that the guards passed, and to a symbol of the whitelist."""
    decisions = {row["selected_order_id"]: row for row in reading.e.decisions if row["selected_order_id"]}
    for order in reading.risky_orders:
        row = decisions.get(reading.our_ids.get(order.order_id, ""))
        if row is not None and not row["risk_passed"]:
            yield order.at, f"order {order.order_id} was sent although the guards refused it: {row['risk_reasons']}"
        if order.symbol not in reading.e.symbols:
            yield order.at, f"order {order.order_id} is of {order.symbol}, which nobody has allowed"


def no_order_outlives_its_time(reading: Reading) -> Found:
    """What was decided for one cycle is not begun after it."""
    for order in reading.risky_orders:
        if order.not_after is not None and order.at > order.not_after:
            yield order.at, f"order {order.order_id} was sent {order.at - order.not_after:.2f} s after its time"


RULES = (no_order_while_paused, strangers_are_turned_away, every_order_passed_the_guards, no_order_outlives_its_time)
