"""Stored histories replay: a change that would make an open coordinator diverge fails here first."""

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from tests.workflows.histories import FOLDER, RECORDED, STORIES
from workflows.coordinator import Coordinator

FILES = sorted(RECORDED.glob("*/*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
async def test_a_stored_history_replays(file: Path) -> None:
    history = WorkflowHistory.from_json(f"coordinator-{file.stem}", file.read_text())
    await Replayer(workflows=[Coordinator], data_converter=pydantic_data_converter).replay_workflow(history)


def test_every_story_has_a_history() -> None:
    """Of this version: whoever changes what is carried records anew, and keeps the old ones."""
    recorded = {file.stem.rsplit("_", 1)[0] for file in FOLDER.glob("*.json")}
    assert recorded == {story.__name__ for story in STORIES}
