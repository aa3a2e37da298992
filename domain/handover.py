"""Handing the carried state over to the next run, within what a payload may hold.

The hazard behind this file: a continue-as-new whose input passes 2 MB is refused by the SDK, the workflow task is tried again
for ever, and the desk is wedged (measured: 3,600 commands with long reasons while the database was away). So what is bulky is
compressed, and packed in the order of what may least be lost. What does not fit stands in the history of the run that ends,
and a row says so.
"""

import base64
import zlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

from pydantic import Field

from domain.carried import Carried, CommandRecord, Outcome
from domain.decisions import Decision, DecisionType
from domain.instructions import InstructionRow, OpenCancel
from domain.market import Observation
from domain.open_cancels import OpenCancels
from domain.traces import Tick, forget_rounds
from domain.values import Record, iso
from domain.versions import knows_written_rows

T = TypeVar("T")

PACK_ABOVE_CHARS = 200_000
MAX_PACKED_CHARS = 1_400_000
SHORT_TEXT_CHARS = 80
PIECE = 500
# More makes 1 % less of it and takes three times as long, in a workflow task that holds up a kill.
_EFFORT = 4


class _Bulk(Record):
    commands: dict[str, CommandRecord] = Field(default_factory=dict)
    records: list[Decision] = Field(default_factory=list)
    instruction_rows: dict[str, InstructionRow] = Field(default_factory=dict)
    cancels: OpenCancels = Field(default_factory=OpenCancels)
    observation: Observation | None = None


def pack(carried: Carried, tick: Tick, run_id: str) -> Carried:
    """A copy fit to be carried over from the run `run_id`, which ends."""
    bulk = _Bulk(**{name: getattr(carried, name) for name in _Bulk.model_fields})
    text = bulk.model_dump_json()
    if len(text) <= PACK_ABOVE_CHARS:
        return carried
    packed = [_compressed(text)]
    if len(packed[0]) > MAX_PACKED_CHARS:
        packed = _fitted(carried, tick, run_id)
    return carried.model_copy(update={**dict(_Bulk()), "packed": packed})


def unpack(carried: Carried) -> Carried:
    """The opposite of `pack`; what runs of an older schema did not note is filled in."""
    if carried.packed is not None:
        pieces = [carried.packed] if isinstance(carried.packed, str) else carried.packed
        carried = carried.model_copy(update={**dict(_joined(map(_restored, pieces))), "packed": None})
    if carried.kill and not knows_written_rows(carried.schema_version):
        carried.kill.row_written = all(row.decision_id != carried.kill.row_id for row in carried.records)
    return carried


def _compressed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), _EFFORT)).decode()


def _restored(packed: str) -> _Bulk:
    return _Bulk.model_validate_json(zlib.decompress(base64.b64decode(packed)))


def _joined(pieces: Iterable[_Bulk]) -> _Bulk:
    whole = _Bulk()
    for piece in pieces:
        whole.commands |= piece.commands
        whole.records += piece.records
        whole.instruction_rows |= piece.instruction_rows
        whole.cancels = OpenCancels([*whole.cancels, *piece.cancels])
        whole.observation = piece.observation or whole.observation
    # Packed newest first; the window forgets its first ones first.
    whole.commands = dict(sorted(whole.commands.items(), key=lambda item: item[1].at))
    return whole


# --- what does not fit as it is -------------------------------------------------------------------------------------


def _fitted(c: Carried, tick: Tick, run_id: str) -> list[str]:
    """Packed pieces that fit together; those that do not are told of by a row."""
    left, kept, spilled = MAX_PACKED_CHARS, list[str](), list[_Bulk]()
    for piece in _pieces(c):
        packed = _compressed(piece.model_dump_json())
        if len(packed) <= left:
            kept.append(packed)
            left -= len(packed)
        else:
            spilled.append(piece)
    for piece in spilled:
        # Their ids may come again, and their instructions may be in the database.
        forget_rounds(c, *piece.commands.values())
    if spilled:
        kept.append(_compressed(_Bulk(records=[_spilled_row(c, spilled, tick, run_id)]).model_dump_json()))
    return kept


