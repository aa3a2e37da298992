"""I6: nothing is guessed. What readings of the state said is part of I2's search for an order."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from math import isclose
from typing import Any

from tests.chaos import recorder as r
from tests.chaos.evidence import RESTS, VenueOrder, Version
from tests.chaos.reading import CANCEL_TOOLS, STATE_KINDS, Activity, CancelTry, Reading

Found = Iterator[tuple[float, str]]
# The venue's clock is that of Temporal's server here; a real venue writes whole milliseconds.
CLOCK_SECONDS = 0.002
# What the venue calls that which an activity reports.
STATUSES = {"open": RESTS, "filled": ("filled",), "canceled": ("canceled", "expired")}
SENDERS = {"http": "http: ", "temporal": "temporal:", "ais": "cli:"}
OF_A_COMMAND = re.compile(r"[a-z_]+ (applied|repeated|refused) by ")
INFINITE = float("inf")
COMMANDS = ("pause", "resume", "kill", "cancel_all", "deleverage", "set_limits", "propose")


def what_is_acknowledged_is_in_the_history(reading: Reading) -> Found:
    """A caller is told of a success only once Temporal has recorded the command."""
    cancelled = " ".join(str(event.payload) for event in reading.e.events if event.kind == "cancel_requested")
    for call in reading.calls(*COMMANDS):
        if not (call.acknowledged and call.command_id and call.end):
            continue
        recorded = reading.signals_by_id.get(call.command_id, [])
        if not any(event.at <= call.end for event in recorded) and call.command_id not in cancelled:
            yield (
                call.end,
                f"{call.client}'s {call.kind} {call.command_id} was answered {call.answer} before it was recorded",
            )


def what_is_told_as_done_was_carried_out(reading: Reading) -> Found:
    """Whoever is told of an outcome is told of a fact: a worker had taken the command up by then."""
    taken = [event for event in reading.e.events if event.kind == "task_completed"]
    for call in reading.calls(*COMMANDS):
        if call.answer not in (r.DONE, r.REFUSED) or not (call.command_id and call.end):
            continue
        told = [event for event in reading.signals_by_id.get(call.command_id, []) if event.name == call.kind]
        by_then = [(event.run, event.number) for event in taken if event.at <= call.end + CLOCK_SECONDS]
        if told and max(by_then, default=(0, 0)) < min((event.run, event.number) for event in told):
            yield (
                call.end,
                f"{call.client}'s {call.kind} {call.command_id} was answered {call.answer} before a worker had seen it",
            )


def a_restart_is_told_as_done_once_the_latch_is_cleared(reading: Reading) -> Found:
    """By a worker, while its sender waits: before that the desk does not run, and a kill may still come first."""
    cleared = [activity.ended for activity in reading.named("clear_latch") if activity.result]
    for call in reading.calls("restart"):
        end = call.end or 0.0
        if call.answer == r.DONE and not any(call.start <= at <= end + CLOCK_SECONDS for at in cleared):
            yield end, f"{call.client}'s restart {call.token} was told as done, and nobody had cleared the latch"


def what_is_not_recorded_never_happens(reading: Reading) -> Found:
    """Whoever is told that nothing was recorded may rely on it."""
    for call in reading.calls(*COMMANDS):
        others = [c for c in reading.e.calls if c.command_id == call.command_id and c.answer != r.NOT_RECORDED]
        if call.answer != r.NOT_RECORDED or call.command_id is None or others:
            continue
        if call.command_id in reading.signals_by_id or reading.rows_of(call.command_id, None):
            yield call.start, f"{call.client}'s {call.kind} {call.command_id} was told 'not recorded', and took effect"


def every_row_names_its_sender(reading: Reading) -> Found:
    """Whoever reads the log learns by which way a command came, and with whose key, whoever else sent the same."""
    for call in reading.calls(*STATE_KINDS, "cancel_all", "deleverage", "set_limits"):
        rows = reading.rows_of(call.command_id, call.token) if call.command_id or call.token else []
        sender = f"http:{call.args['holder']}: " if call.args.get("holder") else SENDERS[call.channel]
        for row in rows:
            if f" by {sender}" not in row["summary"]:
                yield (
                    call.start,
                    f"{call.client}'s {call.kind} came from {sender.rstrip(' :')}, and the log says: {row['summary']}",
                )


def every_order_has_the_fate_that_is_told_of_it(reading: Reading) -> Found:
    """A confirmed order is at the venue, one that failed is not."""
    if reading.e.settled_at is None:
        return
    taken = {reading.our_ids.get(order.order_id) for order in reading.taken_orders}
    for row in reading.e.instructions:
        if row["tool"] != "create_order":
            continue
        name, there = row["instruction_id"], row["instruction_id"] in taken
        if row["outcome"] == "confirmed" and not there:
            yield _seconds(row["prepared_at"]), f"order {name} is told as confirmed, and the venue does not have it"
        if row["outcome"] == "failed" and there:
            yield (
                _seconds(row["prepared_at"]),
                f"order {name} is told as failed ({row['detail']}), and the venue has it",
            )
        if row["outcome"] not in ("confirmed", "failed"):
            yield reading.e.settled_at, f"order {name} is {row['outcome']} once all is settled"


def every_confirmed_cancel_was_confirmed(reading: Reading) -> Found:
    """By a call of the venue that was made for it and ended well."""
    confirmed = {name for each in reading.cancel_tries if each.confirmed for name in each.instruction_ids}
    for row in reading.e.instructions:
        if row["tool"] in CANCEL_TOOLS and row["outcome"] == "confirmed" and row["instruction_id"] not in confirmed:
            yield _seconds(row["prepared_at"]), f"cancel {row['instruction_id']} is told as confirmed, and no call was"


def a_confirmed_cancel_left_nothing(reading: Reading) -> Found:
    """What rested at the venue before a confirmed cancel began neither rests nor fills once that is confirmed."""
    for cancel in reading.cancel_tries:
        began, ended = reading.span_of(cancel)
        for order in reading.e.orders if cancel.confirmed else ():
            before = order.committed_by(began - CLOCK_SECONDS)
            if before and before.status in RESTS and cancel.covers(order) and (after := _goes_on(order, ended)):
                name = f"{cancel.tool} {cancel.symbol}"
                yield (
                    ended,
                    f"{name} was confirmed, and order {order.order_id}, which rested before it, was {after} then",
                )


def _goes_on(order: VenueOrder, after: float) -> str | None:
    """What became of an order that should be over by then; None where nothing did."""
    last = order.committed_by(after + CLOCK_SECONDS)
    later = [version.status for version in order.versions if version.committed > after + CLOCK_SECONDS]
    return last.status if last and last.status in RESTS else next(iter(later), None)


def every_report_is_what_the_venue_had(reading: Reading) -> Found:
    """What is told of an order's fate and fill, by whoever sent it or asked for it, the venue had by then."""
    orders = {reading.our_ids.get(order.order_id): order for order in reading.e.orders}
    for activity in (*reading.named("place_order"), *reading.named("settle_order")):
        report = activity.result or {}
        # An order of a real venue that no instruction names has no id of ours.
        order = orders.get(report["order_id"]) if "order_id" in report else None
        # Of a real venue it is not known any more how much an order had filled that rested then.
        if order is None or report["fate"] not in STATUSES or (reading.e.live and report["fate"] == "open"):
            continue
        had = [version for version in order.versions if version.written <= activity.ended + CLOCK_SECONDS]
        if not any(_agrees(report, version) for version in had):
            told = f"{report['fate']}, {report['filled_quantity']} filled"
            yield activity.ended, f"order {order.order_id} is told as {told}, and the venue had {had}"


