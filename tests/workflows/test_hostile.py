"""What no client sends that means well, by way of the real server: the kill after it works, and no workflow task fails.

(`tests/domain/test_payloads.py` reads at random without a server, `tests/e2e/test_flood.py` fills the server's queue.)
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from string import printable
from typing import Any

import pytest
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.sdk.v1.external_storage_pb2 import ExternalStorageReference
from temporalio.api.update.v1 import Input, Meta, Request, WaitPolicy
from temporalio.api.workflowservice.v1 import (
    QueryWorkflowRequest,
    SignalWorkflowExecutionRequest,
    UpdateWorkflowExecutionRequest,
)
from temporalio.client import AsyncActivityHandle, Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from domain.desk.states import CommandKind, State
from domain.desk.status import Status
from tests.workflows.parts import Readings
from tests.workflows.world import BTC, Desk, World, running_desk

MESSAGE = WorkflowExecution(workflow_id="w", run_id="r")
UNKNOWN_NAMES = 300
# Beneath the 2 MB from which on the server refuses it.
LARGE = 1_900_000
# Of two bytes each.
MANY = LARGE // 2
SECONDS = timedelta(seconds=60)


def payload(data: bytes, encoding: bytes | None = b"json/plain", **metadata: bytes) -> Payload:
    named = {} if encoding is None else {"encoding": encoding}
    return Payload(metadata=named | metadata, data=data)


def protobuf(message: Message, encoding: bytes, data: bytes) -> Payload:
    return payload(data, encoding, messageType=message.DESCRIPTOR.full_name.encode())


def text(value: Any) -> Payload:
    return payload(json.dumps(value).encode())


RIGHT = text({"reason": "x", "symbol": BTC, "symbols": [BTC], "reduce_pct": 0.5})
INPUTS: dict[str, list[Payload]] = {
    "nothing": [],
    "binary/null": [payload(b"", b"binary/null")],
    "binary/null with bytes": [payload(b'{"reason": "x"}', b"binary/null")],
    "binary/plain": [payload(b"\x00\xff", b"binary/plain")],
    "binary/protobuf": [protobuf(MESSAGE, b"binary/protobuf", MESSAGE.SerializeToString())],
    "binary/protobuf of garbage": [protobuf(MESSAGE, b"binary/protobuf", b"\xff" * 100)],
    "binary/protobuf of no type": [payload(b"\x08\x01", b"binary/protobuf", messageType=b"nobody.Knows")],
    "json/protobuf": [protobuf(MESSAGE, b"json/protobuf", b'{"workflowId": "w"}')],
    "json/protobuf of garbage": [protobuf(MESSAGE, b"json/protobuf", b"{")],
    "binary/encrypted": [payload(b"\x01" * 64, b"binary/encrypted", **{"encryption-key-id": b"k"})],
    "an encoding that nobody has": [payload(b"{}", b"x/y")],
    "an encoding that is no text": [payload(b"{}", b"\xff\xfe")],
    "no encoding": [payload(b"{}", None)],
    "a large encoding": [payload(b"{}", b"x" * 100_000)],
    "a reference to an external storage": [protobuf(ExternalStorageReference(), b"json/protobuf", b"{}")],
    "an older reference": [payload(b"{}", b"json/external-storage-reference")],
    "an encoded reference": [payload(b"\x01" * 64, b"binary/encrypted", __temporal_external_storage_reference=b"true")],
    "JSON without a byte": [payload(b"")],
    "half of a JSON": [payload(b'{"reason": "x')],
    "UTF-16": [payload('{"reason": "x"}'.encode("utf-16"))],
    "no text": [payload(bytes(range(256)))],
    "lists in lists": [payload(b"[" * 50_000)],
    "numbers": [payload(b'{"reduce_pct": 1e999999999, "kill_number": NaN, "limits": {"max_leverage": Infinity}}')],
    "digits without an end": [payload(b'{"symbol": "BTCUSDT", "reduce_pct": ' + b"1" * 50_000 + b"}")],
    "half of a pair": [payload(b'{"reason": "\\ud800", "symbol": "\\udc00", "command_id": "\\ud800", "actor": "\\ud800"}')],
    "control characters": [text({"reason": "\x00\x1b[2J", "command_id": "\x00\n"})],
    "a list": [text([1, [2]])],
    "other types": [text({"reason": {}, "command_id": [], "actor": 1, "symbols": {}, "limits": [], "sent_at": 5})],
    "two": [RIGHT, text("and a reason")],
    "two that contradict each other": [text({"command_id": "a"}), text({"command_id": "b"})],
    "a hundred": [text("x")] * 100,
    "2 MB": [payload(b'"' + b"x" * LARGE + b'"')],
}  # fmt: skip


async def send(desk: Desk, name: str, inputs: list[Payload] | None) -> None:
    """A signal as no SDK sends it; None: without a list of inputs."""
    request = SignalWorkflowExecutionRequest(
        namespace=desk.client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=desk.handle.id),
        signal_name=name,
        input=None if inputs is None else Payloads(payloads=inputs),
    )
    await desk.client.workflow_service.signal_workflow_execution(request, timeout=SECONDS)


async def all_at_once(calls: list[Awaitable[None]], at_once: int = 20) -> None:
    for begin in range(0, len(calls), at_once):
        await asyncio.gather(*calls[begin : begin + at_once])


async def until_killed(desk: Desk) -> Status:
    """After a kill of an ordinary kind."""
    await desk.signal("kill", {"reason": "after all that", "command_id": "last"})
    status = await desk.until(lambda s: s.kill is not None and s.kill.verified_at and not s.records_waiting)
    assert status.state is State.KILLED
    assert (await desk.outcomes("last")).outcomes["last"].outcome == "applied"
    return status


# Signals.


async def test_a_kill_of_every_input_kills(temporal: Client) -> None:
    """Each raises the number of the kill by one, so none is lost among them."""
    async with running_desk(temporal, cycle_seconds=60.0) as desk:
        await all_at_once([send(desk, "kill", inputs) for inputs in [*INPUTS.values(), None]])
        status = await until_killed(desk)
        assert status.kill_number == len(INPUTS) + 2


async def test_no_signal_of_any_name_with_any_input_keeps_a_kill_from_killing(temporal: Client) -> None:
    others = [kind.value for kind in CommandKind if kind is not CommandKind.KILL]
    # A large input of each name would be the history's size and nothing else.
    small = [inputs for name, inputs in INPUTS.items() if name != "2 MB"]
    async with running_desk(temporal, cycle_seconds=60.0) as desk:
        await all_at_once([send(desk, name, inputs) for name in others for inputs in small])
        await all_at_once([send(desk, name, INPUTS["2 MB"]) for name in (others[0], "nobody")], 1)
        assert await desk.state() is not State.KILLED
        await until_killed(desk)


async def test_hundreds_of_signals_that_nobody_has_keep_no_kill_from_killing(temporal: Client) -> None:
    drawn = random.Random(1)
    names = ["".join(drawn.choices(printable, k=drawn.randint(1, 200))) for _ in range(UNKNOWN_NAMES)]
    names += [
        "__temporal_x",
        "__stack_trace",
        "status",
        "outcomes",
        "__init__",
        "kill\x00",
        "\uff4bill",
        "\U0001f52a",
        "\u202elliK",
        "k" * 900,
    ]
    async with running_desk(temporal, cycle_seconds=60.0) as desk:
        await all_at_once([send(desk, name, INPUTS["two"]) for name in names])
        await send_too_large(desk)
        status = await until_killed(desk)
        assert status.kill_number == 1


async def send_too_large(desk: Desk) -> None:
    """What the server refuses never gets to the desk."""
    for name, size in (("pause", 3_000_000), ("k" * 2_000, 1)):
        with pytest.raises(RPCError) as refused:
            await send(desk, name, [payload(b"x" * size)])
        assert refused.value.status in (RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.RESOURCE_EXHAUSTED)


# Cheaper: tests/workflows/test_converter.py.
@pytest.mark.thorough
async def test_a_signal_of_a_million_inputs_keeps_no_kill_from_killing(temporal: Client) -> None:
    """With one of them the SDK was busy for 8 s, as long as a workflow task may take."""
    async with running_desk(temporal, cycle_seconds=60.0) as desk:
        await send(desk, "pause", [Payload()] * MANY)
        assert (await until_killed(desk)).kill_number == 1


# Activities that a person ends.


async def completed(activity: AsyncActivityHandle) -> None:
    """By `temporal activity complete`, with a result of another kind."""
    await activity.complete("done")


async def failed(activity: AsyncActivityHandle) -> None:
    """By `temporal activity fail`, with details of another kind."""
    await activity.fail(ApplicationError("it hangs", {"by": "operations"}, non_retryable=True))


@pytest.mark.parametrize("end", [completed, failed])
async def test_an_activity_that_a_person_ends_keeps_no_kill_from_killing(
    temporal: Client, end: Callable[[AsyncActivityHandle], Awaitable[None]]
) -> None:
    readings = Readings()
    async with running_desk(temporal, World(readings), cycle_seconds=0.5) as desk:
        readings.gate = asyncio.Event()
        readings.begun.clear()
        await readings.begun.wait()
        pending = (await desk.handle.describe()).raw_description.pending_activities
        (id_,) = (each.activity_id for each in pending if each.activity_type.name == "observe")
        await end(desk.client.get_async_activity_handle(workflow_id=desk.handle.id, run_id=None, activity_id=id_))
        await desk.until(lambda s: s.observation_error)
        readings.gate.set()
        await until_killed(desk)


# Queries and updates.


async def ask(desk: Desk, name: str, inputs: list[Payload]) -> None:
    """A query, whatever becomes of it."""
    query = WorkflowQuery(query_type=name, query_args=Payloads(payloads=inputs))
    await desk.client.workflow_service.query_workflow(
        QueryWorkflowRequest(
            namespace=desk.client.namespace, execution=WorkflowExecution(workflow_id=desk.handle.id), query=query
        ),
        timeout=SECONDS,
    )


async def update(desk: Desk, name: str, inputs: list[Payload]) -> None:
    """An update, of which a coordinator knows none."""
    answer = await desk.client.workflow_service.update_workflow_execution(
        UpdateWorkflowExecutionRequest(
            namespace=desk.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=desk.handle.id),
            wait_policy=WaitPolicy(lifecycle_stage=3),  # type: ignore[arg-type]  # completed
            request=Request(meta=Meta(), input=Input(name=name, args=Payloads(payloads=inputs))),
        ),
        timeout=SECONDS,
    )
    assert "expected but not found" in answer.outcome.failure.message


QUERIES = ["status", "outcome", "outcomes", "nobody", "kill", "__temporal_workflow_metadata", "__stack_trace"]


@pytest.mark.parametrize("how", [pytest.param(ask, marks=pytest.mark.thorough), update])
async def test_no_query_and_no_update_keeps_a_kill_from_killing(temporal: Client, how: Callable[..., Any]) -> None:
    names = QUERIES if how is ask else [*CommandKind, "nobody", "__temporal_x"]
    refused = set()
    async with running_desk(temporal, cycle_seconds=60.0) as desk:
        await desk.status()
        for name in names:
            for inputs in list(INPUTS.values())[:: 1 if name in ("outcome", "outcomes") else 4]:
                try:
                    await how(desk, str(name), inputs)
                except RPCError as error:
                    refused.add(error.status)
        # An update's refusal is its outcome.
        assert refused == ({RPCStatusCode.INVALID_ARGUMENT} if how is ask else set())
        assert (await until_killed(desk)).kill_number == 1
