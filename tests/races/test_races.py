"""Races, many times over: a kill is never lost, whatever it races with and through whichever process it came.

`AIS_RACES` sets how often (500 and 100 by default); `make races` runs them.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

import settings
from cli.desk import plan
from cli.dev.ports import free_port
from cli.lifecycle import Lifecycle
from cli.refusals import Refused
from domain.desk.states import State
from storage.database import Database
from tests.deploy.dev_stack import clean_environment, wait_until
from tests.e2e.live import Live
from workflows.gateway import DeskGateway, connect

pytestmark = pytest.mark.long

RACES = int(os.environ.get("AIS_RACES", "500"))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    desk = Live(tmp_path_factory.mktemp("races").resolve() / "desk")
    desk.start()
    yield desk
    desk.clean_up()


@pytest.fixture(scope="module")
def second_api(live: Live) -> Iterator[str]:
    """Another API process beside the stack's own."""
    port = free_port()
    command = [sys.executable, "-m", "cli", "api", "--port", str(port), "--data-dir", str(live.folder)]
    process = subprocess.Popen(command, env=clean_environment(), stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: _answers(url), "the second API")
    yield url
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + "/health/live").status_code == 200
    except httpx.HTTPError:
        return False


@asynccontextmanager
async def a_lifecycle(folder: Path) -> AsyncIterator[tuple[Lifecycle, DeskGateway]]:
    """What `ais restart` uses, without the two seconds that a process takes to start."""
    desk = settings.DeskSettings.load(folder)
    client = await connect(settings.temporal_connect_config(folder))
    database = Database(settings.DatabaseSettings.load(folder).url, threads=1, application_name="races")
    try:
        yield (
            Lifecycle(client, database, plan(desk, settings.LimitSettings.load(folder))),
            DeskGateway(client, desk.desk),
        )
    finally:
        database.close()


async def test_a_kill_beats_resume_and_pause_through_two_api_processes(live: Live, second_api: str) -> None:
    chance = random.Random(1)
    headers = {"Authorization": f"Bearer {live.key}"}
    urls = [live.stack.recorded["api_url"], second_api]
    async with a_lifecycle(live.folder) as (lifecycle, gateway), httpx.AsyncClient(headers=headers, timeout=15) as http:

        async def call(path: str) -> int:
            await asyncio.sleep(chance.uniform(0, 0.01))
            return (await http.post(chance.choice(urls) + path)).status_code

        for number in range(RACES):
            paths = ["/control/resume", "/control/pause", "/control/kill-switch", "/control/resume", "/control/pause"]
            answers = await asyncio.gather(*(call(path) for path in chance.sample(paths, len(paths))))
            assert all(answer in (200, 202, 409) for answer in answers), (number, answers)
            assert (await gateway.status()).state is State.KILLED, f"race {number}"
            await lifecycle.restart(f"race {number}", "races", datetime.now(UTC))
            assert (await gateway.status()).state is State.RUNNING


async def test_a_kill_beats_a_restart(live: Live) -> None:
    chance = random.Random(2)
    headers = {"Authorization": f"Bearer {live.key}"}
    url = live.stack.recorded["api_url"] + "/control/kill-switch"
    won = 0
    async with a_lifecycle(live.folder) as (lifecycle, gateway), httpx.AsyncClient(headers=headers, timeout=15) as http:
        await http.post(url)
        for number in range(RACES // 5):

            async def restart(number: int = number) -> bool:
                try:
                    await lifecycle.restart(f"race {number}", "races", datetime.now(UTC))
                except Refused:
                    return False
                return True

            async def kill() -> None:
                await asyncio.sleep(chance.uniform(0, 0.3))
                assert (await http.post(url)).status_code == 200

            restarted, _ = await asyncio.gather(restart(), kill())
            # Either order is right: a kill that came last killed what ran again, one that came first refused the restart.
            assert (await gateway.status()).state is State.KILLED, f"race {number}"
            won += restarted
    assert 0 < won < RACES // 5, "no race took place: every restart ended the same way"
