"""Appends to the audit chain, as the last statement of the transaction that writes what the entry records.

It comes last because it takes the lock of the desk's chain: a transaction that holds the lock then waits for nothing but its
commit. A transaction that cannot get the lock at once does not wait for it, since a kill's latch must not queue behind a
transaction that hangs. The database function (migration 0016) then puts its entries into `audit_waiting`, and the next append
chains those first.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from json import JSONEncoder
from typing import Any, NamedTuple

import psycopg
import rfc8785
import structlog
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError

from domain.audit import DECISIONS, REBUILT_DECISION, REBUILT_INSTRUCTION, AuditKind
from domain.desk.states import CommandKind
from domain.trading.decisions import Decision
from domain.trading.instructions import InstructionOutcome, Tool
from storage.cleaning import clean
from storage.tables import audit_waiting, decisions

# JSON readers may disagree about larger numbers.
SAFE_INTEGER = 2**53 - 1
# All columns except the order of writing, which the database assigns.
PROVEN_COLUMNS = tuple(column for column in decisions.columns if column.name != "written")
# Left out while an instruction is only prepared: they change with each failed attempt, and are proved once it is settled.
ATTEMPT_COLUMNS = frozenset({"attempts", "detail"})
_DECISION_COLUMNS = tuple(column.name for column in PROVEN_COLUMNS)
_APPEND = b"SELECT audit_append($1, $2, $3, $4)"
_BEGIN = text("SELECT")
_APPEND_WAITING = text(
    "SELECT audit_append(desk, '{}', '{}', '{}') FROM (SELECT DISTINCT desk FROM audit_waiting ORDER BY desk LIMIT 100) AS d"
)

# Where Python's JSON may differ from RFC 8785, besides the order of non-ASCII names: a zero fraction, NaN or infinity, an
# exponent. Searching for each separately is ten times as fast as one expression.
_OTHERWISE_SPELT = (".0,", ".0]", ".0}", "NaN", "Infinity")
_EXPONENT = re.compile(r"\de[-+]\d")
# Types that the encoder writes as we need them, except for a NUL. Others are converted first.
_ENCODED = frozenset({str, bool, datetime, Decimal})

log = structlog.get_logger("audit")


class AuditEntry(NamedTuple):
    """The content of a future row of the chain. `body` is canonical JSON."""

    desk: str
    kind: AuditKind
    subject: str
    body: str


def entry(desk: str, kind: AuditKind, subject: str, body: Mapping[str, Any]) -> AuditEntry:
    """An entry with these values; None is left out."""
    return AuditEntry(clean(desk), kind, clean(subject), canonical(body))


def decision_entry(row: Decision) -> AuditEntry:
    """The entry of a row of the decision log, as stored."""
    limits = row.command == CommandKind.SET_LIMITS and row.result == "applied"
    kind = AuditKind.LIMITS_CHANGED if limits else AuditKind.DECISION
    values = vars(row)
    return entry(row.desk, kind, row.decision_id, {name: values[name] for name in _DECISION_COLUMNS})


def instruction_entry(stored: Mapping[str, Any]) -> AuditEntry:
    """The entry of an instruction's row in its present state."""
    body = stored
    if stored["outcome"] == InstructionOutcome.PREPARED:
        kind = AuditKind.INSTRUCTION_PREPARED
        body = {name: value for name, value in stored.items() if name not in ATTEMPT_COLUMNS}
    else:
        kind = AuditKind.ORDER_FATE if stored["tool"] == Tool.CREATE_ORDER else AuditKind.INSTRUCTION_SETTLED
    return entry(stored["desk"], kind, stored["instruction_id"], body)


def rebuilt_entry(proved: AuditEntry, source: Mapping[str, Any]) -> AuditEntry:
    """The entry of a restored row: everything that its own entry says, and where the row was found."""
    begins = REBUILT_DECISION if proved.kind in DECISIONS else REBUILT_INSTRUCTION
    return AuditEntry(
        proved.desk, AuditKind.REBUILT, proved.subject, f'{begins}{proved.body},"source":{canonical(source)}}}'
    )


def append(connection: Connection, entries: Iterable[AuditEntry]) -> bool:
    """Chains the entries, or leaves them to the next append: False if any of them waits. Only the commit may follow."""
    chained = True
    # In the order of desks, like every lock on several desks.
    for desk, group in groupby(sorted(entries, key=lambda each: each.desk), key=lambda each: each.desk):
        rows = list(group)
        kinds, subjects, bodies = (row.kind for row in rows), (row.subject for row in rows), (row.body for row in rows)
        chained = _call(connection, (desk, _array(kinds), _array(subjects), _array(bodies))) and chained
    return chained


