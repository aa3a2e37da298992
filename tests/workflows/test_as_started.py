"""A worker's files are replaced under it: its runs have the code that it was started with."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.mutations import copy_tree
from tests.workflows.histories import FOLDER

# In a process of its own, which imports everything from the copy.
REPLAY = """
import asyncio, pathlib, sys
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from workflows.as_started import keep_workflow_code
from workflows.converter import DATA_CONVERTER
from workflows.coordinator import Coordinator

async def replay():
    replayer = Replayer(
        workflows=[Coordinator], data_converter=DATA_CONVERTER, workflow_runner=SandboxedWorkflowRunner(), debug_mode=True
    )
    history = WorkflowHistory.from_json("coordinator-t", pathlib.Path(sys.argv[1]).read_text())
    await replayer.replay_workflow(history)

if sys.argv[2] == "kept":
    keep_workflow_code()
for name in ("outbox", "run", "__init__"):
    pathlib.Path(f"workflows/{name}.py").write_text("raise RuntimeError('of another release')")
asyncio.run(replay())
print("replayed")
"""


@pytest.mark.parametrize("how", ["kept", "as it is"])
def test_files_that_are_replaced_under_a_worker_change_none_of_its_runs(tmp_path: Path, how: str) -> None:
    copy_tree(tmp_path)
    history = shutil.copy(FOLDER / "killed_0.json", tmp_path)
    command = [sys.executable, "-c", REPLAY, str(history), how]
    ended = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert (ended.stdout.strip() == "replayed") is (how == "kept"), ended.stderr
    assert ("of another release" in ended.stderr) is (how != "kept"), ended.stderr
