"""A kill over HTTP while all hangs that a desk talks to besides Temporal: Redis, SMTP, a webhook, and then PostgreSQL too.

The promise is the same as under load: p99 within twice its idle p99 and 50 ms. The idle desk is another one, at the same time on
the same machine, and the two take turns.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.control import Clients, hanging, right_of_way
from bench.desks import a_desk
from bench.subject import Pair, Steps, Subject
from tests.deploy.dev_stack import wait_until

SAMPLES, WARM_UP = 200, 5
NOTICES_WITHIN_SECONDS = 180


@contextmanager
def silent() -> Iterator[socket.socket]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        server.setblocking(False)
        yield server


def _is_asked(server: socket.socket, held: list[socket.socket]) -> bool:
    """Whether somebody waits for an answer there. The connection stays open."""
    try:
        held.append(server.accept()[0])
    except BlockingIOError:
        return False
    return True


def pairs(_size: int) -> Steps:
    """With the database well, then with the database hanging too."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(silent()) for name in ("Redis", "SMTP", "the webhook")}
        redis, smtp, webhook = (server.getsockname()[1] for server in servers.values())
        targets = (
            f"info=mailto://127.0.0.1:{smtp}?from=ais@desk.test&to=anna@desk.test&mode=insecure",
            f"critical=json://127.0.0.1:{webhook}",
        )
        hung = stack.enter_context(
            a_desk(AIS_REDIS_URL=f"redis://127.0.0.1:{redis}", AIS_NOTIFY_URLS=" ".join(targets))
        )
        idle = stack.enter_context(a_desk())
        ours, floor = Clients(hung, stack), Clients(idle, stack)
        # A first kill, of which the targets are to be told.
        ours.kill()
        held: list[socket.socket] = []
        for name, server in servers.items():
            wait_until(partial(_is_asked, server, held), f"{name} is asked", NOTICES_WITHIN_SECONDS)
        row = yield Pair("Redis, SMTP and a webhook hang", ours.kill, floor.kill, SAMPLES, warm_up=WARM_UP)
        assert row
        yield right_of_way(row.floor, row.ours)
        with hanging(hung.stack.recorded["pids"]["PostgreSQL"]):
            row = yield Pair("PostgreSQL too", ours.kill, floor.kill, SAMPLES, warm_up=WARM_UP)
            assert row
            yield right_of_way(row.floor, row.ours)
        for connection in held:
            connection.close()


SUBJECT = Subject(
    "hanging",
    "a kill over HTTP while everything but Temporal hangs",
    "the same of a desk at rest where nothing hangs",
    pairs,
)
