"""Stretches replayed in processes of their own come out as they do one by one."""

import io
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

import replay.run
from activities.agents.catalogue import InstalledAgent
from activities.market.funding import FundingTable
from activities.market.port import MarketError
from domain.paper.book import Terms
from domain.risk.limits import Limits
from replay.files import BarsFile, Selection
from replay.run import ReplayPlan, Run
from tests.deploy.dev_stack import takes_ctrl_c
from tests.processes import is_alive
from tests.replay.builders import BTC, HEADER, liquid, made_bars

ROOT = Path(__file__).parents[2]
EPISODES = 3
MOMENTUM = InstalledAgent("momentum", "activities.agents.momentum:momentum")
TELLS = InstalledAgent("tells", "tests.replay.buyer:tells_its_process")


@pytest.fixture
def file(tmp_path: Path) -> BarsFile:
    bars = liquid(made_bars(240, step=0.003))
    lines = [
        f"{int(b.open_time.timestamp() * 1000)},{b.open},{b.high},{b.low},{b.close},{b.volume},{number % EPISODES}"
        for number, b in enumerate(bars)
    ]
    path = tmp_path / "bars.csv"
    path.write_text("\n".join([f"{HEADER},episode", *lines]) + "\n")
    return BarsFile(path, BTC, "base", Selection())


def replayed(file: BarsFile, *agents: InstalledAgent) -> tuple[bytes, list[Run], int]:
    terms = Terms(fee_bps=Decimal(4), slippage_bps=Decimal(2))
    plan = ReplayPlan(BTC, terms, FundingTable(Decimal("0.0001")), Decimal(100_000), Limits(), [*agents])
    target, seen = io.BytesIO(), list[int]()
    runs = replay.run.replay(file, file.stretches(), plan, target, seen.append)
    return target.getvalue(), runs, sum(seen)


def test_processes_give_the_same_in_the_same_order(
    file: BarsFile, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    document, runs, seen = replayed(file, MOMENTUM, TELLS)
    assert told_processes(capfd) == {os.getpid()}
    monkeypatch.setattr(replay.run, "BARS_WORTH_PROCESSES", 0)
    apart, runs_apart, seen_apart = replayed(file, MOMENTUM, TELLS)
    assert [run.stretch.episode for run in runs_apart] == [*map(str, range(EPISODES))]
    assert apart == document
    assert [run.tally.equity for run in runs_apart] == [run.tally.equity for run in runs]
    assert seen_apart == seen == 240
    assert runs[0].tally.fills
    elsewhere = told_processes(capfd)
    assert elsewhere
    assert os.getpid() not in elsewhere


def told_processes(capfd: pytest.CaptureFixture[str]) -> set[int]:
    """The processes that the agent `tells` was asked in."""
    return {int(line.split()[-1]) for line in capfd.readouterr().err.splitlines() if line.startswith("process")}


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        signal.SIGTERM,
        pytest.param(signal.SIGKILL, marks=pytest.mark.thorough),
    ],
)
def test_whatever_ends_a_replay_ends_its_processes(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, and a parent that is killed and can say nothing any more."""
    # Closes that jump about enough for agents to speak.
    lines = [f"{(n + 1) * 60_000},40000.0,40100.0,39900.0,{40_000 + n * 7_919 % 100}.0,1000" for n in range(30_000)]
    file = tmp_path / "bars.csv"
    file.write_text(
        "\n".join([f"{HEADER},episode", *(f"{line},{n % EPISODES}" for n, line in enumerate(lines))]) + "\n"
    )
    command = [sys.executable, "-m", "cli", "replay", str(file), "--symbol", BTC, "--no-chart", "--quiet"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=takes_ctrl_c,  # noqa: PLW1509 - takes no lock
    )  # fmt: skip
    parent = psutil.Process(process.pid)
    while len(children := parent.children(recursive=True)) < 3:
        assert process.poll() is None, "it ended before it had any process"
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(60)
    psutil.wait_procs(children, timeout=180)
    assert not [child for child in children if is_alive(child.pid)]


def test_an_agent_that_ends_its_process_is_reported(file: BarsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay.run, "BARS_WORTH_PROCESSES", 0)
    with pytest.raises(MarketError, match="an agent ended it"):
        replayed(file, InstalledAgent("ends", "tests.replay.buyer:ends_the_process"))
