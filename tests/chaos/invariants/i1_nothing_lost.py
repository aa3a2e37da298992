"""I1: nothing acknowledged is lost."""

from collections.abc import Iterator
from typing import Any

from tests.chaos import recorder as r
from tests.chaos.evidence import Event
from tests.chaos.reading import Reading
from tests.chaos.recorder import Call
from workflows import names
from workflows.runner import READ_AGAIN

Found = Iterator[tuple[float, str]]
# Of a proposal that is taken up there is no row of its own.
WITH_A_ROW = ("pause", "resume", "kill", "restart", "cancel_all", "deleverage", "set_limits")
CLOCK_SECONDS = 0.1
OUTCOMES = {r.DONE: ("applied",), r.REFUSED: ("refused",), r.ACCEPTED: ("applied", "refused")}
VERDICTS = {r.DONE: (" applied by ", " repeated by "), r.REFUSED: (" refused by ",)}


def every_acknowledged_command_has_its_outcome(reading: Reading) -> Found:
    """A command that was acknowledged has a row in the log, and the row says what its caller was told."""
    for call in reading.calls(*WITH_A_ROW):
        # Of a kill without id and text see below.
        if not call.acknowledged or not (call.command_id or call.token):
            continue
        rows = reading.rows_of(call.command_id, call.token)
        if not rows:
            yield call.start, f"{_named(call)} was answered {call.answer}, and the log has no row of it"
        verdicts = VERDICTS.get(call.answer, ("",))
        if rows and not any(verdict in row["summary"] for row in rows for verdict in verdicts):
            yield call.start, f"{_named(call)} was answered {call.answer}, but the log says: {rows[0]['summary']}"


def every_recorded_signal_is_dealt_with(reading: Reading) -> Found:
    """What Temporal recorded has a row, whatever its caller was told."""
    for event in reading.signals:
        if event.name in WITH_A_ROW and (command := _told(event)):
            command_id, token = command
            if not reading.rows_of(command_id, token):
                yield (
                    event.at,
                    f"signal {event.name} {command_id or token} is in the history, and the log has no row of it",
                )


def every_kill_signal_kills(reading: Reading) -> Found:
    """Whatever its input is: of one without an id and a reason a row of a kill comes that nobody else's is."""
    rows = iter(reading.unnamed_kills)
    for event in reading.signals:
        if event.name == "kill" and not _told(event) and not _any_since(rows, event.at - CLOCK_SECONDS):
            yield (
                event.at,
                f"signal kill with the input {event.payload!r} is in the history, and the log has no kill of it",
            )


def every_command_can_be_looked_up(reading: Reading) -> Found:
    """An API tells of each acknowledged command what its caller was told, unless a restart under older rules forgot it."""
    if reading.e.settled_at is None or any(reading.forgets_ids(row) for row in reading.control_rows):
        return
    for call in reading.calls(*WITH_A_ROW):
        if call.acknowledged and call.command_id and reading.e.outcomes:
            outcome = reading.e.outcomes.get(call.command_id, "not known")
            if outcome not in OUTCOMES[call.answer] and not _taken_over(reading, call):
                yield call.start, f"{_named(call)} was answered {call.answer}, and in the end it is {outcome}"


def the_audit_chain_is_whole(reading: Reading) -> Found:
    """Every row is in it, and as it was written."""
    for line in reading.e.audit:
        yield reading.e.healed_at, line


def every_cancellation_kills(reading: Reading) -> Found:
    """The server takes one cancellation a run: that one kills, under its own reason."""
    events = [event for event in reading.e.events if event.kind == "cancel_requested"]
    for event in events:
        if not any(str(event.payload) in row["summary"] or _id_in(event, row) for row in reading.control_rows):
            yield event.at, f"the workflow was cancelled ({event.payload}), and the log has no kill of it"
    for call in reading.calls("cancel"):
        if call.answer == r.ACCEPTED and not any(_stands_for(reading, event, call) for event in events):
            yield call.start, f"cancellation {call.token} was accepted, and no run has one"


