"""A full signal queue: the server takes 10,000 signals a run, and the kill still kills."""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from string import ascii_letters
from typing import Any

import pytest

import settings
from tests.deploy.dev_stack import clean_environment, wait_until
from tests.e2e.live import Live
from workflows.gateway import connect
from workflows.names import workflow_id

pytestmark = pytest.mark.long

LIMIT = 10_000
AT_ONCE = 100


Kind = Callable[[int], tuple[str, Any]]


def mixed(number: int) -> tuple[str, Any]:
    """Signals of every kind, one of them no signal of ours."""
    return ("pause", "resume", "cancel_all", "kil")[number % 4], None


def unknown_limits(number: int) -> tuple[str, Any]:
    """The dearest there was: a name that is compared with every limit."""
    return "set_limits", {"limits": {"".join(random.Random(number).choices(ascii_letters, k=64)): 1}}


def unknown_names(number: int) -> tuple[str, Any]:
    """Each a signal that nobody has."""
    return "".join(random.Random(number).choices(ascii_letters, k=40)), {"reason": "x" * 500}


def kills(number: int) -> tuple[str, Any]:
    """Everybody presses the button, and again."""
    return "kill", {"command_id": f"kill-{number}", "reason": f"kill {number}"}


async def fill(live: Live, count: int, kind: Kind) -> None:
    """Signals until the server's queue holds `count`."""
    client = await connect(settings.temporal_connect_config(live.folder))
    handle = client.get_workflow_handle(workflow_id("main"))

    async def send(number: int) -> None:
        name, payload = kind(number)
        await handle.signal(name, payload)

    for begin in range(0, count, AT_ONCE):
        await asyncio.gather(*(send(number) for number in range(begin, min(begin + AT_ONCE, count))))


@contextmanager
def worker(live: Live) -> Iterator[None]:
    """A worker beside a stack that has none; it ends in order."""
    command = [sys.executable, "-m", "worker", "--data-dir", str(live.folder)]
    process = subprocess.Popen(command, env=clean_environment(), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0


@pytest.mark.parametrize(
    ("waiting", "symbols", "kind"),
    [
        (LIMIT - 1, 1, mixed),
        (LIMIT, 10, mixed),
        (LIMIT, 1, unknown_limits),
        (LIMIT, 1, unknown_names),
        (LIMIT, 40, kills),
    ],
)
def test_a_kill_behind_a_full_signal_queue_kills(live: Live, waiting: int, symbols: int, kind: Kind) -> None:
    """One below the limit the kill is the last signal; at the limit Temporal refuses it, and the API cancels instead."""
    live.start("--without", "worker", "--symbols", ",".join(f"S{n}USDT" for n in range(symbols)))
    asyncio.run(fill(live, waiting, kind))
    answer = live.kill("behind the flood")
    assert answer.status_code == 202, answer.text
    followed = answer.headers["Location"]
    with worker(live):
        wait_until(lambda: live.get(followed).json().get("outcome") == "applied", "the kill is applied")
        status = live.until_quiet()
        assert status["state"] == "killed"
        wait_until(lambda: live.coordinator().get("records_waiting") == 0, "every row is written")
        rows = live.stack.sql("SELECT count(*) FROM decisions WHERE decision_type = 'control'")
        assert rows[0][0] > 0


def test_a_kill_amid_dear_signals_with_a_worker_up(live: Live) -> None:
    """The flood goes on while the kill is sent: it is neither refused nor waits for the flood's end."""
    live.start()

    async def play() -> int:
        flood = asyncio.create_task(fill(live, 4_500, unknown_limits))
        await asyncio.sleep(0)
        answer = await asyncio.to_thread(live.kill, "amid the flood")
        await flood
        return answer.status_code

    assert asyncio.run(play()) in (200, 202)
    assert live.until_quiet()["state"] == "killed"
    wait_until(lambda: live.coordinator().get("records_waiting") == 0, "every row is written")
