"""A worker that is stopped between its last look and the send, a kill, and the worker goes on: no order (I3)."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.deploy.dev_stack import clean_environment, wait_until
from tests.e2e.live import Live
from tests.e2e.test_real_venue import Venue
from tests.house.sources import ROOT

LONG = partial(pytest.param, marks=pytest.mark.long)
PROPOSAL = {"agent_id": "mine", "symbol": "BTCUSDT", "side": "BUY", "confidence": 1, "expected_return": 0.05}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    live = Live(tmp_path.resolve() / "desk")
    live.stack.settings = {"AIS_AGENTS": "none"}
    yield live
    live.clean_up()


@pytest.fixture
def venue(live: Live) -> Iterator[Venue]:
    venue = Venue()
    venue.control("mark", BTCUSDT="100")
    live.stack.settings |= {"AIS_MODE": "live", "AIS_ENABLE_LIVE_TRADING": "true", **venue.settings}
    yield venue
    venue.stop()


@contextlib.contextmanager
def a_worker_that_stops(live: Live, point: str) -> Iterator[psutil.Process]:
    """Starts the desk with an order that its first cycle sends; yields where the worker has stopped on the order's way out."""
    # So long a cycle that the order's own time does not run out meanwhile.
    live.start("--without", "worker", "--symbols", "BTCUSDT", "--cycle-seconds", "60")
    assert live.post("/proposals", PROPOSAL | {"ttl_seconds": 300}).status_code == 202
    command = [sys.executable, "-m", "tests.e2e.stopping_worker", point, "--data-dir", str(live.folder)]
    log = (live.folder.parent / "worker.out").open("w")
    worker = subprocess.Popen(command, cwd=ROOT, env=clean_environment() | live.stack.settings, stderr=log)
    process = psutil.Process(worker.pid)
    try:
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "the worker has stopped itself")
        yield process
    finally:
        go_on(live, process)
        worker.send_signal(signal.SIGTERM)
        worker.wait(40)
        log.close()


def go_on(live: Live, worker: psutil.Process) -> None:
    """From exactly where it stopped."""
    (live.folder.parent / "go-on").touch()
    worker.send_signal(signal.SIGCONT)


def kill_and_go_on(live: Live, worker: psutil.Process) -> dict[str, Any]:
    """The kill is acknowledged while the worker stands still; the status once it is verified."""
    answer = live.kill("while the worker stands still")
    assert (answer.status_code, answer.json()["action"]) == (202, "kill_accepted")
    go_on(live, worker)
    live.until_quiet()
    wait_until(lambda: bool(live.coordinator()["kill"]["verified_at"]), "verified")
    return live.coordinator()


def the_orders(live: Live) -> list[tuple[str, str]]:
    rows = live.get("/reports/instructions?limit=1000").json()
    return [(row["outcome"], row["detail"]) for row in rows if row["tool"] == "create_order"]


def is_not_sent(live: Live) -> bool:
    return the_orders(live) == [("failed", "the coordinator is killed")]


@pytest.mark.thorough
@pytest.mark.parametrize("point", [LONG("at_the_answer"), LONG("in_the_transaction"), "at_the_commit"])
def test_on_paper_a_worker_that_goes_on_after_a_kill_commits_no_order(live: Live, point: str) -> None:
    with a_worker_that_stops(live, point) as worker:
        status = kill_and_go_on(live, worker)
        assert live.stack.sql("SELECT status FROM paper.orders") == []
        assert (status["observation"]["positions"], status["unknown_orders"]) == ([], [])
        wait_until(lambda: is_not_sent(live), "the order is told as not sent")


@pytest.mark.parametrize("point", [LONG("at_the_answer"), "at_the_last_look"])
@pytest.mark.thorough
def test_at_aster_a_worker_that_goes_on_after_a_kill_sends_no_order(live: Live, venue: Venue, point: str) -> None:
    with a_worker_that_stops(live, point) as worker:
        status = kill_and_go_on(live, worker)
        assert venue.state["calls"].get("create_order", 0) == 0
        assert (status["observation"]["positions"], status["unknown_orders"]) == ([], [])
        wait_until(lambda: is_not_sent(live), "the order is told as not sent")


@pytest.mark.long
def test_a_worker_that_was_stopped_without_a_kill_asks_again_and_sends_once(live: Live, venue: Venue) -> None:
    with a_worker_that_stops(live, "at_the_last_look") as worker:
        assert live.get("/control/status").status_code == 503
        go_on(live, worker)
        wait_until(lambda: bool(venue.orders("BTCUSDT")), "the order is there")
        wait_until(lambda: the_orders(live)[:1] == [("confirmed", "the exchange says FILLED")], "and known")
        assert venue.state["calls"]["create_order"] == 1
        assert "the coordinator is asked again" in (live.folder.parent / "worker.out").read_text()


# The cheaper proof: tests/deploy/test_worker_end.py.
@pytest.mark.thorough
def test_a_worker_that_is_told_to_stop_ends_though_temporal_is_frozen(live: Live) -> None:
    """The SDK's own end would wait for the server for ever."""
    live.start("--without", "worker")
    log = live.folder.parent / "worker.out"
    environment = clean_environment() | {
        "AIS_GRACEFUL_SHUTDOWN_SECONDS": "1", "AIS_METRICS_PORT": "0", "AIS_SDK_METRICS_PORT": "0"
    }  # fmt: skip
    command = [sys.executable, "-m", "worker", "--data-dir", str(live.folder)]
    temporal = psutil.Process(int(live.stack.recorded["pids"]["Temporal"]))
    with log.open("w") as told, subprocess.Popen(command, cwd=ROOT, env=environment, stderr=told) as worker:
        try:
            wait_until(lambda: live.coordinator().get("observation") is not None, "the worker works")
            temporal.suspend()
            worker.terminate()
            assert worker.wait(180) == 0
        finally:
            temporal.resume()
            worker.kill()
    assert "the SDK does not end its polls" in log.read_text()
