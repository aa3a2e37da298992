"""`ais api --workers N`: uvicorn supervises the processes, and starts one anew that has died."""

import os
import re
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cli.commands import processes
from cli.dev.ports import free_port
from tests.deploy.dev_stack import ais_here, clean_environment, wait_until
from tests.processes import is_alive

BASICS = {"AIS_API_KEY": secrets.token_urlsafe(18), "AIS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How uvicorn was asked to serve, instead of serving."""
    asked = list[dict[str, Any]]()
    # The log of this process is pytest's.
    monkeypatch.setattr("startup.configure_logging", lambda _: None)
    monkeypatch.setattr("uvicorn.run", lambda *_, **how: asked.append(how))
    return asked


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"AIS_NOTIFY_URLS": "nobody"}, "AIS_NOTIFY_URLS is set, but"),
        ({"AIS_LOG_LEVEL": "LOUD"}, "AIS_LOG_LEVEL is 'LOUD'"),
        ({"AIS_REDIS_URL": "nowhere"}, "AIS_REDIS_URL is set, but"),
        ({"AIS_MODE": "live"}, "AIS_MODE=live needs"),
        ({"TEMPORAL_PROFILE": "no-such"}, "Temporal's settings cannot be read"),
    ],
)
def test_a_wrong_setting_is_one_line_and_ends_the_command(
    tmp_path: Path, served: list[dict[str, Any]], wrong: dict[str, str], named: str
) -> None:
    """Found: each process ended over it and was started again, for ever; `ais api` itself went on, and served nothing."""
    done = ais_here("api", "--workers", "2", "--port", "0", cwd=tmp_path, **BASICS, **wrong)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(named)
    assert not served


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_an_address_that_is_none_is_one_line(tmp_path: Path, served: list[dict[str, Any]], host: str) -> None:
    done = ais_here("api", "--host", host, "--port", "0", cwd=tmp_path, **BASICS)
    assert (done.returncode, done.stderr.count("\n"), served) == (1, 1, [])
    assert done.stderr.startswith(f"Cannot listen on {host} (")


def test_a_process_that_starts_slowly_or_was_suspended_is_not_killed_at_once(
    tmp_path: Path, served: list[dict[str, Any]]
) -> None:
    ais_here("api", "--workers", "2", "--port", "0", cwd=tmp_path, **BASICS)
    assert served[0]["timeout_worker_healthcheck"] == processes.SILENT_SECONDS


def test_no_process_goes_on_without_its_supervisor(tmp_path: Path) -> None:
    """Found: after a kill -9 of `ais api` two processes held the port, with old settings, and no other `ais api` could start."""
    port = free_port()
    command = [sys.executable, "-m", "cli", "api", "--workers", "2", "--port", str(port)]
    said = tmp_path / "api.log"
    with said.open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=clean_environment() | BASICS, stderr=log)
    family, of_it = psutil.Process(process.pid), list[int]()
    try:
        wait_until(lambda: _is_served(port), "it serves")
        _processes(family)[0].kill()
        wait_until(
            lambda: re.search(r"Child process \[\d+\] died", said.read_text()) is not None, "the log tells of it"
        )
        wait_until(lambda: len(_processes(family)) == 2, "there are two again")
        of_it = [child.pid for child in family.children(recursive=True)]
        process.kill()
        wait_until(lambda: not any(map(is_alive, of_it)), "its processes have ended")
    finally:
        process.kill()
        process.wait()
        for pid in filter(is_alive, of_it):
            os.kill(pid, signal.SIGKILL)


def _processes(family: psutil.Process) -> list[psutil.Process]:
    """Those that serve; beside them, Python has one that keeps track of shared memory."""
    found = []
    for child in family.children():
        with suppress(psutil.Error):
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


def _is_served(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False
