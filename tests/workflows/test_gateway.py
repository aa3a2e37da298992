"""What the gateway says of calls that nobody answers in time, or that are refused."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.common.v1 import Payloads
from temporalio.api.workflowservice.v1 import QueryWorkflowResponse
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode

from domain.desk.status import Outcomes
from tests.storage.test_notices import make_status
from workflows import names
from workflows.gateway import CoordinatorSilent, DeskGateway, GatewayError, RefusedInTheEnd, SignalRefused


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
