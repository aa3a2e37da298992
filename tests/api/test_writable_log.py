"""`db_connected` means that a row could be written: tried on a real PostgreSQL, which answers readers all the while."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from api import reporting
from api.reporting import PostgresReports
from domain.trading.decisions import Decision
from storage.database import Database, DatabaseUnavailable
from storage.decisions import DecisionFilter, insert_decisions
from tests.api.world import World, make_decision
from tests.postgres import Server, plain_url

MAIN = DecisionFilter(desk="main")


class Log:
    """A database with one decision, the API's eyes on it, and an administrator."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = make_url(url).database or ""
        self.reports = PostgresReports(url)
        self.admin = psycopg.connect(plain_url(url), autocommit=True)

    def do(self, *statements: str) -> None:
        """Runs statements; `{name}` is the database. Then everybody has to connect anew."""
        for statement in statements:
            self.admin.execute(sql.SQL(statement).format(name=sql.Identifier(self.name)))
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        self.admin.execute(ends, [self.name])

    def size(self) -> int:
        """Bytes of every table, those of the catalogue too. (A file of PostgreSQL's own cache comes and goes beside them.)"""
        sizes = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind IN ('r', 'm')"
        found = self.admin.execute(sizes).fetchone()
        assert found
        return int(found[0])

    def close(self) -> None:
        self.reports.close()
        self.admin.close()


async def write(url: str, *rows: Decision) -> None:
    writer = Database(url, threads=1, application_name="test")
    await writer.run(lambda connection: insert_decisions(connection, rows))
    writer.close()


@pytest.fixture
async def log(new_database_url: Callable[[], str]) -> Iterator[Log]:  # type: ignore[misc]
    url = new_database_url()
    await write(url, make_decision(1, desk="main"))
    found = Log(url)
    yield found
    found.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is not remembered, but for the tests of just that."""
    monkeypatch.setattr(reporting, "FAILED_SECONDS", 0.0)


pytestmark = pytest.mark.usefixtures("at_once")

READ_ONLY = "ALTER DATABASE {name} SET default_transaction_read_only = on"


async def test_a_server_that_takes_no_writes_is_not_connected_and_still_read(world: World, log: Log) -> None:
    world.reports.log, world.reports.can_write = log.reports, log.reports.can_write  # type: ignore[method-assign]
    assert (await world.stranger.get("/health")).json()["db_connected"] is True
    log.do(READ_ONLY)
    found = (await world.stranger.get("/health")).json()
    assert (found["status"], found["db_connected"]) == ("degraded", False)
    assert len((await log.reports.page(MAIN))[0]) == 1
    log.do("SET default_transaction_read_only = off", "ALTER DATABASE {name} RESET default_transaction_read_only")
    assert (await world.stranger.get("/health")).json()["db_connected"] is True
    del world.reports.can_write


NEEDED = (
    "INSERT ON decisions",
    "INSERT ON instructions",
    "UPDATE ON instructions",
    "UPDATE ON desks",
    "INSERT ON kills",
    "USAGE ON SEQUENCE decisions_written",
)


async def test_missing_rights_are_not_connected(log: Log) -> None:
    role = f"clerk_{log.name}"
    log.do(
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
        f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT USAGE ON SEQUENCE decisions_written TO {role}",
    )
    url = make_url(log.url).set(username=role, password="x").render_as_string(hide_password=False)
    reports = PostgresReports(url)
    for right in NEEDED:
        assert await reports.can_write(), right
        log.do(f"REVOKE {right} FROM {role}")
        assert not await reports.can_write(), right
        log.do(f"GRANT {right} TO {role}")
    reports.close()


async def test_a_failure_is_remembered_for_a_second_and_costs_the_server_one_statement(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody may ask for health, and each failure is a line in PostgreSQL's own log."""
    monkeypatch.setattr(reporting, "FAILED_SECONDS", 60.0)
    log.do("ALTER TABLE decisions RENAME TO gone", "ALTER TABLE installation RENAME TO gone_too")
    before = _rolled_back(log)
    for _ in range(50):
        assert not await log.reports.can_write()
        assert await log.reports.database_id() is None
    log.reports.close()
    log.do("SELECT 1")
    assert _rolled_back(log) - before <= 4
    log.do("ALTER TABLE gone RENAME TO decisions")


