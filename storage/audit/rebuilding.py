"""Restores rows that the database lost, from the chain itself or from another source that remembers them.

An existing row is never changed: if it differs, that is reported. A restored row is chained as `rebuilt`, with its source, in the
transaction that writes it. A row that somebody else has restored meanwhile is left alone. A run without writes takes the same
steps, and writes only the ids that it has counted, into a temporary table.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import Connection, text

from domain.trading.decisions import Decision
from domain.trading.instructions import InstructionOutcome, InstructionRow
from storage.audit import chain
from storage.audit.chain import PROVEN_COLUMNS, AuditEntry, canonical, decision_entry, instruction_entry, rebuilt_entry
from storage.audit.late_kills import chain_late_kills
from storage.audit.verifying import OF_DECISIONS, OF_INSTRUCTIONS, ROWS_A_FETCH
from storage.cleaning import clean
from storage.decisions import insert_decisions, read_decisions
from storage.instructions import (
    CHANGEABLE,
    as_row,
    as_stored,
    columns_of,
    insert_instructions,
    progress,
    read_instructions,
)
from storage.tables import instructions

AuditedRow = Decision | InstructionRow

ROWS_A_BATCH = 200
# Columns that are missing in rows of older versions.
_LATER_COLUMNS = frozenset({"command", "result", "source"})
_NOTED = 'CREATE TEMPORARY TABLE IF NOT EXISTS rebuild_noted (id text COLLATE "C" PRIMARY KEY)'
_NOTE = "INSERT INTO rebuild_noted SELECT unnest(CAST(:ids AS text[])) ON CONFLICT DO NOTHING RETURNING id"
_LOST = """
SELECT a.seq, a.kind, a.subject, a.body FROM audit AS a WHERE a.desk = :desk AND a.seq > 0 AND {proving}
    AND NOT EXISTS (SELECT FROM {table} AS t WHERE t.{id} = a.subject) ORDER BY a.seq {order}
"""
# Rows are restored in the order in which they were written; for an instruction, the newest row counts.
_LOST_DECISIONS = _LOST.format(proving=OF_DECISIONS, table="decisions", id="decision_id", order="ASC")
_LOST_INSTRUCTIONS = _LOST.format(proving=OF_INSTRUCTIONS, table="instructions", id="instruction_id", order="DESC")
_LEFT = f"""
SELECT count(DISTINCT lost.subject) AS rows, min(lost.subject) AS first
FROM (({_LOST_DECISIONS}) UNION ALL ({_LOST_INSTRUCTIONS})) AS lost
WHERE NOT EXISTS (SELECT FROM rebuild_noted AS n WHERE n.id = lost.subject)
"""  # noqa: S608 - names of our own tables


class RememberedRow(NamedTuple):
    """A row as a source remembers it; `source` names the source, for the chain."""

    row: AuditedRow
    source: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The row's own id."""
        return clean(self.row.decision_id if isinstance(self.row, Decision) else self.row.instruction_id)

    @property
    def name(self) -> str:
        """The row in words."""
        return f"{'decision' if isinstance(self.row, Decision) else 'instruction'} {self.id}"


class RowDifference(NamedTuple):
    """An existing row that differs from what a source remembers."""

    remembered: RememberedRow
    columns: list[str]


class Compared(NamedTuple):
    """The result of a batch: the missing rows, each reported once, and the rows that differ."""

    missing: list[RememberedRow]
    differing: list[RowDifference]


class RowsLeft(NamedTuple):
    """Rows that the chain names and no source could restore."""

    rows: int
    first: str | None


class Rebuilding:
    """Compares remembered rows with the tables, and restores missing ones if it may write."""

    def __init__(self, connection: Connection, *, writes: bool) -> None:
        self._connection = connection
        self.writes = writes
        with connection.begin():
            connection.execute(text(_NOTED))
            if writes:
                chain.append_waiting(connection)

    def take(self, remembered: Iterable[RememberedRow]) -> Compared:
        """Handles a batch in one transaction. A source that remembers several states of an instruction must pass the newest
        first."""
        missing, differing = list[RememberedRow](), list[RowDifference]()
        with self._connection.begin():
            found = _newest(self._as_stored(list(remembered)))
            for table in _TABLES:
                mine = {id_: each for id_, each in found.items() if isinstance(each.row, table.row)}
                stored = table.read(self._connection, list(mine)) if mine else {}
                differs = {id_: table.differs(stored[id_], mine[id_].row) for id_ in mine if id_ in stored}
                differing += [RowDifference(mine[id_], columns) for id_, columns in differs.items() if columns]
                noted = self._note([id_ for id_ in mine if id_ not in stored])
                missing += [mine[id_] for id_ in mine if id_ in noted]
            if self.writes and missing:
                self._put_back(missing)
        return Compared(missing, differing)

    def chain_the_rest(self, desk: str) -> None:
        """Chains the waiting entries, and kills that the tables have and the chain lacks: the chain may have lost more than rows
        of the log."""
        with self._connection.begin():
            chain.append_waiting(self._connection)
        with self._connection.begin():
            chain_late_kills(self._connection, desk, ())

    def left(self, desk: str) -> RowsLeft:
        """The rows that the chain has and that are still missing after all batches."""
        with self._connection.begin():
            # This reads two whole tables.
            self._connection.execute(text("SET LOCAL statement_timeout = 0"))
            found = self._connection.execute(text(_LEFT), {"desk": desk}).one()
        return RowsLeft(found.rows, found.first)

    def _as_stored(self, remembered: Sequence[RememberedRow]) -> list[RememberedRow]:
        """Temporal remembers an instruction by the id that its desk gave it; another desk's may have the same."""
        rows = [each.row for each in remembered if isinstance(each.row, InstructionRow)]
        named = iter(as_stored(self._connection, rows) if rows else ())
        return [each._replace(row=next(named)) if isinstance(each.row, InstructionRow) else each for each in remembered]

    def _note(self, ids: list[str]) -> set[str]:
        return set(self._connection.scalars(text(_NOTE), {"ids": ids})) if ids else set()

    def _put_back(self, missing: list[RememberedRow]) -> None:
        sources, entries = {each.id: each.source for each in missing}, list[AuditEntry]()
        for table in _TABLES:
            if rows := [each.row for each in missing if isinstance(each.row, table.row)]:
                entries += table.write(self._connection, rows)
        chain.append(self._connection, [rebuilt_entry(entry, sources[entry.subject]) for entry in entries])


