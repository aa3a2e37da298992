"""A worker's files are replaced under it: its runs have the code that it was started with."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.mutations import copy_tree
from tests.workflows.histories import FOLDER

SECONDS = 180
# In a process of its own, which imports everything from the copy. It ends as AIS does: after a replay the interpreter's own end
# was a segmentation fault in one of twenty processes.
REPLAY = """
import asyncio, pathlib, sys, traceback
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from startup import leave
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
try:
    asyncio.run(replay())
except Exception:
    leave(traceback.format_exc())
print("replayed")
leave(0)
"""


@pytest.mark.parametrize("how", ["kept", "as it is"])
def test_files_that_are_replaced_under_a_worker_change_none_of_its_runs(tmp_path: Path, how: str) -> None:
    copy_tree(tmp_path)
    history = shutil.copy(FOLDER / "killed_0.json", tmp_path)
    command = [sys.executable, "-c", REPLAY, str(history), how]
    environment = {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS)
    expected = (0, "replayed") if how == "kept" else (1, "")
    assert (ended.returncode, ended.stdout.strip()) == expected, ended.stderr
    assert ("of another release" in ended.stderr) is (how != "kept"), ended.stderr
