"""Checks the chain: recomputes every hash, and compares the tables with the bodies of the chain.

It reads one snapshot, so desks can go on writing, and works row by row, so memory does not grow with the log. PostgreSQL compares
a body with its row. The hashes are computed here, by different code than the database function that wrote them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Column, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from domain.audit import (
    DECISIONS,
    INSTRUCTIONS,
    NO_DESK,
    REBUILT_DECISION,
    REBUILT_INSTRUCTION,
    AuditFault,
    AuditKind,
    ChainHead,
    ChainWalk,
    FaultKind,
    Link,
    proves_instruction,
)
from storage.audit.chain import ATTEMPT_COLUMNS, PROVEN_COLUMNS
from storage.audit.key_checking import KeyComparison
from storage.tables import instructions

Progress = Callable[[int], None]

_LATCH_KINDS = frozenset({AuditKind.LATCH_SET, AuditKind.LATCH_CLEARED})

ROWS_A_FETCH = 500
# Brackets in a body that is read as JSON. Ours nest three deep, but a summary may have brackets of its own.
MOST_NESTED = 1_000
# Instructions whose newest body is still to come: they are under way, or somebody has changed their rows.
MOST_UNSETTLED = 100_000
AT_TEXT = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
# What was hashed. `to_char` knows no infinity: somebody who writes that there must be found, and not end the verification.
LINK_AT = f"coalesce({AT_TEXT.format('a.at')}, a.at::text)"
_BEGUN = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)
_LOWEST = -(2**63)


class AuditedDesk(NamedTuple):
    """The findings about one desk. `older` rows are from before its chain began: they are counted but not proved."""

    desk: str
    rows: int
    last: int
    older: int
    waiting: int


class FaultCount(NamedTuple):
    """The first fault of a kind, and how many there are of that kind."""

    first: AuditFault
    times: int


class Verification:
    """The findings so far: by desk and by kind of fault, never by row."""

    def __init__(self) -> None:
        self.desks: list[AuditedDesk] = []
        self._faults: dict[tuple[str, FaultKind], FaultCount] = {}

    def note(self, faults: Iterable[AuditFault], count: int = 1) -> None:
        """Keeps the first fault of each desk and kind."""
        for fault in faults:
            key = (fault.desk, fault.kind)
            first, before = self._faults.get(key, FaultCount(fault, 0))
            self._faults[key] = FaultCount(first, before + count)

    @property
    def rows(self) -> int:
        """The rows of all desks."""
        return sum(desk.rows for desk in self.desks)

    @property
    def faults(self) -> list[FaultCount]:
        """The faults, in the order in which they were found."""
        return list(self._faults.values())


def _kind(column: Column[Any]) -> str:
    return str(column.type).split("(")[0].split()[0].upper()


def _value(column: Column[Any], alias: str) -> str:
    value = f'{alias}."{column.name}"'
    if column.table is instructions and column.name in ATTEMPT_COLUMNS:
        return f"CASE {alias}.outcome WHEN 'prepared' THEN NULL ELSE {value} END"
    return value


def _object(columns: Iterable[Column[Any]], alias: str) -> str:
    """A row as jsonb, in the form of its body: correct for every content, but slow."""
    pairs = []
    for column in columns:
        value = _value(column, alias)
        value = {"DATETIME": AT_TEXT.format(value), "NUMERIC": f"{value}::text"}.get(_kind(column), value)
        pairs.append(f"'{column.name}', {value}")
    return f"jsonb_strip_nulls(jsonb_build_object({', '.join(pairs)}))"


def _is_spelt(columns: Iterable[Column[Any]], alias: str) -> str:
    """SQL that compares a row with its body as text. It matches wherever PostgreSQL and RFC 8785 write the numbers alike, which
    is nearly always.
    """
    first, *others = sorted(columns, key=lambda each: each.name)
    if _kind(first) != "JSONB":
        return f"a.body = '{{' || substr({_spelt((first, *others), alias)}, 2) || '}}'"
    # The map comes first: reading the body's takes a fifth of the time of writing out the table's. If its end is found too early,
    # the texts differ.
    begin = f'{{"{first.name}":'
    map_text = f"substr(a.body, {len(begin) + 1}, greatest(0, strpos(a.body, '}}') - {len(begin)}))"
    same_map = (
        f"CASE WHEN pg_input_is_valid({map_text}, 'jsonb') THEN CAST({map_text} AS jsonb) = {_value(first, alias)} END"
    )
    return f"a.body = '{begin}' || {map_text} || {_spelt(others, alias)} || '}}' AND {same_map}"


def _spelt(columns: Iterable[Column[Any]], alias: str) -> str:
    parts = []
    for column in columns:
        value = _value(column, alias)
        spelt = _SPELLINGS[_kind(column)].format(value)
        if _kind(column) == "JSONB":
            spelt = _JSONB.format(value=value, array=_ARRAY.format(value), map=_MAP.format(value))
        part = f"""',"{column.name}":' || {spelt}"""
        parts.append(f"coalesce({part}, '')" if column.nullable or column.name in ATTEMPT_COLUMNS else part)
    return " || ".join(parts)


_JSONB = (
    "CASE WHEN {value} = '[]' THEN '[]' WHEN jsonb_typeof({value}) = 'array' THEN {array} "
    "WHEN jsonb_typeof({value}) = 'object' THEN {map} ELSE {value}::text END"
)
_ARRAY = (
    "'[' || coalesce((SELECT string_agg(to_json(v)::text, ',') FROM jsonb_array_elements_text({}) AS v), '') || ']'"
)
_MAP = (
    "'{{' || coalesce((SELECT string_agg(to_json(key)::text || ':' || value, ',' ORDER BY key COLLATE \"C\") "
    "FROM jsonb_each_text({})), '') || '}}'"
)
_SPELLINGS = {
    "TEXT": "to_json({})::text", "DATETIME": """'"' || """ + AT_TEXT + """ || '"'""", "NUMERIC": """'"' || {}::text || '"'""",
    "BOOLEAN": "{}::text", "INTEGER": "{}::text", "BIGINT": "{}::text", "JSONB": "{}::text",
}  # fmt: skip


def _compared(columns: Iterable[Column[Any]], alias: str, key: str, begins: str) -> str:
    """0 if the table's row matches the body, 1 if there is no row, 2 if it differs. A body that is not JSON was edited.

    So was one that is nested too deeply for PostgreSQL to read."""
    spelt, name = _is_spelt(columns, alias), begins.split('"')[1]
    body = f"CASE a.kind WHEN 'rebuilt' THEN a.body::jsonb -> '{name}' ELSE a.body::jsonb END"
    return f"""CASE WHEN {alias}.{key} IS NULL THEN 1 WHEN a.kind <> 'rebuilt' AND {spelt} THEN 0
        WHEN length(a.body) - length(translate(a.body, '[{{', '')) > {MOST_NESTED} THEN 2
        WHEN NOT pg_input_is_valid(a.body, 'jsonb') THEN 0 WHEN {body} = {_object(columns, alias)} THEN 0 ELSE 2 END"""


def proving(kinds: Iterable[AuditKind], begins: str) -> str:
    """Which rows `a` of the chain prove a row of one table: those of the table's own kinds, and those that record its
    restoration."""
    named = ", ".join(f"'{kind.value}'" for kind in sorted(kinds))
    return f"(a.kind IN ({named}) OR a.kind = 'rebuilt' AND starts_with(a.body, '{begins}'))"


OF_DECISIONS = proving(DECISIONS, REBUILT_DECISION)
OF_INSTRUCTIONS = proving(INSTRUCTIONS, REBUILT_INSTRUCTION)

COMPARED_ROWS = f"""
SELECT a.seq, {LINK_AT}, a.kind, a.subject, a.body, a.previous, a.hash, CASE
    WHEN {OF_DECISIONS} THEN {_compared(PROVEN_COLUMNS, "d", "decision_id", REBUILT_DECISION)}
    WHEN {OF_INSTRUCTIONS} THEN {_compared(instructions.columns, "i", "instruction_id", REBUILT_INSTRUCTION)}
    ELSE 0 END
