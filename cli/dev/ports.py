"""Checks, before anything starts, whether the ports are free."""

import contextlib
import random
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from cli.dev.errors import PortTaken

HOST = "127.0.0.1"
# Below those that systems give to outgoing connections: one of them could take the port of a part that is being restarted.
LASTING_PORTS = range(20_000, 32_768)
ATTEMPTS = 100


@dataclass(frozen=True)
class PortRequest:
    """A requested port; 0 means any free one."""

    port: int
    what: str
    flag: str


def claim(wanted: Iterable[PortRequest]) -> list[int]:
    """Returns the ports in the order requested. It holds all of them at once, to notice two flags with the same number."""
    ports: list[int] = []
    with ExitStack() as held:
        for one in wanted:
            try:
                listener = held.enter_context(_listening(one.port) if one.port else _on_any_port())
            except OSError:
                raise PortTaken(one.port, one.what, one.flag) from None
            ports.append(listener.getsockname()[1])
    return ports


def _listening(port: int) -> socket.socket:
    # With SO_REUSEADDR, as the servers do: a connection from the last run in TIME_WAIT does not block the port.
    # It listens too, since two may then bind one port as long as neither listens.
    return socket.create_server((HOST, port), backlog=1)


def _on_any_port() -> socket.socket:
    for port in random.sample(LASTING_PORTS, ATTEMPTS):
        with contextlib.suppress(OSError):
            return _listening(port)
    return _listening(0)


def free_port() -> int:
    return claim([PortRequest(0, "", "")])[0]
