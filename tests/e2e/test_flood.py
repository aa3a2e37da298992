"""A full signal queue: the server takes 10,000 signals a run, and the kill still kills."""

import asyncio
import signal
import subprocess
import sys

import pytest

import settings
from tests.deploy.dev_stack import clean_environment
from tests.e2e.live import Live
from workflows.gateway import connect
from workflows.names import workflow_id

pytestmark = pytest.mark.long

LIMIT = 10_000
AT_ONCE = 100


async def fill(live: Live, count: int) -> None:
    """Signals of every kind until the server's queue holds `count`."""
    client = await connect(settings.temporal_connect_config(live.folder))
    handle = client.get_workflow_handle(workflow_id("main"))
    names = ("pause", "resume", "cancel_all", "kil")

    async def send(number: int) -> None:
        await handle.signal(names[number % len(names)])

    for begin in range(0, count, AT_ONCE):
        await asyncio.gather(*(send(number) for number in range(begin, min(begin + AT_ONCE, count))))


@pytest.mark.parametrize(
    ("waiting", "symbols"), [(LIMIT - 1, "BTCUSDT"), (LIMIT, ",".join(f"S{n}USDT" for n in range(10)))]
)
def test_a_kill_behind_a_full_signal_queue_kills(live: Live, waiting: int, symbols: str) -> None:
    """One below the limit the kill is the last signal; at the limit Temporal refuses it, and the API cancels instead."""
    live.start("--without", "worker", "--symbols", symbols)
    asyncio.run(fill(live, waiting))
    answer = live.kill("behind the flood")
    assert answer.status_code == 202, answer.text
    command = [sys.executable, "-m", "worker", "--data-dir", str(live.folder)]
    worker = subprocess.Popen(command, env=clean_environment(), stderr=subprocess.DEVNULL)
    try:
        status = live.until_quiet()
        assert status["state"] == "killed"
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(40) == 0
