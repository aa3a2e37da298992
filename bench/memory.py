"""`ais dev` at rest: the memory of all its processes, by kind.

PSS counts a page that several processes share in parts, so that the sum is what the machine really gives. The floors run at
the same time, so pages of libraries are shared between both sides.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil

from bench.bare import bare_temporal
from bench.database import bare_server
from bench.desks import a_desk
from bench.machine import DAEMONS
from bench.subject import MEGABYTES, Pair, Remark, Steps, Subject
from tests.e2e.live import Live

SAMPLES = 5
PAUSE_SECONDS = 2.0
REST_SECONDS = 30.0
DEV, AGENTS = "ais dev", "agents"
# What each imports of others' code; the rest of its memory is ours, or what it has done with theirs.
IMPORTS = {
    DEV: "temporalio.client, psycopg, sqlalchemy, pydantic_settings, typer, rich",
    "API": "fastapi, uvicorn, uvloop, httptools, temporalio.client, psycopg, sqlalchemy, "
    "pydantic_settings, prometheus_client, structlog",
    "worker": "temporalio.client, temporalio.worker, temporalio.contrib.pydantic, psycopg, sqlalchemy, pydantic_settings, "
    "prometheus_client, structlog, numpy, pebble",
    AGENTS: "numpy, pydantic, pebble",
}

Family = Callable[[], list[psutil.Process]]


def pss(processes: list[psutil.Process]) -> float:
    """Megabytes."""
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def family(pid: int) -> list[psutil.Process]:
    """A process and whatever it has started."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def kinds(live: Live) -> dict[str, Family]:
    """The processes of a desk."""
    pids = live.stack.recorded["pids"]
    alone = {name: _alone(pids[name]) for name in ("API", "worker")}
    whole = {name: _family(pids[name]) for name in ("Temporal", "PostgreSQL")}
    agents = lambda: psutil.Process(pids["worker"]).children(recursive=True)  # noqa: E731
    return {DEV: _alone(live.stack.process.pid), **alone, AGENTS: agents, **whole}


def _alone(pid: int) -> Family:
    return lambda: [psutil.Process(pid)]


def _family(pid: int) -> Family:
    return lambda: family(pid)


def importing(stack: ExitStack, modules: str) -> int:
    """A bare Python with these imports, at rest."""
    code = f"import {modules}\nprint(flush=True)\nimport time\ntime.sleep(1e6)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout
    process.stdout.readline()
    return process.pid


def floors(stack: ExitStack) -> dict[str, Family]:
    """A process of each kind, as bare as it can be."""
    found = {kind: _alone(importing(stack, modules)) for kind, modules in IMPORTS.items()}
    temporal = stack.enter_context(bare_temporal(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
    assert temporal.child.pid
    before = set(DAEMONS)
    stack.enter_context(bare_server())
    (postgres,) = DAEMONS - before
    return found | {"Temporal": _family(temporal.child.pid), "PostgreSQL": _family(postgres)}


def megabytes(*families: Family) -> Callable[[], float]:
    """Now, and not at once again: two looks at the same moment are one."""

    def sample() -> float:
        time.sleep(PAUSE_SECONDS)
        return pss([process for each in families for process in each()])

    return sample


def pairs(_size: int) -> Steps:
    """All of it, then each kind."""
    with ExitStack() as stack:
        ours = kinds(stack.enter_context(a_desk()))
        time.sleep(REST_SECONDS)
        yield Remark(_told(ours))
        floor = floors(stack)
        what = "all processes of `ais dev`"
        yield Pair(what, megabytes(*ours.values()), megabytes(*floor.values()), SAMPLES, MEGABYTES)
        for kind in ours:
            yield Pair(kind, megabytes(ours[kind]), megabytes(floor[kind]), SAMPLES, MEGABYTES)


def _told(ours: Mapping[str, Family]) -> str:
    each = {kind: (processes := find(), pss(processes)) for kind, find in ours.items()}
    told = ", ".join(f"{kind} {size:.0f} ({len(processes)})" for kind, (processes, size) in each.items())
    return f"without the floors beside it {sum(size for _, size in each.values()):.0f} MB: {told} (processes)"


SUBJECT = Subject(
    "memory", "`ais dev` at rest, PSS", "bare Python with the same imports; bare Temporal and PostgreSQL", pairs
)
