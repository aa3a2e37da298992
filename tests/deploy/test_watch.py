"""`ais watch` on a real Temporal server: what the screen says, and that nothing old is shown as current."""

import asyncio
import io
import os
import pty
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console
from temporalio.client import Client

from cli import watch as watching
from cli.tables import table
from cli.watch import Sight, StatusPoller, frame
from domain.desk.states import State
from domain.desk.status import Status, status_of
from tests.api.world import FakeGateway, make_carried, make_observation
from tests.deploy.dev_stack import ais, ais_here, clean_environment, takes_ctrl_c
from tests.workflows.parts import Venue
from tests.workflows.world import Desk, World, running_desk
from workflows.gateway import DeskGateway

ROOT = Path(__file__).parents[2]


@pytest.fixture
def address(temporal: Client) -> str:
    return temporal.service_client.config.target_host


def drawn(sight: Sight, width: int = 60, *, plain_text: bool = False) -> str:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, no_color=True).print(frame(sight, plain_text=plain_text))
    return file.getvalue()


def sight(status: Status | None, age: float = 0.0, error: str | None = None, later: float = 0.0) -> Sight:
    """So long after the last cycle: however long the test took, that is not what it is about."""
    now = status.last_cycle_at if status and status.last_cycle_at else datetime.now(UTC)
    return Sight("main", status, age, error, now + timedelta(seconds=later))


async def seen(temporal: Client, desk: Desk) -> Sight:
    poller = StatusPoller(DeskGateway(temporal, desk.desk))
    await poller.ask()
    return poller.sight()


async def test_a_running_desk_fits_in_sixty_columns(temporal: Client) -> None:
    async with running_desk(temporal, World(Venue(position=Decimal("0.5"))), cycle_seconds=30) as desk:
        await desk.until(lambda status: status.portfolio is not None)
        text = drawn(await seen(temporal, desk))
        assert "R U N N I N G" in text
        assert "BTCUSDT 0.5 at 100" in text
        assert "level" in text
        assert "STALE" not in text
        assert max(map(len, text.splitlines())) <= 60


async def test_a_kill_is_shown_with_what_is_outstanding(temporal: Client) -> None:
    async with running_desk(temporal, World(Venue(up=False)), cycle_seconds=2) as desk:
        await desk.signal("kill", {"command_id": "k1", "reason": "flash [bold]crash"})
        await desk.until(lambda status: status.state is State.KILLED)
        text = drawn(await seen(temporal, desk), 200)
        assert "K I L L E D" in text
        assert "flash [bold]crash" in text, "a reason is no markup"
        assert "0 of 2 cancels confirmed" in text
        assert "cancel_all_orders BTCUSDT" in text


async def test_what_is_old_is_called_stale_and_told_in_the_past(temporal: Client) -> None:
    async with running_desk(temporal, cycle_seconds=2) as desk:
        status = await desk.until(lambda status: status.portfolio is not None and status.last_cycle_at is not None)
    fresh, old = drawn(sight(status)), drawn(sight(status, age=4.0))
    assert "STALE" not in fresh
    assert "STALE: everything below is 4 s old" in old
    assert "W A S   R U N N I N G" in old
    assert "STALE: 1" in drawn(sight(status, later=60)), "the last cycle is long ago"
    unread = drawn(sight(status, error="no worker answered"))
    assert "no worker answered" in unread
    assert "W A S   R U N N I N G" in unread
    failing = status.model_copy(update={"observation_error": "the venue does not answer"})
    assert "STALE: the limits are from an old reading" in drawn(sight(failing))
    # `ais status` says the same in its own table.
    assert status.last_cycle_at is not None
    assert "STALE" not in table(status, status.last_cycle_at)
    late = table(status, status.last_cycle_at + timedelta(seconds=60))
    for line in (
        "cycle              OVERDUE: 1",
        "observed           STALE: ",
        "positions          STALE: none",
        "resting orders     STALE: none",
        "limits             STALE: ",
    ):
        assert line in late
    assert "positions          STALE: none" in table(failing, status.last_cycle_at)
    never = status.model_copy(update={"observation": None})
    for name in ("positions     ", "resting orders"):
        assert f"{name}     not known: the venue has not been read yet" in table(never, status.last_cycle_at)


@pytest.mark.parametrize(("total", "more", "count"), [(60, " and 57 more", 60), (0, "", 3)])
def test_of_many_orders_of_unknown_fate_it_says_how_many_there_are(total: int, more: str, count: int) -> None:
    """The status lists the first few; a coordinator of an earlier version tells no total."""
    seen = {"unknown_orders": ["ord_1", "ord_2", "ord_3"], "unknown_orders_total": total}
    status = status_of(make_carried(), "run").model_copy(update=seen)
    assert f"unknown orders     ord_1, ord_2, ord_3{more}\n" in table(status, datetime.now(UTC))
    assert f"unknown orders {count}" in drawn(sight(status), 200)


