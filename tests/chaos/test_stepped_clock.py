"""A worker's clock steps while it runs, for all that AIS asks the time for, and not for what must not depend on it."""

import json
import subprocess
import sys
from pathlib import Path

from tests.chaos.forking import ROOT

PROGRAM = """
import json, sys, time
from datetime import UTC, datetime
from pathlib import Path
import activities.clearance, activities.clocks
from tests.chaos import stepped_clock

file, began = Path(sys.argv[1]), datetime.now(UTC)
stepped_clock.install(file)

def ahead():
    now = activities.clocks.datetime.now(UTC)
    assert isinstance(began, activities.clocks.datetime)
    clocks = activities.clearance.read_clocks()
    return [(now - began).total_seconds(), clocks.wall - began.timestamp(), clocks.boot - time.clock_gettime(time.CLOCK_BOOTTIME)]

found = [ahead()]
file.write_text("7200")
found.append(ahead())
file.unlink()
print(json.dumps([*found, ahead()]))
"""


def test_the_wall_clock_steps_and_comes_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "clock")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [[round(seconds / 60) for seconds in each] for each in json.loads(done.stdout)] == [
        [0, 0, 0],
        [120, 120, 0],
        [0, 0, 0],
    ]
