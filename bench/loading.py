"""Starts the load of bench/load.py, and what it reaches at a server that only answers.

Where it asks AIS for less than that, it was AIS that set the pace, and not the generator.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bench.load import SERVE, Asked
from bench.machine import STARTS_WITHIN_SECONDS
from cli.dev.ports import free_port
from tests.deploy.dev_stack import wait_until

UNAUTHENTICATED_PER_SECOND = 1_000
LIMIT_SECONDS = 2.0


class Loading:
    """A generator that is running; `asked` once it has ended."""

    def __init__(self, port: int, key: str, knocks_a_second: float) -> None:
        self.asked: Asked | None = None
        command = [sys.executable, "-m", "bench.load", "127.0.0.1", str(port), key, str(knocks_a_second)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout
        self._process.stdout.readline()

    def end(self) -> None:
        """Asks it to end, and reads what it has done; a generator that failed says nothing."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired, json.JSONDecodeError):
            self.asked = Asked(*json.loads(self._process.communicate(timeout=10)[0]))
        self._process.kill()


@contextmanager
def load(port: int, key: str, knocks_a_second: float = UNAUTHENTICATED_PER_SECOND) -> Iterator[Loading]:
    """64 status clients and 1,000 unauthenticated requests a second, for as long as the block runs."""
    loading = Loading(port, key, knocks_a_second)
    try:
        yield loading
    finally:
        loading.end()


def limit() -> Asked:
    """What a generator reaches at a server that only answers."""
    server = subprocess.Popen([sys.executable, "-m", "bench.load", SERVE, str(port := free_port())])
    try:
        wait_until(lambda: listens(port), "the server that only answers", STARTS_WITHIN_SECONDS)
        with load(port, "key", 1e9) as loading:
            time.sleep(LIMIT_SECONDS)
    finally:
        server.kill()
        server.wait()
    assert loading.asked, "the generator failed"
    return loading.asked


def listens(port: int) -> bool:
    """Whether a server is up."""

    async def connected() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    return asyncio.run(connected())
