"""The schema: brought up to date once however many try, and checked before anybody works with it."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import NullPool, create_engine, inspect, text

from storage import migrate, tables
from storage.database import DatabaseUnavailable
from tests.postgres import Server


def test_an_empty_database_is_refused_with_what_to_do(postgres: Server) -> None:
    with pytest.raises(migrate.SchemaOutOfDate, match=r"revision none, this program needs \d+: run `ais migrate`"):
        migrate.check(postgres.create_database())


def test_two_upgrades_at_once_are_safe(postgres: Server) -> None:
    url = postgres.create_database()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate.upgrade, [url] * 4))
    migrate.check(url)
    migrate.upgrade(url)


def test_a_revision_that_this_program_does_not_know_is_refused(postgres: Server) -> None:
    url = postgres.create_database()
    migrate.upgrade(url)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(migrate.SchemaOutOfDate, match="revision 9999"):
        migrate.check(url)


def test_the_migrations_make_exactly_the_tables_that_the_code_names(database_url: str) -> None:
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_schemas": True, "compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_the_way_back_leaves_nothing(postgres: Server) -> None:
    url = postgres.create_database()
    migrate.upgrade(url)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        config = migrate.alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
        assert "paper" not in inspect(connection).get_schema_names()


def test_a_server_that_is_not_there_is_an_outage(tmp_path: Path) -> None:
    for call in (migrate.check, migrate.upgrade):
        with pytest.raises(DatabaseUnavailable):
            call(f"postgresql://postgres@/none?host={tmp_path}")


def test_a_hung_server_is_an_outage_within_seconds(postgres: Server, database_url: str) -> None:
    started = time.monotonic()
    with postgres.hung(), pytest.raises(DatabaseUnavailable):
        migrate.check(database_url)
    assert time.monotonic() - started < 4
