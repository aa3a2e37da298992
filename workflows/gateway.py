"""The only way to the coordinator: connects, signals, queries, and turns Temporal's errors into our own.

GatewayError
├── TemporalUnreachable   nothing was sent
├── SignalRefused         Temporal answered, and refused
├── SignalUnanswered      sent, but it is not known whether Temporal recorded it
│   └── RefusedInTheEnd   a later try was answered, and refused
├── NoCoordinator         never started, or no longer open
└── CoordinatorSilent     it is open, but no worker answered for it
    └── CoordinatorPaused somebody has paused it in Temporal
"""

import asyncio
import contextlib
import logging
import random
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Protocol

from temporalio.api.common.v1 import Header, Payloads, WorkflowExecution
from temporalio.api.enums.v1 import IndexedValueType, QueryRejectCondition, WorkflowExecutionStatus
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetSystemInfoRequest,
    GetWorkflowExecutionHistoryReverseRequest,
    QueryWorkflowRequest,
    QueryWorkflowResponse,
    RequestCancelWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
)
from temporalio.client import Client, Interceptor
from temporalio.envconfig import ClientConfig
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryFilter
from temporalio.service import RPCError, RPCStatusCode

from domain.desk.carried import Outcome
from domain.desk.status import Outcomes, Status
from domain.values import encodable
from workflows import names
from workflows.converter import DATA_CONVERTER
from workflows.shared_query import Headers, SharedQuery

# Temporal's statuses of a run that is open. One that somebody has paused (`temporal workflow pause`) takes signals, and carries
# nothing out until somebody unpauses it.
RUNNING, PAUSED = "RUNNING", "PAUSED"
SIGNAL_SECONDS = 2.0
_DESCRIBE_SECONDS = 1.0
# A try shorter than this times out by itself and would hide what went wrong in the tries before it.
_LAST_TRY_SECONDS = 0.1
_HISTORY_PAGE = 500
_SETTLED_SECONDS = 0.1
_ATTRIBUTES_TIMEOUT = timedelta(seconds=3)
_NOT_ALLOWED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED)
_MAY_NOT_LIST = (*_NOT_ALLOWED, RPCStatusCode.UNIMPLEMENTED)
_KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
_TRANSIENT = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.ABORTED)
_OUT_OF_TIME = (RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED)
_AMBIGUOUS = (
    *_OUT_OF_TIME,
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.ABORTED,
)
# A run whose newest workflow task failed, which the server tries again soon.
_TASK_FAILED = "Workflow Task in failed state"
_NEVER_SENT_TEXTS = ("connect error", "connection refused", "failed client connect", "dns error")


class GatewayError(Exception):
    """Base of all errors between us and the coordinator. The text may be shown to people."""


class TemporalUnreachable(GatewayError):
    """Nothing was sent."""


class SignalRefused(GatewayError):
    """Temporal answered and refused: the signal is not recorded."""


class SignalUnanswered(GatewayError):
    """The signal was sent but not answered: it may have been recorded."""


class RefusedInTheEnd(SignalUnanswered):
    """A try was not answered, so that the signal may have been recorded, and Temporal refused the last one."""


class NoCoordinator(GatewayError):
    """No coordinator of this desk is open; `ever_started` tells whether Temporal knows a closed one."""

    def __init__(self, desk: str, status: str | None) -> None:
        self.ever_started = status is not None
        remedy = "a person can start it again with `ais restart`"
        if status is None:
            remedy = "if the desk is new, run `ais start`; if Temporal's store was lost, " + remedy
        what = f"is {status.lower().replace('_', ' ')}" if status else "was never started"
        super().__init__(f"the coordinator of desk {desk!r} {what}; {remedy}")


class CoordinatorSilent(GatewayError):
    """The coordinator is open, but its state could not be read in time. `answered` tells whether a worker said anything at
    all."""

    def __init__(self, text: str, *, answered: bool = False) -> None:
        self.answered = answered
        super().__init__(text)


class CoordinatorPaused(CoordinatorSilent):
    """Somebody has paused it in Temporal: what it is sent is kept, and nothing is carried out."""

    def __init__(self, desk: str) -> None:
        super().__init__(paused_text(desk))


