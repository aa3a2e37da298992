"""The `ais` command from the outside: exit codes, and what it says."""

import socket
from pathlib import Path

import pytest
import typer

import cli
from tests.deploy.dev_stack import ais

KEY = {"AIS_API_KEY": "r8Jw_2kd8s7Hqp1Zx93bNMt"}
DATABASE = {"AIS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}


def test_the_api_refuses_to_start_without_a_key_and_says_how_to_make_one(tmp_path: Path) -> None:
    refused = ais("api", cwd=tmp_path)

    assert refused.returncode == 1
    assert refused.stderr.startswith("AIS_API_KEY is not set.")
    assert "secrets.token_urlsafe(32)" in refused.stderr


def test_the_api_refuses_a_short_key_in_live_mode(tmp_path: Path) -> None:
    refused = ais("api", "--port", "0", cwd=tmp_path, AIS_MODE="live", **KEY, **DATABASE)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("AIS_MODE=live needs an AIS_API_KEY of 32 characters or more. Make one: python")
    assert KEY["AIS_API_KEY"] not in refused.stderr


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = ais("api", "--port", port, "--workers", "2", cwd=tmp_path, **KEY, **DATABASE)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert (
        refused.stderr == f"Cannot listen on 127.0.0.1:{port} (Address already in use): choose another with --port.\n"
    )


@pytest.mark.parametrize("command", ["api", "migrate"])
def test_a_folder_in_which_nothing_runs_is_one_line(command: str, tmp_path: Path) -> None:
    refused = ais(command, "--data-dir", "nothing-here", cwd=tmp_path, **KEY)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert "No `ais dev` runs in" in refused.stderr


def test_a_database_that_does_not_answer_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    refused = ais("migrate", cwd=tmp_path, **DATABASE)

    assert refused.returncode == 1
    assert refused.stderr
    assert "Traceback" not in refused.stderr


def test_wrong_usage_is_2(tmp_path: Path) -> None:
    assert ais("migrate", "--no-such-flag", cwd=tmp_path).returncode == 2
    assert ais("no-such-command", cwd=tmp_path).returncode == 2


def test_what_goes_wrong_is_told_without_what_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        cli.fail("refused: \x1b[2J\u202estop\nsecond line")
    assert capsys.readouterr().err == "refused: [2Jstop\nsecond line\n"