FROM audit AS a
LEFT JOIN decisions AS d ON d.decision_id = CASE WHEN {OF_DECISIONS} THEN a.subject END
LEFT JOIN instructions AS i ON i.instruction_id = CASE WHEN {OF_INSTRUCTIONS} THEN a.subject END
"""  # noqa: S608 - names of our own columns and kinds
"""The rows of a chain, each compared with its table: 0 it matches the body, 1 no row, 2 it differs. Only the one table that a row
proves is read: with a condition beside the key, PostgreSQL would look into both first.
"""
_CHAIN = f"""
SELECT a.desk, {COMPARED_ROWS.partition("SELECT")[2]} WHERE a.desk = %(desk)s AND a.seq >= %(start)s ORDER BY a.seq
"""
_UNPROVED = """
WITH unproved AS MATERIALIZED (
    SELECT t.{id} AS id, t.{moment} AS moment FROM {table} AS t WHERE t.desk = :desk AND t.{moment} >= :since
    AND NOT EXISTS (SELECT FROM audit AS a WHERE a.desk = :desk AND a.seq > 0 AND {proving} AND a.subject = t.{id})
    AND NOT EXISTS (SELECT FROM audit_waiting AS a WHERE a.desk = :desk AND {proving} AND a.subject = t.{id}))