class CallFollower(Protocol):
    """Follows the calls to the coordinator, as a trace does."""

    def calling(self, what: str, command_id: object = None) -> AbstractContextManager[Headers]:
        """Surrounds one call; yields the headers that the call should carry."""


class _NobodyFollows:
    def calling(self, what: str, command_id: object = None) -> AbstractContextManager[Headers]:
        return contextlib.nullcontext({})


async def connect(
    config: Mapping[str, Any] | None = None,
    *,
    lazy: bool = False,
    runtime: Runtime | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> Client:
    """A client with our data converter. `config` holds arguments of `Client.connect`; without it, Temporal's own settings
    apply."""
    arguments = dict(ClientConfig.load_client_connect_config() if config is None else config)
    arguments.setdefault("target_host", "127.0.0.1:7233")
    return await Client.connect(
        **arguments, data_converter=DATA_CONVERTER, lazy=lazy, runtime=runtime, interceptors=interceptors
    )


def sdk_logging() -> LoggingConfig:
    """The SDK's own log, handed to Python's. By itself the SDK writes to standard output, and its threads, which poll for a
    kill's tasks, would wait for as long as nobody reads that."""
    levels = TelemetryFilter(core_level="WARN", other_level="ERROR")
    return LoggingConfig(levels, LogForwardingConfig(logging.getLogger("temporal")))


async def registered_attributes(client: Client) -> Collection[str]:
    """The keywords among the custom search attributes of the client's namespace; only those of AIS where this client may not list
    them, as on Temporal Cloud. Raises RPCError if the server does not say.

    One of our names with another type is as good as missing: the server refuses every workflow task that sets it."""
    request = ListSearchAttributesRequest(namespace=client.namespace)
    try:
        answer = await client.operator_service.list_search_attributes(request, timeout=_ATTRIBUTES_TIMEOUT)
    except RPCError as error:
        if error.status not in _MAY_NOT_LIST:
            raise
        return [key.name for key in names.SEARCH_ATTRIBUTES if await _is_registered(client, key.name)]
    return [name for name, kind in answer.custom_attributes.items() if kind == _KEYWORD]


async def _is_registered(client: Client, name: str) -> bool:
    """Whether runs can be counted by it, which anybody may do who reads them."""
    request = CountWorkflowExecutionsRequest(namespace=client.namespace, query=f'{name} = "-"')
    try:
        await client.workflow_service.count_workflow_executions(request, timeout=_ATTRIBUTES_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.INVALID_ARGUMENT:
            raise
        return False
    return True


class DeskGateway:
    """The coordinator of one desk, as callers see it. `patience` bounds one query, in seconds."""

    def __init__(self, client: Client, desk: str, patience: float = 3.0, follower: CallFollower | None = None) -> None:
        self._client = client
        self._patience = patience
        self._follower = follower or _NobodyFollows()
        self.desk = desk
        self.workflow_id = names.workflow_id(desk)
        self._shared = SharedQuery(self._ask)
        self._reached = False
        # The newest status, and when it was asked for by this process's clock.
        self._newest: tuple[float, Status] | None = None

    @property
    def client(self) -> Client:
        """The client that this gateway uses."""
        return self._client

    async def signal(self, name: str, payload: dict[str, Any], seconds: float = SIGNAL_SECONDS) -> None:
        """Records a signal with Temporal within `seconds`. Retries never record it twice."""
        request = SignalWorkflowExecutionRequest(
            namespace=self._client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=self.workflow_id),
            signal_name=name,
            # A value that cannot be encoded must not hold up a kill.
            input=Payloads(payloads=await self._client.data_converter.encode([encodable(payload)])),
            identity=self._client.identity,
            request_id=str(uuid.uuid4()),
        )
        with self._follower.calling(f"SignalWorkflow:{name}", payload.get("command_id")) as headers:
            _carry(headers, request)
            await self._send(
                lambda left: self._client.workflow_service.signal_workflow_execution(
                    request, retry=False, timeout=left
                ),
                seconds,
            )

    async def request_cancel(self, reason: str, seconds: float = SIGNAL_SECONDS) -> None:
        """Requests the workflow's cancellation, which the coordinator takes as a kill."""
        request = RequestCancelWorkflowExecutionRequest(
            namespace=self._client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=self.workflow_id),
            identity=self._client.identity,
            request_id=str(uuid.uuid4()),
            reason=reason,
        )
        with self._follower.calling("RequestCancelWorkflow"):
            await self._send(
                lambda left: self._client.workflow_service.request_cancel_workflow_execution(
                    request, retry=False, timeout=left
                ),
                seconds,
            )

    async def standing_cancellation(self, seconds: float) -> str | None:
        """The reason of the first cancellation that the newest run was asked for; None if nobody says in time.

        The server takes one cancellation per run. It answers a second one as if it had been taken, and keeps no trace of
        it.
        """
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=self.workflow_id),
            maximum_page_size=_HISTORY_PAGE,
        )
        try:
            async with asyncio.timeout(seconds):
                return await self._find_cancellation(request)
        except (RPCError, RuntimeError, TimeoutError):
            return None

    async def _find_cancellation(self, request: GetWorkflowExecutionHistoryReverseRequest) -> str | None:
        while True:
            answer = await self._client.workflow_service.get_workflow_execution_history_reverse(request, retry=False)
            for event in answer.history.events:
                if event.HasField("workflow_execution_cancel_requested_event_attributes"):
                    return event.workflow_execution_cancel_requested_event_attributes.cause
            if not answer.next_page_token:
                return None
            request.next_page_token = answer.next_page_token

    async def status(self) -> Status:
        """The coordinator's status, from a query that begins after this call."""
        return (await self.outcomes()).status

    async def recent_status(self, seconds: float) -> Status:
        """The coordinator's status, at most `seconds` old: for callers that only look and must not use up others' queries."""
        if self._newest is None or time.monotonic() - self._newest[0] > seconds:
            return await self.status()
        return self._newest[1]

    async def outcomes(self, command_ids: Iterable[str] = (), *, urgent: bool = False) -> Outcomes:
        """Status and outcomes, from a query that begins after this call. Whoever asks meanwhile shares it; what is `urgent` does
        not wait for the rest."""
        # Traced here, not inside the query: whoever happens to run the shared query runs it for others too.
        with self._follower.calling(f"QueryWorkflow:{names.OUTCOMES_QUERY}") as headers:
            return await self._shared.read(command_ids, headers, urgent=urgent)

    async def settled(
        self, command_id: str, seconds: float, waits: Callable[[], None] = lambda: None
    ) -> Outcomes | None:
        """The newest answer about a recorded command: as soon as it is settled, else when the time is over. None if nobody
        answered. Calls `waits` before every further query. Raises NoCoordinator if nobody will carry out the command any
        more."""
        deadline, newest = time.monotonic() + seconds, None
        while True:
            # Temporal has recorded the command: a coordinator that is silent now may still carry it out.
            with contextlib.suppress(CoordinatorSilent, TemporalUnreachable):
                newest = await self.outcomes([command_id])
                outcome = newest.outcomes.get(command_id)
                if outcome is not None and outcome.outcome is not Outcome.PENDING:
                    return newest
            if time.monotonic() > deadline:
                return newest
            waits()
            await asyncio.sleep(_SETTLED_SECONDS)

    async def open_status(self) -> str | None:
        """Temporal's status of the coordinator's newest run (`RUNNING`, `TERMINATED`, …); None if there is no run."""
        return _status_of(await self._describe(self._patience))

    async def paused_activities(self) -> dict[str, str]:
        """The activities that somebody has paused (`temporal activity pause`): their types, by id."""
        found = await self._describe(self._patience)
        pending = found.pending_activities if found else ()
        return {each.activity_id: each.activity_type.name for each in pending if each.paused}

    async def _describe(self, seconds: float) -> DescribeWorkflowExecutionResponse | None:
        request = DescribeWorkflowExecutionRequest(
            namespace=self._client.namespace, execution=WorkflowExecution(workflow_id=self.workflow_id)
        )
        try:
            await self._reach(seconds)
            return await self._client.workflow_service.describe_workflow_execution(
                request, retry=False, timeout=timedelta(seconds=seconds)
            )
        except (RPCError, RuntimeError) as error:
            if self._has_no_namespace(error):
                raise TemporalUnreachable(self._namespace_text()) from error
            if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise TemporalUnreachable(unreachable_text(error)) from error

    async def _reach(self, seconds: float) -> None:
        """Connects a lazy client in bounded time. If this raises, nothing of ours was sent.

        The SDK's first connect has no limit of its own: a port that accepted and never answered held up a signal for ever.
        """
        if self._reached:
            return
        call = self._client.workflow_service.get_system_info(
            GetSystemInfoRequest(), retry=False, timeout=timedelta(seconds=max(seconds, 0.05))
        )
        try:
            await asyncio.wait_for(call, max(seconds, 0.05))
        except TimeoutError as error:
            raise TemporalUnreachable(unreachable_text(f"no connection within {seconds:.1f} s")) from error
        except ValueError as error:
            # An address that is none, such as a port above 65535.
            raise TemporalUnreachable(unreachable_text(error)) from error
        self._reached = True

    async def _send(self, call: Callable[[timedelta], Awaitable[object]], seconds: float) -> None:
        deadline, maybe_recorded = time.monotonic() + seconds, False
        while True:
            left = deadline - time.monotonic()
            try:
                await self._reach(left)
                await call(timedelta(seconds=max(deadline - time.monotonic(), 0.05)))
                return
            except (RPCError, RuntimeError) as error:
                maybe_recorded = maybe_recorded or may_have_arrived(error)
                is_transient = not isinstance(error, RPCError) or error.status in _TRANSIENT
                is_transient = is_transient or _was_cut_off(error, deadline)
                if not is_transient or left < _LAST_TRY_SECONDS:
                    raise await self._signal_error(error, maybe_recorded) from error
            await asyncio.sleep(_backoff())

    async def _signal_error(self, error: Exception, maybe_recorded: bool) -> GatewayError:
        if self._has_no_namespace(error) and not maybe_recorded:
            return TemporalUnreachable(self._namespace_text())
        if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND and not maybe_recorded:
            return NoCoordinator(self.desk, _status_of(await self._describe(_DESCRIBE_SECONDS)))
        if (
            isinstance(error, RPCError)
            and error.status is not RPCStatusCode.UNAVAILABLE
            and not may_have_arrived(error)
        ):
            refused = f"Temporal refused the signal: {error}"
            return (
                RefusedInTheEnd(f"{refused}, after an attempt without an answer")
                if maybe_recorded
                else SignalRefused(refused)
            )
        if maybe_recorded:
            return SignalUnanswered(f"Temporal did not answer: {error}")
        return TemporalUnreachable(unreachable_text(error))

    def _has_no_namespace(self, error: Exception) -> bool:
        """Whether Temporal has not even the namespace. Then it knows nothing of the desk, not that it was never started."""
        if not isinstance(error, RPCError) or error.status is not RPCStatusCode.NOT_FOUND:
            return False
        return any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details)

    def _namespace_text(self) -> str:
        return f"Temporal has no namespace {self._client.namespace!r}; correct TEMPORAL_NAMESPACE"

    async def _ask(self, command_ids: list[str], headers: Headers) -> Outcomes:
        arguments = Payloads(payloads=await self._client.data_converter.encode([command_ids]))
        request = QueryWorkflowRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=self.workflow_id),
            query=WorkflowQuery(query_type=names.OUTCOMES_QUERY, query_args=arguments),
            # Without this, a terminated coordinator still answers `running` (measured).
            query_reject_condition=QueryRejectCondition.QUERY_REJECT_CONDITION_NOT_OPEN,
        )
        _carry(headers, request.query)
        began = time.monotonic()
        answer = await self._query(request)
        if answer.HasField("query_rejected"):
            name = WorkflowExecutionStatus.Name(answer.query_rejected.status).removeprefix("WORKFLOW_EXECUTION_STATUS_")
            if name == PAUSED:
                raise CoordinatorPaused(self.desk)
            raise NoCoordinator(self.desk, name)
        try:
            (outcomes,) = await self._client.data_converter.decode(answer.query_result.payloads, [Outcomes])
        except ValueError as error:
            # Happens during a roll-out. A recorded kill must be reported as such, not as a bug of ours.
            raise CoordinatorSilent(
                f"the worker of desk {self.desk!r} runs another version of AIS than this process; "
                "run the same version of both",
                answered=True,
            ) from error
        self._newest = began, outcomes.status
        return outcomes  # type: ignore[no-any-return]

    async def _query(self, request: QueryWorkflowRequest) -> QueryWorkflowResponse:
        """Repeats the query until there is an answer or `patience` is over."""
        deadline, told = time.monotonic() + self._patience, None
        while True:
            try:
                await self._reach(deadline - time.monotonic())
                answer = await self._client.workflow_service.query_workflow(
                    request, retry=False, timeout=timedelta(seconds=max(deadline - time.monotonic(), 0.05))
                )
                # A query that waits while its run continues as new is rejected with that run's status. The next one finds
                # the new run.
                if answer.query_rejected.status != WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW:
                    return answer
            except (RPCError, RuntimeError) as error:
                full = isinstance(error, RPCError) and error.status is RPCStatusCode.RESOURCE_EXHAUSTED
                is_busy = full or any(text in str(error) for text in (names.LATCH_UNREAD, _TASK_FAILED))
                if not (is_busy or _was_cut_off(error, deadline)) or time.monotonic() > deadline:
                    # The last try may fail only because our own time ran out. Report what an earlier try was told instead.
                    ran_out = isinstance(error, RPCError) and error.status in _OUT_OF_TIME
                    raise self._query_error(told if told and ran_out else error) from error
                told = error if is_busy else told
            if time.monotonic() > deadline:
                raise CoordinatorSilent(
                    f"the coordinator of desk {self.desk!r} is continuing as a new run; ask again", answered=True
                )
            await asyncio.sleep(_backoff())

    def _query_error(self, error: Exception) -> GatewayError:
        status = error.status if isinstance(error, RPCError) else None
        if self._has_no_namespace(error):
            return TemporalUnreachable(self._namespace_text())
        if status is RPCStatusCode.NOT_FOUND:
            return NoCoordinator(self.desk, None)
        if status is None or status is RPCStatusCode.UNAVAILABLE:
            return TemporalUnreachable(unreachable_text(error))
        if status in _NOT_ALLOWED:
            # An API key that has expired is no worker that does not answer.
            return TemporalUnreachable(
                f"Temporal refuses this process ({error}); check TEMPORAL_API_KEY and its rights"
            )
        if names.LATCH_UNREAD in str(error):
            return CoordinatorSilent(f"the coordinator of desk {self.desk!r}: {names.LATCH_UNREAD}", answered=True)
        return CoordinatorSilent(
            f"no worker answered for the coordinator of desk {self.desk!r} within {self._patience:g} s ({error}); "
            "start a worker: python worker.py"
        )


