"""What the supervisor does when a part ends: real processes, short delays."""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli.dev import desk, supervisor, temporal
from cli.dev.console import Console
from cli.dev.errors import PartFailed
from cli.dev.process import Child, ProcessCommand
from cli.dev.supervisor import Supervisor


class Sleeper:
    """A part that answers as soon as it exists."""

    name = "sleeper"
    where = "here"
    stop_grace_seconds = 5.0
    comes_up = True

    def __init__(self, child: Child, code: str = "import time; time.sleep(600)") -> None:
        self.child = child
        self.code = code

    async def start(self) -> None:
        self.child.spawn(ProcessCommand([sys.executable, "-c", self.code], dict(os.environ)))

    async def answers(self) -> bool:
        return self.comes_up and self.child.ended() is None


class Heard(Console):
    """Everything that was said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    async def hear(self, part: str) -> str:
        async with asyncio.timeout(180):
            while not any(part in line for line in self.lines):
                await asyncio.sleep(0.01)
        return next(line for line in self.lines if part in line)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def sleeper(tmp_path: Path) -> Sleeper:
    return Sleeper(Child("sleeper", tmp_path, tmp_path / "sleeper.log"))


@pytest.fixture
async def watched(heard: Heard, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_SECONDS", 0.1)
    watched = Supervisor(heard, lambda: None)
    await watched.bring_up(sleeper)
    task = asyncio.create_task(watched.keep_up())
    yield watched
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await watched.stop(asyncio.Event())


def _signal(part: Sleeper, number: signal.Signals) -> None:
    os.kill(part.child.pid or 0, number)


@pytest.mark.usefixtures("watched")
async def test_a_part_that_crashed_is_reported_and_started_again(heard: Heard, sleeper: Sleeper) -> None:
    first = sleeper.child.pid

    _signal(sleeper, signal.SIGKILL)

    assert "ended by SIGKILL: starting it again in 0 s" in await heard.hear("SIGKILL")
    await heard.hear("sleeper is back")
    assert sleeper.child.pid != first


@pytest.mark.usefixtures("watched")
async def test_a_machine_without_room_for_another_process_ends_no_other_part(
    heard: Heard, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the supervisor, and with it Temporal and the API."""
    start, failures = sleeper.start, [OSError(errno.ENOMEM, "Cannot allocate memory"), OSError(errno.ENOSPC, "full")]

    async def fails_twice() -> None:
        if failures:
            raise failures.pop(0)
        await start()

    monkeypatch.setattr(sleeper, "start", fails_twice)
    _signal(sleeper, signal.SIGKILL)
    assert "could not be started" in await heard.hear("Cannot allocate memory")
    await heard.hear("sleeper is back")
    assert not failures


async def test_a_wrong_limit_starts_no_desk_and_ends_no_part(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the whole stack with a traceback once that had come up, and with it a desk that was open."""
    monkeypatch.setenv("AIS_HARD_DRAWDOWN", "0.01")
    monkeypatch.setenv("AIS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    said: list[str] = []
    refusal = await desk.start(said.append)
    assert isinstance(refusal, desk.StartRefusal)
    assert refusal.why.startswith("AIS_SOFT_DRAWDOWN (0.08) is above AIS_HARD_DRAWDOWN (0.01)")
    assert not refusal.passing
    await desk.compare(said.append)
    assert "AIS_HARD_DRAWDOWN" in said[-1]


@pytest.mark.usefixtures("watched")
async def test_only_a_part_that_does_not_come_up_waits_longer_each_time(
    heard: Heard, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was five seconds, then ten, twenty and forty for a worker that came back each time; a kill waited as long."""
    monkeypatch.setattr(supervisor, "FIRST_DELAY_SECONDS", 0.6)

    async def said(count: int) -> list[str]:
        async with asyncio.timeout(180):
            while len(found := [line for line in heard.lines if "starting it again" in line]) < count:
                await asyncio.sleep(0.01)
        return [line.partition(" again in ")[2].partition(" s")[0] for line in found]

    async def back(count: int) -> None:
        async with asyncio.timeout(180):
            while sum("is back" in line for line in heard.lines) < count:
                await asyncio.sleep(0.01)

    for number in range(1, 4):
        _signal(sleeper, signal.SIGKILL)
        await back(number)
    assert (await said(3))[1:] == ["1", "1"], "it came up each time"
    sleeper.comes_up, sleeper.code = False, "raise SystemExit(1)"
    _signal(sleeper, signal.SIGKILL)
    assert (await said(5))[3:] == ["1", "1"], "the second was the first that did not come up"
    assert (await said(6))[5:] == ["2"]


@pytest.mark.usefixtures("watched")
async def test_a_part_that_does_not_come_up_again_is_reported_with_the_end_of_its_log(
    heard: Heard, sleeper: Sleeper
) -> None:
    sleeper.comes_up, sleeper.code = False, "raise SystemExit('run `ais migrate`')"
    _signal(sleeper, signal.SIGKILL)
    said = await heard.hear("did not come up")
    assert said.splitlines()[1:] == ["    run `ais migrate`"]


@pytest.mark.usefixtures("watched")
async def test_a_part_that_was_asked_to_end_stays_ended(heard: Heard, sleeper: Sleeper) -> None:
    _signal(sleeper, signal.SIGTERM)

    assert await heard.hear("SIGTERM") == "sleeper ended by SIGTERM: it stays stopped."
    assert sleeper.child.ended()


@pytest.mark.usefixtures("watched")
async def test_a_part_that_hangs_is_left_alone_and_can_still_be_stopped(heard: Heard, sleeper: Sleeper) -> None:
    _signal(sleeper, signal.SIGSTOP)
    await asyncio.sleep(0.3)
    assert sleeper.child.ended() is None
    assert [line for line in heard.lines if "again" in line] == []

    await sleeper.child.stop(5, asyncio.Event())
    assert str(sleeper.child.ended()) == "ended by SIGTERM"


async def test_a_part_that_ends_at_once_did_not_come_up_and_its_log_is_shown(tmp_path: Path, heard: Heard) -> None:
    part = Sleeper(Child("sleeper", tmp_path, tmp_path / "sleeper.log"), "raise SystemExit('no bed')")
    part.answers = _never  # type: ignore[method-assign]

    with pytest.raises(PartFailed, match=r"exited with 1.*\n    no bed"):
        await Supervisor(heard, lambda: None).bring_up(part)


async def _never() -> bool:
    return False


async def test_a_second_interrupt_hastens_a_part_that_takes_its_time(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    part = Sleeper(Child("stubborn", tmp_path, tmp_path / "stubborn.log"), stubborn)
    await part.start()
    while "deaf" not in part.child.last_lines():
        await asyncio.sleep(0.01)
    hasten = asyncio.Event()
    hasten.set()

    await asyncio.wait_for(part.child.stop(600, hasten), 5)

    assert str(part.child.ended()) == "ended by SIGKILL"


async def test_a_temporal_that_takes_connections_and_says_nothing_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found: it held up `ais dev`, which then never said that a part does not come up."""
    monkeypatch.setattr(temporal, "CONNECT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = int(silent.getsockname()[1])
        part = temporal.Temporal(Child("Temporal", tmp_path, tmp_path / "log"), tmp_path / "db", port, port)
        async with asyncio.timeout(180):
            assert not await part.answers()