def _rolled_back(log: Log) -> int:
    """Transactions that failed, as far as their connections have ended."""
    found = log.admin.execute("SELECT xact_rollback FROM pg_stat_database WHERE datname = %s", [log.name]).fetchone()
    assert found
    return int(found[0])


async def test_a_full_disk_is_worked_on_once_a_second_at_most(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[object] = []

    def fail(connection: object) -> None:
        tries.append(connection)
        raise DatabaseUnavailable("No space left on device")

    monkeypatch.setattr(reporting, "FAILED_SECONDS", 60.0)
    monkeypatch.setattr(reporting, "try_to_grow", fail)
    for _ in range(20):
        assert not await log.reports.can_write()
    assert len(tries) == 1


async def test_health_answers_where_the_databases_id_may_not_be_read(world: World, log: Log) -> None:
    role = f"blind_{log.name}"
    log.do(
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
        f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT USAGE ON SEQUENCE decisions_written TO {role}",
        f"REVOKE SELECT ON installation FROM {role}",
    )
    reports = PostgresReports(make_url(log.url).set(username=role, password="x").render_as_string(hide_password=False))
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(world.reports, "can_write", reports.can_write)
        patching.setattr(world.reports, "database_id", reports.database_id)
        answer = await world.stranger.get("/health")
    assert (answer.status_code, answer.json()["db_connected"]) == (200, True)
    reports.close()


async def test_a_database_without_tables_is_not_connected(postgres: Server) -> None:
    reports = PostgresReports(postgres.create_database())
    assert not await reports.can_write()
    reports.close()


async def test_a_log_that_is_locked_is_not_connected(log: Log) -> None:
    with psycopg.connect(plain_url(log.url)) as other:
        other.execute("LOCK TABLE decisions IN ACCESS EXCLUSIVE MODE")
        assert not await log.reports.can_write()
    assert await log.reports.can_write()


async def test_a_hundred_probes_leave_nothing_behind(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "SPACE_SECONDS", 0.0)
    assert await log.reports.can_write()
    log.admin.execute("VACUUM")
    before, numbers = log.size(), _next_transaction(log)
    for _ in range(100):
        assert await log.reports.can_write()
    assert log.size() == before
    assert _next_transaction(log) == numbers, "a probe took the number of a transaction"
    assert len((await log.reports.page(MAIN))[0]) == 1


def _next_transaction(log: Log) -> str:
    found = log.admin.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
    assert found
    return str(found[0])


@contextmanager
def small_disk(server: Server, megabytes: int) -> Iterator[Path]:
    """A file system of a few megabytes that the server may write to."""
    folder = server.folder / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        owner = (server.folder / "data").stat()
        place = folder / "space"
        place.mkdir(mode=0o700)
        subprocess.run(["chown", f"{owner.st_uid}:{owner.st_gid}", str(place)], check=True)
        yield place
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_is_not_connected(
    postgres: Server, new_database_url: Callable[[], str], tmp_path: Path
) -> None:
    with small_disk(postgres, 64) as place:
        url = new_database_url()
        await write(url, make_decision(1, desk="main"))
        log = Log(url)
        with psycopg.connect(plain_url(postgres.url), autocommit=True) as server:
            server.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(place))))
            log.do("SELECT 1")
            log.admin.close()
            move = sql.SQL("ALTER DATABASE {} SET TABLESPACE {}")
            server.execute(move.format(sql.Identifier(log.name), sql.Identifier("small")))
            elsewhere = sql.SQL("ALTER DATABASE {} SET temp_tablespaces = pg_default")
            server.execute(elsewhere.format(sql.Identifier(log.name)))
            assert await log.reports.can_write()
            junk = place / "junk"
            _fill(junk)
            log.reports._space_known_until = 0.0
            assert not await log.reports.can_write()
            junk.unlink()
            assert await log.reports.can_write()
            log.reports.close()
            server.execute(move.format(sql.Identifier(log.name), sql.Identifier("pg_default")))
            server.execute("DROP TABLESPACE small")


def _fill(file: Path) -> None:
    """Until the file system takes nothing more."""
    with file.open("wb", buffering=0) as opened, suppress(OSError):
        while True:
            opened.write(b"x" * 4096)
