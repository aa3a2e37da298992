"""Tests whether a row could be written now, without writing one.

The failure behind this file: after a failover to a replica, `/health` said `db_connected: true` because PostgreSQL answered, but
no row could be written. So the probe runs the statements of the decision log on no rows: PostgreSQL checks the server's mode,
rights, tables and locks before it looks for rows. Nothing is stored, no transaction gets a number, no table grows.
"""

from sqlalchemy import ClauseElement, Connection, Table, false, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert

from storage.database import DatabaseUnavailable
from storage.tables import decisions, desks, instructions, kills

# An insert of no rows does not check this right, since only a row that is written gets a number.
_MAY_NUMBER = "SELECT has_sequence_privilege('decisions_written', 'USAGE')"


def _insert_nothing(table: Table) -> ClauseElement:
    given = [column for column in table.columns if column.computed is None]
    return insert(table).from_select(given, select(*given).where(false()))


def _change_nothing(table: Table) -> ClauseElement:
    first = next(iter(table.columns))
    return update(table).where(false()).values({first: first})


def _all_at_once(writes: list[ClauseElement]) -> str:
    """All of them in one statement, which costs one round trip and is compiled once."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    compiled = [str(write.compile(dialect=dialect)) for write in writes]
    return f"WITH {', '.join(f'write_{number} AS ({each})' for number, each in enumerate(compiled))} {_MAY_NUMBER}"


_LOG = [
    *(_insert_nothing(table) for table in (decisions, instructions, desks, kills)),
    *(_change_nothing(table) for table in (instructions, desks, kills)),
]
_WRITES = text(_all_at_once(_LOG))
# The only place that sees a full disk without filling it further: a sort that is too large for this memory goes through a
# file, of a third of a megabyte, beside the tables. It is gone with the statement.
_SPILLS = text(
    "SELECT count(filling) FROM (SELECT n, repeat('x', 1000) AS filling FROM generate_series(1, 300) AS n "
    "ORDER BY n DESC OFFSET 0) AS sorted"
)


def try_to_write(connection: Connection) -> None:
    """Raises if the log's rows cannot be written: a read-only server, missing rights or tables, a lock that lasts."""
    if not connection.scalar(_WRITES):
        raise DatabaseUnavailable(
            "PostgreSQL: permission denied for sequence decisions_written (docs/operations.md, Two roles)"
        )


def try_to_grow(connection: Connection) -> None:
    """Raises if the file system of the tables is full."""
    # Empty: beside the database's own tables, wherever else the administrator sends temporary files.
    connection.execute(text("SET LOCAL work_mem = '64kB'; SET LOCAL temp_tablespaces = ''"))
    connection.execute(_SPILLS)