def remembered_by_chain(snapshot: Connection, desk: str, *, prepared: bool) -> Iterator[RememberedRow | None]:
    """Rows that the chain has and the tables lack; or, of those, the instructions that were only prepared. The chain has neither
    the attempts nor the detail of a prepared one, so other sources come first. None for a body that this program cannot read.
    """
    queries = [_LOST_INSTRUCTIONS] if prepared else [_LOST_DECISIONS, _LOST_INSTRUCTIONS]
    for query in queries:
        statement = text(query).execution_options(yield_per=ROWS_A_FETCH)
        for seq, kind, _, body in snapshot.execute(statement, {"desk": desk}):
            row = _read(json.loads(body), rebuilt=kind == "rebuilt", decision=query is _LOST_DECISIONS)
            is_prepared = isinstance(row, InstructionRow) and row.outcome is InstructionOutcome.PREPARED
            if row is None or is_prepared == prepared:
                yield RememberedRow(row, {"chain": seq}) if row else None


def _read(body: dict[str, Any], *, rebuilt: bool, decision: bool) -> AuditedRow | None:
    """The row, if it gives back exactly the body that it was read from."""
    body = body["decision" if decision else "instruction"] if rebuilt else body
    try:
        if decision:
            found = Decision.model_validate(body)
            return found if _body_of(decision_entry(found)) == body else None
        instruction = as_row(body)
        return instruction if _body_of(instruction_entry(columns_of(instruction))) == body else None
    except ValidationError:
        return None


def _body_of(entry: AuditEntry) -> dict[str, Any]:
    return dict(json.loads(entry.body))


def _newest(remembered: Iterable[RememberedRow]) -> dict[str, RememberedRow]:
    found: dict[str, RememberedRow] = {}
    for each in remembered:
        other = found.setdefault(each.id, each)
        if isinstance(each.row, InstructionRow) and isinstance(other.row, InstructionRow):
            found[each.id] = max(other, each, key=lambda known: progress(known.row.outcome, known.row.attempts))  # type: ignore[union-attr]
    return found


def _write_decisions(connection: Connection, rows: Sequence[Decision]) -> list[AuditEntry]:
    return [decision_entry(row) for row in insert_decisions(connection, rows, is_news=False)]


def _write_instructions(connection: Connection, rows: Sequence[InstructionRow]) -> list[AuditEntry]:
    return [instruction_entry(stored) for stored in insert_instructions(connection, rows)]


def _decision_differs(stored: Mapping[str, Any], row: Decision) -> list[str]:
    """The columns in which they differ."""
    mine = _body_of(decision_entry(row))
    theirs = json.loads(canonical({column.name: stored[column.name] for column in PROVEN_COLUMNS}))
    # Older versions wrote none of these.
    skipped = frozenset() if theirs.keys() & _LATER_COLUMNS else _LATER_COLUMNS
    return sorted(name for name in (mine.keys() | theirs.keys()) - skipped if mine.get(name) != theirs.get(name))


def _instruction_differs(stored: Mapping[str, Any], row: InstructionRow) -> list[str]:
    """The columns in which they differ; none if the remembered row is an earlier state of the same instruction. The attempts of a
    cancel and the detail of an unknown fate may change without a new state.
    """
    mine = columns_of(row)
    compared = {column.name for column in instructions.columns} - set(CHANGEABLE)
    (rank, _), (held, _) = progress(row.outcome, 0), progress(stored["outcome"], 0)
    if rank > held or (rank == held and row.outcome != stored["outcome"]):
        compared.add("outcome")
    elif rank == held and row.settled_at is not None:
        compared |= set(CHANGEABLE)
    return sorted(name for name in compared if mine[name] != stored[name])


class _Table(NamedTuple):
    """How rows of one kind are read, compared and written."""

    row: type[AuditedRow]
    read: Callable[[Connection, list[str]], Mapping[str, Mapping[str, Any]]]
    differs: Callable[[Mapping[str, Any], Any], list[str]]
    write: Callable[[Connection, Any], list[AuditEntry]]


_TABLES = (
    _Table(Decision, read_decisions, _decision_differs, _write_decisions),
    _Table(InstructionRow, read_instructions, _instruction_differs, _write_instructions),
)