SELECT count(*) FILTER (WHERE moment < :covered) AS older, count(*) FILTER (WHERE moment < :until) AS counted,
    count(*) FILTER (WHERE moment >= :covered) AS extra,
    (SELECT id FROM unproved WHERE moment >= :covered ORDER BY moment, id LIMIT 1) AS first FROM unproved
"""
_UNPROVED_ROWS = {
    "decisions": _UNPROVED.format(table="decisions", id="decision_id", moment="timestamp", proving=OF_DECISIONS),
    "instructions": _UNPROVED.format(
        table="instructions", id="instruction_id", moment="prepared_at", proving=OF_INSTRUCTIONS
    ),
}
# Rows from before the chain that have got a link since, but have no entry for their beginning: instructions that were open then
# and are settled now, and restored rows.
_LINKED_SINCE = """
SELECT count(*) FROM {table} AS t JOIN (
    SELECT subject FROM (SELECT desk, kind, subject, body FROM audit WHERE seq > 0
        UNION ALL SELECT desk, kind, subject, body FROM audit_waiting) AS a
    WHERE desk = :desk AND {proving} GROUP BY subject HAVING NOT bool_or(kind IN ({beginnings}))
) AS later ON later.subject = t.{id} WHERE t.desk = :desk AND t.{moment} < :until
"""
_LINKED_SINCE_THEN = {
    "decisions": _LINKED_SINCE.format(
        table="decisions", id="decision_id", moment="timestamp", proving=OF_DECISIONS, beginnings="'decision', 'limits_changed'"
    ),
    "instructions": _LINKED_SINCE.format(
        table="instructions", id="instruction_id", moment="prepared_at", proving=OF_INSTRUCTIONS,
        beginnings="'instruction_prepared'",
    ),
}  # fmt: skip
# Includes a chain whose rows are all gone: its head still names it.
_CHAINED_DESKS = "SELECT desk FROM audit UNION SELECT desk FROM audit_heads"
_DESKS = f"""
{_CHAINED_DESKS} UNION SELECT desk FROM audit_waiting UNION SELECT desk FROM decisions UNION SELECT desk FROM instructions
UNION SELECT '{NO_DESK}' FROM keys
"""  # noqa: S608 - our own name of no desk
# The moment from which a desk's decisions are in the chain: its first row after `chain_begun`. Bounded, since Python has no time
# beyond, and somebody may have written one.
_COVERED = """
SELECT (SELECT body FROM audit WHERE desk = :desk AND seq = 1 AND kind = 'chain_begun') AS begun,
    (SELECT least(greatest(at, '0001-01-02'), '9999-12-30') FROM audit WHERE desk = :desk AND seq > 1 ORDER BY seq LIMIT 1) AS at
"""


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A read-only connection that sees one moment."""
    with engine.connect() as connection, connection.begin():
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        # Without a time limit: a log of years is checked in one go.
        connection.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"))
        # Compiling the comparison takes longer than most logs.
        connection.execute(text("SET LOCAL jit = off"))
        yield connection


