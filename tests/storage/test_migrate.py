"""The schema: brought up to date once however many try, and checked before anybody works with it."""

import ast
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect, text

from domain.accounting import HoldingKey, folded
from domain.audit import AuditKind
from domain.trading.market import Market
from storage import decisions, indexes, migrate, paper, tables
from storage.audit import verifying
from storage.audit.chain import AuditEntry, append
from storage.audit.verifying import Verification
from storage.database import DatabaseUnavailable
from tests.deploy.dev_stack import ais
from tests.house.sources import sources
from tests.postgres import Server, plain_url
from tests.storage.builders import NOW

THOROUGH = partial(pytest.param, marks=pytest.mark.thorough)


def test_an_empty_database_is_refused_with_what_to_do(postgres: Server) -> None:
    with pytest.raises(migrate.SchemaOutOfDate, match=r"revision none, this program needs \d+: run `ais migrate`"):
        migrate.check(postgres.create_database())


def test_a_server_that_is_too_old_is_named(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[str]()
    monkeypatch.setattr(migrate, "OLDEST_SERVER", 99)
    migrate.upgrade(postgres.create_database(), told.append)
    assert any("cannot verify the audit chain" in line for line in told)


def test_two_upgrades_at_once_are_safe(postgres: Server) -> None:
    url = postgres.create_database()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate.upgrade, [url] * 4))
    migrate.check(url)
    migrate.upgrade(url)


def test_a_revision_that_this_program_does_not_know_is_refused(new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        migrate.SchemaNewer, match=r"at revision 9999, this program knows \d+\): install the newer version"
    ):
        migrate.check(url)
    with pytest.raises(migrate.SchemaNewer, match="newer than this program"):
        migrate.upgrade(url)


def test_the_migrations_make_exactly_the_tables_that_the_code_names(database_url: str) -> None:
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_schemas": True, "compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_the_newest_migration_is_known_without_the_tool_that_applies_them() -> None:
    assert migrate.newest_revision() == ScriptDirectory.from_config(migrate.alembic_config()).get_current_head()
    assert indexes.definitions().keys() == {index.name for index in tables.decisions.indexes}


def test_no_module_but_the_migrations_imports_that_tool_when_it_is_imported() -> None:
    ours = [source for source in sources() if not source.name.startswith("storage/migrations/")]
    # The others need not be parsed.
    named = [source for source in ours if re.search("alembic|migrations", source.path.read_text())]
    assert len(ours) > 100
    assert "storage/migrate.py" in {source.name for source in named}
    at_once = [(source.name, ast.unparse(node)) for source in named for node in source.tree.body if is_import(node)]
    assert not [each for each in at_once if each[1].split()[1].startswith(("alembic", "storage.migrations"))]


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


# Three seconds of the processor; whichever of our modules imports the tool fails the test above.
@pytest.mark.thorough
def test_neither_worker_nor_api_has_imported_that_tool() -> None:
    imported = "import sys, worker, api.app; print([name for name in sys.modules if name.startswith('alembic')])"
    told = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        THOROUGH("DROP TABLE kills, paper.ledger", "missing: table kills, table paper.ledger"),
        ("ALTER TABLE desks DROP COLUMN kill_id", "missing: column desks.kill_id"),
        ("DROP SCHEMA public CASCADE", "the schema `public` is gone"),
        THOROUGH("DROP SCHEMA public CASCADE; CREATE SCHEMA public", "paper.accounts"),
        THOROUGH("DROP TABLE alembic_version", "table alembic_version"),
        THOROUGH(
            "UPDATE alembic_version SET version_num = '0003'; DROP TABLE paper.clocks",
            "a migration cannot be applied to it",
        ),
    ],
)
def test_what_is_not_whole_is_refused_by_name_and_left_alone(
    new_database_url: Callable[[], str], damage: str, told: str
) -> None:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(damage))
    with pytest.raises(migrate.SchemaIncomplete) as refused:
        migrate.upgrade(url)
    assert told in str(refused.value)
    assert "Restore the whole backup" in str(refused.value)
    with pytest.raises(migrate.SchemaOutOfDate):
        migrate.check(url)


