"""The database's own id: made once with its schema, and compared in every transaction of a worker.

The failure behind this file: a second worker with another, migrated, empty database was accepted silently, and the latch of a
kill was written to both. So a database that is not the coordinator's counts as unavailable: every call on it fails as it does
when the server is down, before it reads or writes anything.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from storage.tables import installation

READ_ID = "SELECT database_id FROM installation"
"""`read_id` as text, for the statement that begins a transaction."""


class ExpectedDatabase:
    """The database that a task must use. `others` are the ids of those that answered instead."""

    def __init__(self, database_id: str) -> None:
        self.database_id = database_id
        self.others: list[str] = []


_EXPECTED: ContextVar[ExpectedDatabase | None] = ContextVar("expected_database", default=None)


def read_id(connection: Connection) -> str | None:
    """The database's own id; None if its table was emptied."""
    found = connection.scalar(select(installation.c.database_id))
    return str(found) if found else None


def given_id(connection: Connection, wanted: str | None) -> str | None:
    """The database's own id. If its table was emptied, the database gets the id `wanted` again."""
    if (found := read_id(connection)) is None and wanted:
        connection.execute(insert(installation).values(database_id=wanted).on_conflict_do_nothing())
        return read_id(connection)
    return found


def expected() -> ExpectedDatabase | None:
    """What the running task expects; None if it may use any database."""
    return _EXPECTED.get()


@contextmanager
def expecting(database_id: str | None) -> Iterator[ExpectedDatabase | None]:
    """Within the block, this task's calls work on this database only; with None, on any."""
    wanted = ExpectedDatabase(database_id) if database_id else None
    token = _EXPECTED.set(wanted)
    try:
        yield wanted
    finally:
        _EXPECTED.reset(token)


def wrong_database(connection: Connection, wanted: ExpectedDatabase) -> str | None:
    """What is wrong with this database; None if it is the expected one."""
    found = given_id(connection, wanted.database_id)
    if found == wanted.database_id:
        return None
    wanted.others.append(found or "")
    return wrong_database_text(found, wanted.database_id)


def wrong_database_text(found: str | None, wanted: str | None) -> str:
    """What is wrong, and what to do."""
    return (
        f"AIS_DATABASE_URL points to database {found or 'without an id'}, but the desk's is {wanted}: correct it, or see "
        "docs/operations.md, Another database"
    )