def desks_of(connection: Connection) -> list[str]:
    """Every desk that has a chain or should have one."""
    return list(connection.scalars(text(f"{_DESKS} ORDER BY desk")))


def chained_desks_of(connection: Connection) -> list[str]:
    """The desks that have a chain, and so can be exported."""
    return list(connection.scalars(text(f"{_CHAINED_DESKS} ORDER BY desk")))


def verify_desk(
    connection: Connection, desk: str, since: datetime | None, found: Verification, progress: Progress
) -> None:
    """Checks one desk, and adds the findings to `found`."""
    start = _start(connection, desk, since)
    walk, compared = ChainWalk(desk, start), _Comparison(connection, desk)
    keys = KeyComparison(whole=since is None) if desk == NO_DESK else None
    # Rows before the first are read too: AIS writes none, and they would prove whatever they name.
    for rows in fetched(connection, _CHAIN, {"desk": desk, "start": _LOWEST if since is None else start}):
        for row in rows:
            link = Link._make(row[:-1])
            if faults := walk.take(link):
                found.note(faults)
            if walk.trusted:
                if faults := compared.take(link, row[-1]):
                    found.note(faults)
                if keys:
                    keys.take(link)
        progress(walk.count)
    head = _head(connection, desk)
    found.note(walk.end(head))
    if head is None and walk.count:
        # Without the head, missing rows at the end go unnoticed; the next append makes a new head.
        found.note(
            [
                AuditFault(
                    FaultKind.CUT_OFF, desk, walk.seq, "the chain's head is gone, so rows after it may be gone too"
                )
            ]
        )
    found.note(compared.end())
    found.note(keys.end(connection) if keys else ())
    older = _unproved(connection, desk, since, found)
    waiting = connection.scalar(text("SELECT count(*) FROM audit_waiting WHERE desk = :desk"), {"desk": desk})
    found.desks.append(AuditedDesk(desk, walk.count, walk.seq, older, int(waiting or 0)))


def fetched(connection: Connection, query: str, values: Mapping[str, Any]) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a query, in batches.

    It uses the driver's own cursor, in binary: building SQLAlchemy's rows would take as long as hashing.
    """
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor(name="audit_chain", binary=True) as cursor:
            cursor.execute(query, values)
            while rows := cursor.fetchmany(ROWS_A_FETCH):
                yield rows
    except psycopg.Error as error:
        if driver.closed:
            # Otherwise the end of the transaction fails as well, and its error hides this one.
            connection.invalidate(error)
        raise DBAPIError.instance("reading the chain", None, error, psycopg.Error, hide_parameters=True) from error


class _Comparison:
    """Compares the tables with the chain. A decision is written once; for an instruction, the newest row must match its table."""

    def __init__(self, connection: Connection, desk: str) -> None:
        self._connection = connection
        self._desk = desk
        self._unsettled: dict[str, AuditFault] = {}
        self._latch: Link | None = None
        # Whether the rows that are read contain everything that the desk's row says about a kill.
        self._from_the_start = False

    def take(self, link: Link, state: int) -> Iterable[AuditFault]:
        """The fault that the row's table shows; `state` comes from the query."""
        if link.seq == 1:
            self._from_the_start = link.kind != AuditKind.CHAIN_BEGUN
        if link.kind in _LATCH_KINDS:
            self._latch = link
        if not state and not self._unsettled:
            return ()
        if proves_instruction(link):
            return self._take_instruction(link, state)
        return [self._fault(link, state)] if state else ()

    def _take_instruction(self, link: Link, state: int) -> Iterable[AuditFault]:
        self._unsettled.pop(link.subject, None)
        if not state:
            return ()
        self._unsettled[link.subject] = self._fault(link, state)
        if len(self._unsettled) <= MOST_UNSETTLED:
            return ()
        return [self._unsettled.pop(next(iter(self._unsettled)))]

    def end(self) -> Iterator[AuditFault]:
        """The faults that no later row has resolved, and those of the latch."""
        waiting = text("SELECT DISTINCT subject FROM audit_waiting WHERE desk = :desk")
        later = set(self._connection.scalars(waiting, {"desk": self._desk})) if self._unsettled else set()
        yield from (fault for subject, fault in self._unsettled.items() if subject not in later)
        yield from self._latch_faults()

    def _latch_faults(self) -> Iterator[AuditFault]:
        row = self._connection.execute(
            text(
                "SELECT killed, (SELECT count(*) FROM audit_waiting WHERE desk = :desk AND kind LIKE 'latch%') AS waiting "
                "FROM desks WHERE desk = :desk"
            ),
            {"desk": self._desk},
        ).one_or_none()
        held = self._latch if self._latch and self._latch.kind == AuditKind.LATCH_SET else None
        if row is None:
            if held:
                what = "the desk's row is gone, and no restart cleared the kill"
                yield AuditFault(FaultKind.CHANGED, self._desk, held.seq, what)
            return
        if row.waiting or not (self._latch or self._from_the_start):
            return
        if held and not row.killed:
            what = "the desk's row says not killed, and no restart cleared it"
            yield AuditFault(FaultKind.CHANGED, self._desk, held.seq, what)
        elif row.killed and not held:
            yield AuditFault(FaultKind.EXTRA, self._desk, None, "the desk's row says killed, but the chain does not")

    def _fault(self, link: Link, state: int) -> AuditFault:
        kind = FaultKind.MISSING if state == 1 else FaultKind.CHANGED
        return AuditFault(kind, self._desk, link.seq, f"{link.kind} {link.subject}")


