"""Notes what happens to a desk and sends it, for as long as a worker or an API runs.

    decision log, coordinator ── looks every few seconds ──▶ notices ──▶ a task a channel ──▶ a process a message

Nothing waits for any of this: it has its own connections, and whatever fails is tried again later. Worker and API each run one,
since neither a silent coordinator nor a missing worker can report itself.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn

import structlog

from domain import notices as domain_notices
from domain.desk.status import Status
from domain.health.troubles import KnownTroubles
from domain.notices import SILENT_CYCLES
from notify.channels import Channel
from notify.delivery import SenderFailed, deliver, not_understood
from storage import notice_queue, notices
from storage.database import Database, DatabaseUnavailable
from storage.notice_queue import HELD_SECONDS, Dispatch
from storage.notices import Watched

SEND_SECONDS = 1.0
LOOK_SECONDS = 2.0
SETTLE_SECONDS = 2.0
# A process costs almost a second of CPU time and 50 MB. One place is reserved for critical channels.
MOST_SENDING = 3
MOST_INFO_SENDING = 2
# At the end of the process: the time to note what was sent, and to release a channel.
STOP_SECONDS = 1.0
SUMMARY_SECONDS = 30.0
# The summary of a day is the longest.
DATABASE_SECONDS = 20.0

log: Any = structlog.get_logger("notify")

StatusSource = Callable[[], Awaitable[Status | None]]
"""The coordinator's status; None if nobody answers in time."""


