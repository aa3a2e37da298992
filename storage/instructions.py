"""Instructions and what became of them: a row stands once, and its outcome only moves forward.

The failure behind `apart`: a person sent one kill to two desks under one `Idempotency-Key`. An instruction's id is made of its
command's, so the second desk's cancels had the ids of the first one's. Their rows were never written, and when the second
desk's venue confirmed a cancel, the first desk's row said confirmed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from domain.trading.instructions import InstructionOutcome, InstructionRow
from storage.cleaning import clean, clean_values
from storage.paging import Keyset, PageFilter
from storage.tables import instructions

_RANK = {
    InstructionOutcome.PREPARED: 0,
    InstructionOutcome.UNKNOWN: 1,
    InstructionOutcome.FAILED: 2,
    InstructionOutcome.CONFIRMED: 2,
}
CHANGEABLE = ("outcome", "settled_at", "attempts", "detail", "venue_order_id")
_BY_TIME = Keyset(instructions.c.prepared_at, instructions.c.instruction_id)
_ORDER_COLUMNS = ("symbol", "side", "order_type", "quantity", "price", "reduce_only", "time_in_force")

# Rows are given as parameters, so that SQLAlchemy compiles the statement once.
_INSERT = (
    insert(instructions).on_conflict_do_nothing(index_elements=[instructions.c.instruction_id]).returning(instructions)
)
_UPDATE = (
    update(instructions)
    .where(instructions.c.instruction_id == bindparam("id_"))
    .values({name: bindparam(f"new_{name}") for name in CHANGEABLE})
    .returning(instructions)
)


class Upserted(NamedTuple):
    """What a write did: the instructions that are new or have a new outcome, and the rows for the audit chain.

    Neither holds failed attempts of a cancel: while the venue is away, there are two of those per second.
    """

    changed: list[InstructionRow]
    stored: list[dict[str, Any]]


def upsert_instructions(connection: Connection, rows: Sequence[InstructionRow]) -> Upserted:
    """Writes the newest state of each instruction. One whose id is another desk's already is stored as `apart` names it."""
    if not rows:
        return Upserted([], [])
    # In the order of ids, so that two writers cannot deadlock.
    ranked = sorted(rows, key=lambda row: (row.instruction_id, *progress(row.outcome, row.attempts)))
    newest = {clean(row.instruction_id): row for row in ranked}
    inserted = insert_instructions(connection, list(newest.values()))
    new = {row["instruction_id"] for row in inserted}
    stored = _lock(connection, {id_: row for id_, row in newest.items() if id_ not in new})
    changed = {id_ for id_, old in stored.items() if _RANK[newest[id_].outcome] > _RANK[old[0]]}
    again = {id_ for id_, old in stored.items() if newest[id_].outcome is old[0] and newest[id_].attempts > old[1]}
    updated = _update(connection, {id_: newest[id_] for id_ in newest if id_ in changed | again})
    proved = [row for row in updated if row["outcome"] != InstructionOutcome.PREPARED]
    others = upsert_instructions(
        connection, [apart(row) for id_, row in newest.items() if id_ not in new | stored.keys()]
    )
    told = [row for id_, row in newest.items() if id_ in new | changed]
    return Upserted([*told, *others.changed], [*inserted, *proved, *others.stored])


def apart(row: InstructionRow) -> InstructionRow:
    """The row under an id that no other desk's can be."""
    return row.model_copy(update={"instruction_id": f"{row.instruction_id}:{row.desk}"})


def insert_instructions(connection: Connection, rows: Sequence[InstructionRow]) -> list[dict[str, Any]]:
    """Writes rows that are not there yet, and returns them as they are stored."""
    return [dict(row) for row in connection.execute(_INSERT, [columns_of(row) for row in rows]).mappings()]


def read_instructions(connection: Connection, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The rows of these ids, as they are stored."""
    statement = select(instructions).where(instructions.c.instruction_id.in_(map(clean, ids)))
    return {row["instruction_id"]: dict(row) for row in connection.execute(statement).mappings()}


def as_stored(connection: Connection, rows: Sequence[InstructionRow]) -> list[InstructionRow]:
    """The rows, each under the id that its own row has in the table, or would get there."""
    held = read_instructions(connection, [each.instruction_id for row in rows for each in (row, apart(row))])

    def named(row: InstructionRow) -> InstructionRow:
        other = apart(row)
        plain = held.get(clean(row.instruction_id))
        is_apart = clean(other.instruction_id) in held or (plain is not None and plain["desk"] != clean(row.desk))
        return other if is_apart else row

    return [named(row) for row in rows]


def progress(outcome: str, attempts: int) -> tuple[int, int]:
    """How far an instruction is. Of two states of one instruction, the later one is greater."""
    return _RANK[InstructionOutcome(outcome)], attempts


def as_row(stored: Mapping[str, Any]) -> InstructionRow:
    """An instruction from its stored columns."""
    order = {name: stored.get(name) for name in _ORDER_COLUMNS} if stored.get("order_type") else None
    return InstructionRow.model_validate({**stored, "order": order})


class InstructionFilter(PageFilter):
    """The wanted rows, and how many."""

    command_id: str | None = None
    outcome: InstructionOutcome | None = None


def page(connection: Connection, desk: str, wanted: InstructionFilter) -> tuple[list[InstructionRow], str | None]:
    """One page of a desk's instructions, newest first, and the cursor of the next one; None on the last page."""
    equal = {
        instructions.c.desk: clean(desk),
        instructions.c.command_id: wanted.command_id and clean(wanted.command_id),
        instructions.c.outcome: wanted.outcome,
        instructions.c.symbol: wanted.symbol and clean(wanted.symbol),
    }
    asked = [column == value for column, value in equal.items() if value is not None]
    rows, cursor = _BY_TIME.read(connection, select(instructions).where(*asked), wanted)
    return [as_row(dict(row)) for row in rows], cursor


def _lock(connection: Connection, rows: Mapping[str, InstructionRow]) -> dict[str, tuple[InstructionOutcome, int]]:
    """How far the stored rows are; without those that are another desk's."""
    if not rows:
        return {}
    i = instructions.c
    statement = select(i.instruction_id, i.outcome, i.attempts).where(i.instruction_id.in_(rows))
    mine = statement.where(i.desk.in_({clean(row.desk) for row in rows.values()}))
    found = connection.execute(mine.order_by(i.instruction_id).with_for_update())
    return {id_: (InstructionOutcome(outcome), attempts) for id_, outcome, attempts in found}


def _update(connection: Connection, rows: dict[str, InstructionRow]) -> list[dict[str, Any]]:
    updated = []
    for id_, row in rows.items():
        values = columns_of(row)
        values = {"id_": id_} | {f"new_{name}": values[name] for name in CHANGEABLE}
        updated.append(dict(connection.execute(_UPDATE, values).mappings().one()))
    return updated


def columns_of(row: InstructionRow) -> dict[str, Any]:
    """The columns of an instruction's row."""
    own = _ORDER_COLUMNS[1:]
    order = row.order.model_dump(include=set(own)) if row.order is not None else dict.fromkeys(own)
    return clean_values(row.model_dump(exclude={"order"}) | order)
