"""Real Temporal servers for the tests."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowHistory
from temporalio.service import GrpcCompression
from temporalio.testing import WorkflowEnvironment

from cli.dev.temporal import DYNAMIC_CONFIG
from workflows import names
from workflows.converter import DATA_CONVERTER

BIN = Path(sys.executable).parent
# A test's queues are many and live for seconds: to open four partitions of each is a quarter of the server's time.
PARTITIONS = [f"matching.numTaskqueue{kind}Partitions" for kind in ("Read", "Write")]
# So low that a test sees several continuations; the server's default is 4,096 events.
SHORT_HISTORY = ["--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=120"]


async def serve(*extra: str, partitions: int = 1) -> WorkflowEnvironment:
    """A development server of its own, on a free port, with our search attributes."""
    values = [*DYNAMIC_CONFIG, *(f"{name}={partitions}" for name in PARTITIONS)]
    return await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(BIN / "temporal"),
        data_converter=DATA_CONVERTER,
        search_attributes=list(names.SEARCH_ATTRIBUTES),
        dev_server_extra_args=[*(arg for value in values for arg in ("--dynamic-config-value", value)), *extra],
        dev_server_log_level="error",
    )


async def client_of(env: WorkflowEnvironment) -> Client:
    """A client that compresses nothing: between two processes of one machine that is a twentieth of the server's time."""
    return await Client.connect(
        env.client.service_client.config.target_host,
        data_converter=DATA_CONVERTER,
        grpc_compression=GrpcCompression.NONE,
    )


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[Client]:
    """A client of a development server."""
    async with await serve() as env:
        yield await client_of(env)


@pytest.fixture(scope="session")
async def short_history_temporal() -> AsyncIterator[Client]:
    """A client of a development server that suggests continue-as-new after 120 events."""
    async with await serve(*SHORT_HISTORY) as env:
        yield await client_of(env)


def has_begun(run: WorkflowHistory) -> bool:
    """Whether there is something to replay. A run that has just been continued has one event, its start, for some milliseconds;
    for such a history the SDK's replayer (temporalio 1.35) waits without end, and CI stood still for it."""
    return any(event.HasField("workflow_task_completed_event_attributes") for event in run.events)