def _pieces(c: Carried) -> Iterator[_Bulk]:
    """Everything, in pieces, what may least be lost first: what a kill and the open orders need, their rows, the outcomes of
    commands from the newest, the rows of commands from the oldest, and the rows of cancels."""
    needed = {name: record for name, record in c.commands.items() if _is_needed(c, record)}
    first = c.records[: c.records_attempted]
    first += [row for row in c.records[c.records_attempted :] if c.kill and row.decision_id == c.kill.row_id]
    taken = {row.decision_id for row in first}
    others = [_short(row) for row in c.records if row.decision_id not in taken]
    cancels = OpenCancels(map(_short_cancel, c.cancels))
    yield _Bulk(commands=needed, records=first, cancels=cancels, observation=c.observation)
    yield from (_Bulk(records=part) for part in _cut([row for row in others if not _is_plain(row)]))
    rows = [(name, _short_instruction(row)) for name, row in c.instruction_rows.items()]
    yield from (_Bulk(instruction_rows=dict(orders)) for orders in _cut([x for x in rows if x[1].order]))
    settled = [(name, _short_record(record)) for name, record in reversed(c.commands.items()) if name not in needed]
    yield from (_Bulk(commands=dict(reversed(commands))) for commands in _cut(settled))
    yield from (_Bulk(records=part) for part in _cut([row for row in others if _is_plain(row)]))
    yield from (_Bulk(instruction_rows=dict(cancels)) for cancels in _cut([x for x in rows if not x[1].order]))


def _cut(items: list[T]) -> Iterator[list[T]]:
    return (items[start : start + PIECE] for start in range(0, len(items), PIECE))


def _is_needed(c: Carried, record: CommandRecord) -> bool:
    # The kill's own record counts its rounds of cancels, which may go out again.
    return record.outcome is Outcome.PENDING or (c.kill is not None and record.command_id == c.kill.command_id)


def _is_plain(row: Decision) -> bool:
    """A command that is no kill, a signal of no command, or a cycle that chose nothing."""
    told = row.decision_type is DecisionType.CONTROL and row.source is None and bool(row.command_id or row.risk_reasons)
    return told or row.decision_type is DecisionType.NO_ACTION


def _short(row: Decision) -> Decision:
    reasons = [reason[:SHORT_TEXT_CHARS] for reason in row.risk_reasons]
    return row.model_copy(update={"summary": row.summary[:SHORT_TEXT_CHARS], "risk_reasons": reasons})


def _short_record(record: CommandRecord) -> CommandRecord:
    detail = record.detail and record.detail[:SHORT_TEXT_CHARS]
    return record.model_copy(update={"reason": record.reason[:SHORT_TEXT_CHARS], "detail": detail})


def _short_instruction(row: InstructionRow) -> InstructionRow:
    return row.model_copy(update={"detail": row.detail and row.detail[:SHORT_TEXT_CHARS]})


def _short_cancel(cancel: OpenCancel) -> OpenCancel:
    return cancel.model_copy(update={"last_error": cancel.last_error and cancel.last_error[:SHORT_TEXT_CHARS]})


def _spilled_row(c: Carried, spilled: list[_Bulk], tick: Tick, run_id: str) -> Decision:
    rows = [row for piece in spilled for row in piece.records]
    outcomes = [record.at for piece in spilled for record in piece.commands.values()]
    instructions = [row.prepared_at for piece in spilled for row in piece.instruction_rows.values()]
    times = [row.timestamp for row in rows] + outcomes + instructions
    return Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=DecisionType.CONTROL,
        summary=(
            f"{sum(row.cycles for row in rows)} rows, {len(outcomes)} outcomes of commands and {len(instructions)} "
            f"instructions from {iso(min(times))} to {iso(max(times))} waited for the database and are too many to carry "
            f"over; they stand in Temporal's history of run {run_id}"
        ),
        cycles=max(1, sum(row.cycles for row in rows)),
        desk=c.desk,
    )
