"""Finds the sessions that a schema change waits for. It looks during the wait: afterwards they cannot be found."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from domain.values import iso, printable

POLL_SECONDS = 0.2
_BLOCKERS = text(
    "SELECT pid, application_name, coalesce(xact_start, backend_start) AS since FROM pg_stat_activity "
    "WHERE pid = ANY(pg_blocking_pids(:waiting)) ORDER BY since"
)


class Blocker(NamedTuple):
    """A session that a schema change waits for. A field is None if the server does not show it to this user."""

    pid: int
    application_name: str | None
    since: datetime | None

    def __str__(self) -> str:
        since = f", since {iso(self.since)}" if self.since else ""
        return f"pid {self.pid} ({printable(self.application_name or 'without a name')}{since})"


class BlockerWatch:
    """The sessions that were in the way when it last saw any."""

    def __init__(self) -> None:
        self.seen: list[Blocker] = []
        self._ended = threading.Event()

    def follow(self, engine: Engine, waiting: int) -> None:
        """Looks repeatedly until `end`. Its own failures are ignored: they must not fail the schema change."""
        with suppress(SQLAlchemyError), engine.connect() as connection:
            while not self._ended.wait(POLL_SECONDS):
                found = [Blocker(*row) for row in connection.execute(_BLOCKERS, {"waiting": waiting})]
                # A transaction left open would see the same sessions for ever.
                connection.rollback()
                self.seen = found or self.seen

    def end(self) -> None:
        """Stops looking."""
        self._ended.set()


@contextmanager
def watched(engine: Engine, waiting: int) -> Iterator[BlockerWatch]:
    """Watches, for the length of the block, what the session with the pid `waiting` waits for."""
    watch = BlockerWatch()
    thread = threading.Thread(target=watch.follow, args=(engine, waiting), daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.end()
        # If the server hangs, so does this thread.
        thread.join(POLL_SECONDS * 5)