def _agrees(report: dict[str, Any], version: Version) -> bool:
    filled = isclose(float(report["filled_quantity"]), version.filled, abs_tol=1e-9)
    return filled and version.status in STATUSES[report["fate"]]


def every_deleverage_that_was_applied_reduced(reading: Reading) -> Found:
    """Where the log says so, the venue has an order of that command which only reduces."""
    taken = {reading.our_ids.get(order.order_id) for order in reading.taken_orders if order.reduce_only}
    sent = (placings[0].scheduled.payload["order"] for placings in reading.placings.values())
    reduced = {order["command_id"] for order in sent if order["order_id"] in taken}
    for row in reading.control_rows:
        if row["summary"].startswith("deleverage applied") and row["command_id"] not in reduced:
            yield (
                _seconds(row["timestamp"]),
                f"deleverage {row['command_id']} is told as applied, and the venue has no order of it",
            )


def every_reading_shows_what_the_venue_had(reading: Reading) -> Found:
    """The open orders and the positions of a reading, at its own moment; on paper, where every moment is on record."""
    for activity in [] if reading.e.live else reading.named("observe"):
        if (seen := activity.result) is None:
            continue
        at = _seconds(seen["observed_at"])
        shown = {order["order_id"] for order in seen["open_orders"]}
        if shown != (rested := reading.resting_at(at)):
            yield at, f"a reading shows the open orders {sorted(shown)}, and the venue had {sorted(rested)}"
        for symbol in reading.e.symbols:
            held = sum(float(each["quantity"]) for each in seen["positions"] if each["symbol"] == symbol)
            if not isclose(held, had := reading.position_at(symbol, at), abs_tol=1e-9):
                yield at, f"a reading shows {held:g} {symbol}, and the venue had {had:g}"