def _carry(headers: Headers, request: SignalWorkflowExecutionRequest | WorkflowQuery) -> None:
    if headers:
        request.header.CopyFrom(Header(fields=headers))


def _status_of(found: DescribeWorkflowExecutionResponse | None) -> str | None:
    if found is None:
        return None
    return WorkflowExecutionStatus.Name(found.workflow_execution_info.status).removeprefix("WORKFLOW_EXECUTION_STATUS_")


def paused_text(desk: str) -> str:
    """What a person needs to know of a run that was paused in Temporal."""
    return (
        f"the coordinator of desk {desk!r} is paused in Temporal, and carries out nothing, not even a kill, until somebody runs "
        f"`temporal workflow unpause --workflow-id {names.workflow_id(desk)}`"
    )


def unreachable_text(error: object) -> str:
    """What a person needs of the bridge's error: the innermost message of its Rust structure."""
    inner = re.findall(r'message: "([^"]+)"', str(error))
    why = inner[-1] if inner else str(error)[:200]
    return f"Temporal cannot be reached ({why}); check that it runs and what TEMPORAL_ADDRESS says"


def _backoff() -> float:
    return random.uniform(0.005, 0.030)  # noqa: S311 - spreads retries, guards nothing


def _was_cut_off(error: Exception, deadline: float) -> bool:
    """Whether a call ended before its own time was over, and not by an answer: a server ends each of its connections after some
    minutes, whatever is still under way on it."""
    is_early = deadline - time.monotonic() >= _LAST_TRY_SECONDS
    cut = (RPCStatusCode.UNAVAILABLE, *_OUT_OF_TIME)
    return is_early and isinstance(error, RPCError) and error.status in cut and may_have_arrived(error)


def may_have_arrived(error: Exception) -> bool:
    """Whether a call that failed with this error may still have been carried out."""
    text = str(error).lower()
    never_sent = any(hint in text for hint in _NEVER_SENT_TEXTS)
    return isinstance(error, RPCError) and error.status in _AMBIGUOUS and not never_sent
