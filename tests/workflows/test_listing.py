"""Runs with a status that the SDK's own lists do not know, as a server of these tests hands them out."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse, ListWorkflowExecutionsResponse
from temporalio.client import Client

import settings
from cli import desks
from cli.examine import temporal
from cli.examine.findings import Examination, Verdict
from domain.desk.status import Status
from workflows.gateway import PAUSED, CoordinatorPaused
from workflows.listing import described, status_of
from workflows.recorded import ListedRun, listed_desks, listed_runs

NOW = datetime(2026, 3, 12, tzinfo=UTC)
STATUSES = [
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_PAUSED,
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TERMINATED,
]


def run(number: int, status: int) -> WorkflowExecutionInfo:
    execution = WorkflowExecution(workflow_id="coordinator-main", run_id=f"run-{number}")
    info = WorkflowExecutionInfo(execution=execution, status=cast("Any", status))
    info.start_time.FromDatetime(NOW - timedelta(hours=number))
    if status != STATUSES[0]:
        info.close_time.FromDatetime(NOW)
    return info


@pytest.fixture
def client() -> Client:
    runs = [run(number, status) for number, status in enumerate(STATUSES)]

    async def list_(request: Any, **_: Any) -> ListWorkflowExecutionsResponse:
        # One on each page.
        at = int(request.next_page_token or 0)
        found = [] if 'ExecutionStatus="Running"' in request.query else runs[at : at + 1]
        return ListWorkflowExecutionsResponse(executions=found, next_page_token=b"1" if found and at == 0 else b"")

    async def describe(*_: Any, **__: Any) -> DescribeWorkflowExecutionResponse:
        return DescribeWorkflowExecutionResponse(workflow_execution_info=runs[0])

    service = SimpleNamespace(list_workflow_executions=list_, describe_workflow_execution=describe)
    return cast("Client", SimpleNamespace(namespace="default", workflow_service=service))


async def test_a_run_that_is_paused_in_temporal_is_listed_and_described(client: Client) -> None:
    assert await listed_desks(client) == ["main"]
    assert await listed_runs(client, "main") == [ListedRun(f"run-{n}", NOW - timedelta(hours=n)) for n in range(2)]
    assert status_of((await described(client, "x", timedelta(seconds=1))).workflow_execution_info) == PAUSED
    assert status_of(run(1, 99)) == "STATUS_99"


async def test_a_desk_that_is_paused_in_temporal_is_told_as_open_with_what_to_do(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gateway:
        def __init__(self, *_: Any, **__: Any) -> None:
            """Of any desk."""

        async def open_status(self) -> str:
            return PAUSED

        async def paused_activities(self) -> dict[str, str]:
            return {}

        async def status(self) -> Status:
            raise CoordinatorPaused("main")

    async def connect() -> Client:
        return client

    monkeypatch.setattr(desks, "connect_lazily", connect)
    monkeypatch.setattr(desks, "DeskGateway", Gateway)
    said: list[str] = []
    (line,) = await desks.desks(said.append)
    assert not said
    assert (line.desk, line.coordinator, line.confirmed, line.closed_at) == ("main", "open", False, None)
    assert "temporal workflow unpause --workflow-id coordinator-main" in desks.table([line])
    monkeypatch.setattr(desks, "MAX_CLOSED", 1)
    await desks.desks(said.append)
    assert "may be missing" in said[0]
    # Nobody is told to start a worker, which would change nothing.
    monkeypatch.setattr(temporal, "DeskGateway", Gateway)
    seen = Examination(client=client, loaded={settings.DeskSettings: settings.DeskSettings()})
    found = [await temporal.coordinator(seen), await temporal.worker(seen)]
    assert [finding.verdict for finding in found] == [Verdict.FAIL, Verdict.WARN]
    assert not [finding for finding in found if "start a worker" in finding.do]
