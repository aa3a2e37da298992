"""No wait without an end: a database that is dead, hung, restarted or overrun, and the calls that meet it."""

import asyncio
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError, ProgrammingError

from storage import installation
from storage.clock import server_time
from storage.database import Database, DatabaseUnavailable, WrongDatabase
from tests.postgres import Server, plain_url

TIMEOUT = 0.4
# What a call may take beyond its time-out on a busy machine.
# Only ends a broken test: what hangs here hangs for ever, and the machine may be busy.
SLACK = 30


@pytest.fixture(scope="module")
def url(database_url: str) -> str:
    with psycopg.connect(plain_url(database_url), autocommit=True) as connection:
        connection.execute("CREATE TABLE notes (note text PRIMARY KEY)")
    return database_url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with make_database(url) as database:
        yield database


@contextmanager
def make_database(url: str, threads: int = 2, timeout_seconds: float = 5) -> Iterator[Database]:
    database = Database(url, threads=threads, timeout_seconds=timeout_seconds, application_name="ais-hang-test")
    yield database
    database.close()


def add(note: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.execute(text("INSERT INTO notes VALUES (:note)"), {"note": note})

    return work


def exists(note: str) -> Callable[[Connection], bool]:
    query = text("SELECT count(*) FROM notes WHERE note = :note")
    return lambda connection: bool(connection.execute(query, {"note": note}).scalar_one())


@asynccontextmanager
async def fails_within(seconds: float) -> AsyncIterator[None]:
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        yield
    assert time.monotonic() - started < seconds + SLACK


# --- one transaction a call ------------------------------------------------------------------------------------------


async def test_constructing_neither_connects_nor_starts_a_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with make_database(f"postgresql://postgres@/none?host={tmp_path}"):
        # One of an earlier test may just end.
        assert not set(threading.enumerate()) - before


async def test_a_call_is_one_transaction(database: Database) -> None:
    await database.run(add("whole"))
    assert await database.run(exists("whole"))

    def half(connection: Connection) -> None:
        add("half")(connection)
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        await database.run(half)
    assert not await database.run(exists("half"))


async def test_a_bug_of_ours_is_not_called_an_outage(database: Database) -> None:
    await database.run(add("twice"))
    with pytest.raises(IntegrityError):
        await database.run(add("twice"))
    with pytest.raises(DataError):
        await database.run(lambda connection: connection.execute(text("SELECT 1/0")))
    with pytest.raises(ProgrammingError):
        await database.run(lambda connection: connection.execute(text("SELEC 1")))
    assert await database.ping()


async def test_text_is_utf8_whatever_the_url_and_the_environment_say(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    wrong = f"{database_url}{'&' if '?' in database_url else '?'}client_encoding=latin1"
    database = Database(wrong, application_name="ais-test")
    try:
        assert await database.run(lambda connection: connection.scalar(text("SHOW client_encoding"))) == "UTF8"
        assert await database.run(lambda connection: connection.scalar(text("SELECT 'José €😀'"))) == "José €😀"
    finally:
        database.close()


async def test_times_come_back_in_utc(database: Database) -> None:
    zone = await database.run(lambda connection: connection.execute(text("SHOW timezone")).scalar_one())
    assert zone == "UTC"


async def test_times_are_read_whatever_style_the_role_or_the_server_prefers(url: str) -> None:
    """Found to be false: with another style no time could be read, so no kill was latched and no row of the log written."""
    with make_database(f"{url}&options=-c%20datestyle%3DSQL") as database:
        assert (await database.run(server_time)).tzinfo is not None


async def test_options_of_the_url_are_kept(url: str) -> None:
    with make_database(f"{url}&options=-c%20work_mem%3D7MB") as database:
        assert await database.run(lambda c: c.execute(text("SHOW work_mem")).scalar_one()) == "7MB"


async def test_the_isolation_is_ours_whatever_the_server_defaults_to(url: str) -> None:
    def isolation(connection: Connection) -> object:
        return connection.execute(text("SHOW transaction_isolation")).scalar_one()

    def of_a_report(connection: Connection) -> object:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        return isolation(connection)

    with make_database(f"{url}&options=-c%20default_transaction_isolation%3Dserializable") as database:
        assert await database.run(isolation) == "read committed"
        assert await database.run(of_a_report) == "repeatable read"
        assert await database.run(isolation) == "read committed"


async def test_a_transaction_that_cannot_begin_tells_why_and_leaves_the_connection_clean(url: str) -> None:
    with make_database(url, threads=1) as database:
        with pytest.raises(DataError, match="invalid value for parameter"):
            await database.run(lambda connection: None, 1e9)
        assert await database.ping()


# --- what an outage is -----------------------------------------------------------------------------------------------


async def test_no_server_is_an_outage_and_tells_no_secret(tmp_path: Path) -> None:
    for address in (f"/none?host={tmp_path}", "127.0.0.1:9/none"):
        separator = "@" if address[0] != "/" else ":hunter22@"
        with make_database(f"postgresql://postgres{separator}{address}") as database:
            with pytest.raises(DatabaseUnavailable, match="PostgreSQL") as caught:
                await database.run(add("x"))
            assert "hunter22" not in str(caught.value)
            assert "\n" not in str(caught.value)
            assert not await database.ping(1)


async def test_a_server_without_the_function_of_a_newer_one_is_not_to_be_migrated(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match="needs PostgreSQL 16") as caught:
        await database.run(lambda connection: connection.execute(text("SELECT pg_input_is_valid(1)")))
    assert "ais migrate" not in str(caught.value)


async def test_a_database_without_our_schema_says_what_to_do(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match="ais migrate"):
        await database.run(lambda connection: connection.execute(text("SELECT * FROM nothing_here")))


async def test_which_database_it_is_takes_no_statement_of_its_own(database: Database) -> None:
    statements: list[str] = []
    event.listen(database._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    with installation.expecting(await database.run(installation.read_id)):
        statements.clear()
        await database.run(lambda connection: None)
    assert statements == []


async def test_another_database_is_refused_before_anything_is_done(database: Database) -> None:
    with installation.expecting(str(uuid.uuid4())) as expected, pytest.raises(WrongDatabase, match="but the desk's is"):
        await database.run(add("for another"))
    assert not await database.run(exists("for another"))
    assert expected
    assert expected.others == [await database.run(installation.read_id)]


async def test_a_database_that_was_emptied_is_given_its_id_again(database: Database) -> None:
    mine = await database.run(installation.read_id)
    await database.run(lambda connection: connection.execute(text("DELETE FROM installation")))
    with installation.expecting(mine):
        await database.run(lambda connection: None)
    assert await database.run(installation.read_id) == mine


async def test_a_database_without_a_table_of_ids_says_what_to_do(new_database_url: Callable[[], str]) -> None:
    with make_database(new_database_url()) as database:
        await database.run(lambda connection: connection.execute(text("DROP TABLE installation")))
        with installation.expecting(str(uuid.uuid4())), pytest.raises(DatabaseUnavailable, match="run `ais migrate`"):
            await database.run(lambda connection: None)


async def test_a_standby_that_only_reads_is_an_outage(database: Database) -> None:
    def work(connection: Connection) -> None:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        add("never")(connection)

    with pytest.raises(DatabaseUnavailable, match="read-only"):
        await database.run(work)


async def test_a_slow_statement_is_ended_on_the_server_too(database: Database) -> None:
    async with fails_within(TIMEOUT):
        await database.run(lambda connection: connection.execute(text("SELECT pg_sleep(30)")), TIMEOUT)
    running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'"
    await eventually(database, lambda connection: connection.execute(text(running)).scalar_one() == 0)


async def eventually(database: Database, condition: Callable[[Connection], bool]) -> None:
    async with asyncio.timeout(5):
        while not await database.run(condition):
            await asyncio.sleep(0.02)


# --- a server that hangs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connected", [False, True], ids=["nothing connected yet", "connected before"])
async def test_a_hung_server_holds_nobody_up_and_recovery_is_by_itself(
    postgres: Server, url: str, connected: bool
) -> None:
    with make_database(url, timeout_seconds=TIMEOUT) as database:
        if connected:
            await asyncio.gather(*(database.ping(5) for _ in range(4)))
        with postgres.hung():
            for _ in range(2):
                started = time.monotonic()
                # Far more than there are threads: those that find none free fail in time as well.
                calls = (database.run(add("hung")) for _ in range(8))
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert {type(result) for result in results} == {DatabaseUnavailable}
                assert time.monotonic() - started < TIMEOUT + SLACK
        assert await database.ping(5)


async def test_work_that_was_given_up_never_begins_later(postgres: Server, url: str) -> None:
    began: list[int] = []

    def work(number: int) -> Callable[[Connection], None]:
        return lambda connection: began.append(number)

    with make_database(url, threads=1, timeout_seconds=TIMEOUT) as database:
        assert await database.ping(5)
        with postgres.hung():
            calls = [database.run(work(n)) for n in range(5)]
            await asyncio.gather(*calls, return_exceptions=True)
        assert await database.ping(5)
        assert began == []


@pytest.mark.parametrize("how", ["timed out", "cancelled"])
async def test_nothing_more_is_sent_for_a_call_that_was_given_up(database: Database, url: str, how: str) -> None:
    waiting = threading.Event()

    def work(connection: Connection) -> None:
        add(f"{how} before")(connection)
        waiting.set()
        connection.execute(text("LOCK TABLE gate"))
        add(f"{how} after")(connection)

    with psycopg.connect(plain_url(url)) as gatekeeper:
        gatekeeper.execute("CREATE TABLE IF NOT EXISTS gate ()")
        gatekeeper.commit()
        gatekeeper.execute("LOCK TABLE gate")
        call = asyncio.create_task(database.run(work, TIMEOUT if how == "timed out" else 5))
        await asyncio.to_thread(waiting.wait)
        if how == "cancelled":
            call.cancel()
        with pytest.raises((DatabaseUnavailable, asyncio.CancelledError)):
            await call
        gatekeeper.rollback()
    gone = text("SELECT count(*) FROM pg_locks WHERE relation = CAST('gate' AS regclass)")
    await eventually(database, lambda connection: connection.execute(gone).scalar_one() == 0)
    for note in (f"{how} before", f"{how} after"):
        assert not await database.run(exists(note))


async def test_too_many_waiting_calls_are_reported_at_once(database: Database) -> None:
    gate = threading.Event()
    # Two threads take a call each, the rest waits its turn.
    calls = [asyncio.create_task(database.run(lambda connection: gate.wait(5))) for _ in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(DatabaseUnavailable, match="too many"):
        await database.run(add("one more"))
    gate.set()
    assert all(await asyncio.gather(*calls))
    assert await database.ping()


async def test_a_killed_server_that_came_back_is_used_at_once(postgres: Server, database: Database) -> None:
    await asyncio.gather(*(database.ping() for _ in range(4)))
    postgres.kill()
    with pytest.raises(DatabaseUnavailable):
        await database.run(exists("whole"))
    postgres.start_again()
    await database.run(add("after the kill"))
    assert await database.run(exists("after the kill"))


async def test_connections_that_the_server_closed_are_replaced(database: Database) -> None:
    await asyncio.gather(*(database.ping() for _ in range(4)))
    close = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ais-hang-test'"
    with pytest.raises(DatabaseUnavailable):
        await database.run(lambda connection: connection.execute(text(close)))
    assert await database.ping()


async def test_a_closed_database_refuses_and_leaves_no_thread(url: str) -> None:
    with make_database(url) as database:
        assert await database.ping()
        call = asyncio.create_task(database.run(lambda connection: connection.execute(text("SELECT pg_sleep(4)"))))
        await asyncio.sleep(0.05)
    async with fails_within(0):
        await call
    async with fails_within(0):
        await database.run(add("late"))
    async with asyncio.timeout(2):
        while any(thread.name.startswith("ais-hang-test") for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


async def test_no_descriptor_is_left_behind(url: str) -> None:
    with make_database(url) as database:
        await asyncio.gather(*(database.ping() for _ in range(4)))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            await database.ping()
            with pytest.raises(DataError):
                await database.run(lambda connection: connection.execute(text("SELECT 1/0")))
        assert len(os.listdir("/proc/self/fd")) <= before


def open_connections(postgres: Server) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ais-hang-test'"
    with psycopg.connect(plain_url(postgres.url), autocommit=True) as connection:
        found = connection.execute(query).fetchone()
        assert found is not None
        return int(found[0])


async def none_is_open(postgres: Server) -> None:
    async with asyncio.timeout(SLACK):
        while open_connections(postgres):
            await asyncio.sleep(0.01)


async def test_a_call_that_ends_while_the_database_is_closed_leaves_no_connection(postgres: Server, url: str) -> None:
    """The connection is given back after the pool was emptied: nobody would ever close it."""
    with make_database(url) as database:
        event.listen(database._engine, "checkin", lambda *_: database.close())
        await database.ping()
        await none_is_open(postgres)


async def test_a_new_connection_that_fails_its_first_questions_is_closed(postgres: Server, url: str) -> None:
    def fails(*_: object) -> None:
        raise OperationalError("SELECT pg_catalog.version()", None, psycopg.errors.QueryCanceled("statement timeout"))

    with make_database(url) as database:
        event.listen(database._engine, "connect", fails)
        async with fails_within(SLACK):
            await database.run(lambda connection: None)
        await none_is_open(postgres)


async def test_what_the_server_rolled_back_is_never_called_done(database: Database) -> None:
    """An error that the work swallowed has aborted the transaction: COMMIT is answered, and writes nothing."""

    def swallows(connection: Connection) -> None:
        add("swallowed")(connection)
        with suppress(DataError):
            connection.execute(text("SELECT 1/0"))

    with pytest.raises(DatabaseUnavailable, match="nothing was written"):
        await database.run(swallows)
    assert not await database.run(exists("swallowed"))
