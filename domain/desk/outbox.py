"""The outbox: what waits to be written or carried out, and how each result changes it."""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice

from pydantic import Field

from domain.desk import resting
from domain.desk.carried import Carried, OrderEvent, OrderPhase, PendingOrder
from domain.desk.states import Mode, State
from domain.trading.decisions import Decision, DecisionType
from domain.trading.instructions import InstructionOutcome, InstructionRow, OpenCancel, Tool
from domain.trading.market import LatchRow
from domain.trading.orders import Fate, Order, OrderReport
from domain.values import Moment, Value, assembled, iso, without

MAX_BATCH_ROWS = 50
MAX_OPEN_CANCELS_PER_LANE = 10
STANDS_FOR_IT = "given up: earlier cancels of the same symbol and market are repeated instead"
NOT_SENT_IN_SHADOW = "shadow: prepared, not sent"

_FATE_OUTCOMES = {
    Fate.PREPARED: InstructionOutcome.PREPARED,
    Fate.NOT_SENT: InstructionOutcome.FAILED,
    Fate.REJECTED: InstructionOutcome.FAILED,
    Fate.OPEN: InstructionOutcome.CONFIRMED,
    Fate.FILLED: InstructionOutcome.CONFIRMED,
    Fate.CANCELED: InstructionOutcome.CONFIRMED,
    Fate.UNKNOWN: InstructionOutcome.UNKNOWN,
}


class DeskRow(Value):
    """The desk's row in the database: the second place of the latch."""

    desk: str
    started_at: Moment
    mode: Mode
    symbols: list[str]
    latch: LatchRow
    killed_at: Moment | None = None
    quiet_at: Moment | None = None


class RecordBatch(Value):
    """Rows to write in one transaction. Retrying the batch never writes a row twice."""

    decisions: list[Decision] = Field(default_factory=list)
    instructions: list[InstructionRow] = Field(default_factory=list)


def queue_row(c: Carried, row: Decision, first: bool = False) -> None:
    """Queues a decision row.

    With `first`, the row goes ahead of the queue if the next batch would not include it: a restart waits for its kill's row.
    Successive cycles that chose nothing share one row, as long as no attempt to write it has begun.
    """
    c.last_decision = row
    if first and len(c.records) >= MAX_BATCH_ROWS:
        c.records.insert(c.records_attempted, row)
        return
    last = c.records[-1] if len(c.records) > c.records_attempted else None
    if last and last.decision_type is DecisionType.NO_ACTION is row.decision_type:
        c.records[-1] = merged(last, row, "cycles", "chose nothing")
    else:
        c.records.append(row)


def merged(first: Decision, row: Decision, what: str, did: str) -> Decision:
    """Merges `row` into `first`: keeps the id of `first`, and says how many rows it now represents."""
    count, when = first.cycles + row.cycles, f"from {iso(first.timestamp)} to {iso(row.timestamp)}"
    summary = f"{count} {what} {when} {did}; last: {row.summary}"
    same = {"decision_id": first.decision_id, "timestamp": first.timestamp}
    return row.model_copy(update={**same, "cycles": count, "summary": summary})


def next_batch(c: Carried) -> RecordBatch:
    """The oldest rows, marked as attempted: from now on nothing is merged into them."""
    decisions = c.records[:MAX_BATCH_ROWS]
    c.records_attempted = max(c.records_attempted, len(decisions))
    return RecordBatch(decisions=decisions, instructions=list(islice(c.instruction_rows.values(), MAX_BATCH_ROWS)))


def batch_written(c: Carried, batch: RecordBatch) -> None:
    """Removes a written batch from the queue. An instruction that changed meanwhile stays for the next batch."""
    if c.kill and any(row.decision_id == c.kill.row_id for row in batch.decisions):
        c.kill.row_written = True
    del c.records[: len(batch.decisions)]
    c.records_attempted = max(0, c.records_attempted - len(batch.decisions))
    for row in batch.instructions:
        if c.instruction_rows.get(row.instruction_id) == row:
            del c.instruction_rows[row.instruction_id]


def queue_instruction(c: Carried, row: InstructionRow) -> None:
    """Queues the newest state of an instruction."""
    c.instruction_rows[row.instruction_id] = row


def prepared_row(desk: str, cancel: OpenCancel) -> InstructionRow:
    """The row of a cancel that nobody has confirmed."""
    facts = cancel.model_dump(exclude={"last_error", "begun", "of_kill", "order_id"})
    return InstructionRow(**facts, desk=desk, outcome=InstructionOutcome.PREPARED, detail=cancel.last_error)


def cancels_begun(c: Carried, instruction_ids: Sequence[str]) -> None:
    """Marks cancels whose venue call begins now. Cancels added later need another call."""
    for cancel in c.cancels.named(instruction_ids):
        if not cancel.begun:
            cancel.begun = True


def cancels_confirmed(c: Carried, instruction_ids: Sequence[str], now: datetime) -> None:
    """Removes confirmed cancels, queues their rows, and notes the first moment without open cancels after a kill."""
    named = c.cancels.named(instruction_ids)
    done_with = [other.instruction_id for cancel in named for other in resting.canceled(c, cancel)]
    confirmed = c.cancels.named(dict.fromkeys([*instruction_ids, *done_with]))
    for cancel in confirmed:
        row = prepared_row(c.desk, cancel)
        done = {"outcome": InstructionOutcome.CONFIRMED, "settled_at": now, "detail": None}
        queue_instruction(c, row.model_copy(update=done | {"attempts": cancel.attempts + 1}))
        if cancel.of_kill and c.kill:
            c.kill.confirmed += 1
    c.cancels.remove(confirmed)
    note_quiet(c, now)


