"""Starts the parts, and restarts those that crash.

Like systemd's Restart=on-failure: a part that crashed is restarted after a while; one that was asked to end stays ended.
The supervisor only watches whether the process exists. It does not kill a part that hangs: a PostgreSQL that is busy, or
was stopped with SIGSTOP, recovers by itself. Killing it would turn a pause into a crash.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from cli.dev.console import Console
from cli.dev.errors import PartFailed, StackError
from cli.dev.process import POLL_SECONDS, Child

COME_UP_SECONDS = 60.0
# In some 200 starts on a busy machine, Temporal's server panicked once as it came up; the next start worked.
FIRST_STARTS = 2
# A part that came up before it crashed starts again after the first delay: a kill waits for its worker. The delay grows only for
# one that does not come up.
FIRST_DELAY_SECONDS = 5.0
LONGEST_DELAY_SECONDS = 60.0


class Part(Protocol):
    """What the stack needs from one of its parts."""

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
    """Keeps the started parts running. It calls `changed` whenever a part has come up."""

    def __init__(self, console: Console, changed: Callable[[], None]) -> None:
        self.parts: list[Part] = []
        self._console = console
        self._changed = changed

    async def bring_up(self, *parts: Part) -> None:
        """Starts all of them at the same time. Raises PartFailed if one does not come up."""
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
        """Restarts crashed parts until cancelled, even if every part has ended."""
        async with asyncio.TaskGroup() as group:
            for part in self.parts:
                group.create_task(self._keep_up(part))
            group.create_task(asyncio.Event().wait())

    async def _keep_up(self, part: Part) -> None:
        delay = FIRST_DELAY_SECONDS
        while True:
            ended = await part.child.wait_ended()
            if ended.is_clean:
                self._console.say(f"{part.name} {ended}: it stays stopped.")
                return
            self._console.say(f"{part.name} {ended}: starting it again in {delay:.0f} s (log: {part.child.log})")
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY_SECONDS)
            try:
                await part.start()
                await _until_it_answers(part)
                delay = FIRST_DELAY_SECONDS
                self._changed()
            except StackError as error:
                self._console.say(str(error))
            except Exception as error:
                # No memory for another process, a full disk. It must not end the other parts: a kill needs them.
                self._console.say(f"{part.name} could not be started: {error!r}")
            else:
                self._console.say(f"{part.name} is back: {part.where}")

    async def stop(self, hasten: asyncio.Event) -> None:
        """Stops the parts in reverse order, so that each still has what it needs to finish its work."""
        for part in reversed(self.parts):
            await part.child.stop(part.stop_grace_seconds, hasten)


async def _until_it_answers(part: Part) -> None:
    deadline = time.monotonic() + COME_UP_SECONDS
    while not await part.answers():
        part.child.fail_if_ended()
        if time.monotonic() > deadline:
            raise PartFailed(part.name, f"no answer in {COME_UP_SECONDS:.0f} s. Its log:", part.child.last_lines())
        await asyncio.sleep(POLL_SECONDS)
