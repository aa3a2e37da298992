"""One child process of `ais dev`: starts it in its own session, watches it, stops it.

Ctrl-C in a terminal goes to every process of the foreground group at once. If the children were in our group, PostgreSQL
and Temporal would die while the worker still finishes its activities. In their own sessions they get signals only from us.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.dev.errors import PartFailed
from cli.dev.orphans import MARKER

POLL_SECONDS = 0.05
# As in systemd's Restart=on-failure: a process that one of these ends was asked to end.
CLEAN_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)


@dataclass(frozen=True)
class ProcessCommand:
    """What to run, and as whom."""

    argv: Sequence[str]
    env: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    cwd: Path | None = None


@dataclass(frozen=True)
class ChildExit:
    """How a child ended."""

    returncode: int

    @property
    def is_clean(self) -> bool:
        return self.returncode in (
            0,
            *(-number for number in CLEAN_SIGNALS),
            *(128 + number for number in CLEAN_SIGNALS),
        )

    def __str__(self) -> str:
        if self.returncode < 0:
            return f"ended by {signal.Signals(-self.returncode).name}"
        return f"exited with {self.returncode}"


@dataclass
class Child:
    """A process that is started at most once at a time. Everything it prints goes to its log."""

    name: str
    folder: Path
    log: Path
    _popen: subprocess.Popen[bytes] | None = None
    _log_start: int = 0
    _stop_signal: signal.Signals = field(default=signal.SIGTERM)

    def spawn(self, command: ProcessCommand) -> None:
        self._stop_signal = command.stop_signal
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._popen = subprocess.Popen(
                command.argv,
                env={**command.env, MARKER: str(self.folder)},
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                user=command.user,
                group=command.user,
                extra_groups=[] if command.user else None,
            )

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen else None

    def ended(self) -> ChildExit | None:
        """None while the process exists, even if it hangs or was SIGSTOPped: its clients will notice that."""
        code = self._popen.poll() if self._popen else 0
        return None if code is None else ChildExit(code)

    async def wait_ended(self) -> ChildExit:
        while (ended := self.ended()) is None:
            await asyncio.sleep(POLL_SECONDS)
        return ended

    def fail_if_ended(self) -> None:
        if ended := self.ended():
            raise PartFailed(self.name, f"it {ended}. The end of {self.log}:", self.last_lines())

    def last_lines(self, count: int = 15) -> str:
        """The last lines that the process has logged since this start."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-count:])

    async def stop(self, grace_seconds: float, hasten: asyncio.Event) -> None:
        """Asks the process to stop. Kills it after the grace, or when somebody presses Ctrl-C again."""
        if self._popen is None or self.ended():
            return
        self._signal(self._stop_signal)
        self._signal(signal.SIGCONT)  # a SIGSTOPped process handles the first signal only after this
        deadline = time.monotonic() + grace_seconds
        while not self.ended() and time.monotonic() < deadline and not hasten.is_set():
            await asyncio.sleep(POLL_SECONDS)
        if self.pid and not self.ended():
            os.killpg(self.pid, signal.SIGKILL)  # not collected yet, so the group is certainly still its own
        await self.wait_ended()

    def _signal(self, number: signal.Signals) -> None:
        if self._popen:
            self._popen.send_signal(number)