def what_the_status_told_of_commands_is_in_the_log(reading: Reading) -> Found:
    """Its last decision is a fact: where that is the row of a command, the log has it in the end; that of a restart is told once
    the latch is cleared."""
    rows = {row["decision_id"] for row in reading.e.decisions}
    cleared = {_row_of(each)["decision_id"]: each.ended for each in reading.named("clear_latch") if each.result}
    for call in reading.calls("look") if reading.e.settled_at else ():
        last = call.args.get("last") or {}
        summary, name = last.get("summary", ""), last.get("decision_id")
        if OF_A_COMMAND.match(summary) and name not in rows:
            yield call.start, f"the status told {summary!r}, and the log never got this row"
        if (
            summary.startswith("restart applied")
            and cleared.get(name, INFINITE) > (call.end or INFINITE) + CLOCK_SECONDS
        ):
            yield call.start, f"the status told {summary!r}, and nobody had cleared the latch"


def _row_of(clearing: Activity) -> dict[str, Any]:
    row: dict[str, Any] = clearing.scheduled.payload["row"]
    return row


def the_report_has_every_row_once(reading: Reading) -> Found:
    """Whoever reads the log page by page misses no row and sees none twice; of rows that came meanwhile nothing is said."""
    if reading.e.reported is None or reading.e.settled_at is None:
        return
    shown = Counter(reading.e.reported)
    if twice := [name for name, count in shown.items() if count > 1]:
        yield reading.e.settled_at, f"the report shows these rows more than once: {twice}"
    for row in reading.e.decisions:
        if _seconds(row["timestamp"]) < reading.e.healed_at and row["decision_id"] not in shown:
            yield _seconds(row["timestamp"]), f"no page of the report has row {row['decision_id']}: {row['summary']}"


def a_verified_kill_left_nothing(reading: Reading) -> Found:
    """Where a kill is told as verified, no order of before is open, whoever's it is."""
    for call in reading.calls("verification"):
        if call.state == "verified" and call.args["rests"]:
            yield (
                call.end or call.start,
                "the kill was told as verified while somebody else's order rested at the venue",
            )
    kill = (reading.e.status or {}).get("kill") or {}
    if not kill.get("verified_at"):
        return
    verified = datetime.fromisoformat(kill["verified_at"]).timestamp()
    for order in reading.e.orders:
        if order.status in RESTS and order.at < verified:
            yield verified, f"the kill is told as verified, and order {order.order_id} of before is open"