async def test_a_coordinator_that_does_not_answer_leaves_the_last_answer_with_its_age(temporal: Client) -> None:
    async with running_desk(temporal, cycle_seconds=2) as desk:
        poller = StatusPoller(DeskGateway(temporal, desk.desk, patience=1))
        async with asyncio.timeout(180):
            while poller.sight().is_stale:
                await poller.ask()
    await poller.ask()
    assert poller.sight().is_stale
    assert "terminated" in drawn(poller.sight()).replace("\n", " ")


def test_a_clock_that_is_behind_is_named_since_it_would_mark_nothing_as_old() -> None:
    status = status_of(make_carried(observation=make_observation()), "run")
    assert status.observation is not None
    at = status.observation.observed_at
    assert "behind" not in table(status, at)
    assert "this machine is 600 s or more behind the desk's clock" in table(status, at - timedelta(minutes=10))


async def test_after_the_machine_slept_nothing_that_was_read_before_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"monotonic": 100.0, "time": 1_000.0}
    clocks = {name: lambda name=name: now[name] for name in now}
    monkeypatch.setattr(watching, "time", SimpleNamespace(**clocks))
    gateway = FakeGateway()
    poller = StatusPoller(cast("DeskGateway", gateway))
    await poller.ask()
    assert not poller.sight().is_stale
    # The steady clock stands still meanwhile.
    now["time"] += 8 * 3_600
    assert poller.sight().is_stale
    assert "W A S   R U N N I N G" in drawn(poller.sight())
    await poller.ask()
    now["time"] -= 3_600
    assert not poller.sight().is_stale


def test_what_was_never_read_is_not_known() -> None:
    text = drawn(sight(None, 5.0, "Temporal cannot be reached"))
    assert "N O T   K N O W N" in text
    assert "RUNNING" not in text


async def test_into_a_pipe_it_prints_one_plain_frame(temporal: Client, address: str, tmp_path: Path) -> None:
    async with running_desk(temporal, cycle_seconds=2) as desk:
        await desk.until(lambda status: status.portfolio is not None)
        done = await asyncio.to_thread(ais, "watch", "--desk", desk.desk, cwd=tmp_path, TEMPORAL_ADDRESS=address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{desk.desk}: RUNNING\n")
    assert "\x1b" not in done.stdout


def test_without_temporal_the_frame_says_so_and_the_exit_status_too(tmp_path: Path) -> None:
    done = ais_here("watch", cwd=tmp_path, TEMPORAL_ADDRESS="127.0.0.1:1")
    assert done.returncode == 1
    assert done.stdout.startswith("main: NOT KNOWN\n")
    assert "Temporal cannot be reached" in done.stdout.replace("\n", " ")
    assert "Traceback" not in done.stderr


async def test_on_a_terminal_it_is_drawn_again_until_ctrl_c_which_is_0(
    temporal: Client, address: str, tmp_path: Path
) -> None:
    async with running_desk(temporal, cycle_seconds=2) as desk:
        await desk.until(lambda status: status.portfolio is not None)
        code, text = await asyncio.to_thread(watched, desk.desk, address, tmp_path)
    assert code == 0
    assert "R U N N I N G" in text
    assert text.rstrip().endswith("\x1b[?25h\x1b[?1049l"), "the cursor and the former screen are back"
    assert "Traceback" not in text


def watched(desk: str, address: str, folder: Path) -> tuple[int, str]:
    """A person at a terminal, who presses Ctrl-C once the desk is on the screen."""
    ours, theirs = pty.openpty()
    environment = clean_environment() | {"TEMPORAL_ADDRESS": address, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "watch", "--desk", desk],
        cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=takes_ctrl_c,  # noqa: PLW1509 - it resets a signal and takes no lock
    )  # fmt: skip
    os.close(theirs)
    text, stopped = b"", False
    try:
        while chunk := os.read(ours, 65536):
            text += chunk
            if b"R U N N I N G" in text and not stopped:
                stopped = True
                os.kill(process.pid, signal.SIGINT)
    except OSError:
        pass  # Linux ends a pseudo-terminal so.
    os.close(ours)
    return process.wait(30), text.decode()


def test_the_times_are_bounds_that_the_page_promises() -> None:
    assert watching.STALE_SECONDS == 3
    assert watching.REFRESH_SECONDS <= 1
