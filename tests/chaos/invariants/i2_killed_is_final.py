"""I2: killed is final."""

from collections.abc import Iterator
from typing import Any

from tests.chaos import recorder as r
from tests.chaos.linearizable import KILLED, PAUSED, RUNNING, Operation, explain
from tests.chaos.reading import STATE_KINDS, Reading
from tests.chaos.recorder import Call
from tests.chaos.schedule import BY_HAND_IN_THE_DATABASE, WORKERS

Found = Iterator[tuple[float, str]]
# Two cycles of a scene.
READ_WITHIN_SECONDS = 7.0
CLOCK_SECONDS = 0.1
READS = ("status", "look")
_LINKS = tuple(f"{worker}>{store}" for worker in WORKERS for store in ("database", "temporal"))


def commands_on_the_state_are_linearizable(reading: Reading) -> Found:
    """There is an order of all commands and readings in which every caller was told the truth."""
    if why := explain(operations(reading)):
        yield reading.e.healed_at, f"no order of the commands explains what everybody was told: {why}"


def operations(reading: Reading) -> list[Operation]:
    """What was done to the state and read of it; kills that the desk made itself come from its log."""
    found = [each for call in reading.calls(*READS, "cancel", *STATE_KINDS) if (each := _operation(reading, call))]
    found += [
        Operation("kill", row["timestamp"].timestamp() - 1, reading.e.settled_at or 1e12, name="the desk's own kill")
        for row in reading.unnamed_kills
    ]
    found += _kills_by_hand(reading)
    if reading.e.status and reading.e.settled_at:
        end = reading.e.settled_at
        found.append(Operation("read", end + 0.001, end + 1, result=reading.e.status["state"], name="the last reading"))
    return found


def _kills_by_hand(reading: Reading) -> Iterator[Operation]:
    """What somebody wrote into the database holds once the desk has read it: each cycle does."""
    for change in reading.e.changes:
        if (
            change.place == "public.desks"
            and change.row["killed"]
            and change.row.get("reason") == BY_HAND_IN_THE_DATABASE
        ):
            by, settled = change.committed + READ_WITHIN_SECONDS, reading.e.settled_at or 1e12
            busy = reading.disturbed(change.committed, by, "database", "temporal", *WORKERS, *_LINKS)
            yield Operation("kill", change.committed, settled if busy else by, name="the kill in the database")
            return


def _operation(reading: Reading, call: Call) -> Operation | None:
    name = f"{call.client}'s {call.kind} {call.token or ''}".strip()
    if call.kind in READS:
        known = call.state is not None and call.end is not None
        return Operation("read", call.start, call.end or 0, result=call.state or "", name=name) if known else None
    kind = "kill" if call.kind == "cancel" else call.kind
    settled = reading.e.settled_at or float("inf")
    match call.answer:
        case r.DONE | r.REFUSED:
            return Operation(kind, call.start, call.end or settled, result=call.answer, name=name)
        case r.ACCEPTED:
            return Operation(kind, call.start, settled, name=name)
        case r.UNKNOWN:
            return Operation(kind, call.start, must=False, name=name)
    return None


def the_log_is_a_way_through_the_table(reading: Reading) -> Found:
    """The rows of commands, in the order in which they were made, lead from state to state as the table says, and to the last.

    An order is decided in a desk that runs: so a kill that a restart overran shows in the first order after it.
    """
    possible = frozenset({RUNNING})
    for row, before, after in ways(reading):
        if not after:
            yield row["timestamp"].timestamp(), f"from {'/'.join(sorted(before))} no way leads to: {row['summary']}"
        possible = after or before
    if reading.e.settled_at and reading.e.status and (last := reading.e.status["state"]) not in possible:
        yield (
            reading.e.settled_at,
            f"by the log the desk is {'/'.join(sorted(possible))} in the end, and it says {last}",
        )


def a_kill_is_refused_only_by_a_killed_desk(reading: Reading) -> Found:
    """Under the id of another command it may change nothing where nothing is left to change."""
    for row, before, _ in ways(reading):
        if row["summary"].startswith("kill refused") and KILLED not in before:
            yield (
                row["timestamp"].timestamp(),
                f"the desk was {'/'.join(sorted(before))}, and its log says: {row['summary']}",
            )


def a_kill_without_a_row_finds_a_killed_desk(reading: Reading) -> Found:
    """One that repeats an id has no row of its own. Then the desk was killed at a moment before its sender was told `done`."""
    for call in reading.calls("kill"):
        if call.answer != r.DONE or not call.command_id or not call.end:
            continue
        if any(
            row["timestamp"].timestamp() >= call.start - CLOCK_SECONDS for row in reading.rows_of(call.command_id, None)
        ):
            continue
        states = _states_between(reading, call.start, call.end)
        if call.command_id in reading.signals_by_id and KILLED not in states:
            yield (
                call.end,
                f"kill {call.command_id} was told as done and has no row, and the desk was {'/'.join(states)}",
            )


def _states_between(reading: Reading, start: float, end: float) -> frozenset[str]:
    """Where the log leads to by then. A restart is over once the latch is cleared, unless a row says that it was refused."""
    refused = {row["command_id"] for row in reading.control_rows if row["summary"].startswith("restart refused")}
    cleared = [activity.ended for activity in reading.named("clear_latch") if activity.result]
    now, found = frozenset({RUNNING}), frozenset[str]()
    for row, before, after in ways(reading):
        at = row["timestamp"].timestamp()
        if at > end:
            break
        found |= now if at > start else frozenset()
        now = after or before
        over = row["summary"].startswith("restart applied") and row["command_id"] not in refused
        if over and any(at <= ended < start for ended in cleared):
            now = frozenset({RUNNING})
    return found | now


