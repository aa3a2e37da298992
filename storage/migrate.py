"""Bringing the schema up to date, and refusing to work with one that is not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.exc import DBAPIError

from storage.database import make_engine, unavailable

MIGRATIONS = Path(__file__).parent / "migrations"
CHECK_SECONDS = 5.0
UPGRADE_SECONDS = 300.0
_LOCK_KEY = 0x4149_5301


class SchemaOutOfDate(Exception):
    """The database's schema is not the one that this program was written for."""

    def __init__(self, has: str | None, needs: str | None) -> None:
        super().__init__(
            f"the database's schema is at revision {has or 'none'}, this program needs {needs}: run `ais migrate`"
        )


def upgrade(url: str) -> None:
    """Brings the schema to the newest revision, all or nothing. Of two at once, the second waits and finds it done."""
    with _transaction(url, UPGRADE_SECONDS) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check(url: str) -> None:
    """Returns where the schema is the newest; SchemaOutOfDate where not, DatabaseUnavailable where nobody answers."""
    with _transaction(url, CHECK_SECONDS) as connection:
        has = MigrationContext.configure(connection).get_current_revision()
    needs = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if has != needs:
        raise SchemaOutOfDate(has, needs)


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
