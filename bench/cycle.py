"""What a running cycle without an order costs: events and bytes of Temporal's history, and the CPU of worker and Temporal server.

All agents are asked, on a market that does not move, so none proposes. The floor has a server of its own: what a server does
at rest is part of both.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
from temporalio.client import Client, WorkflowHandle

from bench.bare import WORKFLOW_ID, bare_cycle
from bench.bare_workflow import nothing
from bench.desks import a_desk
from bench.machine import STARTS_WITHIN_SECONDS, cpu_seconds
from bench.subject import BYTES, EVENTS, Pair, Steps, Subject
from domain.trading.market import Bar
from tests.deploy.dev_stack import wait_until
from tests.replay.builders import START, D, written
from workflows.names import workflow_id

CYCLE_SECONDS = 1
WARM_UP_CYCLES, WINDOWS, CYCLES, BARS = 5, 8, 30, 3_600
SYMBOLS = ("BTCUSDT", "ETHUSDT")
OBSERVE, ORDER = "observe", "place_order"
EVENTS_OF_THE_FLOOR = 11


class CycleCost(NamedTuple):
    """One cycle of a history."""

    events: int
    size: int


async def _costs(address: str, workflow: str, first: str) -> list[CycleCost]:
    return await costs_of((await Client.connect(address)).get_workflow_handle(workflow), first)


async def costs_of(handle: WorkflowHandle[Any, Any], first: str) -> list[CycleCost]:
    """Of each whole cycle without an order. A cycle begins where its activity `first` is scheduled."""
    cycles: list[list[tuple[str, int]]] = []
    async for event in handle.fetch_history_events():
        name = event.activity_task_scheduled_event_attributes.activity_type.name
        if name == first:
            cycles.append([])
        if cycles:
            cycles[-1].append((name, event.ByteSize()))
    return [
        CycleCost(len(cycle), sum(size for _, size in cycle))
        for cycle in cycles[1:-1]
        if ORDER not in {name for name, _ in cycle}
    ]


async def _history_length(address: str) -> int:
    handle: WorkflowHandle[object, object] = (await Client.connect(address)).get_workflow_handle(WORKFLOW_ID)
    return (await handle.describe()).history_length


def cycles_told(metrics_url: str) -> int:
    """How many cycles a worker has made, by its own metrics."""
    text = httpx.get(metrics_url, trust_env=False).text
    return int(sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("ais_cycle_seconds_count")))


class Windows:
    """The CPU of a cycle over some cycles in a row: of a worker with its children, and kept beside it, of its server."""

    def __init__(self, worker: int, temporal: int, count: Callable[[], int], cycles: int) -> None:
        self._worker, self._temporal = psutil.Process(worker), temporal
        self._count, self._cycles = count, cycles
        self._of_the_server: list[float] = []

    def of_the_worker(self) -> float:
        """Seconds of the processor a cycle."""
        family = [self._worker.pid, *(child.pid for child in self._worker.children(recursive=True))]
        began, before = self._count(), (cpu_seconds(*family), cpu_seconds(self._temporal))
        time.sleep(self._cycles * CYCLE_SECONDS)
        # A busy machine makes fewer than one a second.
        while (cycles := self._count() - began) < self._cycles:
            time.sleep(CYCLE_SECONDS)
        after = (cpu_seconds(*family), cpu_seconds(self._temporal))
        self._of_the_server.append((after[1] - before[1]) / cycles)
        return (after[0] - before[0]) / cycles

    def of_the_server(self) -> float:
        """Of the same window as a sample of the worker's."""
        return self._of_the_server.pop(0)


def still_market(folder: Path) -> str:
    """AIS_MARKET: an hour of bars that are all the same."""
    price = dict.fromkeys(("open", "high", "low", "close"), D("100.0"))
    times = (START + number * timedelta(minutes=1) for number in range(BARS))
    bars = [Bar(open_time=opened, volume=D(1000), **price) for opened in times]
    file = written(folder / "still.csv", bars)
    return "replay:" + ",".join(f"{symbol}={file}" for symbol in SYMBOLS)


def of_each(costs: list[CycleCost], field: str) -> Callable[[], float]:
    """The next cycle's, as a sample."""
    found: Iterator[float] = iter([float(getattr(cost, field)) for cost in costs])
    return lambda: next(found)


def pairs(cycles: int) -> Steps:
    """CPU over windows, then the histories that these made."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        market, symbols = still_market(folder), ",".join(SYMBOLS)
        live = stack.enter_context(a_desk("--symbols", symbols, AIS_MARKET=market))
        bare = stack.enter_context(bare_cycle(folder, CYCLE_SECONDS))
        recorded = live.stack.recorded
        metrics = f"http://127.0.0.1:{recorded['worker_metrics_port']}/metrics"
        wait_until(lambda: cycles_told(metrics) > WARM_UP_CYCLES, "the desk makes cycles", STARTS_WITHIN_SECONDS)

        def of_the_floor() -> int:
            return asyncio.run(_history_length(bare.address)) // EVENTS_OF_THE_FLOOR

        ours = Windows(recorded["pids"]["worker"], recorded["pids"]["Temporal"], lambda: cycles_told(metrics), cycles)
        floor = Windows(bare.worker, bare.temporal, of_the_floor, cycles)
        yield Pair("CPU of the worker, a cycle", ours.of_the_worker, floor.of_the_worker, WINDOWS, warm_up=0)
        yield Pair("CPU of the Temporal server, a cycle", ours.of_the_server, floor.of_the_server, WINDOWS, warm_up=0)
        found = asyncio.run(_costs(recorded["temporal_address"], workflow_id("main"), OBSERVE))
        least = asyncio.run(_costs(bare.address, WORKFLOW_ID, nothing.__name__))
        count = min(CYCLES, len(found), len(least))
        for unit, field in ((EVENTS, "events"), (BYTES, "size")):
            what = f"{unit} of history, a cycle"
            yield Pair(what, of_each(found, field), of_each(least, field), count, unit, warm_up=0)


SUBJECT = Subject(
    "cycle", "a cycle without an order", "a bare workflow of one activity and one timer", pairs, 10, "cycles a sample"
)