def test_the_command_tells_what_is_not_whole_in_one_line(new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("ALTER TABLE desks DROP COLUMN kill_id"))
    done = ais("migrate", cwd=Path.cwd(), AIS_DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "missing: column desks.kill_id" in done.stderr


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
        clock = paper.MarketClock(desk="main", bar_no=3, cycle_id=None, advanced_at=NOW, bar_time=None)
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


OLD_LOG = """
INSERT INTO decisions SELECT 'd' || n, '2026-03-12'::timestamptz + n * interval '1 second', 'order_intent', '',
    CASE WHEN n % 2 = 0 THEN '{"momentum": 1}' ELSE '{}' END::jsonb, NULL, NULL, true, '[]', 'main', 'BTCUSDT', 'c' || n, 1
FROM generate_series(1, 9) n;
INSERT INTO decision_agents SELECT 'momentum', timestamp, decision_id FROM decisions WHERE agent_votes <> '{}'
"""
# As the version before wrote its rows.
OLD_ROW = """
INSERT INTO decisions
VALUES ('late', '2026-03-13', 'no_action', '', '{"carry": 1}', NULL, NULL, NULL, '[]', 'main', NULL, NULL, 1);
INSERT INTO decision_agents VALUES ('carry', '2026-03-13', 'late') ON CONFLICT DO NOTHING
"""


def test_a_chain_begins_with_what_was_counted_before_anything_was_locked(postgres: Server) -> None:
    url = postgres.create_database()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        move(connection, command.upgrade, "0004")
        connection.execute(text(OLD_LOG))
        connection.execute(text(OLD_ROW.replace("'2026-03-13'", "now()")))
    seen: list[str] = []

    def listen(*args: Any) -> None:
        seen.append(args[2])

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        migrate.upgrade(url)
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
    counts = [place for place, statement in enumerate(seen) if "FROM decisions GROUP BY desk" in statement]
    assert len(counts) == 1
    assert counts[0] < next(place for place, statement in enumerate(seen) if "ALTER TABLE" in statement)
    with engine.connect() as connection:
        kind, body = connection.execute(text("SELECT kind, body::jsonb FROM audit")).one()
    # The last one is of this hour: a worker of the version before could still have it in its hands.
    assert (kind, body.pop("until")[:2], body) == ("chain_begun", "20", {"decisions": 9, "instructions": 0})


def test_a_log_of_the_old_version_goes_on_in_the_new_one(postgres: Server) -> None:
    url = postgres.create_database()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        move(connection, command.upgrade, "0009")
        connection.execute(text(OLD_LOG))
        # So far a migration comes whose process dies before the indexes.
        move(connection, command.upgrade, "head")
    with pytest.raises(migrate.SchemaOutOfDate, match=r"lacks .*decisions_of_desk, .*: run `ais migrate`"):
        migrate.check(url)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(migrate.upgrade, [url] * 3))
    migrate.check(url)
    with engine.begin() as connection:
        assert not [name for name in index_names(connection) if name.startswith("decisions_by_")]
        connection.execute(text(OLD_ROW))
        assert agents_page(connection, "momentum") == ["d8", "d6", "d4", "d2"]
        assert agents_page(connection, "carry") == ["late"]
        votes = connection.execute(
            text("SELECT agent_id, decision_id FROM decision_agents ORDER BY timestamp DESC LIMIT 2")
        )
        assert votes.all() == [("carry", "late"), ("momentum", "d8")]
    migrate.upgrade(url)
    with engine.begin() as connection:
        move(connection, command.downgrade, "0009")
        assert connection.scalar(text("SELECT count(*) FROM decision_agents")) == 5
        assert "decisions_by_type" in index_names(connection)
    migrate.upgrade(url)
    migrate.check(url)


