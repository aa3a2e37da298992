"""I7: closed when in doubt."""

from collections.abc import Iterator
from math import isclose
from typing import Any

from tests.chaos.evidence import VenueOrder
from tests.chaos.invariants.i3_silence import orders_within
from tests.chaos.reading import Activity, Reading

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


def every_order_is_as_it_was_written_down(reading: Reading) -> Found:
    """What the venue has is what the log's instruction says: symbol, side, quantity, price, and whether it only reduces."""
    written = {row["instruction_id"]: row for row in reading.e.instructions if row["tool"] == "create_order"}
    for order in reading.e.orders:
        row = written.get(reading.our_ids.get(order.order_id, ""))
        if row is not None and (differ := _differences(order, row)):
            yield order.at, f"order {order.order_id} is not what was written down: {', '.join(differ)}"


def _differences(order: VenueOrder, row: dict[str, Any]) -> list[str]:
    facts = [(name, getattr(order, name), row[name]) for name in ("symbol", "side", "reduce_only")]
    # A real venue cuts an order that only reduces to what is held, and has a bound as the price of one at market.
    if not (order.reduce_only and order.quantity < float(row["quantity"])):
        facts.append(("quantity", order.quantity, float(row["quantity"])))
    if row["price"] is not None:
        facts.append(("price", order.price, float(row["price"])))
    return [f"{name} {had}, not {said}" for name, had, said in facts if had != said]


def every_reduction_is_of_what_is_held(reading: Reading) -> Found:
    """A reduction is sized from the position that the venue has: against it, by the part that was asked for, to a lot."""
    for activity in [] if reading.e.live else reading.named("plan_deleverage"):
        if activity.result and (why := _why_unsound(reading, activity)):
            yield activity.ended, f"a reduction of {activity.scheduled.payload['symbol']} {why}"


def _why_unsound(reading: Reading, activity: Activity) -> str | None:
    asked, planned = activity.scheduled.payload, activity.result
    order, symbol = planned["instruction"], asked["symbol"]
    # Sized from a reading that was made while the activity ran.
    held = reading.positions_between(symbol, activity.scheduled.at, activity.ended)
    if order is None:
        overlooked = planned["closed"] and all(held)
        return f"was refused since nothing was held, and the venue had {held}" if overlooked else None
    position, sized = float(planned["position"]), float(order["quantity"])
    if not any(isclose(position, each, abs_tol=1e-9) for each in held):
        return f"was sized from {position:g}, and the venue had {held}"
    whole = abs(position)
    wanted = whole * float(asked["reduce_pct"]) if asked["quantity"] is None else min(whole, float(asked["quantity"]))
    fits = wanted - reading.lot_step(symbol) < sized <= wanted + 1e-9
    against = order["reduce_only"] and (order["side"] == "SELL") == (position > 0)
    return None if against and fits else f"of {wanted:g} of {position:g} became {order['side']} {sized:g}"


RULES = (
    no_order_while_paused,
    strangers_are_turned_away,
    every_order_passed_the_guards,
    no_order_outlives_its_time,
    every_order_is_as_it_was_written_down,
    every_reduction_is_of_what_is_held,
)