def a_kill_is_verified_by_a_reading(reading: Reading) -> Found:
    """One of the whole account, that shows no order, and that began once every cancel of the kill was confirmed and the fate of
    every order was known."""
    kill = (reading.e.status or {}).get("kill") or {}
    told = {call.args["verified_at"] for call in reading.calls("look") if call.args.get("verified_at")}
    for moment in sorted(told | ({kill["verified_at"]} if kill.get("verified_at") else set())):
        if not _empty_readings(reading, _seconds(moment)):
            text = "the kill is told as verified, and no reading of that moment shows that no order is open"
            yield _seconds(moment), text
    if not kill.get("verified_at"):
        return
    verified = _seconds(kill["verified_at"])
    shown = _empty_readings(reading, verified)
    last = max((n for n in reading.kill_positions if reading.e.events[n].at < verified), default=-1)
    for seen in shown[:1]:
        if waiting := [t for t in _first_confirmed(reading, last) if (t.activity.done_position or 0) > seen.position]:
            lanes = ", ".join(f"{t.tool} {t.symbol}" for t in waiting)
            yield verified, f"the kill is told as verified by a reading that began before these were confirmed: {lanes}"
        if unknown := [name for name in reading.placings if _under_way(reading, name, seen.position)]:
            text = f"the kill is told as verified by a reading that began before the fate of these was known: {unknown}"
            yield verified, text


def _empty_readings(reading: Reading, moment: float) -> list[Activity]:
    """Those of this very moment that show no order, and are not in doubt."""
    readings = [a for a in reading.named("observe") if a.result and _seconds(a.result["observed_at"]) == moment]
    return [a for a in readings if not a.result["open_orders"] and not a.result.get("doubts")]


def _under_way(reading: Reading, order_id: str, position: int) -> bool:
    """Whether an order was sent before this event, and its fate was known only after it, or never."""
    asked = (*reading.placings[order_id], *reading.settlings.get(order_id, []))
    told = ((a.done_position, a.result) for a in asked)
    # A person's answer may be anything.
    known = (at for at, result in told if isinstance(result, dict) and result.get("fate", "unknown") != "unknown")
    return asked[0].position < position and not any(at is not None and at < position for at in known)


def _first_confirmed(reading: Reading, position: int) -> list[CancelTry]:
    """Of each symbol and market, the first cancel after this event that was confirmed."""
    found: dict[tuple[str, str], CancelTry] = {}
    for each in reading.cancel_tries:
        if each.activity.position > position and each.confirmed and each.tool in CANCEL_TOOLS:
            found.setdefault(each.lane, each)
    return [each for lane, each in found.items() if lane[1] in reading.e.symbols]


def _seconds(moment: datetime | str) -> float:
    return (datetime.fromisoformat(moment) if isinstance(moment, str) else moment).timestamp()


RULES = (
    what_is_acknowledged_is_in_the_history,
    what_is_told_as_done_was_carried_out,
    a_restart_is_told_as_done_once_the_latch_is_cleared,
    what_is_not_recorded_never_happens,
    every_row_names_its_sender,
    every_order_has_the_fate_that_is_told_of_it,
    every_confirmed_cancel_was_confirmed,
    a_confirmed_cancel_left_nothing,
    every_report_is_what_the_venue_had,
    every_deleverage_that_was_applied_reduced,
    every_reading_shows_what_the_venue_had,
    what_the_status_told_of_commands_is_in_the_log,
    the_report_has_every_row_once,
    a_verified_kill_left_nothing,
    a_kill_is_verified_by_a_reading,
)
