"""Workers that do not belong to a desk: of another desk, mode or database. None of them holds up a kill, or is written to."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from storage import migrate
from tests.deploy.dev_stack import clean_environment, wait_until
from tests.e2e.live import Live

pytestmark = pytest.mark.long

FREE_PORTS = {"AIS_METRICS_PORT": "0", "AIS_SDK_METRICS_PORT": "0"}
SHADOW = {"AIS_MODE": "shadow", "AIS_ASTER_ACCOUNT_ID": "nobody"}
# A kill's cancels are confirmed, and its latch stands, within so many seconds beside whoever else polls.
PROMPT_SECONDS = 5.0


class Stranger:
    """A worker process beside the stack's own, with settings that differ."""

    def __init__(self, live: Live, name: str, **settings: str) -> None:
        self._log = live.folder.parent / f"{name}.log"
        command = [sys.executable, "-m", "worker", "--data-dir", str(live.folder)]
        environment = clean_environment() | FREE_PORTS | settings
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def polls(self) -> bool:
        return "worker polls" in self.said

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, 9)
        self.process.wait(10)


@pytest.fixture
def strangers() -> Iterator[list[Stranger]]:
    started: list[Stranger] = []
    yield started
    for stranger in started:
        stranger.end()


def until_everything_is_done(live: Live, number: int) -> float:
    """Seconds until every cancel of a kill is confirmed, in the database too, and its latch stands."""
    began = time.monotonic()
    unconfirmed = "SELECT count(*) FROM instructions WHERE outcome <> 'confirmed'"

    def done() -> bool:
        kill = live.coordinator().get("kill") or {}
        quiet = bool(kill.get("quiet_at") and kill.get("row_written") and kill.get("latched"))
        row = live.stack.sql("SELECT killed, kill_number FROM desks WHERE desk = 'main'")
        return quiet and row == [(True, number)] and live.stack.sql(unconfirmed) == [(0,)]

    wait_until(done, f"kill {number} done")
    return time.monotonic() - began


def test_kills_are_prompt_beside_workers_of_another_mode_and_desk(live: Live, strangers: list[Stranger]) -> None:
    live.start()
    strangers += [
        Stranger(live, "mode", **SHADOW),
        Stranger(live, "desk", AIS_DESK="other"),
        Stranger(live, "both", **SHADOW, AIS_DESK="other"),
    ]
    wait_until(lambda: all(stranger.polls for stranger in strangers), "every stranger polls")
    for number in (1, 2, 3):
        assert live.kill(f"kill {number}").status_code == 200
        assert until_everything_is_done(live, number) < PROMPT_SECONDS
    assert all(stranger.process.poll() is None for stranger in strangers)
    assert not any("WrongWorker" in warning for warning in live.coordinator()["warnings"])


def other_database(live: Live) -> str:
    """The URL of another database on the stack's server: migrated, and empty."""
    live.stack.sql("CREATE DATABASE another")
    url = make_url(live.stack.recorded["database_url"]).set(database="another").render_as_string(hide_password=False)
    migrate.upgrade(url)
    return url


def rows_in(url: str) -> int:
    """How many rows the desk has written there, in whatever table."""
    tables = ("decisions", "instructions", "desks", "paper.accounts", "paper.orders", "paper.clocks")
    counts = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")) as connection:
        found = connection.execute(f"SELECT {counts}").fetchone()
    assert found is not None
    return int(found[0])


def test_a_worker_with_another_database_leaves_and_never_writes_to_it(live: Live, strangers: list[Stranger]) -> None:
    live.start()
    wait_until(lambda: bool(live.coordinator()["database_seen_at"]), "the desk's own database was seen")
    own, url = live.coordinator()["database_id"], other_database(live)
    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")) as connection:
        row = connection.execute("SELECT database_id FROM installation").fetchone()
    assert row
    for name in ("first", "second"):
        stranger = Stranger(live, name, AIS_DATABASE_URL=url)
        strangers.append(stranger)
        assert stranger.process.wait(60) == 1
        assert own in stranger.said
        assert str(row[0]) in stranger.said
        assert "AIS_DATABASE_URL" in stranger.said
        assert not stranger.polls, "it took activities"
    strangers.append(Stranger(live, "third", AIS_DATABASE_URL=url))
    assert live.kill().status_code == 200
    assert until_everything_is_done(live, 1) < PROMPT_SECONDS
    assert strangers[-1].process.wait(60) == 1
    assert rows_in(url) == 0
    assert live.coordinator()["database_id"] == own


def test_a_database_made_anew_under_a_running_desk_is_taken_and_the_desk_is_paused(live: Live) -> None:
    live.start()
    wait_until(lambda: bool(live.coordinator()["database_seen_at"]), "the desk's own database was seen")
    own = live.coordinator()["database_id"]
    live.stack.sql("UPDATE installation SET database_id = gen_random_uuid()")
    live.stack.sql("DELETE FROM desks")
    wait_until(lambda: live.state == "paused", "paused")
    status = live.coordinator()
    assert status["database_id"] != own
    assert status["actor"] == "database"
    assert live.kill().status_code == 200
    assert until_everything_is_done(live, 1) < PROMPT_SECONDS
    done = live.ais("restart", "--reason", "looked at", "--yes")
    assert done.returncode == 0, done.stderr


def test_a_strange_database_that_knows_the_desk_is_taken_by_a_persons_restart_alone(live: Live) -> None:
    live.start()
    wait_until(lambda: bool(live.coordinator()["database_seen_at"]), "the desk's own database was seen")
    own = live.coordinator()["database_id"]
    live.stack.sql("UPDATE installation SET database_id = gen_random_uuid()")
    wait_until(lambda: any("ais restart" in warning for warning in live.coordinator()["warnings"]), "told")
    assert live.get("/health").json()["status"] == "degraded"
    answer = live.get("/reports/decisions")
    assert (answer.status_code, own in answer.json()["detail"]) == (503, True)
    cycle = live.coordinator()["cycle_number"]
    wait_until(lambda: live.coordinator()["cycle_number"] > cycle + 4, "cycles went by")
    assert live.coordinator()["database_id"] == own
    refused = live.ais("restart", "--reason", "try", "--yes")
    assert (refused.returncode, "kill it first" in refused.stderr) == (1, True)
    assert live.kill().status_code == 200
    done = live.ais("restart", "--reason", "that database is right", "--yes")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: live.state == "running", "running")
    assert live.coordinator()["database_id"] != own
    assert live.get("/reports/decisions").status_code == 200


def test_a_worker_with_another_venue_account_leaves_before_it_takes_an_activity(
    live: Live, strangers: list[Stranger], tmp_path: Path
) -> None:
    live.stack.settings = {
        "AIS_MODE": "shadow",
        "AIS_ASTER_ACCOUNT_ID": "mine",
        "AIS_ASTER_MCP": "http://127.0.0.1:9/mcp",
    }
    live.start()
    account = live.coordinator()["account"]
    assert account
    stranger = Stranger(live, "account", **SHADOW | {"AIS_ASTER_MCP": "http://127.0.0.1:9/mcp"})
    strangers.append(stranger)
    assert stranger.process.wait(60) == 1
    assert account in stranger.said
    assert "AIS_ASTER_ACCOUNT_ID" in stranger.said
    assert not stranger.polls
