"""The clients of a round: each carries out its steps at their moments, and records what it was told."""

import asyncio
import json
import os
import time
from datetime import timedelta
from typing import Any

import httpx
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import RequestCancelWorkflowExecutionRequest, SignalWorkflowExecutionRequest
from temporalio.service import RPCError, RPCStatusCode

from tests.chaos import recorder as r
from tests.chaos.desk import KEY, Desk
from tests.chaos.recorder import Call, Recorder
from tests.chaos.schedule import Step

PATHS = {
    "pause": "/control/pause",
    "resume": "/control/resume",
    "kill": "/control/kill-switch",
    "cancel_all": "/control/cancel-all",
    "deleverage": "/control/deleverage",
    "set_limits": "/control/limits",
    "propose": "/proposals",
}
WITH_A_REASON = ("pause", "kill", "set_limits")
SIGNAL_SECONDS = 3.0


async def run_client(desk: Desk, steps: list[Step], recorder: Recorder) -> None:
    """All steps of one client. A step does not wait for the answer of the one before: people have more than one hand."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for step in steps:
            await asyncio.sleep(max(0.0, began + step.at - time.monotonic()))
            if time.monotonic() - began > desk.plan.seconds + 1.0:
                return
            running = group.create_task(run_step(desk, step, recorder))
            # At a terminal, though, one command ends before the next one is typed.
            if step.channel == "ais":
                await running


async def run_step(desk: Desk, step: Step, recorder: Recorder) -> None:
    """One step, on its channel."""
    match step.channel, step.kind:
        case "http", "status":
            await read_state(desk, step, recorder)
        case "http", "look":
            await look(desk, step, recorder)
        case "http", _:
            tries = [over_http(desk, step, recorder, step.api)]
            tries += [over_http(desk, step, recorder, 1 - step.api)] if step.twice else []
            await asyncio.gather(*tries)
            if step.again:
                await asyncio.sleep(step.again)
                await over_http(desk, step, recorder, 1 - step.api)
        case "temporal", "cancel":
            await cancel(desk, step, recorder)
        case "temporal", _:
            for _ in range(2 if step.twice else 1):
                await send_signal(desk, step, recorder)
        case _:
            await at_the_command_line(desk, step, recorder)


# --- HTTP --------------------------------------------------------------------------------------------------------------


def _headers(desk: Desk, step: Step) -> dict[str, str]:
    key, named = {"Idempotency-Key": step.key} if step.key else {}, step.args.get("key") or step.args.get("holder")
    return {"Authorization": f"Bearer {desk.keys.get(named, named) if named else KEY}"} | key


async def read_state(desk: Desk, step: Step, recorder: Recorder) -> None:
    """One reading of the state."""
    call = recorder.begin(step.client, "http", "status", args={**step.args, "api": step.api})
    try:
        answer = await desk.http.get(desk.url(step.api) + "/control/status", headers=_headers(desk, step))
        state = answer.json().get("state") if answer.status_code == 200 else None
        recorder.end(call, r.DONE if state else r.UNKNOWN, status=answer.status_code, state=state)
    except (httpx.HTTPError, ValueError) as error:
        recorder.end(call, r.UNKNOWN, told=type(error).__name__)


async def look(desk: Desk, step: Step, recorder: Recorder) -> None:
    """One look at all that the coordinator tells: of that, what the log and the history must bear out."""
    call = recorder.begin(step.client, "http", "look", args={"api": step.api})
    try:
        answer = await desk.http.get(desk.url(step.api) + "/control/coordinator", headers=_headers(desk, step))
        told = answer.json() if answer.status_code == 200 else {}
    except (httpx.HTTPError, ValueError) as error:
        recorder.end(call, r.UNKNOWN, told=type(error).__name__)
        return
    seen = {"last": told.get("last_decision"), "verified_at": (told.get("kill") or {}).get("verified_at")}
    state, args = told.get("state"), {"api": step.api, **seen}
    recorder.end(call, r.DONE if state else r.UNKNOWN, status=answer.status_code, state=state, args=args)


async def over_http(desk: Desk, step: Step, recorder: Recorder, api: int) -> None:
    """One command."""
    token = f"{step.client}-{step.kind}-{round(step.at * 1000)}"
    call = recorder.begin(step.client, "http", step.kind, key=step.key, token=token, args={**step.args, "api": api})
    body = await _body(desk, step, token)
    try:
        answer = await desk.http.post(desk.url(api) + PATHS[step.kind], json=body, headers=_headers(desk, step))
    except httpx.HTTPError as error:
        never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        recorder.end(call, r.NOT_RECORDED if never_sent else r.UNKNOWN, told=type(error).__name__, command_id=step.key)
        return
    recorder.end(
        call,
        answer_of(answer),
        status=answer.status_code,
        command_id=answer.headers.get("X-Command-Id") or step.key,
        told=answer.text[:300],
    )


def answer_of(answer: httpx.Response) -> str:
    """What a caller may conclude from the status; a 503 says in words which of two things it means."""
    match answer.status_code:
        case 200:
            return r.DONE
        case 202:
            return r.ACCEPTED
        case 409:
            return r.REFUSED
        case 401 | 413 | 408 | 422:
            return r.INVALID
        case 503 if '"not recorded: ' in answer.text or "nothing was sent" in answer.text:
            return r.NOT_RECORDED
    return r.UNKNOWN


async def _body(desk: Desk, step: Step, token: str) -> dict[str, Any]:
    fields = {name: value for name, value in step.args.items() if name not in ("key", "holder", "offset", "ttl")}
    if step.kind in WITH_A_REASON:
        fields["reason"] = token
    if step.kind == "propose":
        fields |= {"confidence": 0.9, "expected_return": 0.05, "rationale": token}
        fields["ttl_seconds"] = step.args.get("ttl", 10)
        if "offset" in step.args:
            fields["price"] = str(round(desk.marks[step.args["symbol"]] * (1 + step.args["offset"]), 1))
            fields["post_only"] = True
    return fields


# --- Temporal ----------------------------------------------------------------------------------------------------------


async def send_signal(desk: Desk, step: Step, recorder: Recorder) -> None:
    """What `temporal workflow signal` does."""
    token = f"{step.client}-{step.kind}-{round(step.at * 1000)}"
    form = step.args.get("form", "")
    # What is no text has no reason either, by which its row could be found.
    said_token = None if form in WITHOUT_A_REASON else token
    call = recorder.begin(step.client, "temporal", step.kind, command_id=step.key, token=said_token, args=step.args)
    assert desk.client
    request = SignalWorkflowExecutionRequest(
        namespace="default",
        workflow_execution=WorkflowExecution(workflow_id=desk.workflow_id),
        signal_name=f" {step.kind.upper()} " if form == "loud" else step.kind,
        input=Payloads(payloads=[_payload(each, form) for each in _inputs(step, token)]),
        request_id=os.urandom(8).hex(),
    )
    await _ask_temporal(desk.client.workflow_service.signal_workflow_execution, request, call, recorder)


WITHOUT_A_REASON = ("nothing", "null", "number", "list", "broken", "other encoding", "reference")


def _inputs(step: Step, token: str) -> list[bytes]:
    """The inputs of a signal, as the bytes of their payloads."""
    fields = {name: value for name, value in step.args.items() if name != "form"}
    said = json.dumps({**fields, "reason": token, **({"command_id": step.key} if step.key else {})}).encode()
    text = json.dumps(token).encode()
    forms = {
        "nothing": [],
        "null": [b"null"],
        "text": [text],
        "number": [b"7"],
        "list": [b"[" + text + b"]"],
        "broken": [b'{"reason": '],
        "two": [said, text],
        "other encoding": [b"\x80\x00"],
        "reference": [b"{}"],
    }
    return forms.get(step.args.get("form", ""), [said])


# An SDK looks for what a reference refers to before the workflow sees the signal.
ENCODINGS = {"other encoding": b"binary/encrypted", "reference": b"json/external-storage-reference"}


def _payload(data: bytes, form: str) -> Payload:
    return Payload(metadata={"encoding": ENCODINGS.get(form, b"json/plain")}, data=data)


async def cancel(desk: Desk, step: Step, recorder: Recorder) -> None:
    """What `temporal workflow cancel` does."""
    token = f"cancel-{round(step.at * 1000)}"
    call = recorder.begin(step.client, "temporal", "cancel", token=token)
    assert desk.client
    request = RequestCancelWorkflowExecutionRequest(
        namespace="default",
        workflow_execution=WorkflowExecution(workflow_id=desk.workflow_id),
        request_id=os.urandom(8).hex(),
        reason=token,
    )
    await _ask_temporal(desk.client.workflow_service.request_cancel_workflow_execution, request, call, recorder)


async def _ask_temporal(service: Any, request: Any, call: Call, recorder: Recorder) -> None:
    try:
        await service(request, retry=False, timeout=timedelta(seconds=SIGNAL_SECONDS))
    except (RPCError, RuntimeError) as error:
        full = isinstance(error, RPCError) and error.status is RPCStatusCode.RESOURCE_EXHAUSTED
        recorder.end(call, r.NOT_RECORDED if full else r.UNKNOWN, told=str(error)[:200])
    else:
        recorder.end(call, r.ACCEPTED)


# --- the command line --------------------------------------------------------------------------------------------------

EXITS = {0: r.DONE, 3: r.ACCEPTED, 4: r.UNKNOWN}


async def at_the_command_line(desk: Desk, step: Step, recorder: Recorder) -> None:
    """`ais restart`, `ais kill` and the others, as a person types them."""
    token = f"{step.client}-{step.kind}-{round(step.at * 1000)}"
    call = recorder.begin(step.client, "ais", step.kind, token=token)
    flags = {"restart": ("--yes",), "kill": ("--no-wait", "--json")}.get(step.kind, ("--json",))
    code, said = await desk.ais(step.kind.replace("_", "-"), *flags, "--reason", token, number=call.number)
    told = _json_in(said)
    answer = EXITS.get(code, r.UNKNOWN) if code is not None else r.UNKNOWN
    # 1 is a refusal by the coordinator, which tells an outcome then; or a failure on the way there.
    if code == 1 and told.get("outcome"):
        answer = r.REFUSED
    elif code == 1 and "nothing was sent" in told.get("detail", ""):
        answer = r.NOT_RECORDED
    recorder.end(call, answer, status=code, told=said[-300:], command_id=told.get("command_id"))


def _json_in(said: str) -> dict[str, Any]:
    """What `--json` printed, among what went to standard error."""
    start = said.find("{")
    try:
        found = json.loads(said[start:]) if start >= 0 else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
