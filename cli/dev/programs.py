"""Our own programs as parts of the stack: `worker.py` and `ais api`, run just as a person would run them."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

from cli.dev.environment import for_python
from cli.dev.http import answers
from cli.dev.ports import HOST
from cli.dev.process import Child, ProcessCommand


@dataclass
class Worker:
    """The worker counts as up when its metrics answer: `worker.py` opens that port once it polls."""

    child: Child
    new_metrics_port: Callable[[], int]
    metrics_port: int = 0

    name = "worker"
    stop_grace_seconds = 35.0

    @property
    def where(self) -> str:
        return f"metrics http://{HOST}:{self.metrics_port}/metrics"

    async def start(self) -> None:
        self.metrics_port = self.new_metrics_port()
        self.child.spawn(ProcessCommand([sys.executable, "-m", "worker"], for_python()))

    async def answers(self) -> bool:
        return await asyncio.to_thread(answers, self.metrics_port, "/metrics")


@dataclass(frozen=True)
class Api:
    """The API counts as up when /health/live answers."""

    child: Child
    port: int

    name = "API"
    stop_grace_seconds = 10.0

    @property
    def where(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        argv = [sys.executable, "-m", "cli", "api", "--port", str(self.port)]
        self.child.spawn(ProcessCommand(argv, for_python()))

    async def answers(self) -> bool:
        return await asyncio.to_thread(answers, self.port, "/health/live")
