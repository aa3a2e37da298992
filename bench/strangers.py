"""A kill beside 1,000 connections that stall and up to 10,000 calls without a key, against one beside nobody.

The strangers are another process, which comes and goes with each sample. The promise: within twice the idle p99 and 50 ms.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.control import Clients, right_of_way
from bench.crowd import READY
from bench.desks import a_desk
from bench.subject import Pair, Steps, Subject

SAMPLES = 40


@contextmanager
def strangers(port: int) -> Iterator[None]:
    """They are there before the kill and after it, and every one of their calls is a 401."""
    command = [sys.executable, "-m", "bench.crowd", "127.0.0.1", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == READY, "they were not let in"
        yield
        assert process.poll() in (None, 0), "a call without a key was not answered with 401"
    finally:
        process.kill()
        process.wait()


def pairs(_size: int) -> Steps:
    """One."""
    with ExitStack() as stack:
        live = stack.enter_context(a_desk())
        clients, port = Clients(live, stack), live.stack.recorded["api_port"]

        def beside_strangers() -> float:
            with strangers(port):
                return clients.kill()

        row = yield Pair("a kill, 1,000 stall, 10,000 calls without a key", beside_strangers, clients.kill, SAMPLES)
        assert row
        yield right_of_way(row.floor, row.ours)


SUBJECT = Subject("strangers", "a kill over HTTP beside strangers", "the same kill beside nobody", pairs)
