"""Bringing parts up, and up again.

Like systemd's Restart=on-failure: a part that crashed is started again after a while, one that was asked to end stays
ended. Only whether the process exists is watched. A part that hangs is not killed: a PostgreSQL that was stopped with
SIGSTOP, or that is busy, comes back by itself, and a supervisor that shoots it turns a pause into a crash.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from deploy.dev.console import Console
from deploy.dev.errors import PartFailed, StackError
from deploy.dev.process import POLL_SECONDS, Child

COME_UP_SECONDS = 60.0
# Temporal's server was seen to panic once as it came up, in some 200 starts on a busy machine, and to start the next time.
FIRST_STARTS = 2
FIRST_DELAY_SECONDS = 5.0
LONGEST_DELAY_SECONDS = 60.0  # and a part that lived longer than this before it crashed waits the first delay again


class Part(Protocol):
    """What the stack knows of one of its parts."""

    @property
    def name(self) -> str: ...
    @property
    def child(self) -> Child: ...
    @property
    def where(self) -> str: ...
    @property
    def stop_grace_seconds(self) -> float: ...
    async def start(self) -> None: ...
    async def answers(self) -> bool: ...


class Supervisor:
    """Knows the parts that were started; `changed` is called whenever one comes or goes."""

    def __init__(self, console: Console, changed: Callable[[], None]) -> None:
        self.parts: list[Part] = []
        self._console = console
        self._changed = changed

    async def bring_up(self, *parts: Part) -> None:
        """All at the same time; PartFailed when one of them does not come up."""
        self.parts += parts
        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(self._bring_up(part))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _bring_up(self, part: Part) -> None:
        for attempt in range(1, FIRST_STARTS + 1):
            await part.start()
            try:
                await _until_it_answers(part)
                break
            except PartFailed:
                if attempt == FIRST_STARTS or not part.child.ended():
                    raise
        self._changed()
        self._console.progress(part.name, part.where)

    async def keep_up(self) -> None:
        """Until cancelled, even when every part has ended."""
        async with asyncio.TaskGroup() as group:
            for part in self.parts:
                group.create_task(self._keep_up(part))
            group.create_task(asyncio.Event().wait())

    async def _keep_up(self, part: Part) -> None:
        delay = FIRST_DELAY_SECONDS
        while True:
            began = time.monotonic()
            ended = await part.child.wait_ended()
            if ended.is_clean:
                self._console.say(f"{part.name} {ended}: it stays stopped.")
                return
            if time.monotonic() - began > LONGEST_DELAY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            self._console.say(f"{part.name} {ended}: starting it again in {delay:.0f} s (log: {part.child.log})")
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY_SECONDS)
            await self._start_again(part)

    async def _start_again(self, part: Part) -> None:
        try:
            await part.start()
            await _until_it_answers(part)
        except StackError as error:
            self._console.say(str(error).splitlines()[0])
        else:
            self._changed()
            self._console.say(f"{part.name} is back: {part.where}")

    async def stop(self, hasten: asyncio.Event) -> None:
        """The last to come is the first to go, so that each still has what it needs to finish its work."""
        for part in reversed(self.parts):
            await part.child.stop(part.stop_grace_seconds, hasten)


async def _until_it_answers(part: Part) -> None:
    deadline = time.monotonic() + COME_UP_SECONDS
    while not await part.answers():
        part.child.fail_if_ended()
        if time.monotonic() > deadline:
            raise PartFailed(part.name, f"no answer in {COME_UP_SECONDS:.0f} s. Its log:", part.child.last_lines())
        await asyncio.sleep(POLL_SECONDS)
