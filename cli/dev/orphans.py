"""Ends the processes that an `ais dev` killed with -9 has left behind.

Its children live on. They hold ports and the database's files, and an old worker would trade beside the new one. Every
child has a marker in its environment with the name of the data folder, by which we find it. PostgreSQL's processes
overwrite their environment with their title, so we find those by program name and working directory, the data folder.
Only the holder of the folder's lock may search: then every marked process is an orphan.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil

MARKER = "STARTED_BY_AIS_DEV"
GRACE_SECONDS = 8.0
T = TypeVar("T")


def end_orphans(folder: Path, pgdata: Path, grace_seconds: float = GRACE_SECONDS) -> int:
    """Ends every process of an earlier run on this folder, and returns how many there were."""
    postgres = postgres_processes(pgdata)
    # SIGTERM would make PostgreSQL wait for its clients to leave; SIGINT is its fast, orderly stop.
    _send(postgres, signal.SIGINT)
    marked = [p for p in _others() if (_read(p.environ) or {}).get(MARKER) == str(folder) and _alive(p)]
    others = [process for process in marked if process not in postgres]
    _send(others, signal.SIGTERM)
    found = [*postgres, *others]
    _send(found, signal.SIGCONT)  # one that was SIGSTOPped could not hear the first
    left = _still_there(found, grace_seconds)
    _send(left, signal.SIGKILL)
    _still_there(left, grace_seconds)
    return len(found)


def end_postgres(pgdata: Path) -> None:
    """Ends leftover PostgreSQL processes. After a kill -9 of the postmaster, its children hold the shared memory until they
    notice, and no new server can start."""
    end_orphans(pgdata / "no-such-folder", pgdata, grace_seconds=2.0)


def postgres_processes(pgdata: Path) -> list[psutil.Process]:
    return [p for p in _others() if _read(p.name) == "postgres" and _read(p.cwd) == str(pgdata) and _alive(p)]


def _others() -> Iterator[psutil.Process]:
    return (process for process in psutil.process_iter() if process.pid != os.getpid())


def _read(fact: Callable[[], T]) -> T | None:
    try:
        return fact()
    except (psutil.Error, OSError):  # another user's process, or one that is just going
        return None


def _alive(process: psutil.Process) -> bool:
    """A zombie does not count as alive: it holds nothing, and without its parent nobody may ever collect it."""
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
    """Waits until all have ended; returns those that have not when the time is up."""
    deadline = time.monotonic() + seconds
    left = [process for process in processes if _alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [process for process in left if _alive(process)]
    return left