class Notifier:
    """One desk's notifier in one process. `cycle_seconds` is the configured value, until the coordinator tells its own."""

    def __init__(
        self, desk: str, channels: Sequence[Channel], database: Database, ask: StatusSource, cycle_seconds: float
    ) -> None:
        self._desk = desk
        self._channels = {channel.name: channel for channel in channels}
        self._database = database
        self._ask = ask
        self._cycle_seconds = cycle_seconds
        self._me = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._sending: dict[str, asyncio.Task[None]] = {}
        # By channel, and by step.
        self._failing, self._troubles = KnownTroubles(), KnownTroubles()
        self._born = self._started = time.monotonic()
        # When this process first saw what is open, by the event's id.
        self._seen: dict[str, float] = {}
        self._has_looked = False

    async def run(self) -> None:
        """Runs until it is cancelled, and then ends the messages that are being sent."""
        try:
            await asyncio.gather(
                self._guarded("check", self.check()),
                self._repeat(self.look, LOOK_SECONDS),
                self._repeat(self.send, SEND_SECONDS),
                # Separate, since it reads a whole day and nothing else should wait for that.
                self._repeat(self.summarise, SUMMARY_SECONDS),
            )
        finally:
            for task in self._sending.values():
                task.cancel()
            await asyncio.gather(*self._sending.values(), return_exceptions=True)
            self._database.close()

    async def check(self) -> None:
        """Logs which URLs Apprise does not understand, without showing any.

        It runs beside everything else and only logs: no worker refuses to start because of it, since a kill needs one.
        """
        channels = list(self._channels.values())
        try:
            wrong = await not_understood(channels)
        except SenderFailed as error:
            log.warning("AIS_NOTIFY_URLS could not be checked", why=str(error))
            return
        if wrong:
            entries = [f"{number} ({channels[number - 1].name})" for number in wrong]
            log.error("AIS_NOTIFY_URLS: Apprise does not understand the URL of these entries", entries=entries)

    async def look(self) -> None:
        """Notes what is new."""
        status = await self._ask()
        if status is not None:
            self._cycle_seconds = status.cycle_seconds
            now = time.monotonic()
            self._seen = {event: self._seen.get(event, now) for event in domain_notices.open_events(status)}
        # Right after its start, a process cannot know how long there has been no cycle.
        has_waited = time.monotonic() - self._started > SILENT_CYCLES * self._cycle_seconds
        watched = self._watched(may_tell_silence=has_waited)
        try:
            await self._database.run(
                lambda connection: notices.note_events(connection, watched, status), DATABASE_SECONDS
            )
        except Exception:
            # The same applies after a time in which no cycle could be noticed.
            self._started = time.monotonic()
            raise
        self._has_looked = True

    async def summarise(self) -> None:
        """Notes the summary of the previous day."""
        watched = self._watched(may_tell_silence=False)
        await self._database.run(lambda connection: notices.summarise(connection, watched), DATABASE_SECONDS)

    def _watched(self, *, may_tell_silence: bool) -> Watched:
        levels, now = {channel.name: channel.critical_only for channel in self._channels.values()}, time.monotonic()
        seen_for = {event: timedelta(seconds=now - at) for event, at in self._seen.items()}
        return Watched(self._desk, levels, may_tell_silence, timedelta(seconds=now - self._born), seen_for)

    async def send(self) -> None:
        """Starts sending on channels that have a message waiting and none under way, a few at a time."""
        if not self._has_looked:
            # The first look discards what has waited since before a long pause.
            return
        self._sending = {name: task for name, task in self._sending.items() if not task.done()}
        idle = [name for name in self._channels if name not in self._sending]
        if not idle or len(self._sending) >= MOST_SENDING:
            return
        due = await self._database.run(lambda connection: notice_queue.due(connection, self._desk, idle))
        for name in self._next_to_send(due):
            telling = self._guarded(f"tell {name}", self._tell(self._channels[name]))
            self._sending[name] = asyncio.create_task(telling)

    def _next_to_send(self, due: Sequence[str]) -> list[str]:
        """The channels that may send now: critical ones first, and within a level those that accept their messages."""
        free = MOST_SENDING - len(self._sending)
        critical = [name for name in due if self._channels[name].critical_only]
        others = sum(not self._channels[name].critical_only for name in self._sending)
        info = sorted(set(due) - set(critical), key=lambda name: (name in self._failing, due.index(name)))
        return [
            *sorted(critical, key=lambda name: name in self._failing),
            *info[: max(MOST_INFO_SENDING - others, 0)],
        ][:free]

    async def settled(self) -> None:
        """Returns once all messages that are being sent now are settled."""
        await asyncio.gather(*self._sending.values())

    async def _tell(self, channel: Channel) -> None:
        try:
            dispatch, error = await self._deliver(channel)
        except asyncio.CancelledError:
            await self._let_go(channel)
            raise
        if dispatch is None:
            return
        self._note(channel, error)
        settling = asyncio.create_task(self._settle(channel, dispatch, error))
        try:
            await asyncio.shield(settling)
        except asyncio.CancelledError:
            await asyncio.wait({settling}, timeout=STOP_SECONDS)
            settling.cancel()
            raise

    async def _deliver(self, channel: Channel) -> tuple[Dispatch | None, str | None]:
        """Sends the channel's next message; returns what was sent, and the error if any."""
        desk, me = self._desk, self._me
        dispatch = await self._database.run(lambda connection: notice_queue.take(connection, desk, channel.name, me))
        if dispatch is None:
            return None, None
        done = await deliver(channel, domain_notices.message(desk, dispatch.shown, len(dispatch.numbers)))
        return dispatch, done.error

    async def _let_go(self, channel: Channel) -> None:
        """Releases the channel, so that another process need not wait until this one's hold expires."""
        desk, me = self._desk, self._me
        with suppress(DatabaseUnavailable):
            await self._database.run(
                lambda connection: notice_queue.release(connection, desk, channel.name, me), STOP_SECONDS
            )

    def _note(self, channel: Channel, error: str | None) -> None:
        if error is None:
            if self._failing.end(channel.name):
                log.info("notifications are accepted again", channel=channel.name)
        # Each attempt may fail with another text: that is still the same trouble.
        elif self._failing.begin(channel.name):
            log.warning("a notification was not accepted; trying again later", channel=channel.name, why=error)

    async def _settle(self, channel: Channel, dispatch: Dispatch, error: str | None) -> None:
        """Notes the result, repeatedly until the database has it: otherwise a sent message would be sent again."""
        deadline, desk, me = time.monotonic() + HELD_SECONDS, self._desk, self._me
        while True:
            try:
                await self._database.run(
                    lambda connection: notice_queue.settle(connection, desk, channel.name, me, dispatch.numbers, error)
                )
            except DatabaseUnavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(SETTLE_SECONDS)
            else:
                return

    async def _repeat(self, step: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> NoReturn:
        while True:
            await self._guarded(step.__name__, step())
            await asyncio.sleep(seconds)

    async def _guarded(self, name: str, step: Coroutine[Any, Any, None]) -> None:
        """Runs a step. A bug in it ends neither worker nor API."""
        try:
            await step
        except Exception as error:
            if not self._troubles.begin(name, f"{type(error).__name__}: {error}"):
                return
            if isinstance(error, DatabaseUnavailable):
                log.warning("notifications wait for the database", step=name, why=str(error))
            else:
                log.exception("notifications failed: a bug", step=name)
        else:
            if self._troubles.end(name):
                log.info("notifications work again", step=name)
