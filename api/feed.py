"""The console's feed: the coordinator's status and the newest decision, read once for all streams.

    coordinator ── a query every 0.25 s ──┐                    ┌─▶ stream
                                          ├─▶ newest events ───┼─▶ stream
    decision log ── a read every 1 s ─────┘                    └─▶ stream

Both are read only while somebody watches. A kill uses none of this. All readers of the status share one query, so the feed leaves
it to clients that wait for the outcome of a command, for a second at most. Streams are woken a few at a time, so that a request
in between need not wait for all of them.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog

from api.coordinator import CoordinatorClient
from api.errors import ApiError, CoordinatorUnavailable, TooManyStreams
from api.reporting import Reports
from storage.decisions import DecisionFilter
from workflows.gateway import CoordinatorPaused, CoordinatorSilent, GatewayError, NoCoordinator, TemporalUnreachable

STATUS_SECONDS = 0.25
LOG_SECONDS = 1.0
# For how long waiting commands have the query to themselves: otherwise theirs would begin after the feed's.
YIELD_SECONDS = 1.0
# How often a comment confirms an unchanged status, so that its reader knows how old it is.
CONFIRM_SECONDS = 1.0
# The console marks its status as stale after three seconds. A reading that takes longer is reported before that.
READ_SECONDS = 2.0
MOST_STREAMS = 1_000
# How many of the newest entries are looked at: one may be written after later ones, and would not be announced as the newest.
MOST_LOOKED_AT = 20
# How many of the newest log entries are told apart from new ones.
MOST_KNOWN = 100
WOKEN_AT_ONCE = 25
_CONFIRMED = b": unchanged\n\n"

log: Any = structlog.get_logger("api")


class FeedEvent(NamedTuple):
    """One event as it is sent."""

    text: bytes
    id: str | None = None


class FeedStream:
    """One stream, counted until it is closed, and what it has sent already.

    A new stream gets the status from the next reading on. Once `may_watch` returns False, the stream ends.
    """

    def __init__(self, feed: "EventFeed", turn: int, last_id: str | None, may_watch: Callable[[], bool]) -> None:
        self.wake = asyncio.Event()
        self.turn = turn
        self.status: FeedEvent | None = None
        self.log_id = last_id
        self._feed = feed
        self._may_watch = may_watch

    def __aiter__(self) -> "FeedStream":
        return self

    async def __anext__(self) -> bytes:
        while True:
            # Checked every second or two: the stream is woken that often, even without news.
            if not self._may_watch():
                raise StopAsyncIteration
            self.wake.clear()
            if data := self._feed.news(self):
                return data
            await self.wake.wait()

    def close(self) -> None:
        """Frees its place; may be called several times."""
        self._feed.leave(self)


class EventFeed:
    """The only reader of a process. `room` is the most streams at a time."""

    def __init__(self, desk: CoordinatorClient, reports: Reports, desk_name: str, room: int = MOST_STREAMS) -> None:
        self._desk = desk
        self._reports = reports
        self._newest = DecisionFilter(limit=MOST_LOOKED_AT, desk=desk_name)
        self._room = room
        self._watchers: dict[FeedStream, None] = {}
        self._readers: list[asyncio.Task[None]] = []
        self._status: FeedEvent | None = None
        self._log: FeedEvent | None = None
        self._known = deque[str](maxlen=MOST_KNOWN)
        # Counts how often the status was sent or confirmed.
        self._turn = 0
        self._told_at = 0.0
        # When the last reading ended.
        self._asked_at = 0.0
        # A comment line. It comes last, because simple readers ignore anything that begins with a comment.
        self._read_at = b""

    @property
    def streams(self) -> int:
        """The number of open streams."""
        return len(self._watchers)

    def watch(self, last_id: str | None, may_watch: Callable[[], bool] = lambda: True) -> FeedStream:
        """A stream of everything from now on, and of a log entry newer than `last_id`. Close it. Raises TooManyStreams."""
        if len(self._watchers) >= self._room:
            raise TooManyStreams(self._room)
        watcher = FeedStream(self, self._turn, last_id, may_watch)
        self._watchers[watcher] = None
        # So that the next reading is sent, changed or not.
        self._told_at = 0.0
        if not self._readers:
            self._readers = [
                asyncio.create_task(self._repeat(self._read_status, STATUS_SECONDS)),
                asyncio.create_task(self._repeat(self._read_log, LOG_SECONDS)),
            ]
        return watcher

    def news(self, watcher: FeedStream) -> bytes:
        """The newest of everything that this stream has not sent, with the time of reading, since a proxy may delay it."""
        news = b""
        if self._status and self._turn != watcher.turn:
            news += (_CONFIRMED if self._status is watcher.status else self._status.text)[:-1] + self._read_at
            watcher.turn, watcher.status = self._turn, self._status
        if self._log and self._log.id != watcher.log_id:
            news += self._log.text
            watcher.log_id = self._log.id
        return news

    def leave(self, watcher: FeedStream) -> None:
        """Forgets a stream. Without streams, nothing is read."""
        self._watchers.pop(watcher, None)
        if not self._watchers:
            self.close()

    def close(self) -> None:
        """Stops reading and forgets: the next stream must not be shown an old status."""
        for reader in self._readers:
            reader.cancel()
        self._readers = []
        self._status = self._log = None
        self._known.clear()

    async def _repeat(self, work: Callable[[], Coroutine[Any, Any, None]], pause: float) -> None:
        logged = ""
        while True:
            try:
                await work()
                logged = ""
            except Exception as error:
                # A bug must neither end the feed silently nor fill the log with one trace. Nothing is confirmed meanwhile, so
                # readers see the status grow old.
                if repr(error) != logged:
                    logged = repr(error)
                    log.exception("events cannot be read")
            await asyncio.sleep(pause)

    async def _read_status(self) -> None:
        since = asyncio.get_running_loop().time() - self._asked_at
        if self._desk.is_waited_for and since < YIELD_SECONDS:
            return
        try:
            status = (await self._desk.read(seconds=READ_SECONDS)).status
            event = _event("status", status.model_dump_json())
        except GatewayError as error:
            event = _event(
                "unavailable", json.dumps({**CoordinatorUnavailable(str(error)).body, "cause": _cause(error)})
            )
        now = self._asked_at = asyncio.get_running_loop().time()
        if event == self._status and now - self._told_at < CONFIRM_SECONDS:
            return
        if event != self._status:
            self._status = event
        self._turn += 1
        self._told_at = now
        self._read_at = f": read {datetime.now(UTC).isoformat(timespec='milliseconds')}\n\n".encode()
        await self._wake_all()

    async def _read_log(self) -> None:
        # If the database does not answer, the log has no news; `/health` and the reports say why.
        with suppress(ApiError):
            rows, _ = await self._reports.page(self._newest)
            if rows and rows[0].timestamp > (now := datetime.now(UTC)):
                # A row from a clock that is ahead must not hide the rows after it, possibly for hours.
                others, _ = await self._reports.page(self._newest.model_copy(update={"until": now}))
                rows = [*rows, *others]
            new = [row for row in rows if row.decision_id not in self._known]
            self._known.extend(row.decision_id for row in reversed(new))
            if new:
                row = new[0]
                facts = {"decision_id": row.decision_id, "timestamp": row.timestamp.isoformat()}
                self._log = _event("log", json.dumps(facts), row.decision_id)
                await self._wake_all()

    async def _wake_all(self) -> None:
        for number, watcher in enumerate(list(self._watchers), 1):
            watcher.wake.set()
            if number % WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)


def _cause(error: GatewayError) -> str:
    """What is missing, as far as known: Temporal, an open coordinator, one that is not paused, an answer, or a readable one."""
    if isinstance(error, TemporalUnreachable):
        return "unreachable"
    if isinstance(error, NoCoordinator):
        return "closed"
    if isinstance(error, CoordinatorPaused):
        return "paused"
    return "unreadable" if isinstance(error, CoordinatorSilent) and error.answered else "silent"


def _event(name: str, data: str, event_id: str | None = None) -> FeedEvent:
    identified = f"id: {event_id}\n" if event_id else ""
    return FeedEvent(f"{identified}event: {name}\ndata: {data}\n\n".encode(), event_id)