class _Begun(NamedTuple):
    """The contents of a desk's tables when its chain began: the number of rows from before `until`."""

    rows: dict[str, int]
    until: datetime


def _begun(body: str | None) -> _Begun | None:
    """None if the chain began with the desk, or if somebody has edited the row, which is reported separately."""
    try:
        counts = json.loads(body or "")
        until = datetime.fromisoformat(counts["until"])
        return _Begun({table: int(counts[table]) for table in _UNPROVED_ROWS}, until)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _unproved(connection: Connection, desk: str, since: datetime | None, found: Verification) -> int:
    """Records the rows of the tables that the chain lacks, and returns how many are from before it."""
    body, first = connection.execute(text(_COVERED), {"desk": desk}).one()
    begun = _begun(body)
    covered = (first or _NEVER) if body else _BEGUN
    values = {"desk": desk, "since": since or _BEGUN, "covered": covered, "until": begun.until if begun else _BEGUN}
    older = 0
    for table, query in _UNPROVED_ROWS.items():
        row = connection.execute(text(query), values).one()
        older += row.older
        if row.extra:
            found.note([AuditFault(FaultKind.EXTRA, desk, None, f"{table}: {row.first}")], row.extra)
        if begun and since is None:
            then = int(connection.scalar(text(_LINKED_SINCE_THEN[table]), values) or 0)
            _compare_counts(found, AuditFault(FaultKind.MISSING, desk, 1, table), begun.rows[table] - row.counted, then)
    return older


def _compare_counts(found: Verification, fault: AuditFault, fewer: int, linked_since: int) -> None:
    """Rows from before the chain have no link, but their number is known. `fewer`: how many fewer there are now than when the
    chain began, of which `linked_since` have got a link since."""
    if (lost := fewer - linked_since) > 0:
        found.note(
            [fault._replace(what=f"{fault.what}: {lost} of those that the table had when the chain began")], lost
        )
    elif fewer < 0:
        what = f"{fault.what}: {-fewer} more from before the chain than the table had when it began"
        found.note([fault._replace(kind=FaultKind.EXTRA, what=what)], -fewer)


def _start(connection: Connection, desk: str, since: datetime | None) -> int:
    if since is None:
        return 1
    first = "SELECT min(seq) FROM audit WHERE desk = :desk AND at >= :since"
    last = "SELECT coalesce(max(seq), 0) + 1 FROM audit WHERE desk = :desk"
    values = {"desk": desk, "since": since}
    return int(connection.scalar(text(first), values) or connection.scalar(text(last), values) or 1)


def _head(connection: Connection, desk: str) -> ChainHead | None:
    row = connection.execute(text("SELECT seq, hash FROM audit_heads WHERE desk = :desk"), {"desk": desk}).one_or_none()
    return ChainHead(row.seq, bytes(row.hash)) if row else None
