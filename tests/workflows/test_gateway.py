"""What the gateway says of calls that nobody answers in time, or that are refused."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf.any_pb2 import Any as Any_
from temporalio.api.common.v1 import GrpcStatus, Payloads
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.query.v1 import QueryRejected
from temporalio.api.workflowservice.v1 import QueryWorkflowResponse
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode

from cli.lifecycle import Lifecycle, RestartAsked
from cli.refusals import Refused
from cli.terms import DeskTerms
from domain.desk.states import Mode
from domain.desk.status import Outcomes
from domain.risk.limits import Limits
from storage.database import Database
from tests.storage.test_notices import make_status
from workflows import names
from workflows.gateway import (
    CoordinatorSilent,
    DeskGateway,
    GatewayError,
    RefusedInTheEnd,
    SignalRefused,
    TemporalUnreachable,
)


class Service:
    """Temporal's answers to queries: so many of a run that has not read the latch, then none in time."""

    def __init__(self, unread: int) -> None:
        self.unread = unread

    async def get_system_info(self, *_: Any, **__: Any) -> None:
        """It is reached."""

    async def query_workflow(self, _: object, *, retry: bool, timeout: timedelta) -> None:
        self.unread -= 1
        if self.unread >= 0:
            raise RPCError(names.LATCH_UNREAD, RPCStatusCode.INVALID_ARGUMENT, b"")
        await asyncio.sleep(timeout.total_seconds())
        raise RPCError("Timeout expired", RPCStatusCode.CANCELLED, b"")


def gateway(unread: int) -> DeskGateway:
    client = SimpleNamespace(namespace="n", data_converter=pydantic_data_converter, workflow_service=Service(unread))
    return DeskGateway(cast(Client, client), "main", patience=0.3)


async def test_a_last_try_that_runs_out_does_not_hide_that_a_worker_answered() -> None:
    with pytest.raises(CoordinatorSilent, match="has not read the latch"):
        await gateway(unread=2).status()


async def test_where_no_try_was_answered_no_worker_did() -> None:
    with pytest.raises(CoordinatorSilent, match=r"no worker answered .* within 0.3 s"):
        await gateway(unread=0).status()


async def test_who_only_looks_takes_the_newest_answer_of_others_while_it_is_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, asked = gateway(unread=0), list[str]()

    async def answer(_: object) -> QueryWorkflowResponse:
        asked.append("x")
        converted = await pydantic_data_converter.encode([Outcomes(status=make_status("main"), outcomes={})])
        return QueryWorkflowResponse(query_result=Payloads(payloads=converted))

    monkeypatch.setattr(found, "_query", answer)
    status = await found.status()
    assert await found.recent_status(60) == status
    assert len(asked) == 1
    await found.recent_status(0)
    assert len(asked) == 2