def every_proposal_has_an_outcome(reading: Reading) -> Found:
    """One that was acknowledged is applied or refused once nothing is left to do, or a restart under older rules forgot it."""
    if reading.e.settled_at is None or any(reading.forgets_ids(row) for row in reading.control_rows):
        return
    for call in reading.calls("propose"):
        if call.acknowledged and call.command_id and reading.e.outcomes:
            outcome = reading.e.outcomes.get(call.command_id, "not known")
            if outcome not in ("applied", "refused"):
                yield call.start, f"{_named(call)} was answered {call.answer}, and in the end it is {outcome}"


def the_workflow_never_breaks(reading: Reading) -> Found:
    """No workflow task fails but one that the server refuses for a signal that came meanwhile, or that comes again because a
    query took the run further; no coordinator ends."""
    for event in reading.e.events:
        if event.kind == "task_failed" and event.name not in BY_THE_SERVER and not _was_read_again(event):
            yield event.at, f"a workflow task failed: {event.name} {event.payload}"
        if event.kind == "ended":
            yield event.at, f"the coordinator ended: {event.name}"


def every_run_can_be_replayed(reading: Reading) -> Found:
    """Whichever worker reads a run next can carry it on. Otherwise each of its tasks fails, and no kill is carried out."""
    for run_id, text in reading.e.unreplayable.items():
        yield reading.e.healed_at, f"run {run_id} cannot be replayed: {text}"


def everything_comes_to_an_end(reading: Reading) -> Found:
    """Once everything works again, nothing is left to do after a minute."""
    if reading.e.settled_at is None:
        yield reading.e.healed_at, f"a minute after the last fault there is still something to do: {reading.e.left}"


# A signal came while the run ended; or the server took a task back by itself.
BY_THE_SERVER = ("UNHANDLED_COMMAND", "RESET_STICKY_TASK_QUEUE", "FORCE_CLOSE_COMMAND", "FAILOVER_CLOSE_COMMAND")


def _was_read_again(event: Event) -> bool:
    return any(text in str(event.payload) for text in (names.LATCH_UNREAD, READ_AGAIN))


def _taken_over(reading: Reading, call: Call) -> bool:
    """Whether a kill came under the id of another command: then the outcome is the kill's."""
    return call.kind != "kill" and any(
        event.name == "kill" for event in reading.signals_by_id.get(call.command_id or "", [])
    )


def _any_since(rows: Iterator[dict[str, Any]], moment: float) -> bool:
    """Takes the next row from then on."""
    return any(row["timestamp"].timestamp() >= moment for row in rows)


def _told(event: Event) -> tuple[str | None, str | None] | None:
    if not isinstance(event.payload, dict):
        return (None, event.payload) if isinstance(event.payload, str) else None
    command_id, token = event.payload.get("command_id"), event.payload.get("reason")
    return (command_id, token) if command_id or token else None


def _id_in(event: Event, row: dict[str, object]) -> bool:
    return bool(row["command_id"]) and str(row["command_id"]) in str(event.payload)


def _stands_for(reading: Reading, event: Event, call: Call) -> bool:
    """Its own, or that of a run that was open while it was accepted."""
    if event.payload == call.token:
        return True
    next_run = min((e.at for e in reading.e.events if e.run == event.run + 1), default=float("inf"))
    return event.at <= (call.end or event.at) and next_run >= call.start


def _named(call: Call) -> str:
    return f"{call.client}'s {call.kind} {call.command_id or call.token} over {call.channel}"


RULES = (
    every_acknowledged_command_has_its_outcome,
    every_recorded_signal_is_dealt_with,
    every_kill_signal_kills,
    every_cancellation_kills,
    every_command_can_be_looked_up,
    every_proposal_has_an_outcome,
    the_workflow_never_breaks,
    every_run_can_be_replayed,
    everything_comes_to_an_end,
    the_audit_chain_is_whole,
)
