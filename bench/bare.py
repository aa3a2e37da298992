"""The floor of a cycle: a workflow of the SDK that does one activity and one timer, on a Temporal server of its own."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from temporalio.client import Client

from bench.bare_workflow import QUEUE, Bare
from bench.machine import STARTS_WITHIN_SECONDS
from cli.dev.ports import free_port
from cli.dev.process import Child
from cli.dev.temporal import Temporal

WORKFLOW_ID = "bare"


class BareCycle(NamedTuple):
    """One that is running: where, and its processes."""

    address: str
    worker: int
    temporal: int


@contextmanager
def bare_temporal(folder: Path) -> Iterator[Temporal]:
    """A server as `ais dev` starts it, with nothing on it."""
    server = Temporal(Child("Temporal", folder, folder / "log"), folder / "database", free_port(), free_port())
    asyncio.run(_up(server))
    try:
        yield server
    finally:
        asyncio.run(server.child.stop(5.0, asyncio.Event()))


async def _up(server: Temporal) -> None:
    await server.start()
    async with asyncio.timeout(STARTS_WITHIN_SECONDS):
        while not await server.answers():
            await asyncio.sleep(0.1)


@contextmanager
def bare_cycle(folder: Path, cycle_seconds: float) -> Iterator[BareCycle]:
    """The workflow, running."""
    with bare_temporal(folder) as server:
        worker = subprocess.Popen([sys.executable, "-m", "bench.bare_worker", server.address])
        try:
            asyncio.run(_begin(server.address, cycle_seconds))
            assert server.child.pid
            yield BareCycle(server.address, worker.pid, server.child.pid)
        finally:
            worker.kill()
            worker.wait()


async def _begin(address: str, cycle_seconds: float) -> None:
    client = await Client.connect(address)
    await client.start_workflow(Bare.run, cycle_seconds, id=WORKFLOW_ID, task_queue=QUEUE)
