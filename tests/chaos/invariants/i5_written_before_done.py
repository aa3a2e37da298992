"""I5: written before done, unless it lowers risk."""

from collections.abc import Iterator

from tests.chaos.reading import CANCEL_TOOLS, Activity, Reading

Found = Iterator[tuple[float, str]]
CLOCK_SECONDS = 0.002


def every_decision_is_committed_before_its_order(reading: Reading) -> Found:
    """By the database's own account of its commits."""
    committed = {
        change.row["selected_order_id"]: change.committed
        for change in reading.e.changes
        if change.place == "public.decisions" and change.op == "INSERT" and change.row["selected_order_id"]
    }
    for order in reading.risky_orders:
        name = reading.our_ids.get(order.order_id)
        if name is None:
            continue
        if name not in committed:
            yield order.at, f"order {name} is at the venue, and no decision of it was ever committed"
        elif committed[name] > order.at + CLOCK_SECONDS:
            yield (
                order.at,
                f"order {name} came to the venue {committed[name] - order.at:.3f} s before its decision was committed",
            )


def every_send_follows_its_commit(reading: Reading) -> Found:
    """By the history: the record had ended well before the send was scheduled."""
    for order_id, (placing, *_) in reading.placings.items():
        if placing.scheduled.payload["order"]["instruction"]["reduce_only"]:
            continue
        written = (each for each in reading.named("record") if order_id in orders_in(each))
        if not any(each.succeeded and each.position < (each.done_position or 0) < placing.position for each in written):
            yield placing.scheduled.at, f"order {order_id} was sent before its decision was committed"


def orders_in(record: Activity) -> list[str | None]:
    """The orders whose decisions it writes."""
    return [row.get("selected_order_id") for row in record.scheduled.payload["batch"]["decisions"]]


def no_cancel_waits_for_the_database(reading: Reading) -> Found:
    """After a kill, the cancels are under way before anything that is written after it has come back."""
    for position in reading.kill_positions:
        event = reading.e.events[position]
        for lane in ((tool, symbol) for symbol in reading.e.symbols for tool in CANCEL_TOOLS):
            tries = [t.activity for t in reading.cancel_tries if (t.tool, t.symbol) == lane]
            first = next((a for a in tries if a.position > position), None)
            if first is None or first.scheduled.run != event.run or _is_busy(tries, position):
                continue
            writes = [a for a in reading.activities if a.name in ("record", "write_desk") and a.position > position]
            if any(a.done_position is not None and a.done_position < first.position for a in writes):
                yield event.at, f"{lane[0]} {lane[1]} after kill {event.payload} waited for a write to the database"


def _is_busy(tries: list[Activity], position: int) -> bool:
    """Whether a call of the lane was under way, or had failed and waited for its next try."""
    before = [a for a in tries if a.position < position]
    return any(a.done_position is None or a.done_position > position for a in before) or any(
        not a.succeeded for a in before[-1:]
    )


def no_reduction_waits_for_the_database(reading: Reading) -> Found:
    """Once it is sized it goes out: between the two nothing is written that somebody waits for."""
    writes = [a for a in reading.activities if a.name in ("record", "write_desk") and a.done_position is not None]
    for plan in reading.named("plan_deleverage"):
        if not plan.result or plan.result["instruction"] is None or plan.done_position is None:
            continue
        symbol = plan.scheduled.payload["symbol"]
        sent = next((p.position for p in _reductions(reading, symbol) if p.position > plan.done_position), None)
        if sent and any(plan.done_position < w.position and (w.done_position or 0) < sent for w in writes):
            yield plan.ended, f"a reduction of {symbol} waited for a write to the database"


def _reductions(reading: Reading, symbol: str) -> list[Activity]:
    orders = [(each, each.scheduled.payload["order"]["instruction"]) for each in reading.named("place_order")]
    return [each for each, order in orders if order["reduce_only"] and order["symbol"] == symbol]


RULES = (
    every_decision_is_committed_before_its_order,
    every_send_follows_its_commit,
    no_cancel_waits_for_the_database,
    no_reduction_waits_for_the_database,
)