def ways(reading: Reading) -> Iterator[tuple[dict[str, Any], frozenset[str], frozenset[str]]]:
    """Each row, the states in which it may have been made, and those to which it leads: none where there is no way."""
    possible = earlier = frozenset({RUNNING})
    moment = None
    for row in reading.rows_in_order:
        # Of rows that one workflow task made, the order is not known.
        moment, earlier = row["timestamp"], earlier if row["timestamp"] == moment else possible
        after = _states_after(row, possible, earlier)
        yield row, possible, after
        possible = after or possible


def _states_after(row: dict[str, Any], possible: frozenset[str], earlier: frozenset[str]) -> frozenset[str]:
    if row["decision_type"] != "control":
        return possible & {RUNNING} or (possible if RUNNING in earlier else frozenset())
    kind, result = first_words(row["summary"])
    return frozenset(state for before in possible for state in _after(kind, result, before))


def first_words(summary: str) -> tuple[str, str]:
    """`kill repeated` of `kill repeated by http: drill`."""
    kind, _, rest = summary.partition(" ")
    return kind, rest.partition(" ")[0]


KILLS = (("kill", "applied"), ("kill", "repeated"))
# Where each row of a command on the state leads from and to. A restart's row is made when it is accepted; until it is carried
# out, a kill may still beat it.
_WAYS: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("kill", "applied"): {RUNNING: (KILLED,), PAUSED: (KILLED,)},
    ("kill", "repeated"): {KILLED: (KILLED,)},
    ("restart", "applied"): {KILLED: (KILLED, RUNNING)},
    ("pause", "applied"): {RUNNING: (PAUSED,)},
    ("pause", "repeated"): {PAUSED: (PAUSED,)},
    ("resume", "applied"): {PAUSED: (RUNNING,)},
    ("resume", "repeated"): {RUNNING: (RUNNING,)},
}


def _after(kind: str, result: str, state: str) -> tuple[str, ...]:
    """A row without a way, a refusal above all, changes nothing."""
    ways = _WAYS.get((kind, result))
    return (state,) if ways is None else ways.get(state, ())


def only_a_restart_clears_the_latch(reading: Reading) -> Found:
    """The database's row goes from killed to not killed only together with the row of a restart, which named this very kill;
    and its number never falls."""
    rows = [row for row in reading.control_rows if row["summary"].startswith("restart applied")]
    restarts = {row["decision_id"]: _kill_named(reading, row) for row in rows}
    was, number = False, 0
    for change in reading.e.changes:
        if change.place != "public.desks":
            continue
        row = change.row
        if was and not row["killed"] and row["cleared_by"] not in restarts:
            yield (
                change.committed,
                f"the latch of kill {row['kill_number']} was cleared by {row['cleared_by']}, no restart",
            )
        elif was and not row["killed"] and restarts[row["cleared_by"]] not in (None, number):
            named = restarts[row["cleared_by"]]
            yield (
                change.committed,
                f"the latch held kill {number}, and was cleared by a restart that named kill {named}",
            )
        if row["kill_number"] < number:
            yield change.committed, f"the kill's number in the database fell from {number} to {row['kill_number']}"
        was, number = row["killed"], row["kill_number"]


def _kill_named(reading: Reading, row: dict[str, Any]) -> int | None:
    """The kill that a restart's sender had seen; None where the history does not say."""
    told = [event.payload.get("kill_number") for event in reading.signals_by_id.get(row["command_id"], [])]
    return next((number for number in told if isinstance(number, int)), None)


def every_kill_has_a_number_of_its_own(reading: Reading) -> Found:
    """By its number the latch tells a kill from the one before, and a restart which one it clears."""
    if reading.e.settled_at is None or reading.e.status is None:
        return
    kills = [row for row in reading.control_rows if first_words(row["summary"]) in KILLS]
    if reading.e.status["kill_number"] < len(kills):
        yield (
            reading.e.settled_at,
            f"after {len(kills)} kills the newest has the number {reading.e.status['kill_number']}",
        )


def both_places_agree_in_the_end(reading: Reading) -> Found:
    """Workflow and database say the same once nothing is left to do."""
    if reading.e.status is None or reading.e.settled_at is None:
        return
    killed = reading.e.status["state"] == KILLED
    if killed != bool(reading.e.desk_row.get("killed")):
        yield (
            reading.e.settled_at,
            f"the coordinator says {reading.e.status['state']}, the database {reading.e.desk_row}",
        )
    if killed and reading.e.desk_row.get("kill_number") != reading.e.status["kill_number"]:
        yield reading.e.settled_at, "coordinator and database name different kills"
    if killed and reading.e.desk_row.get("quiet_at") is None:
        yield reading.e.settled_at, "the coordinator says that every cancel was confirmed, and the database does not"
    if killed and (differ := [name for name in ("reason", "actor") if not _agrees(reading, name)]):
        yield reading.e.settled_at, f"coordinator and database tell of different kills, by their {', '.join(differ)}"


def _agrees(reading: Reading, name: str) -> bool:
    """Of a kill that the database had first, the coordinator's reason says more."""
    return str(reading.e.desk_row.get(name)) in str((reading.e.status or {}).get(name))


RULES = (
    commands_on_the_state_are_linearizable,
    the_log_is_a_way_through_the_table,
    a_kill_is_refused_only_by_a_killed_desk,
    a_kill_without_a_row_finds_a_killed_desk,
    only_a_restart_clears_the_latch,
    every_kill_has_a_number_of_its_own,
    both_places_agree_in_the_end,
)
