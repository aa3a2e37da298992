"""Builds the decision log's indexes and its list of voters while desks write. On a log of millions of rows, a migration that
built an index in its transaction would hold the desks up for minutes.

Every step can be repeated. If a process dies and leaves an index half built, the next one builds it again.
"""

import time

from sqlalchemy import Connection, text

from storage.tables import decisions

_LOCK_KEY = 0x4149_5302
_POLL_SECONDS = 0.2
_VALID = """
SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = to_regclass('decisions')
"""
# No timeouts: an index may take long, and waits for other transactions.
_PATIENCE = ("SET statement_timeout = 0", "SET lock_timeout = 0", "SET idle_in_transaction_session_timeout = 0")


def missing(connection: Connection) -> list[str]:
    """Indexes that do not exist or are not finished."""
    found = _found(connection)
    return sorted(str(index.name) for index in decisions.indexes if not found.get(str(index.name)))


def build(connection: Connection) -> None:
    """Builds the missing indexes, and drops those that they replace. The connection must be in autocommit mode."""
    # Imported here: migrations import Alembic, which a worker that only looks for missing indexes does not need.
    from storage.migrations.versions.r0010_decision_groups import FILL, REPLACED

    for statement in _PATIENCE:
        connection.execute(text(statement))
    # Every time: a row that was written while the trigger was off, or restored without it, would never be found by its agents.
    connection.execute(text(FILL))
    if not missing(connection) and not _found(connection).keys() & REPLACED.keys():
        return
    # Not by waiting in the server: who builds an index waits for everybody who waits there.
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK_KEY}):
        time.sleep(_POLL_SECONDS)
    try:
        _build(connection)
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK_KEY})


def definitions() -> dict[str, str]:
    """Each index by its name, as what follows `ON decisions`."""
    from storage.migrations.versions import r0010_decision_groups, r0014_notifications

    return r0010_decision_groups.INDEXES | r0014_notifications.INDEXES


def _build(connection: Connection) -> None:
    from storage.migrations.versions.r0010_decision_groups import REPLACED

    if lacking := set(missing(connection)):
        # In the order in which they are defined: every page reads the first.
        for name, columns in definitions().items():
            if name in lacking:
                connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
                connection.execute(text(f"CREATE INDEX CONCURRENTLY {name} ON decisions {columns}"))
        connection.execute(text("ANALYZE decisions"))
    for name in _found(connection).keys() & REPLACED.keys():
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))


def _found(connection: Connection) -> dict[str, bool]:
    return {row.relname: row.indisvalid for row in connection.execute(text(_VALID))}
