"""The kill's right of way, and what many clients cost, on a real `ais dev`.

The kill's promise: its p99 under 64 status clients, 1,000 unauthenticated requests a second and a hanging database stays
within twice its idle p99 and 50 ms.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psutil

import settings
from bench.desks import a_desk
from bench.loading import limit, load
from bench.pairs import percentile
from bench.subject import Pair, Remark, Sample, Steps, Subject
from tests.e2e.live import Live
from workflows.gateway import DeskGateway, connect

SAMPLES, WAVES = 200, 20
IDLE_TIMES, MORE_SECONDS = 2, 0.05
WAVE_CLIENTS = (16, 64)
REQUESTS = (("GET", "/control/status"), ("POST", "/control/cancel-all"))
Call = Callable[[], Awaitable[object]]


@contextmanager
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


class Clients:
    """One HTTP client and one of the SDK, and samples of what they do."""

    def __init__(self, live: Live, stack: ExitStack) -> None:
        self._runner = stack.enter_context(asyncio.Runner())
        headers = {"Authorization": f"Bearer {live.key}"}
        self._http = httpx.AsyncClient(base_url=live.stack.recorded["api_url"], headers=headers, timeout=30)
        stack.callback(lambda: self._runner.run(self._http.aclose()))
        client = self._runner.run(connect(settings.temporal_connect_config(live.folder)))
        self._gateway = DeskGateway(client, "main", patience=10)

    def kill(self) -> float:
        """Seconds of a kill over HTTP."""
        return self._timed(self._kill)

    def bare(self) -> float:
        """Seconds of what the SDK alone takes: one signal, then one query."""
        return self._timed(self._signal_and_query)

    def wave(self, clients: int, method: str, path: str) -> Sample:
        """Seconds until so many requests, sent at once, all have their answers."""

        async def call() -> None:
            await asyncio.gather(*(self._http.request(method, path) for _ in range(clients)))

        return lambda: self._timed(call)

    def _timed(self, call: Call) -> float:
        async def timed() -> float:
            began = time.perf_counter()
            await call()
            return time.perf_counter() - began

        return self._runner.run(timed())

    async def _kill(self) -> None:
        answer = await self._http.post("/control/kill-switch", json={"reason": "bench"})
        assert answer.status_code in (200, 202), answer.text

    async def _signal_and_query(self) -> None:
        await self._gateway.signal("pause", {"actor": "bench"})
        await self._gateway.status()


def right_of_way(idle: list[float], loaded: list[float]) -> Remark:
    """The promise, and what was measured."""
    found, allowed = percentile(loaded, 99), IDLE_TIMES * percentile(idle, 99) + MORE_SECONDS
    kept = "kept" if found <= allowed else "NOT KEPT"
    return Remark(f"the kill's right of way: p99 {1e3 * found:.0f} ms of {1e3 * allowed:.0f} ms allowed: {kept}")


def pairs(_size: int) -> Steps:
    """A kill that is alone, one under load, and waves of requests."""
    yield Remark(f"load: bench/load.py, a process of its own; at a server that only answers it reaches {limit()}")
    with ExitStack() as stack:
        live = stack.enter_context(a_desk())
        clients, recorded = Clients(live, stack), live.stack.recorded
        idle = yield Pair("a kill over HTTP, idle", clients.kill, clients.bare, SAMPLES, warm_up=5)
        with hanging(recorded["pids"]["PostgreSQL"]), load(recorded["api_port"], live.key) as loading:
            what = "a kill: 64 status clients, 1,000 401s a second, hanging database"
            loaded = yield Pair(what, clients.kill, clients.bare, SAMPLES)
        assert idle
        assert loaded
        yield Remark(f"the load during these: {loading.asked}")
        yield right_of_way(idle.ours, loaded.ours)
        for count in WAVE_CLIENTS:
            for method, path in REQUESTS:
                what = f"{count} at once, {method} {path}, until all are answered"
                yield Pair(what, clients.wave(count, method, path), clients.bare, WAVES)


SUBJECT = Subject(
    "control",
    "the kill's right of way, and many clients",
    "one signal and one query by the SDK, in the same state",
    pairs,
)
