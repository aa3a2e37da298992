"""A whole desk for the fault suite: `ais dev` in a process of its own, spoken to as its users do."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.deploy.dev_stack import PATIENCE, DevStack, ais, clean_environment, wait_until

TEMPORAL = Path(sys.executable).parent / "temporal"


class Live:
    """A running `ais dev`, with its HTTP API, its command line and its processes."""

    def __init__(self, folder: Path) -> None:
        self.stack = DevStack(folder)
        self.folder = folder
        self._http = httpx.Client(timeout=PATIENCE)

    def start(self, *flags: str, ready: bool = True) -> None:
        """Starts it; with `ready`, waits for the line that says so."""
        self.stack.start("--cycle-seconds", "1", *flags)
        if ready:
            self.stack.wait_for_line("ready")

    def stop(self) -> None:
        assert self.stack.interrupt(signal.SIGTERM) == 0

    def kill_9_all(self) -> None:
        """Every process of the desk at once, `ais dev` first, so that it restarts nothing."""
        self.stack.kill_9()
        for process in self.stack.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: not self.stack.processes(), "all dead")

    def kill_9(self, part: str) -> int:
        """One part, as `ais dev` names it; its process id."""
        pid = int(self.stack.recorded["pids"][part])
        psutil.Process(pid).kill()
        return pid

    def clean_up(self) -> None:
        self._http.close()
        self.stack.clean_up()

    @property
    def key(self) -> str:
        return (self.folder / "api-key").read_text().strip()

    def get(self, path: str) -> httpx.Response:
        return self._call("GET", path)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self._call("POST", path, body, headers)

    def _call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> httpx.Response:
        url = self.stack.recorded["api_url"] + path
        sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        return self._http.request(method, url, json=body, headers=sent)

    def kill(self, reason: str = "test") -> httpx.Response:
        return self.post("/control/kill-switch", {"reason": reason})

    @property
    def state(self) -> str:
        answer = self.get("/control/status")
        return str(answer.json().get("state", answer.status_code))

    def coordinator(self) -> dict[str, Any]:
        answer = self.get("/control/coordinator")
        found: dict[str, Any] = answer.json()
        return found

    def decisions(self, **query: str) -> list[dict[str, Any]]:
        url = "/reports/decisions?" + "&".join(f"{k}={v}" for k, v in {"limit": "1000", **query}.items())
        rows: list[dict[str, Any]] = self.get(url).json()
        return rows

    def ais(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return ais(*arguments, "--data-dir", str(self.folder), cwd=self.folder.parent)

    def temporal(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(TEMPORAL), *arguments, "--address", self.stack.recorded["temporal_address"]]
        return subprocess.run(
            command, env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def until_quiet(self) -> dict[str, Any]:
        """The coordinator's status once every cancel is confirmed and every row is written."""

        def quiet() -> bool:
            status = self.coordinator()
            kill = status.get("kill") or {}
            return bool(kill.get("quiet_at") and kill.get("row_written") and kill.get("latched"))

        wait_until(quiet, "killed, quiet and latched")
        return self.coordinator()
