"""The harness's side of the zygote: starts processes, signals them, and knows how each ended."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass
class Process:
    """One process of AIS; `ended` has its exit code."""

    pid: int
    ended: "asyncio.Future[int]"

    def send(self, number: int) -> None:
        """A signal, unless it is gone."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def end(self, number: int = signal.SIGKILL, seconds: float = 10.0) -> int:
        """Sends a signal and waits; after so long it is killed."""
        self.send(signal.SIGCONT)
        self.send(number)
        try:
            return await asyncio.wait_for(asyncio.shield(self.ended), seconds)
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self.ended


class Zygote:
    """`source` is the tree of AIS whose processes it starts: this one, a changed copy, or an earlier one.

    `only` names the kind of process, where it starts no other.
    """

    def __init__(self, folder: Path, source: Path = ROOT, only: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._source = source
        self._only = only
        self._started: list[asyncio.Future[int]] = []
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._early: dict[int, int] = {}

    async def open(self) -> None:
        """Until it has imported everything."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AIS_", "TEMPORAL_"))}
        environment |= {"PYTHONPATH": str(self._source), "OPENBLAS_NUM_THREADS": "1"}
        self._log = (self._folder / "zygote.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.zygote", *self._only,
            cwd=self._source, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout
        first = await self._process.stdout.readline()
        assert first, (self._folder / "zygote.log").read_text()[-2000:]
        self._reading = asyncio.create_task(self._read())

    async def start(self, *argv: str, env: dict[str, str], log: Path) -> Process:
        """A process with these arguments: `worker`, `venue …`, or `ais …`."""
        assert self._process.stdin
        pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._started.append(pid)
        order = {"argv": argv, "env": env, "log": str(log), "folder": str(self._folder)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        number = await pid
        return Process(number, self._exits[number])

    async def ais(self, *argv: str, env: dict[str, str], log: Path, seconds: float = 30.0) -> tuple[int | None, str]:
        """One command of a person: its exit code, None where it did not end in time, and what it said."""
        process = await self.start("ais", *argv, env=env, log=log)
        try:
            code: int | None = await asyncio.wait_for(asyncio.shield(process.ended), seconds)
        except TimeoutError:
            await process.end()
            code = None
        return code, log.read_text(errors="replace")

    async def close(self) -> None:
        """Ends it, with what it started and nobody has ended."""
        self._reading.cancel()
        assert self._process.stdin
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 10.0)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._log.close()

    async def _read(self) -> None:
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            self._take(json.loads(line))

    def _take(self, told: dict[str, Any]) -> None:
        if "pid" in told:
            pid = told["pid"]
            self._exits[pid] = asyncio.get_running_loop().create_future()
            if pid in self._early:
                self._exits[pid].set_result(self._early.pop(pid))
            self._started.pop(0).set_result(pid)
        elif told["exited"] in self._exits and not self._exits[told["exited"]].done():
            self._exits[told["exited"]].set_result(told["code"])
        else:
            self._early[told["exited"]] = told["code"]
