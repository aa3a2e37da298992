"""Who holds what a change of the schema waits for: seen while it waits, because afterwards nobody can tell."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from domain.values import iso, printable

POLL_SECONDS = 0.2
_BLOCKERS = text(
    "SELECT pid, application_name, coalesce(xact_start, backend_start) AS since FROM pg_stat_activity "
    "WHERE pid = ANY(pg_blocking_pids(:waiting)) ORDER BY since"
)


class Blocker(NamedTuple):
    """A session that is in the way. What the server does not show to this user is None."""

    pid: int
    application_name: str | None
    since: datetime | None

    def __str__(self) -> str:
        since = f", since {iso(self.since)}" if self.since else ""
        return f"pid {self.pid} ({printable(self.application_name or 'without a name')}{since})"


class BlockerWatch:
    """Those who were last seen in the way."""

    def __init__(self) -> None:
        self.seen: list[Blocker] = []
        self._ended = threading.Event()

    def follow(self, engine: Engine, waiting: int) -> None:
        """Looks again and again until `end`. It is a courtesy: whatever fails in it is no failure of the change."""
        with suppress(SQLAlchemyError), engine.connect() as connection:
            while not self._ended.wait(POLL_SECONDS):
                self._look(connection, waiting)

    def end(self) -> None:
        """No more looking."""
        self._ended.set()

    def _look(self, connection: Connection, waiting: int) -> None:
        found = [Blocker(*row) for row in connection.execute(_BLOCKERS, {"waiting": waiting})]
        # A transaction left open would see the same sessions for ever.
        connection.rollback()
        self.seen = found or self.seen


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
        # It may hang where the server does.
        thread.join(POLL_SECONDS * 5)
