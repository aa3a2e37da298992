"""`make bench`: the kill's right of way, and what many clients cost, on a real `ais dev` of its own.

The floor is the bare server: one signal, then one query, by the SDK. The kill's promise (contract/http.md): its p99 under
64 status clients, 1,000 unauthenticated requests a second and a hanging database stays within twice its idle p99 and 50 ms.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import psutil

import settings
from tests.e2e.live import Live
from workflows.gateway import DeskGateway, connect

SAMPLES = int(os.environ.get("AIS_BENCH_SAMPLES", "200"))
Call = Callable[[], Awaitable[object]]


async def timed(call: Call, samples: int = SAMPLES) -> list[float]:
    """Seconds of each call, sorted."""
    found = []
    for _ in range(samples):
        began = time.perf_counter()
        await call()
        found.append(time.perf_counter() - began)
    return sorted(found)


def p(sorted_seconds: list[float], percent: int) -> float:
    """A percentile in milliseconds."""
    return 1_000 * sorted_seconds[min(len(sorted_seconds) - 1, len(sorted_seconds) * percent // 100)]


def tell(name: str, seconds: list[float], floor: list[float]) -> None:
    """One row: percentiles, and the median against the floor's."""
    ratio = p(seconds, 50) / p(floor, 50)
    print(f"{name:<46} p50 {p(seconds, 50):7.1f} ms   p99 {p(seconds, 99):7.1f} ms   {ratio:5.2f} x floor", flush=True)


@contextlib.contextmanager
def load(port: int, key: str) -> Iterator[None]:
    """64 status clients and 1,000 unauthenticated requests a second, for as long as the block runs."""
    process = subprocess.Popen([sys.executable, "-m", "bench.load", "127.0.0.1", str(port), key])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def hanging(postmaster: int) -> Iterator[None]:
    """PostgreSQL stopped in the middle of whatever it does."""
    family = [psutil.Process(postmaster), *psutil.Process(postmaster).children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            process.resume()


async def measure(live: Live) -> None:
    """All rows."""
    base, key = live.stack.recorded["api_url"], live.key
    gateway = DeskGateway(await connect(settings.temporal_connect_config(live.folder)), "main", patience=10)

    async def bare() -> None:
        await gateway.signal("pause", {"actor": "bench"})
        await gateway.status()

    async with httpx.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=30) as http:

        async def kill() -> None:
            answer = await http.post("/control/kill-switch", json={"reason": "bench"})
            assert answer.status_code in (200, 202), answer.text

        await timed(kill, 5)
        floor = await timed(bare)
        tell("floor: one signal, one query, by the SDK", floor, floor)
        idle = await timed(kill)
        tell("kill over HTTP, idle", idle, floor)
        with hanging(live.stack.recorded["pids"]["PostgreSQL"]), load(live.stack.recorded["api_port"], key):
            loaded = await timed(kill)
        tell("kill, 64 status clients, 1,000 401s/s, hung DB", loaded, floor)
        allowed = 2 * p(idle, 99) + 50
        print(f"the kill's right of way: p99 {p(loaded, 99):.0f} ms of {allowed:.0f} ms allowed")
        await _many(http, floor)


async def _many(http: httpx.AsyncClient, floor: list[float]) -> None:
    for clients in (16, 64):
        for path, method in (("/control/status", "GET"), ("/control/cancel-all", "POST")):

            async def call(path: str = path, method: str = method) -> None:
                await http.request(method, path)

            runs = await asyncio.gather(*(timed(call, max(5, SAMPLES // clients)) for _ in range(clients)))
            tell(f"{clients} clients, {method} {path}", sorted(s for run in runs for s in run), floor)


def main() -> None:
    """Runs on free ports, in a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        live = Live(Path(folder).resolve() / "desk")
        try:
            live.start()
            asyncio.run(measure(live))
        finally:
            live.clean_up()


if __name__ == "__main__":
    main()
