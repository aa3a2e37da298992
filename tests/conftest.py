"""Fixtures that several suites share."""

import asyncio
import contextlib
import gc
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from temporalio.worker import Worker

from tests.postgres import database, database_url, desk, new_database_url, postgres, postgres_url
from tests.temporal import short_history_temporal, temporal

__all__ = [
    "database",
    "database_url",
    "desk",
    "new_database_url",
    "postgres",
    "postgres_url",
    "short_history_temporal",
    "temporal",
]

_SCRATCH = pytest.StashKey[Path]()
# Longer than any test's worker gives its activities.
SDK_WORKER_ENDS_SECONDS = 60.0


def pytest_sessionstart() -> None:
    """What is imported for the tests stays: to look for garbage in between is a tenth of the time of the start."""
    gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """A folder for what processes leave behind that a test kills; whoever runs in parts (xdist) has one for all of them."""
    if hasattr(config, "workerinput"):
        return
    # Temporal's garbage collector is a tenth of the server's time, and a test's server has little to keep.
    os.environ.setdefault("GOGC", "400")
    scratch = config.stash[_SCRATCH] = Path(tempfile.mkdtemp(prefix="ais-", dir=_short(tempfile.gettempdir())))
    # PostgreSQL runs as a user of its own.
    scratch.chmod(0o1777)
    os.environ["TMPDIR"] = str(scratch)
    # pytest's own folders too: the next session to start takes the rights of those in the common place back to its user.
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(scratch)


def _short(folder: str) -> str:
    """The folder for temporary files, or /tmp: a socket's path has 107 bytes, and the server's wheel does not quote it."""
    return folder if re.fullmatch(r"[\w./+@-]{1,40}", folder) else "/tmp"


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look through it even once."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nothing stays."""
    if (scratch := config.stash.get(_SCRATCH, None)) is not None:
        shutil.rmtree(scratch, ignore_errors=True)


# No test is timed: a machine that is busy with something else is no failure. `make test-thorough` tries more examples.
settings.register_profile("ais", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=300)
settings.load_profile("ais")


@pytest.fixture(scope="session", autouse=True)
def sdk_workers_end() -> Iterator[None]:
    """Gives up an SDK worker that does not end. If the server did not hear in time that its polls should end, it waits for them
    without end (temporalio 1.35, temporalio/sdk-rust#1297): on a busy machine a test run stood still for ever.
    """
    shutdown = Worker.shutdown

    async def bounded(worker: Worker) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(shutdown(worker), SDK_WORKER_ENDS_SECONDS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "shutdown", bounded)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Says at once which test has run out of time and what each coroutine waits for: what hangs may hold up the summary too, and
    the stacks of the threads show only the loop's."""
    if (
        call.excinfo is None
        or not call.excinfo.errisinstance(pytest.fail.Exception)
        or "Timeout" not in str(call.excinfo.value)
    ):
        return
    print(f"\n{item.nodeid} ran out of time", file=sys.stderr)
    for task in gc.get_objects():
        if isinstance(task, asyncio.Task) and not task.done():
            task.print_stack(file=sys.stderr)
    sys.stderr.flush()
