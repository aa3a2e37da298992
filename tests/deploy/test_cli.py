"""The `ais` command from the outside: exit codes, and what it says."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer
from typer.main import get_command

import cli.terminal
from cli import audit_chain, connecting, desk, keys
from cli.app import app
from cli.commands import processes
from cli.dev.http import answers
from cli.dev.ports import free_port
from cli.options import readable
from cli.tables import limit_text, why_text
from domain.desk.payloads import RawPayload, read_command
from domain.desk.states import CommandKind
from domain.desk.status import LimitStatus, Status
from domain.trading.assessment import Level
from startup import NotUp
from tests.deploy.dev_stack import ais, ais_here, clean_environment, wait_until

ROOT = Path(__file__).parents[2]
_LISTED = get_command(app).commands  # type: ignore[attr-defined]
_GROUPS = {name: found.commands for name, found in _LISTED.items() if hasattr(found, "commands")}
COMMANDS = {name: found for name, found in _LISTED.items() if name not in _GROUPS} | {
    f"{group} {name}": found for group, commands in _GROUPS.items() for name, found in commands.items()
}

KEY = {"AIS_API_KEY": "r8Jw_2kd8s7Hqp1Zx93bNMt"}
DATABASE = {"AIS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}


def test_version_prints_the_version(tmp_path: Path) -> None:
    told = ais("--version", cwd=tmp_path)

    assert (told.returncode, told.stdout, told.stderr) == (0, f"{version('ais')}\n", "")


def test_output_that_has_no_room_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        told = subprocess.run(
            [sys.executable, "-m", "cli", "--version"],
            cwd=tmp_path, env=clean_environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (told.returncode, told.stderr) == (1, "the output or a file cannot be written: No space left on device\n")


def test_a_terminal_that_lacks_a_character_shows_an_escape_and_a_pipe_gets_no_boxes(tmp_path: Path) -> None:
    """Found: `ais watch` ended with a traceback over an operator's reason."""
    bars = [f"{1_700_000_000_000 + 60_000 * n},100,101,99,{100 + n % 2},50" for n in range(90)]
    (tmp_path / "\u00fcbung.csv").write_text("\n".join(["open_time_ms,open,high,low,close,volume", *bars]))
    asked = ("replay", "\u00fcbung.csv", "--symbol", "BTCUSDT", "--no-json", "--no-chart")
    told = ais(*asked, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("BTCUSDT \\xfcbung.csv")
    assert told.stdout.isascii()


@pytest.mark.parametrize(
    "command", [("start",), ("restart", "--yes", "--reason", "over"), ("release", "--reason", "over")]
)
def test_without_temporal_nothing_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    async def away(_say: object) -> None:
        raise NotUp("Temporal did not answer")

    monkeypatch.setattr(desk, "connect_patiently", away)
    refused = ais_here(*command, cwd=tmp_path, AIS_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (refused.returncode, refused.stderr) == (1, "nothing was changed: Temporal did not answer\n")


def test_why_is_never_blank() -> None:
    """Found: after a resume without a reason `ais status` said `why   (by cli:anna)`."""
    status = SimpleNamespace(reason="", actor="cli:anna")
    assert why_text(cast(Status, status)) == "no reason given (by cli:anna)"


def test_a_data_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = ais_here("dev", "--data-dir", "file/folder", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"The data folder {tmp_path / 'file/folder'} cannot be used (Not a directory): choose another with --data-dir.\n"
    )


def test_the_api_refuses_to_start_without_a_key_and_says_how_to_make_one(tmp_path: Path) -> None:
    refused = ais_here("api", cwd=tmp_path)

    assert refused.returncode == 1
    assert refused.stderr.startswith("AIS_API_KEY is not set.")
    assert "secrets.token_urlsafe(32)" in refused.stderr


def test_the_api_refuses_a_short_key_in_live_mode(tmp_path: Path) -> None:
    refused = ais_here("api", "--port", "0", cwd=tmp_path, AIS_MODE="live", **KEY, **DATABASE)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("AIS_MODE=live needs an AIS_API_KEY of 32 characters or more. Make one: python")
    assert KEY["AIS_API_KEY"] not in refused.stderr


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = ais_here("api", "--port", port, "--workers", "2", cwd=tmp_path, **KEY, **DATABASE)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert (
        refused.stderr == f"Cannot listen on 127.0.0.1:{port} (Address already in use): choose another with --port.\n"
    )


def test_the_api_exits_with_0_on_sigterm(tmp_path: Path) -> None:
    # Found: once everything was answered, uvicorn sent itself the signal again, and a supervisor saw a failure.
    port, settings = free_port(), clean_environment() | KEY | DATABASE | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cli", "api", "--port", str(port)]
    with subprocess.Popen(command, env=settings, cwd=tmp_path, stderr=subprocess.DEVNULL) as api:
        try:
            wait_until(lambda: answers(port, "/health/live"), "the API")
            api.send_signal(signal.SIGTERM)
            assert api.wait(180) == 0
        finally:
            api.kill()


@pytest.mark.parametrize("command", ["api", "migrate"])
def test_a_folder_in_which_nothing_runs_is_one_line(command: str, tmp_path: Path) -> None:
    refused = ais_here(command, "--data-dir", "nothing-here", cwd=tmp_path, **KEY)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert "No `ais dev` runs in" in refused.stderr


def test_a_database_that_does_not_answer_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    refused = ais_here("migrate", cwd=tmp_path, **DATABASE)

    assert refused.returncode == 1
    assert refused.stderr
    assert "Traceback" not in refused.stderr


def test_wrong_usage_is_2(tmp_path: Path) -> None:
    assert ais_here("migrate", "--no-such-flag", cwd=tmp_path).returncode == 2
    assert ais("no-such-command", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "where", "name"),
    [
        (("start",), desk, "start"),
        (("restart", "--yes", "--reason", "over"), desk, "restart"),
        (("release", "--reason", "over"), desk, "release"),
        (("keys", "revoke", "alice"), keys, "revoke"),
        (("audit", "accept", "--reason", "known", "--desk", "main"), audit_chain, "accepted"),
    ],
)
def test_a_result_does_not_control_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], where: Any, name: str
) -> None:
    # Found: `ais restart` shows the reason of a kill that a terminated coordinator never carried out.
    text = "killed (\x1b[2J\u202ex)\nsecond line"

    async def later(*_: Any, **__: Any) -> str:
        return text

    monkeypatch.setattr(where, name, (lambda *_: text) if name == "accepted" else later)
    done = ais_here(*arguments, cwd=tmp_path, AIS_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (done.returncode, done.stdout) == (0, "killed ([2Jx)\nsecond line\n"), done.stderr


def test_what_goes_wrong_is_told_without_what_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        cli.terminal.fail("refused: \x1b[2J\u202estop\nsecond line")
    assert capsys.readouterr().err == "refused: [2Jstop\nsecond line\n"


# One process for all: what the first has not imported, and the second not, and so on, none of them has.
HELP = """
import os, sys
from cli.app import app
for command in ([], ["log"], ["watch"], ["doctor"]):
    try:
        app([*command, "--help"])
    except SystemExit:
        print("imported:", command, [name for name in heavy if name in sys.modules])
    heavy.discard("pydantic")
import cli.operate, cli.status
print("imported:", sorted({"sqlalchemy", "structlog", "rich", "temporalio.worker"} & sys.modules.keys()), flush=True)
os._exit(0)
"""


def test_help_and_the_commands_of_an_incident_wait_for_nothing_that_they_do_not_need() -> None:
    """The first minute of an incident begins with `ais`: it must not import what takes a second, and a kill no database."""
    # As soon as there is a command to parse, typer itself imports pydantic.
    code = "heavy = {'temporalio', 'sqlalchemy', 'structlog', 'rich', 'pydantic'}" + HELP
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = [line for line in done.stdout.splitlines() if line.startswith("imported:")]
    assert len(imported) == 5
    assert all(line.endswith(" []") for line in imported), imported


def test_the_help_of_each_command_has_an_example() -> None:
    assert COMMANDS
    assert not [name for name, found in COMMANDS.items() if (found.help or "").count(f"Example: ais {name}") != 1]


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colour_is_for_terminals_without_no_color(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, no_color: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert ("\x1b" in cli.terminal.coloured("killed", "red")) is coloured


@pytest.mark.parametrize(
    "command", [["status"], ["log"], ["watch"], ["limits"], ["restart", "--reason", "over", "--yes"]], ids=str
)
def test_a_desk_that_cannot_be_one_is_refused_in_one_line(command: list[str], tmp_path: Path) -> None:
    refused = ais_here(*command, "--desk", "no/desk", cwd=tmp_path, **DATABASE)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("AIS_DESK is 'no/desk', which is not allowed.")


async def test_a_temporal_that_takes_connections_and_says_nothing_is_reported_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{listening.getsockname()[1]}")
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.2)
    told: list[str] = []
    with listening, pytest.raises(NotUp, match=r"did not answer within 0.2 s: .*no connection within 0.2 s"):
        await connecting.connect_patiently(told.append)


def test_a_level_is_shown_in_words() -> None:
    for level in Level:
        limit = LimitStatus(
            limit="position", value=Decimal(1), soft=Decimal(2), hard=Decimal(3), level=level.name.lower()
        )
        assert limit_text(limit) != f"largest position is at {limit.level}"
    half = LimitStatus(limit="position", value=Decimal(1), soft=Decimal(2), hard=Decimal(3), level="warn_50")
    assert limit_text(half) == "largest position has reached 50 % of its soft limit"


@pytest.mark.parametrize(("command", "told"), [("tell('done')", "done\n"), ("say('half done')", "")])
def test_what_nobody_can_read_makes_nothing_that_was_done_look_failed(command: str, told: str, tmp_path: Path) -> None:
    """Found: with its output on a full disk, `ais restart` ended with a traceback and status 1, and the desk traded."""
    code = f"from cli.terminal import say, tell; {command}; from startup import leave; leave(0)"
    errors = tmp_path / "errors"
    with open("/dev/full", "w") as full, errors.open("w") as err:
        done = subprocess.run(
            [sys.executable, "-c", code], env=clean_environment() | {"PYTHONPATH": str(ROOT)}, check=False,
            stdout=full, stderr=err if told else full,
        )  # fmt: skip
    assert (done.returncode, errors.read_text()) == (0, told)


def test_a_reason_of_any_length_leaves_the_command_readable() -> None:
    """Of an input above 64 KiB nothing is read: neither the reason nor the id by which the command line follows its kill."""
    reason = readable("x" * 100_000)
    read = read_command(
        CommandKind.KILL, [RawPayload("json/plain", json.dumps({"command_id": "a", "reason": reason}).encode())], ""
    )
    assert (read.command_id, read.reason) == ("a", "x" * 500)


def test_several_processes_count_in_memory(monkeypatch: pytest.MonkeyPatch, no_settings: Path, tmp_path: Path) -> None:
    """A count is written into a mapped file: a full disk ended every process of the API, and no kill got through."""
    folders = list[Path]()
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: folders.append(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])))
    monkeypatch.setattr("startup.configure_logging", lambda _: None)
    monkeypatch.setattr(processes, "MEMORY", str(tmp_path))
    monkeypatch.setenv("AIS_API_KEY", secrets.token_urlsafe(32))
    monkeypatch.setenv("AIS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    # Set, so that it is as before in the end: the command sets it in this process.
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    processes.api(port=free_port(), workers=2)
    assert folders[0].parent == tmp_path
    assert not folders[0].exists()
    monkeypatch.setattr(processes, "MEMORY", str(tmp_path / "none"))
    assert processes.memory_folder() is None
