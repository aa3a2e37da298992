"""I3: after a kill, silence."""

from collections.abc import Iterator

from tests.chaos.evidence import RESTS, VenueOrder
from tests.chaos.reading import CANCEL_TOOLS, Reading
from tests.chaos.schedule import WORKERS

Found = Iterator[tuple[float, str]]
# For so long a worker may rely on what the coordinator has said (docs/architecture.md, the order and the kill).
PERMISSION_SECONDS = 0.5
CLOCK_SECONDS = 0.1
IN_FLIGHT_SECONDS = 1.5


def no_order_after_a_kill(reading: Reading) -> Found:
    """Nothing that adds risk is sent once a kill is acknowledged; what had begun may still arrive for a moment."""
    yield from orders_within(reading, "kill", ("restart",), "kill", "cancel")


def orders_within(reading: Reading, what: str, ends: tuple[str, ...], *begins: str) -> Found:
    """Orders that add risk, while calls of these kinds forbid it."""
    for call, start, until in reading.windows(ends, *begins):
        for order in reading.risky_orders:
            if start < (order.committed or order.at) < until and (why := _why_wrong(reading, order, start)):
                yield order.at, f"order {order.order_id} {why} {what} {call.command_id or call.token} was acknowledged"


def _why_wrong(reading: Reading, order: VenueOrder, start: float) -> str | None:
    placing = reading.placing_of(order)
    begun = placing.started.at if placing and placing.started else start
    if begun > start + CLOCK_SECONDS:
        return f"was begun {begun - start:.2f} s after"
    if order.not_after is not None:
        # The paper venue takes an order until half a second after the coordinator was asked, or until its time is over: a
        # later moment means that nobody asked, or that somebody asked after the answer to the caller.
        asked = order.not_after - PERMISSION_SECONDS
        return f"was sent by a permission of {asked - start:.2f} s after" if asked > start + CLOCK_SECONDS else None
    late = order.at > start + IN_FLIGHT_SECONDS and not _held_up(reading, order, start)
    return f"came to the venue {order.at - start:.2f} s after" if late else None


def _held_up(reading: Reading, order: VenueOrder, start: float) -> bool:
    """Whether something may have held up the bytes of an order on their way to a real venue."""
    ways = [f"{worker}>venue" for worker in WORKERS]
    return reading.disturbed(start - 2, order.at, "venue", *WORKERS, *ways, after=0.5)


def every_kill_cancels_everything(reading: Reading) -> Found:
    """After each kill every symbol's orders are cancelled on both markets, by calls that began after it, until confirmed."""
    if reading.e.settled_at is None:
        return
    for position in reading.kill_positions:
        event = reading.e.events[position]
        confirmed = {(t.tool, t.symbol) for t in reading.cancel_tries if t.activity.position > position and t.confirmed}
        missing = [
            f"{tool} {symbol}"
            for symbol in reading.e.symbols
            for tool in CANCEL_TOOLS
            if (tool, symbol) not in confirmed
        ]
        if missing:
            yield event.at, f"after kill {event.payload} nobody confirmed {', '.join(missing)}"


def nothing_rests_after_a_kill(reading: Reading) -> Found:
    """A desk that is killed and settled has no open order at the venue."""
    if reading.e.status is None or reading.e.settled_at is None or reading.e.status["state"] != "killed":
        return
    for order in reading.e.orders:
        if order.status in RESTS:
            yield (
                order.at,
                f"the desk is killed and settled, and order {order.order_id} of {order.symbol} is still open",
            )


RULES = (no_order_after_a_kill, every_kill_cancels_everything, nothing_rests_after_a_kill)
