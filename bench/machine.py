"""What the machine is, and what it was doing beside the bench."""

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

# A bench may run beside anything.
STARTS_WITHIN_SECONDS = 300

ROOT = Path(__file__).parents[1]
# Daemons that the bench has started: nobody's children, so they have to be named.
DAEMONS: set[int] = set()


def facts() -> dict[str, Any]:
    """The machine, the code and the moment."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "revision": revision(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def revision() -> str:
    """The commit; with a + where files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def tree() -> list[psutil.Process]:
    """The bench and whatever it has started."""
    roots = [psutil.Process(), *(psutil.Process(pid) for pid in DAEMONS if psutil.pid_exists(pid))]
    return [each for root in roots for each in (root, *root.children(recursive=True))]


def cpu_seconds(*pids: int) -> float:
    """Seconds of the processor that these processes have used, to the nanosecond: /proc counts in hundredths of a second."""
    # Linux's clock of another process: what clock_getcpuclockid() returns, which Python does not have.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def _with_ended_children(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


class Watch:
    """What other processes do from now on. It looks only twice, so that it is no load of its own."""

    def __init__(self) -> None:
        self._ours = _with_ended_children(tree())
        self._all = psutil.cpu_times()

    def others(self) -> float:
        """The share of all cores' time that they, and other guests of the same host, have used."""
        now, then = psutil.cpu_times(), self._all
        # Linux counts a guest's time in the user's too.
        total = sum(now) - sum(then) - (now.guest - then.guest) - (now.guest_nice - then.guest_nice)
        idle = now.idle - then.idle + now.iowait - then.iowait
        ours = _with_ended_children(tree()) - self._ours
        return min(1.0, max(0.0, (total - idle - ours) / total)) if total > 0 else 0.0
