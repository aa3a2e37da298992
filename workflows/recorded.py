"""Reads from a coordinator's histories what it decided and instructed: the rows that it gave its activities to write.

Temporal keeps closed runs for its retention time. The newest run is read first, each run from its end, page by page. So the
first state found of an instruction is its newest one, and a long history takes no more memory than a short one.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.calls import ClearLatchCall, RecordCall, clear_latch, record
from domain.desk.outbox import RecordBatch
from workflows import names
from workflows.listing import described, listed

# An event may hold up to 50 rows.
_PAGE = 100
_ANSWER = timedelta(seconds=30)


class ListedRun(NamedTuple):
    """One run that Temporal still lists."""

    run_id: str
    started_at: datetime


class RecordedRows(NamedTuple):
    """Rows that an activity was given, and the event that says so. `written`: the activity reported that they are in the
    database.

    `database_id` is the database that they were meant for. `is_newest`: the run is the newest one, or that one has continued it.
    If that one is still open, it has the rows too.
    """

    run_id: str
    event_id: int
    batch: RecordBatch
    database_id: str | None
    written: bool
    is_newest: bool

    def are_settled(self, *, is_open: bool) -> bool:
        """Whether nobody else will write them: `is_open` says whether the newest run is open."""
        return self.written or not (is_open and self.is_newest)


class UnreadableRows(NamedTuple):
    """Rows that an activity was given, in a form that this process cannot read."""

    run_id: str
    event_id: int
    why: str


class LostRun(NamedTuple):
    """A run that another one continued, but that Temporal no longer has."""

    run_id: str


Recorded = RecordedRows | UnreadableRows | LostRun


async def listed_desks(client: Client) -> list[str]:
    """Every desk that has a run in Temporal's list. Raises RPCError."""
    query = f'WorkflowType="{names.WORKFLOW_TYPE}"'
    found = {run.execution.workflow_id async for run in listed(client, query, _ANSWER)}
    return sorted(id_.removeprefix(names.workflow_id("")) for id_ in found)


async def listed_runs(client: Client, desk: str) -> list[ListedRun]:
    """The runs of a desk, the newest first. Raises RPCError."""
    id_ = names.workflow_id(desk)
    if '"' in id_ or "\\" in id_:
        return []
    runs = [run async for run in listed(client, f'WorkflowId="{id_}"', _ANSWER)]
    try:
        # The list lags behind, so ask for the newest run as well.
        runs.append((await described(client, id_, _ANSWER)).workflow_execution_info)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
    found = {run.execution.run_id: run.start_time.ToDatetime(UTC) for run in runs}
    return sorted((ListedRun(run_id, at) for run_id, at in found.items()), key=lambda run: run.started_at, reverse=True)


async def recorded(client: Client, desk: str, runs: Iterable[ListedRun]) -> AsyncGenerator[Recorded]:
    """Everything that these runs, and the runs that they continued, gave to be written, newest first. Raises RPCError."""
    waiting = [run.run_id for run in runs]
    seen = set(waiting)
    # A run that was terminated and then restarted by a person hands nothing over.
    newest = waiting[0] if waiting else None
    while waiting:
        run_id = waiting.pop(0)
        reader = _RunReader(client, desk, run_id, is_newest=run_id == newest)
        async for found in reader.read():
            yield found
        if run_id == newest:
            newest = reader.continued
        if (before := reader.continued) and before not in seen:
            # Temporal did not list this run, but may still have it.
            seen.add(before)
            waiting.insert(0, before)


class _RunReader:
    """Reads one history from its end."""

    def __init__(self, client: Client, desk: str, run_id: str, *, is_newest: bool) -> None:
        self._client = client
        self._is_newest = is_newest
        self._execution = WorkflowExecution(workflow_id=names.workflow_id(desk), run_id=run_id)
        # The run before this one; known once the history is read.
        self.continued: str | None = None
        # Results of activities, by the event that scheduled them, which comes later when reading backwards. A `record` that
        # completed counts as True.
        self._done: dict[int, bool] = {}

    async def read(self) -> AsyncIterator[Recorded]:
        try:
            async for event in self._events():
                if found := await self._take(event):
                    yield found
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            yield LostRun(self._execution.run_id)

    async def _events(self) -> AsyncIterator[HistoryEvent]:
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self._client.namespace, execution=self._execution, maximum_page_size=_PAGE
        )
        service = self._client.workflow_service
        while True:
            answer = await service.get_workflow_execution_history_reverse(request, retry=True, timeout=_ANSWER)
            for event in answer.history.events:
                yield event
            if not answer.next_page_token:
                return
            request.next_page_token = answer.next_page_token

    async def _take(self, event: HistoryEvent) -> Recorded | None:
        if event.HasField("workflow_execution_started_event_attributes"):
            self.continued = event.workflow_execution_started_event_attributes.continued_execution_run_id or None
        elif event.HasField("activity_task_completed_event_attributes"):
            completed = event.activity_task_completed_event_attributes
            # False only for an explicit `false`: `record` returns nothing, `clear_latch` whether it cleared anything.
            done = all(payload.data != b"false" for payload in completed.result.payloads)
            self._done[completed.scheduled_event_id] = done
        elif event.HasField("activity_task_scheduled_event_attributes"):
            return await self._scheduled(event)
        return None

    async def _scheduled(self, event: HistoryEvent) -> Recorded | None:
        scheduled, done = event.activity_task_scheduled_event_attributes, self._done.pop(event.event_id, None)
        name, run_id = scheduled.activity_type.name, self._execution.run_id
        if name not in _CALLS or (name == _CLEAR_LATCH and not done):
            return None
        try:
            (call,) = await self._client.data_converter.decode(scheduled.input.payloads, [_CALLS[name]])
        except Exception as error:  # an unknown codec, another format, a damaged payload
            return UnreadableRows(run_id, event.event_id, f"{type(error).__name__}: {error}".splitlines()[0][:200])
        batch = call.batch if isinstance(call, RecordCall) else RecordBatch(decisions=[call.row])
        return RecordedRows(run_id, event.event_id, batch, call.scope.database_id, bool(done), self._is_newest)


_RECORD, _CLEAR_LATCH = record.__name__, clear_latch.__name__
_CALLS: dict[str, type[RecordCall] | type[ClearLatchCall]] = {_RECORD: RecordCall, _CLEAR_LATCH: ClearLatchCall}
