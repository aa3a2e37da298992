"""I3: after a kill, silence."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import product

from tests.chaos.evidence import RESTS, VenueOrder
from tests.chaos.reading import CANCEL_TOOLS, Reading
from tests.chaos.schedule import WORKERS

Found = Iterator[tuple[float, str]]
# For so long a worker may rely on what the coordinator has said (docs/architecture.md, the order and the kill).
PERMISSION_SECONDS = 0.5
CLOCK_SECONDS = 0.1
IN_FLIGHT_SECONDS = 1.5
SOON_SECONDS = 5.0
# domain/desk/outbox.py: of one symbol and market no more cancels wait.
LANE = 10
# What is told of an order that the venue accepted.
TAKEN = ("open", "filled", "canceled")


def no_order_after_a_kill(reading: Reading) -> Found:
    """Nothing that adds risk is sent once a kill is acknowledged; what had begun may still arrive for a moment."""
    yield from orders_within(reading, "kill", ("restart",), "kill", "cancel")


def orders_within(reading: Reading, what: str, ends: tuple[str, ...], *begins: str) -> Found:
    """Orders that add risk, while calls of these kinds forbid it."""
    for call, start, until in reading.windows(ends, *begins):
        for order in reading.risky_orders:
            if start < (order.committed or order.at) < until and (why := why_wrong(reading, order, start)):
                yield order.at, f"order {order.order_id} {why} {what} {call.command_id or call.token} was acknowledged"


def why_wrong(reading: Reading, order: VenueOrder, start: float) -> str | None:
    """Why an order should not have come after a moment; None where it had begun by then, and was in flight."""
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


def no_order_while_the_database_says_killed(reading: Reading) -> Found:
    """The latch stands there, too, and whoever wrote it: a worker asks it before it sends."""
    for start, until in _killed_in_the_database(reading):
        for order in reading.risky_orders:
            placing = reading.placing_of(order)
            begun = placing.started.at if placing and placing.started else start
            if begun > start + CLOCK_SECONDS and (order.committed or order.at) < until:
                yield order.at, f"order {order.order_id} was begun {begun - start:.2f} s after the database said killed"


def _killed_in_the_database(reading: Reading) -> Iterator[tuple[float, float]]:
    """From each commit that made the desk's row say killed until the one that made it say otherwise."""
    since: float | None = None
    for change in reading.e.changes:
        if change.place != "public.desks" or change.row["killed"] == (since is not None):
            continue
        if since is not None:
            yield since, change.committed
        since = change.committed if change.row["killed"] else None
    if since is not None:
        yield since, float("inf")


def every_kill_cancels_everything(reading: Reading) -> Found:
    """After each kill every symbol's orders are cancelled on both markets, by calls that began after it, until confirmed."""
    if reading.e.settled_at is None:
        return
    for position in reading.kill_positions:
        event = reading.e.events[position]
        if missing := reading.unconfirmed(position, reading.e.symbols):
            yield event.at, f"after kill {event.payload} nobody confirmed {', '.join(missing)}"


def every_cancel_all_cancels_what_it_names(reading: Reading) -> Found:
    """Its symbols, or all, on both markets, in the moment in which it is applied; or soon; or as many wait as may wait.

    Commands that are taken in the same moment share their cancels.
    """
    prepared = {(row["prepared_at"], row["tool"], row["symbol"]) for row in reading.e.instructions}
    waited = [(row["prepared_at"], row["settled_at"], (row["tool"], row["symbol"])) for row in reading.e.instructions]
    for command_id, events in reading.signals_by_id.items() if reading.e.settled_at else ():
        rows = reading.applied(command_id, "cancel_all")
        if events[0].name != "cancel_all" or not rows:
            continue
        moment, at = rows[0]["timestamp"], rows[0]["timestamp"].timestamp()
        soon = {t.lane for t in reading.cancel_tries if 0 <= t.activity.scheduled.at - at < SOON_SECONDS}
        full = Counter(lane for since, until, lane in waited if since < moment and (until is None or until > moment))
        lanes = product(CANCEL_TOOLS, events[0].payload.get("symbols") or reading.e.symbols)
        if missing := [
            lane for lane in lanes if not (lane in soon or (moment, *lane) in prepared or full[lane] >= LANE)
        ]:
            yield at, f"of cancel_all {command_id} there is no cancel of {missing}"


def what_was_in_flight_at_a_kill_is_canceled_again(reading: Reading) -> Found:
    """Once it is known that the venue took it: the cancels of the kill may have come before it."""
    for told in (*reading.named("place_order"), *reading.named("settle_order")):
        order = told.scheduled.payload["order"]
        if reading.e.settled_at is None or told.done_position is None or (told.result or {}).get("fate") not in TAKEN:
            continue
        sent = reading.placings[order["order_id"]][0].position
        kills = [n for n in reading.kill_positions if sent < n < told.done_position]
        if not kills or _restarted(reading, reading.e.events[kills[-1]].at, told.ended):
            continue
        if reading.disturbed(told.ended, told.ended + SOON_SECONDS, "temporal", *WORKERS, *_WAYS):
            continue
        symbol, again = order["instruction"]["symbol"], _cancelled_again(reading, told.ended)
        if missing := [tool for tool in CANCEL_TOOLS if (tool, symbol) not in again]:
            yield (
                told.ended,
                f"order {order['order_id']} was in flight at a kill, and then there was no {missing} of {symbol}",
            )


# Who is away takes up late what is known.
_WAYS = tuple(f"{worker}>temporal" for worker in WORKERS)


def _cancelled_again(reading: Reading, moment: float) -> set[tuple[str, str]]:
    """The symbols and markets that soon got a cancel of a later round, or could get none, since so many waited already."""
    rows = [
        ((row["tool"], row["symbol"]), row["round"], _after(row["prepared_at"], moment))
        for row in reading.e.instructions
    ]
    waited = Counter(
        (row["tool"], row["symbol"])
        for row in reading.e.instructions
        if _after(row["prepared_at"], moment) < 0 < _after(row["settled_at"], moment)
    )
    full = {lane for lane, number in waited.items() if number >= LANE}
    return full | {lane for lane, number, after in rows if number > 1 and -CLOCK_SECONDS < after < SOON_SECONDS}


def _after(at: datetime | None, moment: float) -> float:
    return at.timestamp() - moment if at else float("inf")


def _restarted(reading: Reading, start: float, end: float) -> bool:
    """Whether a restart may have come in between; then the desk is free to have an order at rest."""
    return any(e.name == "restart" and start <= e.at <= end + IN_FLIGHT_SECONDS for e in reading.signals)


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


RULES = (
    no_order_after_a_kill,
    no_order_while_the_database_says_killed,
    every_kill_cancels_everything,
    every_cancel_all_cancels_what_it_names,
    what_was_in_flight_at_a_kill_is_canceled_again,
    nothing_rests_after_a_kill,
)
