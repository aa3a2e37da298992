"""The schema: brought up to date once however many try, and checked before anybody works with it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, NullPool, create_engine, inspect, text

from domain.accounting import HoldingKey, folded
from domain.market import Market
from storage import migrate, paper, tables
from storage.database import DatabaseUnavailable
from tests.deploy.dev_stack import ais
from tests.postgres import Server
from tests.storage.builders import NOW


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
    with pytest.raises(migrate.SchemaNewer, match="newer than this program"):
        migrate.upgrade(url)


def test_the_migrations_make_exactly_the_tables_that_the_code_names(database_url: str) -> None:
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_schemas": True, "compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DROP TABLE kills, paper.ledger", "missing: table kills, table paper.ledger"),
        ("ALTER TABLE desks DROP COLUMN kill_id", "missing: column desks.kill_id"),
        ("DROP SCHEMA public CASCADE", "the schema `public` is gone"),
        ("DROP SCHEMA public CASCADE; CREATE SCHEMA public", "paper.accounts"),
        ("DROP TABLE alembic_version", "table alembic_version"),
        (
            "UPDATE alembic_version SET version_num = '0003'; DROP TABLE paper.clocks",
            "a migration cannot be applied to it",
        ),
    ],
)
def test_what_is_not_whole_is_refused_by_name_and_left_alone(postgres: Server, damage: str, told: str) -> None:
    url = postgres.create_database()
    migrate.upgrade(url)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(damage))
    with pytest.raises(migrate.SchemaIncomplete) as refused:
        migrate.upgrade(url)
    assert told in str(refused.value)
    assert "Restore the whole backup" in str(refused.value)
    with pytest.raises(migrate.SchemaOutOfDate):
        migrate.check(url)
    done = ais("migrate", cwd=Path.cwd(), AIS_DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert told in done.stderr


def test_tables_of_others_beside_ours_are_none_of_our_business(postgres: Server) -> None:
    url = postgres.create_database()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("CREATE TABLE theirs (x int)"))
    migrate.upgrade(url)
    migrate.check(url)


OLD_WORLD = """
INSERT INTO paper.accounts VALUES ('main', 9994.95), ('idle', 500);
INSERT INTO paper.positions VALUES ('main', 'futures', 'BTCUSDT', 1, 100), ('main', 'spot', 'ETHUSDT', 0, 0);
INSERT INTO paper.orders (order_id, desk, market, symbol, side, order_type, quantity, price, reduce_only, status,
    filled_quantity, average_price, reason, not_after, created_at, bar_no) VALUES
    ('a', 'main', 'futures', 'BTCUSDT', 'BUY', 'MARKET', 2, NULL, false, 'filled', 2, 100, '', '2999-01-01', now(), 3),
    ('b', 'main', 'futures', 'BTCUSDT', 'SELL', 'MARKET', 1, NULL, false, 'filled', 1, 95, '', '2999-01-01', now(), 3),
    ('c', 'main', 'futures', 'BTCUSDT', 'BUY', 'LIMIT', 1, 90, false, 'open', 0, NULL, '', '2999-01-01', now(), 3);
INSERT INTO paper.fills (fill_id, order_id, desk, market, symbol, side, quantity, price, fee, realised_profit, filled_at,
    bar_no) VALUES
    ('a:1', 'a', 'main', 'futures', 'BTCUSDT', 'BUY', 2, 100, 0.02, 0, now(), 3),
    ('b:1', 'b', 'main', 'futures', 'BTCUSDT', 'SELL', 1, 95, 0.03, -5, now(), 3);
"""


def test_an_account_of_the_old_version_goes_on_in_the_new_one(postgres: Server) -> None:
    url = postgres.create_database()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        move(connection, command.upgrade, "0002")
        connection.execute(text(OLD_WORLD))
    migrate.upgrade(url)
    with engine.begin() as connection:
        clock = paper.Clock(desk="main", bar_no=3, cycle_id=None, advanced_at=NOW, bar_time=None)
        book = paper.load_book(connection, clock, {})
        held = book.held(HoldingKey(Market.FUTURES, "BTCUSDT"))
        assert (held.realised_profit, held.fees, held.funding) == (Decimal(-5), Decimal("0.05"), Decimal(0))
        assert book.taken == {"BTCUSDT": 3}
        (waiting,) = book.open_orders
        assert (waiting.order_id, waiting.fills, waiting.time_in_force) == ("c", 0, None)
        done = paper.find_order(connection, "b")
        assert done
        assert (done.fills, done.filled_value, done.average_price) == (1, Decimal(95), Decimal(95))
        account, idle = paper.find_account(connection, "main"), paper.find_account(connection, "idle")
        assert account
        assert idle
        assert (account.opening_balance, idle.opening_balance) == (Decimal(10_000), Decimal(500))
        assert folded("main", account.opening_balance, paper.list_records(connection, "main")).balance == book.balance
        move(connection, command.downgrade, "0002")
        assert connection.execute(text("SELECT count(*) FROM paper.orders")).scalar_one() == 3
    migrate.upgrade(url)


def move(connection: Connection, step: Callable[[Config, str], None], revision: str) -> None:
    config = migrate.alembic_config()
    config.attributes["connection"] = connection
    step(config, revision)


def test_the_way_back_leaves_nothing(postgres: Server) -> None:
    url = postgres.create_database()
    migrate.upgrade(url)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        move(connection, command.downgrade, "base")
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
