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
        smtp, webhook = stack.enter_context(silent()), stack.enter_context(silent())
        mail = f"mailto://127.0.0.1:{smtp.getsockname()[1]}?from=ais@desk.test&to=anna@desk.test&mode=insecure"
        targets = f"info={mail} critical=json://127.0.0.1:{webhook.getsockname()[1]}"
        hung = stack.enter_context(a_desk("--redis", AIS_NOTIFY_URLS=targets))
        idle = stack.enter_context(a_desk("--redis"))
        ours, floor, pids = Clients(hung, stack), Clients(idle, stack), hung.stack.recorded["pids"]
        stack.enter_context(hanging(pids["Redis"]))
        # A first kill, of which both targets are to be told.
        ours.kill()
        held: list[socket.socket] = []
        for name, server in (("SMTP", smtp), ("the webhook", webhook)):
            wait_until(partial(_is_asked, server, held), f"{name} is asked", NOTICES_WITHIN_SECONDS)
        row = yield Pair("Redis, SMTP and a webhook hang", ours.kill, floor.kill, SAMPLES, warm_up=WARM_UP)
        assert row
        yield right_of_way(row.floor, row.ours)
        with hanging(pids["PostgreSQL"]):
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