def _call(connection: Connection, values: Sequence[str]) -> bool:
    """Calls libpq directly: through SQLAlchemy and the driver's cursor the call takes five times as much CPU time."""
    driver: Any = connection.connection.dbapi_connection
    if driver.info.transaction_status != TransactionStatus.INTRANS:
        # Begins the transaction, which libpq does not do by itself, or raises what is wrong.
        connection.execute(_BEGIN)
    try:
        result = driver.pgconn.exec_params(_APPEND, [value.encode() for value in values])
    except psycopg.Error as error:
        # The connection died before everything was sent.
        raise _failed(connection, error, is_lost=True) from error
    if result.status == ExecStatus.TUPLES_OK:
        return bool(result.get_value(0, 0) == b"t")
    raise _failed(connection, error_from_result(result, encoding=driver.info.encoding), is_lost=driver.closed)


def _failed(connection: Connection, error: psycopg.Error, is_lost: bool) -> Exception:
    """The error in the form in which SQLAlchemy would have raised it."""
    if is_lost:
        # Otherwise the end of the transaction fails as well, and its error hides this one.
        connection.invalidate(error)
    return DBAPIError.instance(
        "audit_append", None, error, psycopg.Error, hide_parameters=True, connection_invalidated=is_lost
    )


def _array(values: Iterable[str]) -> str:
    """A text[] literal for PostgreSQL."""
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return '{"' + '","'.join(escaped) + '"}'


def append_if_possible(connection: Connection, entries: Iterable[AuditEntry]) -> bool:
    """`append` for a write that must succeed even if the chain cannot be written: a kill's latch. Logs entries that got lost."""
    rows = list(entries)
    if not rows:
        return True
    try:
        with connection.begin_nested():
            return append(connection, rows)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        log.error("the audit chain cannot be written", rows=[row.subject for row in rows], why=str(error.orig)[:200])
        return False


def append_waiting(connection: Connection) -> None:
    """Chains the waiting entries of all desks: a desk that writes nothing more would never chain its own."""
    connection.execute(_APPEND_WAITING)


class Waiting(NamedTuple):
    """Entries that are not chained yet: how many, for how many seconds the oldest has waited, and why."""

    entries: int
    seconds: float
    why: str


def waiting(connection: Connection) -> Waiting:
    """The waiting entries of all desks. Waiting for a moment is normal; longer means that the chain cannot be written."""
    oldest = select(audit_waiting.c.why).order_by(audit_waiting.c.number).limit(1).scalar_subquery()
    age = func.extract("epoch", func.clock_timestamp() - func.min(audit_waiting.c.at))
    found = connection.execute(select(func.count(), age, oldest).select_from(audit_waiting)).one()
    return Waiting(found[0], float(found[1] or 0), found[2] or "")


def canonical(body: Mapping[str, Any]) -> str:
    """The body as canonical JSON (RFC 8785). Numbers that JSON cannot represent exactly are text."""
    nearly = {name: each if type(each) in _ENCODED else _plain(each) for name, each in body.items() if each is not None}
    text = _ENCODER.encode(nearly)
    # Nearly always this is canonical already, in a fifth of the time.
    return text if _is_canonical(text) and "\\u0000" not in text else rfc8785.dumps(_plain(body)).decode()


def _is_canonical(text: str) -> bool:
    return (
        text.isascii()
        and not any(part in text for part in _OTHERWISE_SPELT)
        and not (("e-" in text or "e+" in text) and _EXPONENT.search(text))
    )


def moment_text(moment: datetime) -> str:
    """A time as the chain writes it: always UTC, always with microseconds."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _plain(value: Any) -> Any:
    match value:
        case str():
            # This also turns enumeration members into plain text.
            return clean(value)
        case list() | tuple():
            return [_plain(each) for each in value]
        case Mapping():
            return {clean(str(name)): _plain(each) for name, each in value.items() if each is not None}
    return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case int():
            return value if abs(value) <= SAFE_INTEGER else str(value)
        case float():
            return int(value) if value.is_integer() and abs(value) <= SAFE_INTEGER else value
        case datetime():
            return moment_text(value)
        case Decimal():
            return format(value, "f")
    return value


_ENCODER = JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=_plain)