def test_a_chain_goes_on_whichever_version_appends_to_it(new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    entries = [AuditEntry("main", AuditKind.EXPORT, subject, "{}") for subject in ("é", "", '{"a\\",NULL}')]
    for step, revision in ((command.downgrade, "0015"), (command.upgrade, "head"), (command.downgrade, "0015")):
        with engine.begin() as connection:
            move(connection, step, revision)
        with engine.begin() as connection:
            assert append(connection, entries)
    found = Verification()
    with verifying.snapshot(engine) as connection:
        verifying.verify_desk(connection, "main", None, found, lambda rows: None)
        asked = "SELECT has_function_privilege('public', 'audit_append(text, text[], text[], text[])', 'EXECUTE')"
        assert connection.scalar(text(asked)) is False
    assert (found.faults, found.rows) == ([], 9)


def test_an_index_that_was_left_half_built_is_built_anew(new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        broken = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'decisions_of_group'::regclass"
        connection.execute(text(broken))
    with pytest.raises(migrate.SchemaOutOfDate, match="lacks decisions_of_group"):
        migrate.check(url)
    migrate.upgrade(url)
    migrate.check(url)


def test_the_schema_alone_can_be_brought_up_first(postgres: Server) -> None:
    url = postgres.create_database()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        move(connection, command.upgrade, "0009")
        connection.execute(text(OLD_LOG))
    assert ais("migrate", "--schema-only", cwd=Path.cwd(), AIS_DATABASE_URL=url).returncode == 0
    with engine.begin() as connection:
        assert "decisions_of_group" not in index_names(connection)
    migrate.upgrade(url)
    with engine.begin() as connection:
        assert "decisions_of_group" in index_names(connection)
    migrate.check(url)


def test_a_reader_that_does_not_end_is_named_and_holds_up_no_writer(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.create_database()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        move(connection, command.upgrade, "0009")
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0)
    told: list[str] = []
    with psycopg.connect(plain_url(url), application_name="a long report") as reader:
        reader.execute("SELECT count(*) FROM decision_agents")
        named = rf"pid {reader.info.backend_pid} \(a long report, since 20\S+\)"
        with pytest.raises(migrate.TablesInUse, match=f"{named}. Nothing was changed"):
            migrate.upgrade(url)
        monkeypatch.setattr(migrate, "LOCK_SECONDS", 60)
        with ThreadPoolExecutor(1) as thread:
            upgrade = thread.submit(migrate.upgrade, url, told.append)
            # Longer than a try lasts: whoever waits for one try gets on in the pause after it.
            for number in range(20):
                with engine.begin() as connection:
                    connection.execute(text("SET LOCAL lock_timeout = '5s'"))
                    connection.execute(text(OLD_LOG.replace("'d'", f"'{number}-'").partition(";")[0]))
                time.sleep(0.1)
            assert not upgrade.done()
            reader.rollback()
            upgrade.result(60)
    assert re.search(named, told[0])
    migrate.check(url)


def test_every_migration_notes_the_voters_that_are_missing(new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE decisions DISABLE TRIGGER USER"))
        connection.execute(text(OLD_LOG.partition(";")[0]))
        connection.execute(text("ALTER TABLE decisions ENABLE TRIGGER USER"))
        assert agents_page(connection, "momentum") == []
    migrate.upgrade(url)
    with engine.begin() as connection:
        assert agents_page(connection, "momentum") == ["d8", "d6", "d4", "d2"]


def agents_page(connection: Connection, agent: str) -> list[str]:
    rows, _ = decisions.page(connection, decisions.DecisionFilter(desk="main", agent_id=agent))
    return [row.decision_id for row in rows]


def index_names(connection: Connection) -> set[str]:
    return {str(index["name"]) for index in inspect(connection).get_indexes("decisions")}


def move(connection: Connection, step: Callable[[Config, str], None], revision: str) -> None:
    config = migrate.alembic_config()
    config.attributes["connection"] = connection
    step(config, revision)


def test_the_way_back_leaves_nothing(new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        move(connection, command.downgrade, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
        assert "paper" not in inspect(connection).get_schema_names()


def test_a_server_that_is_not_there_is_an_outage(tmp_path: Path) -> None:
    for call in (migrate.check, migrate.upgrade):
        with pytest.raises(DatabaseUnavailable):
            call(f"postgresql://postgres@/none?host={tmp_path}")


def test_a_hung_server_is_an_outage(postgres: Server, database_url: str) -> None:
    with postgres.hung(), pytest.raises(DatabaseUnavailable):
        migrate.check(database_url)
