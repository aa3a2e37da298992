"""`ais keys` on a real PostgreSQL, and API processes that learn of what it did."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from typer.testing import CliRunner

from cli.app import app
from domain.keys import read_key
from storage.database import Database, DatabaseUnavailable
from tests.deploy.dev_stack import ais, clean_environment, wait_until

OWN_KEY = "r8Jw_2kd8s7Hqp1Zx93bNMt"
AWAY = "postgresql://nobody@127.0.0.1:1/none"


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`ais keys` in this process: a new one for each command takes a second to import what it needs."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIS_DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str) -> Done:
        found = CliRunner().invoke(app, ["keys", *arguments])
        return Done(found.exit_code, found.stdout, found.stderr)

    return invoke


def test_a_key_is_made_shown_once_listed_replaced_and_revoked(
    run: Run,
) -> None:
    made = run("create", "alice", "--role", "operator", "--desk", "main", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    shown = read_key(made.stdout.strip().encode())
    assert shown is not None
    assert re.match(rf"Key alice \({shown.key_id}\): role operator, desk main, until 20", made.stderr)
    again = run("create", "alice", "--role", "viewer")
    assert (again.returncode, again.stdout) == (1, "")
    assert "ais keys rotate alice" in again.stderr

    (listed,) = json.loads(run("list", "--json").stdout)
    assert (listed["name"], listed["state"], listed["desks"], listed["last_used_at"]) == (
        "alice",
        "works",
        ["main"],
        None,
    )
    assert listed["created_by"].startswith("cli:")
    assert "digest" not in listed

    other = run("rotate", "alice")
    assert other.returncode == 0
    assert "The old key is revoked" in other.stderr
    table = run("list").stdout
    assert [line.split()[3] for line in table.splitlines()[1:]] == ["works", "revoked"]
    assert made.stdout.split("_")[2].strip() not in table

    revoked = run("revoke", "alice")
    assert (revoked.returncode, "refuses it within 10 s" in revoked.stdout) == (0, True)
    assert (run("revoke", "alice").returncode, run("rotate", "alice").returncode) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "two words", "--role", "viewer"), "cannot name a key"),
        (("create", "bob", "--role", "root"), "--role"),
        (("create", "bob", "--role", "viewer", "--expires", "soon"), "give 12h, 90d or 52w"),
        (("create", "bob", "--role", "viewer", "--desk", "a b"), "cannot name a desk"),
        (("rotate", "bob", "--grace", "-1h"), "give 12h, 90d or 52w"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_right(arguments: tuple[str, ...], told: str, run: Run) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_a_revocation_without_the_database_says_what_else_ends_a_key(tmp_path: Path) -> None:
    done = ais("keys", "revoke", "alice", cwd=tmp_path, AIS_DATABASE_URL=AWAY)
    assert done.returncode == 1
    assert "restart the API" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_away_is_told_with_what_to_do_next(tmp_path: Path) -> None:
    done = ais("keys", "list", cwd=tmp_path, AIS_DATABASE_URL=AWAY)
    assert done.returncode == 1
    assert done.stderr.startswith("PostgreSQL: ")
    assert "ais doctor" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def silent_commits() -> Iterator[None]:
    """Every write stands, and no answer comes."""
    real = Database.run

    async def run(self: Database, work: Any, timeout_seconds: float | None = None) -> Any:
        await real(self, work, timeout_seconds)
        raise DatabaseUnavailable("PostgreSQL did not answer within 10 s")

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(Database, "run", run)
        yield


def test_a_key_of_which_nobody_knows_whether_it_was_made_is_named_and_can_be_revoked(run: Run) -> None:
    with silent_commits():
        done = run("create", "frank", "--role", "operator")
    assert (done.returncode, done.stdout) == (1, "")
    assert "It is not known whether the key frank" in done.stderr
    found = re.search(r"ais keys revoke (\w+)", done.stderr)
    assert found is not None
    assert run("revoke", found[1]).returncode == 0


def test_a_rotation_of_which_nobody_knows_the_outcome_is_reported_and_repeated(run: Run) -> None:
    assert run("create", "grace", "--role", "operator").returncode == 0
    with silent_commits():
        done = run("rotate", "grace")
    assert (done.returncode, done.stdout) == (1, "")
    assert "It is not known whether the key grace was replaced. If it was, the old one is revoked" in done.stderr
    assert "run this again" in done.stderr
    again = run("rotate", "grace")
    states = [key["state"] for key in json.loads(run("list", "--json").stdout) if key["name"] == "grace"]
    assert (again.returncode, states) == (0, ["works", "revoked", "revoked"])


@contextmanager
def serving(database_url: str, folder: Path) -> Iterator[str]:
    """Two API processes behind one port; the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = clean_environment() | {"AIS_API_KEY": OWN_KEY, "AIS_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "cli", "api", "--workers", "2", "--port", str(port)]
    output = (folder / "api.log").open("w")
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=180)
        output.close()


def answers(address: str, key: str, tries: int = 8) -> set[int]:
    """What processes answer: each connection may meet another one."""

    def ask() -> int:
        try:
            return httpx.get(f"{address}/control/mode", headers={"Authorization": f"Bearer {key}"}).status_code
        except httpx.TransportError:
            return 0

    return {ask() for _ in range(tries)}


@pytest.mark.long
def test_two_api_processes_take_a_new_key_and_refuse_it_once_it_is_revoked(
    database_url: str, tmp_path: Path, run: Run
) -> None:
    key = run("create", "wall-screen", "--role", "viewer").stdout.strip()
    with serving(database_url, tmp_path) as address:
        wait_until(lambda: answers(address, OWN_KEY) == {200}, "both serve")
        wait_until(lambda: answers(address, key) == {200}, "both know the key")
        assert run("revoke", "wall-screen").returncode == 0
        wait_until(lambda: answers(address, key) == {401}, "both refuse it", 10.0)
        assert answers(address, OWN_KEY) == {200}
    assert key not in (tmp_path / "api.log").read_text()
