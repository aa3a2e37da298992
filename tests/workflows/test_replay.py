"""Stored histories replay: a change that would make an open coordinator diverge fails here first."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from tests.workflows.histories import FOLDER, RECORDED, STORIES
from tests.workflows.world import _without_failures
from workflows.converter import DATA_CONVERTER
from workflows.coordinator import Coordinator

VERSIONS = sorted(RECORDED.iterdir())


async def _histories(files: Iterable[Path]) -> AsyncIterator[WorkflowHistory]:
    for file in files:
        yield WorkflowHistory.from_json(f"coordinator-{file.stem}", file.read_text())


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: f"version {folder.name}")
async def test_the_stored_histories_replay(folder: Path) -> None:
    """The older ones without the sandbox, which is half of the cost and changes no command."""
    files = sorted(folder.glob("*.json"))
    failed, seen = dict[str, Exception](), 0
    runner: WorkflowRunner = SandboxedWorkflowRunner() if folder == FOLDER else UnsandboxedWorkflowRunner()
    replayer = Replayer(workflows=[Coordinator], workflow_runner=runner, data_converter=DATA_CONVERTER)
    async with replayer.workflow_replay_iterator(_histories(files)) as results:
        async for result in results:
            seen += 1
            if result.replay_failure:
                failed[result.history.workflow_id] = result.replay_failure
    assert not failed
    assert seen == len(files) > 0


@pytest.mark.parametrize(
    "metadata",
    [
        {"encoding": b"json/external-storage-reference"},
        {"encoding": b"json/protobuf", "messageType": b"temporal.api.sdk.v1.ExternalStorageReference"},
        {"encoding": b"json/plain", "__temporal_external_storage_reference": b"true"},
    ],
    ids=["of older SDKs", "of today's", "with a mark"],
)
async def test_a_signal_that_refers_to_an_external_storage_fails_no_workflow_task(metadata: dict[str, bytes]) -> None:
    """The SDK refuses a task that holds one, and with it every later task of the run: no kill behind it was carried out."""
    history = WorkflowHistory.from_json("coordinator-x", (FOLDER / "killed_0.json").read_text())
    inputs = [event.workflow_execution_signaled_event_attributes.input.payloads for event in history.events]
    changed = [payload for payloads in inputs for payload in payloads]
    for payload in changed:
        payload.metadata.clear()
        payload.metadata.update(metadata)
    replayer = Replayer(
        workflows=[Coordinator],
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=DATA_CONVERTER,
        # Without the SDK's limit of 2 s, which a busy machine exceeds.
        debug_mode=True,
    )
    assert changed
    await replayer.replay_workflow(history)


def test_every_story_has_a_history() -> None:
    """Of this version: whoever changes what is carried records anew, and keeps the old ones."""
    recorded = {file.stem.rsplit("_", 1)[0] for file in FOLDER.glob("*.json")}
    assert recorded == {story.__name__ for story in STORIES}


async def test_a_run_that_has_not_begun_is_not_given_to_the_replayer() -> None:
    """It would wait without end: CI stood still for one."""

    async def runs() -> AsyncIterator[WorkflowHistory]:
        for last in (None, 1):
            run = WorkflowHistory.from_json("coordinator-x", (FOLDER / "killed_0.json").read_text())
            yield WorkflowHistory(run.workflow_id, run.events[:last])

    replayed = [len(run.events) async for run in _without_failures(runs())]
    assert len(replayed) == 1
    assert replayed[0] > 1
