"""How a worker stops being given tasks before it stops."""

import asyncio
import socket
from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ListWorkersRequest
from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from workflows import polls

QUEUE = "polls"


@workflow.defn(sandboxed=False)
class Waits:
    """Until it is told to go."""

    def __init__(self) -> None:
        self._gone = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self._gone)

    @workflow.signal
    def go(self) -> None:
        self._gone = True

    @workflow.query
    def gone(self) -> bool:
        return self._gone


def a_worker(client: Client, identity: str) -> Worker:
    return Worker(
        client, task_queue=QUEUE, workflows=[Waits], workflow_runner=UnsandboxedWorkflowRunner(), identity=identity
    )


async def known(client: Client, identity: str) -> None:
    """Until the server has heard of the worker."""
    asked = ListWorkersRequest(namespace=client.namespace, query=f'WorkerIdentity = "{identity}"')
    async with asyncio.timeout(180):
        while not (await client.workflow_service.list_workers(asked, retry=True)).workers:
            await asyncio.sleep(0.05)


async def test_the_next_task_goes_to_another_worker_at_once_though_this_one_still_runs(temporal: Client) -> None:
    runtime = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=timedelta(seconds=1))
    client = await Client.connect(temporal.service_client.config.target_host, runtime=runtime)
    async with a_worker(client, "stops"):
        handle = await client.start_workflow(Waits.run, id="polls", task_queue=QUEUE)
        assert not await handle.query(Waits.gone)
        await known(client, "stops")
        await polls.end_polls(client, "stops", handle.id)
        async with a_worker(temporal, "stays"):
            await handle.signal(Waits.go)
            async with asyncio.timeout(180):
                await handle.result()
    events = [event async for event in handle.fetch_history_events()]
    kinds = {event.event_type for event in events}
    started = [e.workflow_task_started_event_attributes.identity for e in events]
    assert [identity for identity in started if identity] == ["stops", "stays"]
    assert EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT not in kinds


async def test_a_server_that_does_not_answer_keeps_no_worker_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polls, "ASK_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = await Client.connect(f"127.0.0.1:{silent.getsockname()[1]}", lazy=True)
        await polls.end_polls(client, "stops", "polls")
