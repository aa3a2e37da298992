"""Stored histories replay: a change that would make an open coordinator diverge fails here first."""

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from tests.workflows.histories import FOLDER, STORIES
from workflows.coordinator import Coordinator

FILES = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", [file.stem for file in FILES])
async def test_a_stored_history_replays(name: str) -> None:
    history = WorkflowHistory.from_json(f"coordinator-{name}", (FOLDER / f"{name}.json").read_text())
    await Replayer(workflows=[Coordinator], data_converter=pydantic_data_converter).replay_workflow(history)


def test_every_story_has_a_history() -> None:
    assert {file.stem.rsplit("_", 1)[0] for file in FILES} == {story.__name__ for story in STORIES}
