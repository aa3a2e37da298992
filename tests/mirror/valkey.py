"""A real Valkey server from its wheel, which tests kill, stop, fill and lock."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import redis

from cli.dev.ports import HOST, free_port
from cli.dev.redis import server_command


class Valkey:
    """One server on a port of its own."""

    def __init__(self, folder: Path, host: str = HOST, port: int | None = None) -> None:
        self._folder = folder
        self._host = host
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self._host}:{self.port}/0"

    def start(self, *more: str) -> None:
        self._process = subprocess.Popen(
            [*server_command(self.port), *more], cwd=self._folder, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client().ping()
            except redis.AuthenticationError:
                return
            except redis.RedisError:
                assert time.monotonic() < deadline, "the server does not come up"
                time.sleep(0.02)
            else:
                return

    def client(self, **more: Any) -> Any:
        return redis.Redis(self._host, self.port, decode_responses=True, socket_timeout=2, **more)

    def signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)
        if number is signal.SIGKILL:
            self._process.wait(10)

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