def cancels_failed(c: Carried, instruction_ids: Sequence[str], error: str) -> None:
    """Counts, shows and writes a failed attempt. The cancel stays prepared and is repeated.

    Cancels past the lane's bound are given up: the earlier ones are repeated, and one call serves all of them.
    """
    for cancel in c.cancels.named(instruction_ids):
        cancel.attempts, cancel.last_error, cancel.begun = cancel.attempts + 1, error, False
        queue_instruction(c, prepared_row(c.desk, cancel))
    given_up = c.cancels.named(instruction_ids[MAX_OPEN_CANCELS_PER_LANE:])
    for cancel in given_up:
        done = {"outcome": InstructionOutcome.FAILED, "detail": STANDS_FOR_IT}
        queue_instruction(c, prepared_row(c.desk, cancel).model_copy(update=done))
        if c.kill and cancel.of_kill:
            c.kill.cancels -= 1
    c.cancels.remove(given_up)


def note_quiet(c: Carried, now: datetime) -> None:
    """After a kill, notes when it became quiet: no cancel is open and no order is on its way. Never in shadow, where
    nothing was sent."""
    if c.mode is Mode.SHADOW or c.cancels or c.orders:
        return
    if c.state is State.KILLED and c.kill and c.kill.quiet_at is None:
        c.kill.quiet_at, c.row_dirty = now, True


def order_prepared(c: Carried, order: Order) -> PendingOrder:
    """Adds a decided order before its decision is committed."""
    facts = {"order": order, "phase": OrderPhase.DECIDED, "since": order.prepared_at, "pause_row": None}
    pending = assembled(PendingOrder, facts)
    c.orders.append(pending)
    note = NOT_SENT_IN_SHADOW if c.mode is Mode.SHADOW else None
    queue_instruction(c, _order_row(order, InstructionOutcome.PREPARED, note))
    return pending


def order_reported(c: Carried, pending: PendingOrder, report: OrderReport, now: datetime) -> bool:
    """Handles an order's report. True if cancels must go out again, because the desk is killed and the order had reached
    the venue."""
    begun = report.fate.reached_venue or pending.phase is OrderPhase.UNKNOWN
    # Orders prepared after the kill only reduce risk (I3), and the kill's cancels were never meant for them. One that adds risk
    # came before it, even if the clock was set back in between.
    begun = begun and (pending.adds_risk or c.last_kill_at is None or pending.since <= c.last_kill_at)
    settled_at = now if report.fate.is_known and report.fate is not Fate.PREPARED else None
    outcome = _FATE_OUTCOMES[report.fate]
    queue_instruction(c, _order_row(pending.order, outcome, report.detail, settled_at, report.venue_order_id))
    paused, pending.pause_row = pending.pause_row, None
    if paused:
        stopped = f"; it stopped order {pending.order.order_id}" if report.fate is Fate.NOT_SENT else ""
        queue_row(c, paused.model_copy(update={"summary": f"{paused.summary}{stopped}"}))
    resting.note(c, pending.order, report, now)
    pending.move(OrderEvent.KNOWN if report.fate.is_known else OrderEvent.NOT_KNOWN)
    if pending.phase is OrderPhase.SETTLED:
        c.orders = without(c.orders, pending)
    elif report.position_before is not None:
        # The position right before the send: whichever process settles the order needs it.
        pending.order = pending.order.model_copy(update={"position_before": report.position_before})
    return report.fate.is_known and begun and c.state is State.KILLED


def _order_row(
    order: Order,
    outcome: InstructionOutcome,
    detail: str | None,
    settled_at: datetime | None = None,
    venue_order_id: str | None = None,
) -> InstructionRow:
    return assembled(
        InstructionRow,
        {
            "instruction_id": order.order_id,
            "desk": order.desk,
            "command_id": order.command_id,
            "round": 1,
            "tool": Tool.CREATE_ORDER,
            "symbol": order.instruction.symbol,
            "outcome": outcome,
            "prepared_at": order.prepared_at,
            "settled_at": settled_at,
            "attempts": 1,
            "detail": detail,
            "order": order.instruction,
            "venue_order_id": venue_order_id,
        },
    )


def desk_row(c: Carried) -> DeskRow:
    """The desk's row as the workflow wants it to be."""
    killed = c.state is State.KILLED
    return DeskRow(
        desk=c.desk,
        started_at=c.started_at,
        mode=c.mode,
        symbols=c.symbols,
        latch=LatchRow(
            killed=killed,
            kill_number=c.kill_number,
            kill_id=c.kill_id or None,
            cleared_number=c.cleared_number,
            cleared_by=c.cleared_by or None,
            reason=c.reason,
            actor=c.actor,
        ),
        killed_at=c.kill.at if c.kill else None,
        quiet_at=c.kill.quiet_at if c.kill else None,
    )


def desk_row_written(c: Carried, row: DeskRow) -> None:
    """Notes what the database now holds. If the row has changed meanwhile, it must be written again."""
    c.latched_number = max(c.latched_number, row.latch.kill_number if row.latch.killed else 0)
    c.row_dirty = c.row_dirty and desk_row(c) != row
