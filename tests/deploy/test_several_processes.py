"""`ais api --workers N`: uvicorn supervises the processes, and starts one anew that has died."""

import os
import secrets
import signal
import subprocess
import sys
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
    process = subprocess.Popen(command, cwd=tmp_path, env=clean_environment() | BASICS, stderr=subprocess.DEVNULL)
    family = psutil.Process(process.pid)
    try:
        wait_until(lambda: _is_served(port), "it serves")
        of_it = [child.pid for child in family.children(recursive=True)]
        assert len(of_it) >= 2
        process.kill()
        wait_until(lambda: not any(map(is_alive, of_it)), "its processes have ended")
    finally:
        for each in family.children(recursive=True) if family.is_running() else []:
            os.kill(each.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _is_served(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False
