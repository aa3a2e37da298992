"""`ais dev` from the outside: real processes, real signals, a real kill -9."""

import asyncio
import os
import pty
import signal
import socket
import stat
import sys
from pathlib import Path

import psutil
import pytest
from sqlalchemy import NullPool, create_engine, make_url
from temporalio.client import Client

from cli.dev.errors import PortTaken
from cli.dev.ports import PortRequest, claim, free_port
from settings import DatabaseSettings, DiskSettings, TableOwnerSettings, temporal_connect_config
from storage import rights
from tests.deploy.dev_stack import FREE_PORTS, WITHOUT_PROGRAMS, DevStack, ais_here, clean_environment, wait_until


def test_it_comes_up_starts_again_after_a_kill_9_of_everything_and_leaves_nothing_at_ctrl_c(
    stack: DevStack, no_settings: Path
) -> None:
    stack.start_stores()
    _can_be_found_by_its_folder(stack)
    _refuses_a_second_instance(stack)
    key = (stack.folder / "api-key").read_text()
    temporal = psutil.Process(stack.recorded["pids"]["Temporal"])
    # As an older version leaves a folder.
    stack.sql("DROP OWNED BY ais")
    stack.sql("DROP ROLE ais")
    stack.sql("CREATE TABLE kept (id int)")

    # One orphan stays alive and one is dead with its pid file left behind.
    stack.kill_9()
    psutil.Process(int((stack.folder / "postgres/postmaster.pid").read_text().split()[0])).kill()
    pid, terminal = _start_in_a_terminal(stack)

    _runs_as_a_role_that_cannot_change_the_chain(stack)
    assert not temporal.is_running() or temporal.status() == psutil.STATUS_ZOMBIE
    assert stack.sql("SELECT count(*) FROM kept") == [(0,)]
    assert (stack.folder / "api-key").read_text() == key
    _ctrl_c_stops_in_order(stack, pid, terminal)
    assert stack.processes() == []
    assert not (stack.folder / "ports.json").exists()


def _can_be_found_by_its_folder(stack: DevStack) -> None:
    assert stat.S_IMODE((stack.folder / "api-key").stat().st_mode) == 0o600
    assert DatabaseSettings.load(stack.folder).url == stack.recorded["database_url"]
    assert DiskSettings.load(stack.folder).disk_folders == (str(stack.folder),)
    asyncio.run(Client.connect(**temporal_connect_config(stack.folder)))
    assert stack.sql("SHOW fsync") == [("on",)]


def _refuses_a_second_instance(stack: DevStack) -> None:
    """In one line, and without disturbing the first."""
    before = {process.pid for process in stack.processes()}

    second = ais_here("dev", "--data-dir", str(stack.folder), *FREE_PORTS, cwd=stack.folder.parent)

    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == f"An `ais dev` (pid {stack.process.pid}) already runs on {stack.folder}: " + (
        "stop it, or use --data-dir.\n"
    )
    # Not the whole set: PostgreSQL's workers come and go.
    pids = stack.recorded["pids"].values()
    assert set(pids) <= before & {process.pid for process in stack.processes()}


def _start_in_a_terminal(stack: DevStack) -> tuple[int, int]:
    """Its pid, and the descriptor of its terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(stack.folder.parent)
        command = [sys.executable, "-m", "cli", "dev", "--data-dir", str(stack.folder), *FREE_PORTS, *WITHOUT_PROGRAMS]
        os.execve(sys.executable, command, clean_environment())
    wait_until(lambda: b"\r\nready\r\n" in _read(terminal), "ready")
    return pid, terminal


_seen: dict[int, bytes] = {}


def _read(terminal: int) -> bytes:
    _seen[terminal] = _seen.get(terminal, b"") + os.read(terminal, 65_536)
    return _seen[terminal]


def _ctrl_c_stops_in_order(stack: DevStack, pid: int, terminal: int) -> None:
    """A terminal sends it to the whole foreground group: children in that group would die before their turn."""
    log = stack.folder / "logs/postgres.log"
    assert "received fast shutdown request" not in log.read_text()

    os.write(terminal, b"\x03")

    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert "received fast shutdown request" in log.read_text()


def _runs_as_a_role_that_cannot_change_the_chain(stack: DevStack) -> None:
    url, owner = DatabaseSettings.load(stack.folder).url, TableOwnerSettings.load(stack.folder).url
    assert (make_url(url).username, make_url(owner).username) == ("ais", "postgres")
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        assert rights.missing(connection) == []
        assert not rights.may_change_the_chain(connection)


def test_a_taken_port_is_one_line_that_names_the_flag_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = ais_here("dev", "--data-dir", "desk", *FREE_PORTS, "--ui-port", port, cwd=tmp_path)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"Port {port} for the Temporal web UI is taken: choose another with --ui-port.\n"
    assert not (tmp_path / "desk/temporal.db").exists()
    assert not (tmp_path / "desk/postgres").exists()


def test_a_free_port_is_one_that_no_outgoing_connection_is_given() -> None:
    """A part that was killed would not get it back. Linux gives them those from 32,768 on, unless somebody sets it otherwise."""
    ports = claim([PortRequest(0, "", "")] * 20)
    assert len(set(ports)) == 20
    assert max(ports) < 32_768


def test_the_same_port_for_two_parts_is_a_taken_port() -> None:
    port = free_port()

    with pytest.raises(PortTaken, match="--temporal-port"):
        claim([PortRequest(port, "the API", "--port"), PortRequest(port, "Temporal", "--temporal-port")])


def test_a_part_that_cannot_come_up_shows_the_end_of_its_log_and_everything_is_stopped(stack: DevStack) -> None:
    stack.folder.mkdir()
    (stack.folder / "temporal.db").write_text("this is no database, and long enough to be looked at as one" * 100)

    stack.start(*WITHOUT_PROGRAMS)

    assert stack.process.wait(30) == 1
    assert "Temporal did not come up" in stack.said()
    assert "file is not a database" in stack.said()
    assert "Traceback" not in stack.said()
    assert stack.processes() == []


def test_a_signal_while_it_starts_stops_what_has_started(stack: DevStack) -> None:
    stack.start(*WITHOUT_PROGRAMS)
    wait_until(lambda: bool(stack.processes()), "a first child")

    assert stack.interrupt(signal.SIGTERM) == 0
    assert stack.processes() == []


def test_a_wrong_flag_is_wrong_usage(tmp_path: Path) -> None:
    refused = ais_here("dev", "--without", "temporal", cwd=tmp_path)

    assert refused.returncode == 2
    assert "only worker and api" in refused.stderr


def test_a_wrong_setting_names_the_variable_the_value_and_what_is_allowed(tmp_path: Path) -> None:
    refused = ais_here("dev", "--cycle-seconds", "0", "--data-dir", "desk", cwd=tmp_path)

    assert refused.returncode == 1
    assert (
        refused.stderr == "AIS_CYCLE_SECONDS is 0.0, which is not allowed. Allowed: a number above 0, 86400 at most\n"
    )
