"""Brings the schema up to date, and refuses to work with one that is not.

The recorded revision alone proves nothing. The incident behind this file: after a partial restore, without some of the tables,
`ais migrate` said "up to date". So the tables and columns that exist are compared with those that should.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, NullPool, inspect, text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from storage import indexes, rights, totals
from storage.blockers import Blocker, BlockerWatch, watched
from storage.database import DatabaseUnavailable, make_engine, unavailable
from storage.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
CHECK_SECONDS = 5.0
UPGRADE_SECONDS = 300.0
# A change waits this long for a table that others use. It then gives up, pauses so that they can go on, and tries again.
TRY_LOCK_MS = 1_000
PAUSE_SECONDS = 2.0
LOCK_SECONDS = 150.0
MAX_NAMED = 12
OLDEST_SERVER = 16
"""The oldest PostgreSQL that can verify the audit chain (`pg_input_is_valid`)."""
# The revision that begins the audit chain.
_AUDIT_REVISION = "0013"
_COUNTED = frozenset({"decisions", "instructions", "desks"})
_LOCK_KEY = 0x4149_5301
_NOT_THE_OWNER = "42501"
# Lock timeout, and deadlock.
_LOCKED = frozenset({"55P03", "40P01"})


class SchemaOutOfDate(Exception):
    """The database's schema is not the one that this program was written for."""

    def __init__(self, has: str | None, needs: str | None) -> None:
        super().__init__(
            f"the database's schema is at revision {has or 'none'}, this program needs {needs}: run `ais migrate`"
        )


class SchemaIncomplete(SchemaOutOfDate):
    """Parts of the schema are gone. No migration makes them again: they would be empty, and nobody would notice."""

    def __init__(self, what: str) -> None:
        Exception.__init__(
            self,
            f"the database is incomplete: {what}. Nothing was changed. Restore the whole backup (pg_restore into an empty "
            "database); if there is no backup, give AIS_DATABASE_URL a new, empty database and run `ais migrate`. "
            "See docs/runbook.md, The database is lost",
        )


class SchemaUnfinished(SchemaOutOfDate):
    """Indexes for reports are not built yet. Everything else works without them."""

    def __init__(self, lacking: list[str]) -> None:
        Exception.__init__(self, f"the database lacks {_few(lacking)}: run `ais migrate`, or wait until it has ended")


class SchemaNewer(SchemaOutOfDate):
    """A newer program than this one has migrated the database."""

    def __init__(self, why: str) -> None:
        Exception.__init__(self, f"the database is newer than this program ({why}): install the newer version of AIS")


class TablesInUse(DatabaseUnavailable):
    """Other sessions have used the tables for as long as the change could wait."""

    def __init__(self, blockers: list[Blocker]) -> None:
        super().__init__(
            f"the schema cannot be changed while other sessions use its tables: {_named(blockers)}. Nothing was changed. Wait "
            "until they have ended, or end them (SELECT pg_terminate_backend(pid)), and run `ais migrate` again"
        )


def _say_nothing(text: str) -> None:
    """Tells nobody."""


def upgrade(url: str, tell: Callable[[str], None] = _say_nothing) -> None:
    """Brings the schema to the newest revision, then builds what only reports need. `tell` hears of waits and lesser failures.

    Raises SchemaIncomplete if parts of the schema are gone, DatabaseUnavailable if the database does not answer.
    """
    upgrade_schema(url, tell)
    finish(url, tell)


def upgrade_schema(url: str, tell: Callable[[str], None] = _say_nothing) -> None:
    """Makes what a worker needs, all or nothing. If two run at once, the second one waits and finds it done.

    Raises TablesInUse if other transactions have been in the way for LOCK_SECONDS.
    """
    with connections(url, UPGRADE_SECONDS) as engine, engine.connect() as connection:
        with connection.begin():
            waiting = connection.scalar(text("SELECT pg_backend_pid()"))
            if (version := server_version(connection)) < OLDEST_SERVER:
                tell(too_old_text(version))
        with watched(engine, waiting) as watch:
            _upgrade_patiently(connection, watch, tell)


def _upgrade_patiently(connection: Connection, watch: BlockerWatch, tell: Callable[[str], None]) -> None:
    """Upgrades in short attempts: while a change waits for a table, every desk that wants it queues up behind the change."""
    until, named, audited = time.monotonic() + LOCK_SECONDS, "", None
    while True:
        try:
            if audited is None and (audited := _audited(connection)) is not None:
                # The time for counting does not count as waiting.
                until = time.monotonic() + LOCK_SECONDS
            with connection.begin():
                _upgrade(connection, audited)
            return
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in _LOCKED:
                raise
            if time.monotonic() > until:
                raise TablesInUse(watch.seen) from error
        if (who := _named(watch.seen)) != named:
            tell(f"Waiting for sessions that use the tables: {who}.")
            named = who
        time.sleep(PAUSE_SECONDS)


