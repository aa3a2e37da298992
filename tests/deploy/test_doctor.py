"""`ais doctor` on real servers: what it finds, what it says to do, and what it never prints."""

import asyncio
import contextlib
import json
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import NullPool, create_engine, make_url, text
from temporalio.api.workflowservice.v1 import DeprecateNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client

import settings
from cli import doctor
from cli.doctor import Finding, Verdict
from cli.examine import database, findings, machine
from domain.desk.versions import SCHEMA_VERSION
from storage import migrate
from storage.audit.checkpoints import make_key
from storage.clock import server_time
from tests.deploy.dev_stack import ais, ais_here
from tests.postgres import Server
from tests.workflows.pausing import pause
from tests.workflows.test_queue_limits import limit
from tests.workflows.test_versions import Deployment, typed
from tests.workflows.world import Desk, World, running_desk
from workflows import names

KEY = "r8Jw_2kd8s7Hqp1Zx93bNMt"


@pytest.fixture
def address(temporal: Client, no_settings: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """This process finds the tests' servers by its settings, as `ais` does."""
    found = temporal.service_client.config.target_host
    monkeypatch.setenv("TEMPORAL_ADDRESS", found)
    monkeypatch.setenv("AIS_DATABASE_URL", database_url)
    monkeypatch.setenv("AIS_API_KEY", KEY)
    monkeypatch.setenv("AIS_SYMBOLS", "BTCUSDT")
    monkeypatch.setenv("AIS_CYCLE_SECONDS", "2")
    return found


async def examined() -> dict[str, Finding]:
    return {finding.check: finding for finding in await doctor.run(lambda finding: None)}


async def test_a_healthy_desk_passes(temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_desk(temporal, cycle_seconds=2) as desk:
        monkeypatch.setenv("AIS_DESK", desk.desk)
        found = await examined()
        checks = (
            "temporal",
            "search attributes",
            "coordinator",
            "worker",
            "task queue",
            "desk and settings",
            "database",
            "schema",
            "rights",
            "audit",
            "decision log",
            "clock",
        )
        assert {check: found[check].verdict for check in checks} == dict.fromkeys(checks, Verdict.OK), found
        assert doctor.passed(list(found.values()))


async def test_a_key_of_the_audit_chain_that_cannot_be_used_is_reported(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIS_AUDIT_KEY", str(tmp_path / "key.pem"))
    assert (await examined())["audit key"].verdict is Verdict.WARN
    make_key(tmp_path / "key.pem")
    assert (await examined())["audit key"].verdict is Verdict.OK


async def test_settings_that_differ_from_the_desk_are_named_with_the_way_to_adopt_them(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_desk(temporal, cycle_seconds=2) as desk:
        monkeypatch.setenv("AIS_DESK", desk.desk)
        monkeypatch.setenv("AIS_SYMBOLS", "BTCUSDT,ETHUSDT")
        monkeypatch.setenv("AIS_CYCLE_SECONDS", "60")
        monkeypatch.setenv("AIS_MODE", "shadow")
        monkeypatch.setenv("AIS_KILL_FLATTENS", "true")
        found = (await examined())["desk and settings"]
        assert found.verdict is Verdict.WARN
        for told in ("mode paper -> shadow", "symbols ", "cycle_seconds 2 -> 60", "kill_flattens false -> true"):
            assert told in found.found
        assert "ais restart --from-settings" in found.do


async def test_without_a_worker_the_worker_fails_and_what_hangs_on_it_is_not_known(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "ASK_SECONDS", 1.0)
    desk = Desk(temporal, World())
    await desk.start()
    monkeypatch.setenv("AIS_DESK", desk.desk)
    found = await examined()
    assert (found["coordinator"].verdict, found["worker"].verdict) == (Verdict.OK, Verdict.FAIL)
    assert "start a worker" in found["worker"].do
    for check in ("desk and settings", "warnings"):
        assert found[check].verdict is Verdict.WARN
        assert found[check].found.startswith("not known")
    await desk.handle.terminate("the test is over")
    closed = (await examined())["coordinator"]
    assert (closed.verdict, "terminated" in closed.found, "ais restart" in closed.do) == (Verdict.FAIL, True, True)


async def test_a_paused_activity_is_named_with_the_command_that_unpauses_it(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(temporal, World())
    await desk.start()
    monkeypatch.setenv("AIS_DESK", desk.desk)
    async with desk.worker(activities=False):
        await pause(desk, "read_latch")
    found = (await examined())["coordinator"]
    assert (found.verdict, found.found) == (Verdict.WARN, "paused activities: read_latch")
    await typed(temporal, found.do)
    assert (await examined())["coordinator"].verdict is Verdict.OK


async def test_a_rate_limit_on_the_desks_activities_is_named_with_the_command_that_takes_it_off(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_desk(temporal, cycle_seconds=2) as desk:
        monkeypatch.setenv("AIS_DESK", desk.desk)
        await limit(temporal, names.activity_queue(desk.desk, desk.mode.value), a_second=0)
        found = (await examined())["task queue"]
        assert found.verdict is Verdict.FAIL
        assert "0 tasks a second, set by somebody: too many" in found.found
        await typed(temporal, found.do.partition("otherwise: ")[2])
        assert (await examined())["task queue"].verdict is Verdict.OK


async def test_a_task_that_fails_is_told_from_a_worker_that_is_down(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after `temporal workflow start --type Coordinator` by hand, without an input: the advice was to start a worker."""
    monkeypatch.setattr(findings, "ASK_SECONDS", 1.0)
    desk = Desk(temporal, World())
    await desk.start(schema_version=SCHEMA_VERSION + 1)
    monkeypatch.setenv("AIS_DESK", desk.desk)
    async with desk.worker(), asyncio.timeout(180):
        while "its workflow task fails" not in (found := (await examined())["worker"]).found:
            await asyncio.sleep(0.2)
    assert (found.verdict, found.do) == (Verdict.FAIL, "docs/runbook.md, Workflow tasks fail")
    assert f"this run has the rules of version {SCHEMA_VERSION + 1}" in found.found
    await desk.handle.terminate("the test is over")


async def test_a_namespace_that_is_deprecated_is_reported(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, service = f"old-{uuid.uuid4().hex[:8]}", temporal.workflow_service
    kept = Duration(seconds=86_400)
    await service.register_namespace(RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=kept))
    await service.deprecate_namespace(DeprecateNamespaceRequest(namespace=name))
    monkeypatch.setenv("TEMPORAL_NAMESPACE", name)
    async with asyncio.timeout(180):
        while "deprecated" not in (found := (await examined())["temporal"]).found:
            await asyncio.sleep(0.2)
    assert found.verdict is Verdict.WARN


async def test_a_desk_whose_version_of_the_worker_is_not_up_is_told_which_and_how_to_move(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "ASK_SECONDS", 1.0)
    deployment = Deployment(temporal, "auto-upgrade")
    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(deployment.desk())
        await stack.enter_async_context(deployment.worker("A"))
        monkeypatch.setenv("AIS_DESK", desk.desk)
        found = (await examined())["worker"]
        assert found.verdict is Verdict.FAIL
        assert f"needs a worker without a version; polled within 90 s: of version {deployment.name}:A" in found.found
        command = f"temporal worker deployment set-current-version --build-id A --deployment-name {deployment.name}"
        assert command in found.do
        await typed(temporal, command)
        # On a busy machine the first workflow task on the new version takes longer than the doctor waits.
        async with asyncio.timeout(180):
            while (await examined())["worker"].verdict is not Verdict.OK:
                await asyncio.sleep(0.2)


async def test_a_ramping_version_that_is_not_up_is_named_with_the_command_that_stops_the_ramp(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice was to start a worker of this desk and mode, which was up."""
    monkeypatch.setattr(findings, "ASK_SECONDS", 1.0)
    deployment = Deployment(temporal, "auto-upgrade")
    ramp = f"temporal worker deployment set-ramping-version --deployment-name {deployment.name} --build-id A --percentage 100"
    async with deployment.desk() as desk, deployment.worker(None):
        async with deployment.worker("A"):
            await typed(temporal, ramp)
        monkeypatch.setenv("AIS_DESK", desk.desk)
        async with asyncio.timeout(180):
            while (found := (await examined())["worker"]).verdict is not Verdict.FAIL:
                await asyncio.sleep(0.2)
        assert f"or of version {deployment.name}:A, which gets 100 % of the runs" in found.found
        command = (
            f"temporal worker deployment set-ramping-version --deployment-name {deployment.name} --build-id A --delete"
        )
        assert command in found.do
        await typed(temporal, command)
        async with asyncio.timeout(180):
            while (await examined())["worker"].verdict is not Verdict.OK:
                await asyncio.sleep(0.2)


async def test_a_desk_that_never_ran_is_told_how_to_start(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIS_DESK", "nowhere")
    found = (await examined())["coordinator"]
    assert (found.verdict, "ais start" in found.do) == (Verdict.FAIL, True)


async def test_a_namespace_that_is_not_there_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "elsewhere")
    found = (await examined())["temporal"]
    assert (found.verdict, "TEMPORAL_NAMESPACE" in found.do) == (Verdict.FAIL, True)
    assert "elsewhere" in found.found


async def test_an_empty_database_needs_a_migration(
    address: str, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIS_DATABASE_URL", postgres.create_database())
    found = (await examined())["schema"]
    assert (found.verdict, found.do) == (Verdict.FAIL, "ais migrate")


async def test_a_database_that_is_newer_than_the_program_needs_no_migration_by_it(
    address: str, new_database_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database_url()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    monkeypatch.setenv("AIS_DATABASE_URL", url)
    found = (await examined())["schema"]
    assert (found.verdict, "ais migrate" in found.do) == (Verdict.FAIL, False)
    assert "install the newer version" in found.found


async def test_indexes_that_are_still_to_be_built_are_named(
    address: str, new_database_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database_url()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("DROP INDEX decisions_of_group"))
    monkeypatch.setenv("AIS_DATABASE_URL", url)
    found = (await examined())["schema"]
    assert (found.verdict, found.do) == (Verdict.FAIL, "ais migrate")
    assert "lacks decisions_of_group" in found.found


async def test_a_database_that_takes_no_writes_fails_though_it_answers(
    address: str, new_database_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database_url()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text(f"ALTER DATABASE {make_url(url).database} SET default_transaction_read_only = on"))
    monkeypatch.setenv("AIS_DATABASE_URL", url)
    found = await examined()
    assert (found["database"].verdict, found["decision log"].verdict) == (Verdict.OK, Verdict.FAIL)
    assert "read-only transaction" in found["decision log"].found


async def test_a_server_that_cannot_verify_the_audit_chain_is_named(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found to be false: on PostgreSQL 15 nothing was verified, and the advice was `ais migrate`."""
    monkeypatch.setattr(migrate, "OLDEST_SERVER", 99)
    found = (await examined())["database"]
    assert (found.verdict, "PostgreSQL 99 or newer" in found.do) == (Verdict.WARN, True)
    assert "cannot verify the audit chain" in found.found


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/live" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


async def test_an_api_that_answers_is_found_and_one_that_does_not_is_no_failure(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        monkeypatch.setenv("AIS_API_PORT", str(server.server_port))
        Thread(target=server.serve_forever, daemon=True).start()
        assert (await examined())["api"].verdict is Verdict.OK
        await asyncio.to_thread(server.shutdown)
    assert (await examined())["api"].verdict is Verdict.WARN


def _greet(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"SSH-2.0-somebody else\r\n")


async def test_something_else_on_the_port_of_the_api_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=_greet, args=(listener,), daemon=True).start()
        seen = findings.Examination()
        seen.loaded[settings.ApiSettings] = settings.ApiSettings(api_key=KEY, api_port=listener.getsockname()[1])
        found = await machine.api(seen)
    assert (found.verdict, found.do) == (Verdict.WARN, machine.SOMETHING_ELSE)
    assert "does not answer by HTTP: SSH-2.0" in found.found


def test_what_answers_byte_by_byte_holds_up_no_result(tmp_path: Path) -> None:
    sent: list[int] = []

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            while len(sent) < 100:
                sent.append(connection.send(b"H"))
                time.sleep(0.4)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        dripping = Thread(target=drip, args=(listener,), daemon=True)
        dripping.start()
        away = {"TEMPORAL_ADDRESS": "127.0.0.1:1", "AIS_DATABASE_URL": "postgresql://u@127.0.0.1:1/none"}
        mine = {"AIS_API_PORT": str(listener.getsockname()[1]), "AIS_API_KEY": KEY}
        done = ais("doctor", "--json", cwd=tmp_path, **mine, **away)
        dripping.join(60)
    (found,) = [check for check in json.loads(done.stdout)["checks"] if check["check"] == "api"]
    assert (found["verdict"], done.returncode) == ("warn", 1)
    assert 0 < len(sent) < 100, "the command waited for the last byte"


def test_where_nothing_answers_each_check_says_what_to_do_and_no_secret_is_printed(tmp_path: Path) -> None:
    wrong = {
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
        "AIS_DATABASE_URL": "postgresql://ais:hunter2@127.0.0.1:1/none",
        "AIS_API_KEY": "hunter2",
        "AIS_CYCLE_SECONDS": "soon",
        "AIS_SIMBOLS": "BTCUSDT",
        "AIS_NOTIFY_URLS": "critical:hunter2",
    }
    done = ais("doctor", cwd=tmp_path, **wrong)
    assert (done.returncode, done.stderr) == (1, "")
    assert "hunter2" not in done.stdout
    assert "\x1b" not in done.stdout
    for told in (
        "AIS_SIMBOLS is not a setting",
        "AIS_CYCLE_SECONDS is 'soon'",
        "AIS_API_KEY is set, but",
        "FAIL  settings of notifications",
        "entry 1 is no level=URL",
        "FAIL  temporal",
    ):
        assert told in done.stdout
    checks = json.loads(ais_here("doctor", "--json", cwd=tmp_path, **wrong).stdout)
    assert checks["ok"] is False
    assert all(check["do"] for check in checks["checks"] if check["verdict"] != "ok")
    assert {tuple(check) for check in checks["checks"]} == {("check", "verdict", "found", "do")}


def test_a_password_among_the_parameters_of_the_url_is_not_shown() -> None:
    url = make_url("postgresql+psycopg:///ais?host=/run/pg&password=hunter2").render_as_string(hide_password=False)
    assert database.place(url) == "ais at /run/pg"


@pytest.mark.parametrize(("ahead", "verdict"), [(0.0, Verdict.OK), (90.0, Verdict.WARN)])
async def test_a_clock_that_differs_is_a_warning(
    address: str, monkeypatch: pytest.MonkeyPatch, ahead: float, verdict: Verdict
) -> None:
    monkeypatch.setattr(database, "server_time", lambda connection: server_time(connection) - timedelta(seconds=ahead))
    found = (await examined())["clock"]
    assert found.verdict is verdict
    assert "ahead of the database" in found.found
