"""Handing the carried state over to the next run, within what a payload may hold.

The hazard behind this file: a continue-as-new whose input passes 2 MB is refused by the SDK, the workflow task is tried again
for ever, and the desk is wedged (measured: 3,600 commands with long reasons while the database was away).
"""

import base64
import zlib

from pydantic import Field

from domain.carried import Carried, CommandRecord, Outcome
from domain.decisions import Decision
from domain.instructions import InstructionRow, OpenCancel
from domain.market import Observation
from domain.outbox import merged
from domain.values import Record

PACK_ABOVE_CHARS = 200_000
MAX_PACKED_CHARS = 1_400_000
SHORT_TEXT_CHARS = 80
# How many rows and commands are handed over whole, tried in turn until they fit.
_LIMITS = (8_000, 4_000, 2_000, 500)


class _Bulk(Record):
    commands: dict[str, CommandRecord] = Field(default_factory=dict)
    records: list[Decision] = Field(default_factory=list)
    instruction_rows: dict[str, InstructionRow] = Field(default_factory=dict)
    cancels: list[OpenCancel] = Field(default_factory=list)
    observation: Observation | None = None


def pack(carried: Carried) -> Carried:
    """A copy fit to be carried over: what is bulky is compressed, and bounded where even that is too much."""
    bulk = _Bulk(**{name: getattr(carried, name) for name in _Bulk.model_fields})
    text = bulk.model_dump_json()
    if len(text) <= PACK_ABOVE_CHARS:
        return carried
    packed, kill_id = _compressed(text), carried.kill.command_id if carried.kill else None
    rounds = carried.forgotten_rounds
    for limit in _LIMITS:
        if len(packed) <= MAX_PACKED_CHARS:
            break
        packed = _compressed(_bounded(bulk, limit, kill_id).model_dump_json())
        # Ids of commands that are forgotten here may come again, and their instructions are in the database.
        rounds = max([rounds, *(record.rounds for record in bulk.commands.values())])
    return carried.model_copy(update={**dict(_Bulk()), "packed": packed, "forgotten_rounds": rounds})


def unpack(carried: Carried) -> Carried:
    """The opposite of `pack`."""
    if carried.packed is None:
        return carried
    bulk = _Bulk.model_validate_json(zlib.decompress(base64.b64decode(carried.packed)))
    return carried.model_copy(update={**dict(bulk), "packed": None})


def _compressed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _bounded(bulk: _Bulk, limit: int, kill_id: str | None) -> _Bulk:
    """Texts cut short, the newest rows past `limit` merged into one that counts them, the oldest commands forgotten."""
    settled = [name for name, record in bulk.commands.items() if record.outcome is not Outcome.PENDING]
    # The kill's own record counts its rounds of cancels, which may go out again.
    forgotten = set(settled[: max(0, len(bulk.commands) - limit)]) - {kill_id}
    return bulk.model_copy(
        update={
            "commands": {name: record for name, record in bulk.commands.items() if name not in forgotten},
            "records": _bounded_rows([_short(row) for row in bulk.records], limit),
            "instruction_rows": dict(list(bulk.instruction_rows.items())[:limit]),
        }
    )


def _bounded_rows(rows: list[Decision], limit: int) -> list[Decision]:
    if len(rows) <= limit:
        return rows
    rest = rows[limit]
    for row in rows[limit + 1 :]:
        rest = merged(rest, row.model_copy(update={"summary": row.summary[:SHORT_TEXT_CHARS]}), "rows", "did not fit")
    return [*rows[:limit], rest]


def _short(row: Decision) -> Decision:
    reasons = [reason[:SHORT_TEXT_CHARS] for reason in row.risk_reasons]
    return row.model_copy(update={"summary": row.summary[:SHORT_TEXT_CHARS], "risk_reasons": reasons})
