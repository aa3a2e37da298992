"""Strangers at the door of a real `ais api`: they hold what they can get, and the kill gets in."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import httpx
import pytest

from cli.dev.ports import free_port
from tests.deploy.dev_stack import clean_environment, wait_until
from tests.e2e.live import Live

LONG = partial(pytest.param, marks=pytest.mark.long)
STRANGERS = 1_100
SOFT = 1_024
# Whoever is not let in gets an error or waits for ever: that is told apart on the busiest machine. (Measured on an idle one:
# 0.06 s, and 1.1 s for a kill that came while 1,100 connected at once and 1,024 descriptors were all there are.)
ANSWER_SECONDS = 20
STAYS_SECONDS = 30


class Served:
    """`ais api` on the desk's stores, with so many descriptors."""

    def __init__(self, live: Live, hard: int, *flags: str) -> None:
        self.live = live
        self.port = free_port()
        command = [sys.executable, "-m", "cli", "api", "--port", str(self.port), "--data-dir", str(live.folder), *flags]
        self.log = live.folder.with_name("api.out")
        limited = ["sh", "-c", f'ulimit -Sn {SOFT} && ulimit -Hn {hard} && exec "$@"', "sh", *command]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(limited, env=clean_environment(), stdout=log, stderr=log)
        wait_until(self._answers, "the API answers")

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health/live").status_code == 200
        return False

    async def ask(self, method: str, path: str) -> tuple[int, float]:
        """Over a connection of its own: the status, and how long it took."""
        began = time.monotonic()
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
            headers = {"Authorization": f"Bearer {self.live.key}"}
            answer = await client.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers)
        return answer.status_code, time.monotonic() - began

    def turned_away(self) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("ais_http_connections_turned_away_total{")]
        return sum(float(line.split()[-1]) for line in lines)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(20) in (0, -signal.SIGTERM)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Stores, worker and coordinator; each test serves them with an API of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8_192)), hard))
    desk = Live(tmp_path_factory.mktemp("door").resolve() / "desk")
    desk.start("--without", "api")
    yield desk
    desk.clean_up()


async def _send_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, every: float) -> None:
    writer.write(b"POST /control/kill-switch HTTP/1.1\r\nX-A: ")
    while not reader.at_eof():
        writer.write(b"x")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every):
                await reader.read(4096)


@contextlib.asynccontextmanager
async def strangers(port: int, count: int, every: float) -> AsyncIterator[tuple[set[int], list[float]]]:
    """Each sends half a head and a byte now and then; whoever is closed comes again.

    Who holds a connection now, and for how many seconds each was held that was closed.
    """
    holding: set[int] = set()
    held: list[float] = []

    async def hold(number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                holding.add(number)
                began = time.monotonic()
                try:
                    await _send_slowly(reader, writer, every)
                finally:
                    held.append(time.monotonic() - began)
                    holding.remove(number)
                    writer.transport.abort()
            await asyncio.sleep(0.5)

    tasks = [asyncio.create_task(hold(number)) for number in range(count)]
    try:
        yield holding, held
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize(
    ("hard", "count"),
    [LONG(HARD, STRANGERS), (SOFT, STRANGERS), LONG(HARD, 1_000)],
    ids=["above soft", "above hard", "below"],
)
@pytest.mark.thorough
async def test_a_kill_gets_in_beside_strangers_who_finish_no_request(live: Live, hard: int, count: int) -> None:
    """Above the soft limit, above the hard one, and below both."""
    api = Served(live, hard)
    try:
        took: list[float] = []
        async with strangers(api.port, count, every=3.0) as (holding, held):
            await until(lambda: len(holding) > 0.5 * count)
            for _ in range(8):
                status, seconds = await api.ask("POST", "/control/kill-switch")
                assert status == 200
                took.append(seconds)
                assert (await api.ask("GET", "/health/live"))[0] == 200
            await until(lambda: b"turned away" in api.log.read_bytes())
            await until(lambda: len(held) >= count / 10)
            assert max(held) < STAYS_SECONDS, "Nobody stays, however the bytes trickle."
        if os.environ.get("AIS_SHOW"):
            print(f"hard {hard}, {count} strangers: kill {sorted(took)[4]:.3f} s, at most {max(took):.3f} s")
        assert api.turned_away() > 0
        assert b"too many open files" not in api.log.read_bytes().lower()
    finally:
        api.stop()


@pytest.mark.thorough
@pytest.mark.parametrize("workers", [LONG(1), 2])
def test_kills_that_no_parser_takes_and_large_ones_are_answered(live: Live, workers: int) -> None:
    """Through `ais api`'s own event loop and processes, with a client that sends everything before it reads."""
    api = Served(live, HARD, "--workers", str(workers))
    try:
        for extra, body in (("Idempotency-Key: a\x01b", b'{"reason": "here"}'), ("X-A: b", b"x" * 10 * 1024 * 1024)):
            with socket.create_connection(("127.0.0.1", api.port), 10) as connection:
                head = f"POST /control/kill-switch HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {live.key}\r\n{extra}\r\n"
                connection.sendall(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 200 "), answer[:500]
            assert b"x-ais-warning: " in answer
            assert b'"action":"killed"' in answer
    finally:
        api.stop()
