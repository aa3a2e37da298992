"""Finding out, before anything is started, whether the ports can be had."""

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from deploy.dev.errors import PortTaken

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Wanted:
    """A port somebody asked for; 0 means any free one."""

    port: int
    what: str
    flag: str


def claim(wanted: Iterable[Wanted]) -> list[int]:
    """The ports in the order asked for. All are held at once, so that two flags with one number are noticed too."""
    with ExitStack() as held:
        return [_bind(held, one) for one in wanted]


def free_port() -> int:
    return claim([Wanted(0, "", "")])[0]


def _bind(held: ExitStack, wanted: Wanted) -> int:
    listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    # As the servers do it: a connection of the last run in TIME_WAIT does not make a port taken.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, wanted.port))
        listener.listen(1)  # with SO_REUSEADDR two may bind one port, as long as neither listens
    except OSError:
        raise PortTaken(wanted.port, wanted.what, wanted.flag) from None
    port: int = listener.getsockname()[1]
    return port
