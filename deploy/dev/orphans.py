"""Ending what an `ais dev` that was killed with -9 has left behind.

Its children live on: they hold ports, the database's files, and a worker among them would go on trading beside the new
one. They are known by a marker with the name of the data folder, which every child inherits in its environment.
PostgreSQL's processes write their title over theirs, so those are known by what they run and where: each works in its
data folder. Only whoever holds the folder's lock may look: then every marked process is an orphan.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARKER = "STARTED_BY_AIS_DEV"
GRACE_SECONDS = 8.0


def end_orphans(folder: Path, pgdata: Path, grace_seconds: float = GRACE_SECONDS) -> int:
    """End every process of an earlier run on this folder, and say how many there were."""
    postgres = postgres_processes(pgdata)
    # SIGTERM would make PostgreSQL wait for its clients to leave; SIGINT is its fast, orderly stop.
    _send(postgres, signal.SIGINT)
    others = [process for process in _marked(folder) if process not in postgres]
    _send(others, signal.SIGTERM)
    found = [*postgres, *others]
    _send(found, signal.SIGCONT)  # one that was SIGSTOPped could not hear the first
    left = _still_there(found, grace_seconds)
    _send(left, signal.SIGKILL)
    _still_there(left, grace_seconds)
    return len(found)


def end_postgres(pgdata: Path) -> None:
    """After a kill -9 of the postmaster its children hold the shared memory until they notice: no new one can start."""
    end_orphans(pgdata / "no-such-folder", pgdata, grace_seconds=2.0)


def postgres_processes(pgdata: Path) -> list[psutil.Process]:
    return [process for process in _others() if _is_postgres_of(process, pgdata) and _alive(process)]


def _marked(folder: Path) -> list[psutil.Process]:
    return [process for process in _others() if _marker(process) == str(folder) and _alive(process)]


def _others() -> Iterator[psutil.Process]:
    return (process for process in psutil.process_iter() if process.pid != os.getpid())


def _marker(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARKER)
    except (psutil.Error, OSError):  # another user's process, or one that is just going
        return None


def _is_postgres_of(process: psutil.Process, pgdata: Path) -> bool:
    try:
        return process.name() == "postgres" and process.cwd() == str(pgdata)
    except (psutil.Error, OSError):
        return False


def _alive(process: psutil.Process) -> bool:
    """A zombie is not: its parent is gone, nobody may ever collect it, and it holds nothing."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            pass


def _still_there(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all are gone; those that are not when the time is over."""
    deadline = time.monotonic() + seconds
    left = [process for process in processes if _alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [process for process in left if _alive(process)]
    return left