async def test_a_run_that_is_paused_in_temporal_is_open_and_told_as_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ais restart` would bring nothing back: it would clear the latch beside an open coordinator."""
    found = gateway(unread=0)

    async def rejected(*_: object, **__: object) -> QueryWorkflowResponse:
        return QueryWorkflowResponse(
            query_rejected=QueryRejected(status=WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_PAUSED)
        )

    monkeypatch.setattr(found.client.workflow_service, "query_workflow", rejected)
    with pytest.raises(CoordinatorSilent, match="temporal workflow unpause --workflow-id coordinator-main"):
        await found.status()


@pytest.mark.parametrize("way", ["start", "restart", "release"])
async def test_nothing_is_done_beside_a_run_that_is_paused_in_temporal(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = list[object]()
    client, database = SimpleNamespace(), SimpleNamespace(run=touched.append)
    plan = DeskTerms("main", Mode.PAPER, ("BTCUSDT",), 5.0, Limits())
    lifecycle = Lifecycle(cast(Client, client), cast(Database, database), plan)

    async def nothing(*_: object) -> None:
        """There is no row."""

    async def paused(*_: object) -> str:
        return "PAUSED"

    monkeypatch.setattr(lifecycle, "_row", nothing)
    monkeypatch.setattr(lifecycle._gateway, "open_status", paused)
    ways: dict[str, Callable[[], Awaitable[str]]] = {
        "start": lifecycle.start,
        "restart": lambda: lifecycle.restart("r", "a", RestartAsked(datetime.now(UTC))),
        "release": lambda: lifecycle.release("r", "a"),
    }
    with pytest.raises(Refused, match=r"nothing was .*: the coordinator of desk 'main' is paused in Temporal"):
        await ways[way]()
    assert touched == []


@pytest.mark.parametrize(("seen", "wins"), [(2, True), (3, False), (None, False)])
def test_a_kill_since_a_person_was_asked_wins_whatever_this_machine_s_clock_says(seen: int | None, wins: bool) -> None:
    """A clock that is a minute ahead takes the kill that came while the question stood there for an older one."""
    kill_at = datetime(2026, 1, 1, tzinfo=UTC)
    status = make_status("main", kill_number=3, last_kill_at=kill_at)
    assert RestartAsked(kill_at + timedelta(minutes=1), seen).is_before_the_kill_of(status) is wins
    assert RestartAsked(kill_at - timedelta(minutes=1), seen).is_before_the_kill_of(status)


async def test_an_address_that_is_none_reaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a port above 65535: over HTTP a kill was answered by 500, without the cancels to carry out by hand."""
    found = gateway(unread=0)

    async def refuses(*_: object, **__: object) -> None:
        raise ValueError("invalid target URL: invalid port number")

    monkeypatch.setattr(found.client.workflow_service, "get_system_info", refuses)
    with pytest.raises(TemporalUnreachable, match="invalid port number"):
        await found.status()
    monkeypatch.setattr(found.client, "identity", "me", raising=False)
    with pytest.raises(TemporalUnreachable, match="invalid port number"):
        await found.signal("kill", {})


async def test_a_namespace_that_temporal_does_not_have_says_nothing_of_the_desk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Told as "was never started", it sent people to `ais start`."""
    detail = Any_()
    detail.Pack(NamespaceNotFoundFailure(namespace="n"))
    status = GrpcStatus(code=5, message="Namespace n is not found.", details=[detail])
    missing = RPCError("Namespace n is not found.", RPCStatusCode.NOT_FOUND, status.SerializeToString())

    async def refuses(*_: object, **__: object) -> None:
        raise missing

    found = gateway(unread=0)
    for call in ("query_workflow", "signal_workflow_execution", "describe_workflow_execution"):
        monkeypatch.setattr(found.client.workflow_service, call, refuses, raising=False)
    monkeypatch.setattr(found.client, "identity", "me", raising=False)
    for asked in (found.status(), found.signal("kill", {}), found.open_status()):
        with pytest.raises(TemporalUnreachable, match="Temporal has no namespace 'n'; correct TEMPORAL_NAMESPACE"):
            await asked


async def test_a_key_that_temporal_does_not_accept_is_no_worker_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuses(*_: object, **__: object) -> None:
        raise RPCError("Request unauthorized.", RPCStatusCode.PERMISSION_DENIED, b"")

    found = gateway(unread=0)
    monkeypatch.setattr(found.client.workflow_service, "query_workflow", refuses)
    with pytest.raises(TemporalUnreachable, match="check TEMPORAL_API_KEY"):
        await found.status()


UNANSWERED = RPCError("connection reset", RPCStatusCode.UNAVAILABLE, b"")
FULL = RPCError("exceeded workflow execution limit for signal events", RPCStatusCode.INVALID_ARGUMENT, b"")
GONE = RPCError("workflow execution already completed", RPCStatusCode.NOT_FOUND, b"")


@pytest.mark.parametrize(
    ("answers", "meaning"),
    [([FULL], SignalRefused), ([UNANSWERED, FULL], RefusedInTheEnd), ([UNANSWERED, GONE], RefusedInTheEnd)],
    ids=["refused", "refused in the end", "closed in the end"],
)
async def test_a_refusal_does_not_say_that_a_try_without_an_answer_was_not_recorded(
    answers: list[RPCError], meaning: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, left = gateway(unread=0), list(answers)

    async def signal(*_: object, **__: object) -> None:
        raise left.pop(0)

    monkeypatch.setattr(found.client.workflow_service, "signal_workflow_execution", signal, raising=False)
    monkeypatch.setattr(found.client, "identity", "me", raising=False)
    with pytest.raises(GatewayError) as raised:
        await found.signal("kill", {"command_id": "k"})
    assert raised.type is meaning


CUT_OFF = RPCError("operation was canceled", RPCStatusCode.CANCELLED, b"")


@pytest.mark.parametrize("call", ["signal", "query"])
async def test_a_call_whose_connection_the_server_ended_is_made_again(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server ends each connection after some minutes. A kill was then answered as perhaps not recorded, at once."""
    found, left = gateway(unread=0), [CUT_OFF, CUT_OFF]
    monkeypatch.setattr(found.client, "identity", "me", raising=False)

    async def cut(*_: object, **__: object) -> QueryWorkflowResponse:
        if left:
            raise left.pop()
        return QueryWorkflowResponse(
            query_rejected=QueryRejected(status=WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_PAUSED)
        )

    service = found.client.workflow_service
    monkeypatch.setattr(service, "signal_workflow_execution", cut, raising=False)
    monkeypatch.setattr(service, "query_workflow", cut)
    if call == "signal":
        await found.signal("kill", {"command_id": "k"}, seconds=180)
    else:
        found._patience = 180
        with pytest.raises(CoordinatorSilent, match="is paused in Temporal"):
            await found.status()
    assert left == []
