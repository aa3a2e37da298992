"""I4: exactly once."""

from collections import Counter
from collections.abc import Iterator

from tests.chaos import recorder as r
from tests.chaos.evidence import RESTS, VenueOrder
from tests.chaos.reading import CANCEL_TOOLS, Reading

Found = Iterator[tuple[float, str]]
WITH_A_KEY = ("pause", "resume", "kill", "cancel_all", "deleverage", "set_limits", "propose")
FINAL = ("confirmed", "failed")


def every_order_is_sent_once(reading: Reading) -> Found:
    """One activity an order, with one attempt, in all runs together."""
    for order_id, placings in reading.placings.items():
        first = placings[0].scheduled
        if len(placings) > 1:
            yield placings[1].scheduled.at, f"order {order_id} was sent {len(placings)} times"
        if first.most_attempts != 1:
            yield first.at, f"order {order_id} may be attempted {first.most_attempts or 'any number of'} times"
        if any(placing.started and placing.started.attempt > 1 for placing in placings):
            yield first.at, f"order {order_id} was attempted again"


def the_venue_knows_no_order_twice(reading: Reading) -> Found:
    """Whatever the venue has is one of our orders, and one only."""
    begun = sum(placing.started is not None for placings in reading.placings.values() for placing in placings)
    if len(reading.e.orders) > begun:
        yield reading.e.healed_at, f"the venue has {len(reading.e.orders)} orders, and only {begun} sends began"
    twice = [name for name, count in Counter(order.order_id for order in reading.e.orders).items() if count > 1]
    if twice:
        yield reading.e.healed_at, f"the venue has these orders more than once: {twice}"
    # The cancel of a single order names it, too.
    orders = (row for row in reading.e.instructions if row["tool"] == "create_order" and row["venue_order_id"])
    named = Counter(row["venue_order_id"] for row in orders)
    if shared := [name for name, count in named.items() if count > 1]:
        yield reading.e.healed_at, f"several instructions claim the venue's orders {shared}"


def the_venue_took_what_is_told_as_confirmed(reading: Reading) -> Found:
    """And no order more: of a real venue it is not known which of two equal orders is which."""
    told = sum(row["tool"] == "create_order" and row["outcome"] == "confirmed" for row in reading.e.instructions)
    if reading.e.settled_at and len(reading.taken_orders) > told:
        yield (
            reading.e.settled_at,
            f"the venue took {len(reading.taken_orders)} orders, and {told} are told as confirmed",
        )


def an_agent_has_one_order_a_symbol(reading: Reading) -> Found:
    """An agent's new order replaces its last one of the symbol: at the venue that rests no longer when the new one comes."""
    orders = {reading.our_ids.get(order.order_id): order for order in reading.e.orders}
    seen: dict[tuple[str, str], list[VenueOrder]] = {}
    for order_id, (placing, *_) in reading.placings.items():
        agent, order = placing.scheduled.payload["order"].get("agent_id"), orders.get(order_id)
        if agent is None or order is None:
            continue
        earlier = seen.setdefault((agent, order.symbol), [])
        for other in earlier:
            if (then := other.written_by(order.at)) and then.status in RESTS:
                yield order.at, f"order {order_id} of {agent} came while its order {other.order_id} still rested"
        earlier.append(order)


def every_command_is_carried_out_once(reading: Reading) -> Found:
    """A command's row stands once, however often it was sent. A kill kills again; a restart is accepted, and may fail then."""
    seen: set[str] = set()
    for row in reading.control_rows:
        if reading.forgets_ids(row):
            seen.clear()
        elif "was used for another" in row["summary"]:
            # Of another command under this id. It may come first, while the one whose id it is waits for its turn.
            continue
        elif row["command_id"] and not row["summary"].startswith(("kill", "restart refused")):
            if row["command_id"] in seen:
                yield row["timestamp"].timestamp(), f"command {row['command_id']} has a second row: {row['summary']}"
            seen.add(row["command_id"])


def a_key_is_the_id_of_its_command(reading: Reading) -> Found:
    """Whoever sends an Idempotency-Key is told of the command of this name, however often and through whichever API."""
    for call in reading.calls(*WITH_A_KEY):
        if call.key and call.acknowledged and call.command_id != call.key:
            yield call.start, f"{call.client}'s {call.kind} with the key {call.key} became command {call.command_id}"


def a_key_belongs_to_one_command(reading: Reading) -> Found:
    """Whoever takes a key that another command had is told of no success, nor of that one's refusal; but a kill kills."""
    if any(reading.forgets_ids(row) for row in reading.control_rows):
        return
    for call in reading.calls(*WITH_A_KEY):
        had = reading.signals_by_id.get(call.key or "", [])
        if call.kind != "kill" and call.answer in (r.DONE, r.REFUSED) and had and had[0].name != call.kind:
            yield (
                call.start,
                f"{call.client}'s {call.kind} was answered {call.answer}, and {call.key} is a {had[0].name}'s",
            )


def a_deleverage_reduces_once(reading: Reading) -> Found:
    """One order for each that a person asked for, however often and whatever it is called."""
    sent = [placings[0].scheduled.payload["order"]["command_id"] for placings in reading.placings.values()]
    for command_id, events in reading.signals_by_id.items():
        if events[0].name == "deleverage" and (count := sent.count(command_id)) > 1:
            yield events[0].at, f"deleverage {command_id} became {count} orders"


def an_outcome_stands(reading: Reading) -> Found:
    """An instruction that is confirmed or failed stays so, and is so once."""
    known: dict[str, str] = {}
    for change in reading.e.changes:
        if change.place != "public.instructions":
            continue
        name, outcome = change.row["instruction_id"], change.row["outcome"]
        if known.get(name) in FINAL and outcome != known[name]:
            yield change.committed, f"instruction {name} was {known[name]}, and became {outcome}"
        known[name] = outcome


def every_cancel_is_confirmed(reading: Reading) -> Found:
    """Cancels are repeated until the venue has confirmed them; or others of the same lane stand for them."""
    if reading.e.settled_at is None:
        return
    for row in reading.e.instructions:
        if row["tool"] in CANCEL_TOOLS and row["outcome"] != "confirmed" and "given up" not in (row["detail"] or ""):
            yield reading.e.settled_at, f"cancel {row['instruction_id']} is {row['outcome']} once all is settled"


RULES = (
    every_order_is_sent_once,
    the_venue_knows_no_order_twice,
    the_venue_took_what_is_told_as_confirmed,
    an_agent_has_one_order_a_symbol,
    every_command_is_carried_out_once,
    a_key_is_the_id_of_its_command,
    a_key_belongs_to_one_command,
    a_deleverage_reduces_once,
    an_outcome_stands,
    every_cancel_is_confirmed,
)
