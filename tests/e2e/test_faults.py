"""What must hold when things die: real processes, real stores, real kill -9 (invariants I1, I2, I5 and I8)."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest

from tests.deploy.dev_stack import clean_environment, wait_until
from tests.e2e.live import Live

pytestmark = pytest.mark.long


def still_killed(live: Live) -> None:
    """Killed by every account, and the kill applied once."""
    assert live.state == "killed"
    assert live.post("/control/resume").status_code == 409
    live.until_quiet()
    applied = [row for row in live.decisions(decision_type="control") if row["summary"].startswith("kill applied")]
    assert len(applied) == 1
    assert live.stack.sql("SELECT count(*) FROM instructions WHERE outcome <> 'confirmed'") == [(0,)]


def replaced(live: Live, part: str, pid: int) -> Callable[[], bool]:
    """Whether another process has taken a part over."""
    return lambda: live.stack.recorded["pids"].get(part) not in (None, pid)


def test_a_kill_outlives_kill_9_of_every_process_in_turn_and_all_at_once(live: Live) -> None:
    live.start()
    assert live.kill().status_code == 200
    for part in ("worker", "API", "Temporal", "PostgreSQL"):
        pid = live.kill_9(part)
        wait_until(replaced(live, part, pid), f"{part} is back")
        wait_until(lambda: live.get("/health").json().get("status") == "ok", "healthy")
        still_killed(live)
    live.kill_9_all()
    live.start()
    still_killed(live)


def test_a_kill_acknowledged_just_before_everything_dies_is_carried_out(live: Live) -> None:
    live.start()
    assert live.kill().status_code == 200
    live.kill_9_all()
    live.start()
    still_killed(live)


def test_with_temporals_store_deleted_nothing_runs_until_a_person_restarts(live: Live) -> None:
    live.start()
    live.kill()
    live.until_quiet()
    live.stop()
    for file in live.folder.glob("temporal.db*"):
        file.unlink()
    live.start(ready=False)
    wait_until(
        lambda: "ais restart" in live.stack.said() and "ready" not in live.stack.said().splitlines(), "refused", 60
    )
    assert live.get("/control/status").status_code == 503
    assert live.kill().status_code == 503
    done = live.ais("restart", "--reason", "all clear", "--yes")
    assert done.returncode == 0, done.stderr
    live.stack.wait_for_line("ready")
    assert live.state == "running"


def test_with_the_databases_store_deleted_it_is_still_killed_and_latched_again(live: Live) -> None:
    live.start()
    live.kill()
    live.until_quiet()
    live.stop()
    shutil.rmtree(live.folder / "postgres")
    live.start()
    assert live.state == "killed"
    wait_until(lambda: live.stack.sql("SELECT killed FROM desks") == [(True,)], "latched again")


@pytest.mark.parametrize("store", ["temporal", "database"])
def test_with_either_store_put_back_from_before_the_kill_it_is_killed(live: Live, store: str) -> None:
    live.start()
    wait_until(lambda: len(live.decisions()) >= 1, "a cycle")
    live.stop()
    names = ["postgres"] if store == "database" else [f.name for f in live.folder.glob("temporal.db*")]
    backup = live.folder.parent / "backup"
    backup.mkdir()
    for name in names:
        subprocess.run(["cp", "-a", str(live.folder / name), str(backup / name)], check=True)
    live.start()
    live.kill()
    live.until_quiet()
    live.stop()
    for name in names:
        subprocess.run(["rm", "-rf", str(live.folder / name)], check=True)
        subprocess.run(["cp", "-a", str(backup / name), str(live.folder / name)], check=True)
    live.start()
    wait_until(lambda: live.state == "killed", "killed")
    assert live.post("/control/resume").status_code == 409
    wait_until(lambda: live.stack.sql("SELECT killed FROM desks") == [(True,)], "latched")


def test_without_a_worker_a_kill_is_accepted_and_carried_out_before_the_next_decision(live: Live) -> None:
    live.start("--without", "worker")
    answer = live.kill("no worker")
    assert answer.status_code == 202
    assert answer.json()["action"] == "kill_accepted"
    assert len(answer.json()["cancel_instructions"]) == 4
    assert live.get("/control/status").status_code == 503
    command = [sys.executable, "-m", "worker", "--data-dir", str(live.folder)]
    worker = subprocess.Popen(command, env=clean_environment(), stderr=subprocess.DEVNULL)
    try:
        live.until_quiet()
        assert [row["decision_type"] for row in live.decisions()] == ["control"]
        assert live.get(answer.headers["Location"]).json()["outcome"] == "applied"
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(40) == 0


def test_with_the_database_hanging_a_kill_is_acknowledged_and_its_cancels_follow(live: Live) -> None:
    live.start()
    postmaster = psutil.Process(live.stack.recorded["pids"]["PostgreSQL"])
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        answer = live.kill("hanging database")
        assert answer.status_code == 200
        assert live.state == "killed"
    finally:
        for process in family:
            process.resume()
    still_killed(live)


def test_a_terminated_coordinator_is_never_reported_as_running(live: Live) -> None:
    live.start()
    assert live.temporal("workflow", "terminate", "-w", "coordinator-main").returncode == 0
    answer = live.get("/control/status")
    assert answer.status_code == 503
    assert "ais restart" in answer.json()["detail"]
    assert live.kill().status_code == 503
    assert live.ais("start").returncode == 1
    assert live.ais("restart", "--reason", "terminated by mistake", "--yes").returncode == 0
    assert live.state == "running"


def test_cancel_restart_cancel_is_killed(live: Live) -> None:
    live.start()
    for _ in range(2):
        assert live.temporal("workflow", "cancel", "-w", "coordinator-main").returncode == 0
        live.until_quiet()
        assert live.state == "killed"
        assert live.ais("restart", "--reason", "again", "--yes").returncode == 0
        assert live.state == "running"
    assert live.temporal("workflow", "cancel", "-w", "coordinator-main").returncode == 0
    wait_until(lambda: live.state == "killed", "killed")
