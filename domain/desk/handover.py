"""Packs the carried state for the next run, within the size limit of a payload.

The hazard behind this file: the SDK refuses a continue-as-new whose input exceeds 2 MB, retries the workflow task for ever,
and the desk is stuck (measured: 3,600 commands with long reasons while the database was down). So the bulky parts are
compressed, the most important first. What does not fit remains in the history of the run that ends, and a row says so.
"""

import base64
import zlib
from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, Field

from domain.desk.carried import Carried, CommandRecord
from domain.desk.open_cancels import OpenCancels
from domain.desk.recording import Tick, decision_row, forget_rounds, is_needed
from domain.trading.decisions import Decision, DecisionType
from domain.trading.instructions import InstructionRow
from domain.trading.market import Observation
from domain.values import Record, iso

T = TypeVar("T")
R = TypeVar("R", bound=BaseModel)

PACK_ABOVE_CHARS = 200_000
MAX_PACKED_CHARS = 1_400_000
SHORT_TEXT_CHARS = 80
PIECE = 500
# A higher level saves 1 % and takes three times as long, in a workflow task that delays kills.
_EFFORT = 4


class _Bulk(Record):
    commands: dict[str, CommandRecord] = Field(default_factory=dict)
    records: list[Decision] = Field(default_factory=list)
    instruction_rows: dict[str, InstructionRow] = Field(default_factory=dict)
    cancels: OpenCancels = Field(default_factory=OpenCancels)
    observation: Observation | None = None


def pack(carried: Carried, tick: Tick, run_id: str) -> Carried:
    """A copy of the state, small enough to be carried over from the run `run_id`, which ends."""
    bulk = _Bulk(**{name: getattr(carried, name) for name in _Bulk.model_fields})
    text = bulk.model_dump_json()
    if len(text) <= PACK_ABOVE_CHARS:
        return carried
    packed = [_compressed(text)]
    if len(packed[0]) > MAX_PACKED_CHARS:
        packed = _fitted(carried, tick, run_id)
    return carried.model_copy(update={**dict(_Bulk()), "packed": packed})


def unpack(carried: Carried) -> Carried:
    """The inverse of `pack`."""
    if carried.packed is None:
        return carried
    return carried.model_copy(update={**dict(_joined(carried.packed)), "packed": None})


def _compressed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), _EFFORT)).decode()


def _joined(pieces: list[str]) -> _Bulk:
    whole = _Bulk()
    for packed in pieces:
        piece = _Bulk.model_validate_json(zlib.decompress(base64.b64decode(packed)))
        whole.commands |= piece.commands
        whole.records += piece.records
        whole.instruction_rows |= piece.instruction_rows
        for cancel in piece.cancels:
            whole.cancels.add(cancel)
        whole.observation = piece.observation or whole.observation
    # Packed newest first. But the dedupe window must be oldest first, since it forgets its first records first.
    whole.commands = dict(sorted(whole.commands.items(), key=lambda item: item[1].at))
    return whole


# --- what does not fit -----------------------------------------------------------------------------------------------


def _fitted(c: Carried, tick: Tick, run_id: str) -> list[str]:
    """The packed pieces that fit. A row names the ones that do not."""
    left, kept, spilled = MAX_PACKED_CHARS, list[str](), list[_Bulk]()
    for piece in _pieces(c):
        packed = _compressed(piece.model_dump_json())
        if len(packed) <= left:
            kept.append(packed)
            left -= len(packed)
        else:
            spilled.append(piece)
            # These ids may be reused, and the database may hold their instructions.
            forget_rounds(c, *piece.commands.values())
    if row := _spilled_row(c, spilled, tick, run_id):
        kept.append(_compressed(_Bulk(records=[row]).model_dump_json()))
    return kept


def _pieces(c: Carried) -> Iterator[_Bulk]:
    """All pieces, the most important first: what a kill and open orders need; the last reading; their rows; outcomes of
    commands, newest first; rows of commands, oldest first; rows of cancels."""
    needed = {name: record for name, record in c.commands.items() if is_needed(c, record)}
    first = c.records[: c.records_attempted]
    first += [row for row in c.records[c.records_attempted :] if c.kill and row.decision_id == c.kill.row_id]
    taken = {row.decision_id for row in first}
    others = [_short(row, "summary", "risk_reasons") for row in c.records if row.decision_id not in taken]
    # In a piece of its own, since its size is the venue's: whatever it is, it must not displace the cancels of a kill.
    yield _Bulk(commands=needed, records=first, cancels=_cancels(c))
    yield _Bulk(observation=c.observation)
    yield from (_Bulk(records=part) for part in _cut([row for row in others if not _is_plain(row)]))
    rows = [(name, _short(row, "detail")) for name, row in c.instruction_rows.items()]
    yield from (_Bulk(instruction_rows=dict(orders)) for orders in _cut([x for x in rows if x[1].order]))
    newest = reversed(c.commands.items())
    settled = [(name, _short(record, "reason", "detail")) for name, record in newest if name not in needed]
    yield from (_Bulk(commands=dict(reversed(commands))) for commands in _cut(settled))
    yield from (_Bulk(records=part) for part in _cut([row for row in others if _is_plain(row)]))
    yield from (_Bulk(instruction_rows=dict(cancels)) for cancels in _cut([x for x in rows if not x[1].order]))


def _cancels(c: Carried) -> OpenCancels:
    """All open cancels. Only the newest of each lane keeps its error, which is that of the whole lane: errors are the
    venue's texts, and those of ten cancels in each of 800 lanes would not fit."""
    told = {c.cancels.newest(*lane).instruction_id for lane in c.cancels.lanes}
    return OpenCancels(
        _short(cancel, "last_error")
        if cancel.instruction_id in told
        else cancel.model_copy(update={"last_error": None})
        for cancel in c.cancels
    )


def _cut(items: list[T]) -> Iterator[list[T]]:
    return (items[start : start + PIECE] for start in range(0, len(items), PIECE))


def _is_plain(row: Decision) -> bool:
    """Whether the row is of an unknown signal, of a command other than kill, or of a cycle that chose nothing."""
    is_control = (
        row.decision_type is DecisionType.CONTROL and row.source is None and bool(row.command_id or row.risk_reasons)
    )
    return is_control or row.decision_type is DecisionType.NO_ACTION


def _short(record: R, *names: str) -> R:
    """A copy with texts, and lists of texts, cut short."""
    cut: dict[str, object] = {}
    for name in names:
        value = getattr(record, name)
        if isinstance(value, list):
            cut[name] = [text[:SHORT_TEXT_CHARS] for text in value]
        else:
            cut[name] = value and value[:SHORT_TEXT_CHARS]
    return record.model_copy(update=cut)


def _spilled_row(c: Carried, spilled: list[_Bulk], tick: Tick, run_id: str) -> Decision | None:
    """The row that names what did not fit; None if nothing was lost but a reading, which the next cycle repeats."""
    rows = [row for piece in spilled for row in piece.records]
    outcomes = [record.at for piece in spilled for record in piece.commands.values()]
    instructions = [row.prepared_at for piece in spilled for row in (*piece.instruction_rows.values(), *piece.cancels)]
    if not (times := [row.timestamp for row in rows] + outcomes + instructions):
        return None
    count = sum(row.cycles for row in rows)
    summary = (
        f"{count} rows, {len(outcomes)} outcomes of commands and {len(instructions)} instructions from {iso(min(times))} "
        f"to {iso(max(times))} waited for the database and are too many to carry over; they remain in Temporal's history "
        f"of run {run_id}"
    )
    return decision_row(c, DecisionType.CONTROL, summary, tick, cycles=max(1, count))
