"""A real `ais dev` for tests: a process of its own, free ports, a folder that goes away."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import psutil
import psycopg
from psycopg.rows import dict_row

from cli.app import main
from cli.dev.orphans import MARKER
from cli.dev.postgres import socket_dir

FREE_PORTS = ("--port", "0", "--temporal-port", "0", "--ui-port", "0")
WITHOUT_PROGRAMS = ("--without", "worker,api")
# Seconds. Fifteen processes beside each other on two cores take ten times as long as one on an idle machine.
PATIENCE = 180.0


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Looks less and less often: each look at a whole desk costs three of its processes 10 ms or more."""
    deadline, pause = time.monotonic() + seconds, 0.02
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(pause)
        pause = min(1.3 * pause, 0.25)


def clean_environment() -> dict[str, str]:
    """The settings of whoever runs the tests are not part of the test."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIS_", "TEMPORAL_"))}


def takes_ctrl_c() -> None:
    """For `preexec_fn`: whoever runs the tests in the background has their processes ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ais(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *args]
    environment = {**clean_environment(), **env}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


class _Left(BaseException):
    """The end of a command in this process."""

    def __init__(self, code: int) -> None:
        self.code = code


def _leave(code: int) -> NoReturn:
    raise _Left(code)


def ais_here(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The same command by the same entry point, in this process: for what it says and its exit status.

    It saves the second that a process of its own spends on imports. What would end that one with a traceback is raised.
    """
    printed, errors = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, clean_environment() | env, clear=True),
        patch.object(sys, "argv", ["ais", *args]),
        patch.object(os, "_exit", _leave),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
        except _Left as left:
            return subprocess.CompletedProcess(args, left.code, printed.getvalue(), errors.getvalue())
    raise AssertionError("a command ends its process")


@dataclass
class DevStack:
    """One data folder, and the `ais dev` that may run on it."""

    folder: Path
    output: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    # Without `quoter`, of whose orders some are refused or stopped; None is what `ais dev` does by itself.
    agents: str | None = "all"
    _process: subprocess.Popen[bytes] | None = None
    _log: Path = field(init=False)

    def __post_init__(self) -> None:
        self._log = self.folder.with_name(self.folder.name + ".out")

    def start(self, *args: str) -> None:
        command = [sys.executable, "-m", "cli", "dev", "--data-dir", str(self.folder), *FREE_PORTS, *args]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder.parent,
                env=clean_environment() | ({"AIS_AGENTS": self.agents} if self.agents else {}) | self.settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_stores(self) -> None:
        self.start(*WITHOUT_PROGRAMS)
        self.wait_for_line("ready")

    def said(self) -> str:
        return self._log.read_text()

    def wait_for_line(self, line: str, seconds: float = PATIENCE) -> None:
        wait_until(lambda: line in self.said().splitlines() or self.returncode is not None, f"{line!r}", seconds)
        assert line in self.said().splitlines(), self.said()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process
        return self._process

    @property
    def returncode(self) -> int | None:
        return self.process.poll()

    @property
    def recorded(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "ports.json").read_text())
        return found

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill_9(self) -> None:
        self.process.kill()
        self.process.wait()

    def clean_up(self) -> None:
        if self._process and self._process.poll() is None:
            self.interrupt(signal.SIGTERM)
        for process in self.processes():
            process.kill()
        # Where the folder's path is too long for a socket, that one lies elsewhere.
        if (sockets := socket_dir(self.folder / "postgres")) != self.folder / "postgres":
            shutil.rmtree(sockets, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """Every living process that this folder's stack has started."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            marked = process.environ().get(MARKER) == str(self.folder)
            return marked or process.cwd() == str(self.folder / "postgres")
        except (psutil.Error, OSError):
            return False

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        directory = socket_dir(self.folder / "postgres")
        with psycopg.connect(host=str(directory), user="postgres", dbname="ais", autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def sql_rows(self, statement: str) -> list[dict[str, Any]]:
        """The rows as mappings; numbers of the database as Decimal."""
        directory = socket_dir(self.folder / "postgres")
        with psycopg.connect(host=str(directory), user="postgres", dbname="ais", row_factory=dict_row) as connection:
            return connection.execute(statement.encode()).fetchall()