def _audited(connection: Connection) -> Any:
    """What the audit chain begins with; None if the chain has begun already, or begins with empty tables.

    It counts in a separate transaction. In the upgrade's, a kill's latch would have to wait, once an older revision has changed
    the table `desks`.
    """
    with connection.begin():
        revision = _revision(connection)
        if revision is None or revision >= _AUDIT_REVISION or not _columns(connection).keys() >= _COUNTED:
            return None
        from alembic.script import ScriptDirectory

        # It locks nothing that a desk needs. With many rows it takes long.
        connection.execute(text(f"SET LOCAL lock_timeout = '{TRY_LOCK_MS}ms'; SET LOCAL statement_timeout = 0"))
        return ScriptDirectory.from_config(alembic_config()).get_revision(_AUDIT_REVISION).module.counted(connection)


def _upgrade(connection: Connection, audited: Any) -> None:
    from alembic import command
    from alembic.util import CommandError

    # No table is locked yet, so this may wait for as long as the other `ais migrate` takes.
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    connection.execute(text(f"SET LOCAL lock_timeout = '{TRY_LOCK_MS}ms'"))
    _refuse_remains(connection)
    config = alembic_config()
    config.attributes |= {"connection": connection, "audited": audited}
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaNewer(str(error)) from error
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == _NOT_THE_OWNER:
            first = str(error.orig).splitlines()[0][:200]
            raise DatabaseUnavailable(
                f"PostgreSQL: {first} (run `ais migrate` as the role that owns the tables)"
            ) from error
        # What the migration changes is missing, or what it makes exists already.
        first = str(error).splitlines()[0][:200]
        raise SchemaIncomplete(f"a migration cannot be applied to it ({first})") from error
    _refuse_gaps(connection)


def finish(url: str, tell: Callable[[str], None] = _say_nothing) -> None:
    """Makes what only reports need: indexes and totals. With many rows it takes long."""
    with connections(url, UPGRADE_SECONDS) as engine, engine.connect() as connection:
        indexes.build(connection.execution_options(isolation_level="AUTOCOMMIT"))
    try:
        add_up(url)
    except Exception as error:  # whatever it is: reports are right without totals
        tell(f"The totals were not brought up to date, so reports take longer ({str(error).splitlines()[0][:200]}).")


def grant(url: str, role: str) -> None:
    """Gives the role of worker and API its rights. `url` is that of the tables' owner. Raises NotGranted if it cannot."""
    with _transaction(url, CHECK_SECONDS) as connection:
        rights.grant(connection, role)


def add_up(url: str) -> None:
    """Brings the totals of every account up to date, in transactions so short that no desk notices.

    Raises DatabaseUnavailable if the database does not answer.
    """
    with connections(url, CHECK_SECONDS) as engine:
        with engine.begin() as connection:
            found = totals.accounts(connection)
        for account in found:
            more = True
            while more:
                with engine.begin() as connection:
                    more = totals.extend(connection, account)


def check(url: str) -> None:
    """Checks that the schema is the newest and complete.

    Raises SchemaOutOfDate or one of its kinds if it is not, DatabaseUnavailable if the database does not answer.
    """
    needs = newest_revision()
    with _transaction(url, CHECK_SECONDS) as connection:
        _refuse_remains(connection)
        has = _revision(connection)
        if has is not None and has > needs:
            raise SchemaNewer(f"its schema is at revision {has}, this program knows {needs}")
        if has != needs:
            raise SchemaOutOfDate(has, needs)
        _refuse_gaps(connection)
        if lacking := indexes.missing(connection):
            raise SchemaUnfinished(lacking)


def server_version(connection: Connection) -> int:
    """The server's major version."""
    return int(connection.scalar(text("SHOW server_version_num")) or 0) // 10_000


def too_old_text(version: int) -> str:
    """What does not work on this version, for people."""
    return f"PostgreSQL {version} cannot verify the audit chain, so a break goes unreported: {OLDEST_SERVER} can."


def newest_revision() -> str:
    """The revision that this program needs, from the names of its migrations. Alembic is not used for this: importing it would
    take a twentieth of a worker's start.
    """
    return max(path.stem[1:5] for path in (MIGRATIONS / "versions").glob("r[0-9]*_*.py"))


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _refuse_remains(connection: Connection) -> None:
    """Refuses tables of ours without a recorded revision: somebody dropped or restored one of the two schemas."""
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
    """The columns of every table in our schemas."""
    inspector, found = inspect(connection), dict[str, set[str]]()
    for schema in {table.schema for table in metadata.tables.values()}:
        for (_, name), columns in inspector.get_multi_columns(schema=schema).items():
            found[f"{schema}.{name}" if schema else name] = {column["name"] for column in columns}
    return found


def _few(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _named(blockers: list[Blocker]) -> str:
    return _few([str(blocker) for blocker in blockers]) or "not known who"


def alembic_config() -> "Config":
    """Alembic's configuration, without a file. The migrations are beside this module."""
    from alembic.config import Config

    config = Config()
    # Alembic reads `%` in its options as a reference.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _transaction(url: str, timeout_seconds: float) -> Iterator[Connection]:
    with connections(url, timeout_seconds) as engine, engine.begin() as connection:
        yield connection


@contextmanager
def connections(url: str, timeout_seconds: float) -> Iterator[Engine]:
    """An engine for the block. If the database does not answer within it, this raises DatabaseUnavailable."""
    engine = make_engine(url, timeout_seconds, "ais migrate", poolclass=NullPool)
    try:
        yield engine
    except DBAPIError as error:
        translated = unavailable(error)
        if translated is None:
            raise
        raise translated from error
    finally:
        engine.dispose()
