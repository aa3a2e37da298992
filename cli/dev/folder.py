"""The data folder of one `ais dev`: its lock, its API key, and the file through which other processes find it.

A lock file that merely exists survives kill -9 and must then be removed by hand. So this lock uses flock: the kernel
releases it however the holder dies. No child may inherit the descriptor, or an orphan would keep the lock. Python's
descriptors are not inheritable by default.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from cli.dev.errors import AlreadyRunning, NoFolder
from settings import PORTS_FILE

MAX_LOG_BYTES = 10_000_000


class DataFolder:
    """The paths in a data folder, and the files that only this class writes."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.temporal_db = self.path / "temporal.db"
        self.postgres = self.path / "postgres"
        self.api_key = self.path / "api-key"
        self.ports = self.path / PORTS_FILE
        self._lock_file = self.path / "lock"
        self._lock: IO[str] | None = None

    def create(self) -> None:
        """Creates the folder. As root, other users may pass through it but not list it: PostgreSQL runs as another user.

        Raises NoFolder."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
            (self.path / "logs").mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise NoFolder(self.path, error) from error

    def lock(self) -> None:
        file = self._lock_file.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
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
        """The log file of a part. A large one is rotated when the stack starts, never while it runs."""
        return self.path / "logs" / f"{name}.log"

    def rotate_logs(self) -> None:
        for log in (self.path / "logs").glob("*.log"):
            if log.stat().st_size > MAX_LOG_BYTES:
                log.replace(log.with_suffix(".log.1"))

    def make_api_key(self) -> Path:
        """Makes the key once: the folder keeps the same key across starts."""
        if not self.api_key.exists():
            _write_atomically(self.api_key, secrets.token_urlsafe(32) + "\n")
        return self.api_key

    def record(self, running: Mapping[str, Any]) -> None:
        _write_atomically(self.ports, json.dumps(running, indent=2) + "\n")

    def forget(self) -> None:
        self.ports.unlink(missing_ok=True)


def _write_atomically(path: Path, text: str) -> None:
    """Writes a file that has mode 0600 from the first byte and that no reader sees half written."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)
