"""Reads runs from Temporal as the server writes them.

The failure behind this file: where somebody has paused a coordinator (`temporal workflow pause`), the SDK's own lists and
descriptions (temporalio 1.35) raise ValueError, because they do not know that status. `ais desks` and `ais doctor` ended with a
traceback, `ais audit rebuild` could check nothing, and `ais dev` stopped everything.
"""

from collections.abc import AsyncIterator
from datetime import timedelta

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    ListWorkflowExecutionsRequest,
)
from temporalio.client import Client

_PAGE = 1000


async def listed(client: Client, query: str, within: timedelta) -> AsyncIterator[WorkflowExecutionInfo]:
    """Every run that the query finds. `within` limits each page. Raises RPCError or RuntimeError."""
    request = ListWorkflowExecutionsRequest(namespace=client.namespace, query=query, page_size=_PAGE)
    while True:
        answer = await client.workflow_service.list_workflow_executions(request, retry=True, timeout=within)
        for info in answer.executions:
            yield info
        if not answer.next_page_token:
            return
        request.next_page_token = answer.next_page_token


async def described(client: Client, workflow_id: str, within: timedelta) -> DescribeWorkflowExecutionResponse:
    """The newest run of a workflow. Raises RPCError or RuntimeError."""
    request = DescribeWorkflowExecutionRequest(
        namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id)
    )
    return await client.workflow_service.describe_workflow_execution(request, retry=True, timeout=within)


def status_of(info: WorkflowExecutionInfo) -> str:
    """Temporal's status of a run: `RUNNING`, `PAUSED`, `TERMINATED`, …"""
    if info.status not in WorkflowExecutionStatus.values():
        return f"STATUS_{info.status}"
    return WorkflowExecutionStatus.Name(info.status).removeprefix("WORKFLOW_EXECUTION_STATUS_")
