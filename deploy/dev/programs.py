"""Our own programs as parts of the stack: `worker.py` and `ais api`, run as anybody would run them by hand."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from deploy.dev.environment import for_python
from deploy.dev.http import answers
from deploy.dev.ports import HOST
from deploy.dev.process import Child, Command


@dataclass
class Worker:
    """It answers when its metrics do: `worker.py` opens that port once it polls."""

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
        self.child.spawn(Command([sys.executable, "-m", "worker"], for_python()))

    async def answers(self) -> bool:
        return await answers(self.metrics_port, "/metrics")


@dataclass(frozen=True)
class Api:
    """It answers when /health/live does."""

    child: Child
    port: int

    name = "API"
    stop_grace_seconds = 10.0

    @property
    def where(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        argv = [sys.executable, "-m", "cli", "api", "--port", str(self.port)]
        self.child.spawn(Command(argv, for_python()))

    async def answers(self) -> bool:
        return await answers(self.port, "/health/live")
