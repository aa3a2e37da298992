"""The data folder of one `ais dev`: its lock, its API key, and the file in which others find it.

A lock file that merely exists survives kill -9 and then has to be removed by hand. This one is held with flock: the
kernel lets go of it however the holder dies. No child may inherit the descriptor, or an orphan would hold the lock on;
Python's descriptors are not inheritable unless one asks.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from deploy.dev.errors import AlreadyRunning
from settings import PORTS_FILE

MAX_LOG_BYTES = 10_000_000


class DataFolder:
    """Paths in a data folder, and the files that are written by nobody else."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.temporal_db = self.path / "temporal.db"
        self.postgres = self.path / "postgres"
        self.api_key = self.path / "api-key"
        self.ports = self.path / PORTS_FILE
        self._lock_file = self.path / "lock"
        self._lock: IO[str] | None = None

    def create(self) -> None:
        """Others may pass through, not look in: PostgreSQL runs as another user where we are root."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        (self.path / "logs").mkdir(exist_ok=True, mode=0o700)

    def lock(self) -> None:
        file = self._lock_file.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunning(self.path, file.read().strip()) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._lock = file

    def unlock(self) -> None:
        if self._lock:
            self._lock.close()

    def log(self, name: str) -> Path:
        """Where a part logs. One that has grown large is set aside when the stack starts, never while it runs."""
        return self.path / "logs" / f"{name}.log"

    def rotate_logs(self) -> None:
        for log in (self.path / "logs").glob("*.log"):
            if log.stat().st_size > MAX_LOG_BYTES:
                log.replace(log.with_suffix(".log.1"))

    def make_api_key(self) -> Path:
        """Made once and kept: the same folder has the same key after every start."""
        if not self.api_key.exists():
            _write_atomically(self.api_key, secrets.token_urlsafe(32) + "\n")
        return self.api_key

    def record(self, running: Mapping[str, Any]) -> None:
        _write_atomically(self.ports, json.dumps(running, indent=2) + "\n")

    def forget(self) -> None:
        self.ports.unlink(missing_ok=True)


def _write_atomically(path: Path, text: str) -> None:
    """With mode 0600 from its first byte, and never half there for a reader."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)
