"""Which rows of Temporal's histories nobody else will write: on histories made here, without a server."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryReverseRequest,
    GetWorkflowExecutionHistoryReverseResponse,
)
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from activities.calls import RecordCall, Scope
from domain.desk.outbox import RecordBatch
from domain.desk.states import Mode
from tests.api.world import make_decision
from workflows.recorded import ListedRun, RecordedRows, recorded

NOW = datetime(2026, 3, 12, tzinfo=UTC)


async def history(number: int, continues: str = "", *, written: bool = False) -> list[HistoryEvent]:
    """A run that gave one row to be written, the newest event first."""
    call = RecordCall(scope=Scope(desk="main", mode=Mode.PAPER), batch=RecordBatch(decisions=[make_decision(number)]))
    started, scheduled, completed = (HistoryEvent(event_id=event_id) for event_id in (1, 5, 7))
    started.workflow_execution_started_event_attributes.continued_execution_run_id = continues
    scheduled.activity_task_scheduled_event_attributes.activity_type.name = "record"
    payloads = scheduled.activity_task_scheduled_event_attributes.input.payloads
    payloads.extend(await pydantic_data_converter.encode([call]))
    completed.activity_task_completed_event_attributes.scheduled_event_id = 5
    return [*([completed] if written else []), scheduled, started]


def client_of(histories: dict[str, list[HistoryEvent]]) -> Client:
    async def read(asked: GetWorkflowExecutionHistoryReverseRequest, **_: Any) -> Any:
        answer = GetWorkflowExecutionHistoryReverseResponse()
        answer.history.events.extend(histories[asked.execution.run_id])
        return answer

    service = SimpleNamespace(get_workflow_execution_history_reverse=read)
    found = SimpleNamespace(namespace="default", workflow_service=service, data_converter=pydantic_data_converter)
    return cast("Client", found)


async def test_rows_that_a_terminated_coordinator_left_are_put_back_although_a_new_one_is_open() -> None:
    """The open one never had them: they were told neither as missing nor as lost."""
    histories = {
        "newest": await history(5, continues="before"),
        "before": await history(4, continues="unlisted"),
        "unlisted": await history(3),
        "terminated": await history(2, continues="first"),
        "first": await history(1, written=True),
    }
    runs = [
        ListedRun(run_id, NOW - timedelta(hours=number))
        for number, run_id in enumerate(name for name in histories if name != "unlisted")
    ]
    found = [each async for each in recorded(client_of(histories), "main", runs)]
    rows = [each for each in found if isinstance(each, RecordedRows)]
    assert [each.run_id for each in rows] == list(histories)
    assert [each.run_id for each in rows if each.are_settled(is_open=True)] == ["terminated", "first"]
    assert all(each.are_settled(is_open=False) for each in rows)
