"""Bringing the schema up to date, and refusing to work with one that is not.

A revision is a note that somebody left. The incident behind the comparison: after a partial restore without some of the tables,
`ais migrate` said "up to date". So what is there is compared with what should be.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, inspect, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from storage.database import make_engine, unavailable
from storage.tables import metadata

MIGRATIONS = Path(__file__).parent / "migrations"
CHECK_SECONDS = 5.0
UPGRADE_SECONDS = 300.0
MAX_NAMED = 12
_LOCK_KEY = 0x4149_5301


class SchemaOutOfDate(Exception):
    """The database's schema is not the one that this program was written for."""

    def __init__(self, has: str | None, needs: str | None) -> None:
        super().__init__(
            f"the database's schema is at revision {has or 'none'}, this program needs {needs}: run `ais migrate`"
        )


class SchemaIncomplete(SchemaOutOfDate):
    """Parts of the schema are gone, which no migration brings back: it would come back empty, and nobody would know."""

    def __init__(self, what: str) -> None:
        Exception.__init__(
            self,
            f"the database is incomplete: {what}. Nothing was changed. Restore the whole backup (pg_restore into an empty "
            "database); where there is none, give AIS_DATABASE_URL a new, empty database and run `ais migrate`. "
            "See docs/runbook.md, The database is lost",
        )


class SchemaNewer(SchemaOutOfDate):
    """The database was brought up by a newer program than this one."""

    def __init__(self, why: str) -> None:
        Exception.__init__(self, f"the database is newer than this program ({why}): install the newer version of AIS")


def upgrade(url: str) -> None:
    """Brings the schema to the newest revision, all or nothing. Of two at once, the second waits and finds it done.

    SchemaIncomplete where parts of it are gone, DatabaseUnavailable where nobody answers.
    """
    with _transaction(url, UPGRADE_SECONDS) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        _refuse_remains(connection)
        config = alembic_config()
        config.attributes["connection"] = connection
        with _told_as_incomplete():
            command.upgrade(config, "head")
        _refuse_gaps(connection)


def check(url: str) -> None:
    """Returns where the schema is the newest and whole; SchemaOutOfDate or SchemaIncomplete where not, DatabaseUnavailable
    where nobody answers."""
    needs = ScriptDirectory.from_config(alembic_config()).get_current_head()
    with _transaction(url, CHECK_SECONDS) as connection:
        _refuse_remains(connection)
        has = _revision(connection)
        if has != needs:
            raise SchemaOutOfDate(has, needs)
        _refuse_gaps(connection)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_remains(connection: Connection) -> None:
    """Tables of ours without the note of their revision: somebody dropped or restored one schema of two."""
    if connection.scalar(text("SELECT current_schema()")) is None:
        raise SchemaIncomplete(
            "the schema `public` is gone, or this user may not use it (CREATE SCHEMA public makes one)"
        )
    if _revision(connection) is None and (left := sorted(_columns(connection).keys() & metadata.tables.keys())):
        raise SchemaIncomplete(f"{_few(left)} exist, but the table alembic_version does not record their revision")


def _refuse_gaps(connection: Connection) -> None:
    found, gaps = _columns(connection), []
    for name, table in metadata.tables.items():
        if name not in found:
            gaps.append(f"table {name}")
        else:
            gaps += [f"column {name}.{column.name}" for column in table.columns if column.name not in found[name]]
    if gaps:
        raise SchemaIncomplete(f"missing: {_few(gaps)}")


def _columns(connection: Connection) -> dict[str, set[str]]:
    """The columns of every table in the schemas that ours live in."""
    inspector, found = inspect(connection), dict[str, set[str]]()
    for schema in {table.schema for table in metadata.tables.values()}:
        for (_, name), columns in inspector.get_multi_columns(schema=schema).items():
            found[f"{schema}.{name}" if schema else name] = {column["name"] for column in columns}
    return found


def _few(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


@contextmanager
def _told_as_incomplete() -> Iterator[None]:
    """A migration that finds what it changes not there, or what it makes there already."""
    try:
        yield
    except CommandError as error:
        raise SchemaNewer(str(error)) from error
    except ProgrammingError as error:
        raise SchemaIncomplete(f"a migration cannot be applied to it ({str(error).splitlines()[0][:200]})") from error


def alembic_config() -> Config:
    """Alembic's configuration, without a file: the migrations lie beside this module."""
    config = Config()
    # Alembic reads `%` in its options as a reference.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _transaction(url: str, timeout_seconds: float) -> Iterator[Connection]:
    engine = make_engine(url, timeout_seconds, "ais migrate", poolclass=NullPool)
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        translated = unavailable(error)
        if translated is None:
            raise
        raise translated from error
    finally:
        engine.dispose()
