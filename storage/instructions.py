"""Instructions and what became of them: a row stands once, and its outcome only moves forward."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from domain.instructions import InstructionOutcome, InstructionRow, OrderInstruction
from storage.cleaning import clean, clean_values
from storage.paging import Keyset, PageFilter
from storage.tables import instructions

_RANK = {
    InstructionOutcome.PREPARED: 0,
    InstructionOutcome.UNKNOWN: 1,
    InstructionOutcome.FAILED: 2,
    InstructionOutcome.CONFIRMED: 2,
}
_CHANGEABLE = ("outcome", "settled_at", "attempts", "detail", "venue_order_id")
_BY_TIME = Keyset(instructions.c.prepared_at, instructions.c.instruction_id)
_ORDER_COLUMNS = ("symbol", "side", "order_type", "quantity", "price", "reduce_only")


def upsert_instructions(connection: Connection, rows: Sequence[InstructionRow]) -> list[InstructionRow]:
    """Writes the newest state of each instruction, and returns those that are new or whose outcome changed."""
    newest = _newest_by_id(rows)
    new = _insert_missing(connection, newest)
    stored = _lock(connection, [id_ for id_ in newest if id_ not in new])
    changed = {id_ for id_, outcome in stored.items() if _RANK[newest[id_].outcome] > _RANK[outcome[0]]}
    again = {id_ for id_, old in stored.items() if _is_later_attempt(newest[id_], old)}
    _update(connection, {id_: newest[id_] for id_ in changed | again})
    return [row for id_, row in newest.items() if id_ in new or id_ in changed]


class InstructionFilter(PageFilter):
    """Which rows, and how many."""

    command_id: str | None = None
    outcome: InstructionOutcome | None = None


def page(connection: Connection, desk: str, wanted: InstructionFilter) -> tuple[list[InstructionRow], str | None]:
    """One page of a desk's instructions, newest first, and the cursor of the next one; None on the last page."""
    statement = select(instructions).where(instructions.c.desk == clean(desk))
    equal = {
        instructions.c.command_id: wanted.command_id and clean(wanted.command_id),
        instructions.c.outcome: wanted.outcome,
        instructions.c.symbol: wanted.symbol and clean(wanted.symbol),
    }
    for column, value in equal.items():
        if value is not None:
            statement = statement.where(column == value)
    rows, cursor = _BY_TIME.read(connection, statement, wanted)
    return [_row(found) for found in rows], cursor


def _newest_by_id(rows: Sequence[InstructionRow]) -> dict[str, InstructionRow]:
    """Each instruction once, in the order of ids, which keeps two writers from waiting for each other in a circle."""
    newest: dict[str, InstructionRow] = {}
    for row in sorted(rows, key=lambda row: (row.instruction_id, _RANK[row.outcome], row.attempts)):
        newest[clean(row.instruction_id)] = row
    return newest


def _insert_missing(connection: Connection, rows: dict[str, InstructionRow]) -> set[str]:
    if not rows:
        return set()
    statement = insert(instructions).values([_columns(row) for row in rows.values()])
    statement = statement.on_conflict_do_nothing(index_elements=[instructions.c.instruction_id])
    return set(connection.scalars(statement.returning(instructions.c.instruction_id)))


def _lock(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[InstructionOutcome, int]]:
    if not ids:
        return {}
    columns = (instructions.c.instruction_id, instructions.c.outcome, instructions.c.attempts)
    statement = select(*columns).where(instructions.c.instruction_id.in_(ids))
    found = connection.execute(statement.order_by(instructions.c.instruction_id).with_for_update())
    return {id_: (InstructionOutcome(outcome), attempts) for id_, outcome, attempts in found}


def _is_later_attempt(row: InstructionRow, stored: tuple[InstructionOutcome, int]) -> bool:
    outcome, attempts = stored
    return row.outcome is outcome and row.attempts > attempts


def _update(connection: Connection, rows: dict[str, InstructionRow]) -> None:
    if not rows:
        return
    statement = update(instructions).where(instructions.c.instruction_id == bindparam("id_"))
    statement = statement.values({name: bindparam(f"new_{name}") for name in _CHANGEABLE})
    for id_, row in rows.items():
        values = _columns(row)
        connection.execute(statement, {"id_": id_} | {f"new_{name}": values[name] for name in _CHANGEABLE})


def _columns(row: InstructionRow) -> dict[str, Any]:
    order = dict.fromkeys(_ORDER_COLUMNS[1:]) if row.order is None else _order_columns(row.order)
    return clean_values(row.model_dump(exclude={"order"}) | order)


def _order_columns(order: OrderInstruction) -> dict[str, Any]:
    return order.model_dump(include=set(_ORDER_COLUMNS[1:]))


def _row(found: RowMapping) -> InstructionRow:
    facts = dict(found)
    order = {name: facts[name] for name in _ORDER_COLUMNS} if facts["order_type"] else None
    return InstructionRow.model_validate(facts | {"order": order})
