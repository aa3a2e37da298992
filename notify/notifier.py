"""Notes what happens to a desk and sends it, for as long as a worker or an API runs.

    decision log, coordinator ── looks every few seconds ──▶ notices ──▶ a task a channel ──▶ a process a message

Nothing waits for any of this: it has its own connections, and whatever fails is tried again later. Worker and API both run
one, since a silent coordinator, or a worker that is gone, cannot tell of itself.
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
from domain.notices import SILENT_CYCLES
from notify.channels import Channel
from notify.delivery import SenderFailed, deliver, not_understood
from storage import notices
from storage.database import Database, DatabaseUnavailable
from storage.notices import HELD_SECONDS, Dispatch, Watched

SEND_SECONDS = 1.0
LOOK_SECONDS = 2.0
SETTLE_SECONDS = 2.0
# A process costs almost a second of processor time and 50 MB. Critical channels have a place that no other one takes.
MOST_SENDING = 3
MOST_INFO_SENDING = 2
# At the end of the process: to note what was sent, and to let go of a channel.
STOP_SECONDS = 1.0
SUMMARY_SECONDS = 30.0
# The summary of a day is the longest.
DATABASE_SECONDS = 20.0

log: Any = structlog.get_logger("notify")

StatusSource = Callable[[], Awaitable[Status | None]]
"""The coordinator's status; None where nobody answers in time."""


class Notifier:
    """Of one desk, in one process. `cycle_seconds` as configured, until the coordinator has told its own."""

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
        self._failing: set[str] = set()
        self._troubles: dict[str, str] = {}
        self._born = self._started = time.monotonic()
        self._has_looked = False

    async def run(self) -> None:
        """Until it is cancelled. Messages that are being sent then are ended."""
        try:
            await asyncio.gather(
                self._guarded("check", self.check()),
                self._repeat(self.look, LOOK_SECONDS),
                self._repeat(self.send, SEND_SECONDS),
                # By itself: it reads a whole day, and nothing else has to wait for that.
                self._repeat(self.summarise, SUMMARY_SECONDS),
            )
        finally:
            for task in self._sending.values():
                task.cancel()
            await asyncio.gather(*self._sending.values(), return_exceptions=True)
            self._database.close()

    async def check(self) -> None:
        """Says which URLs Apprise does not understand, without any of them.

        Beside everything else, and as a line in the log: no worker refuses to start by it, since a kill needs one.
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
        # Right after its start a process cannot know for how long there was no cycle.
        has_waited = time.monotonic() - self._started > SILENT_CYCLES * self._cycle_seconds
        watched = self._watched(may_tell_silence=has_waited)
        try:
            await self._database.run(lambda connection: notices.look(connection, watched, status), DATABASE_SECONDS)
        except Exception:
            # Nor after a time in which no cycle could be noted.
            self._started = time.monotonic()
            raise
        self._has_looked = True

    async def summarise(self) -> None:
        """Notes what the day before came to."""
        watched = self._watched(may_tell_silence=False)
        await self._database.run(lambda connection: notices.summarise(connection, watched), DATABASE_SECONDS)

    def _watched(self, *, may_tell_silence: bool) -> Watched:
        levels = {channel.name: channel.critical_only for channel in self._channels.values()}
        return Watched(self._desk, levels, may_tell_silence, timedelta(seconds=time.monotonic() - self._born))

    async def send(self) -> None:
        """Starts messages of channels that have one to tell, and have none under way: a few at a time."""
        if not self._has_looked:
            # The first look ends what has waited since before a long pause.
            return
        self._sending = {name: task for name, task in self._sending.items() if not task.done()}
        idle = [name for name in self._channels if name not in self._sending]
        if not idle or len(self._sending) >= MOST_SENDING:
            return
        due = await self._database.run(lambda connection: notices.due(connection, self._desk, idle))
        for name in self._first(due):
            telling = self._guarded(f"tell {name}", self._tell(self._channels[name]))
            self._sending[name] = asyncio.create_task(telling)

    def _first(self, due: Sequence[str]) -> list[str]:
        """Those that have a place: critical ones first, and of each level those first that take their messages."""
        free = MOST_SENDING - len(self._sending)
        critical = [name for name in due if self._channels[name].critical_only]
        others = sum(not self._channels[name].critical_only for name in self._sending)
        info = sorted(set(due) - set(critical), key=lambda name: (name in self._failing, due.index(name)))
        return [
            *sorted(critical, key=lambda name: name in self._failing),
            *info[: max(MOST_INFO_SENDING - others, 0)],
        ][:free]

    async def settled(self) -> None:
        """Returns once every message that is being sent now is done with."""
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
        """What was sent, and what went wrong."""
        desk, me = self._desk, self._me
        dispatch = await self._database.run(lambda connection: notices.take(connection, desk, channel.name, me))
        if dispatch is None:
            return None, None
        done = await deliver(channel, domain_notices.message(desk, dispatch.told, len(dispatch.numbers)))
        return dispatch, done.error

    async def _let_go(self, channel: Channel) -> None:
        """Another process need not wait until this one's hold on the channel expires."""
        desk, me = self._desk, self._me
        with suppress(DatabaseUnavailable):
            await self._database.run(
                lambda connection: notices.let_go(connection, desk, channel.name, me), STOP_SECONDS
            )

    def _note(self, channel: Channel, error: str | None) -> None:
        """A channel's trouble once in the log, and once more when it is over."""
        if error is None and channel.name in self._failing:
            log.info("notifications are taken again", channel=channel.name)
            self._failing.discard(channel.name)
        elif error is not None and channel.name not in self._failing:
            log.warning("a notification was not taken; trying again later", channel=channel.name, why=error)
            self._failing.add(channel.name)

    async def _settle(self, channel: Channel, dispatch: Dispatch, error: str | None) -> None:
        """Until the database has it: a message that was sent would be sent once more otherwise."""
        deadline, desk, me = time.monotonic() + HELD_SECONDS, self._desk, self._me
        while True:
            try:
                await self._database.run(
                    lambda connection: notices.settle(connection, desk, channel.name, me, dispatch.numbers, error)
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
        """A bug in it ends no worker and no API. Each trouble stands in the log once."""
        try:
            await step
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if self._troubles.get(name) == text:
                return
            self._troubles[name] = text
            if isinstance(error, DatabaseUnavailable):
                log.warning("notifications wait for the database", step=name, why=str(error))
            else:
                log.exception("notifications failed: a bug", step=name)
        else:
            self._troubles.pop(name, None)
