"""What a worker does without at its start: whatever may pass by itself must not keep a kill waiting."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, text
from structlog.testing import capture_logs

import settings
import worker
from activities.metrics import WorkerMetrics
from cli.dev.ports import free_port
from startup import NotUp
from storage import migrate
from tests.deploy.dev_stack import clean_environment, wait_until
from tests.house.sources import ROOT


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens: the worker before this one, which is not quite gone."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


async def test_a_metrics_port_that_is_taken_stops_no_worker(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PORT_SECONDS", 0.3)
    config = settings.WorkerSettings.load().model_copy(update={"metrics_port": taken, "sdk_metrics_port": taken})
    with capture_logs() as logs:
        await worker._serve_metrics(config, WorkerMetrics("main"))
        await worker._runtime(config)
    told = [entry["event"] for entry in logs]
    assert sum(text.startswith("running without") for text in told) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_metrics_ports_open_on_any_address(host: str) -> None:
    """Found: with `::1` the SDK's did not, and after 5 s in which no kill was heard the log said that its port was taken."""
    try:
        socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        pytest.skip(f"this machine has no address {host}")
    config = settings.WorkerSettings.load().model_copy(
        update={"metrics_host": host, "metrics_port": 0, "sdk_metrics_port": 0}
    )
    with capture_logs() as logs:
        await worker._serve_metrics(config, WorkerMetrics("main"))
        await worker._runtime(config)
    assert logs == []


async def test_a_database_whose_disk_hangs_stops_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found to be false: the server had taken the connection and never answered, and no limit of its own applies then."""
    hanging = threading.Event()
    monkeypatch.setattr(worker, "SCHEMA_SECONDS", 0.1)
    monkeypatch.setattr(migrate, "check", lambda url: hanging.wait())
    try:
        async with asyncio.timeout(60):
            assert await worker._check_schema("postgresql://nobody@127.0.0.1:1/ais") is None
    finally:
        hanging.set()


async def test_indexes_that_are_not_there_yet_stop_no_worker(new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("DROP INDEX decisions_of_group"))
    with capture_logs() as logs:
        assert await worker._check_schema(url)
    # A busy machine may need a second attempt, and says so besides.
    told, *_ = (entry for entry in logs if entry["event"].startswith("starting without all indexes"))
    assert told["why"].startswith("the database lacks decisions_of_group: run `ais migrate`")
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("DROP TABLE kills"))
    with pytest.raises(migrate.SchemaIncomplete):
        await worker._check_schema(url)


async def test_a_database_that_takes_connections_and_answers_nothing_stops_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    monkeypatch.setattr(worker, "SCHEMA_SECONDS", 0.2)
    monkeypatch.setattr(migrate, "check", lambda _: over.wait(180))
    try:
        with capture_logs() as logs:
            async with asyncio.timeout(60):
                assert await worker._check_schema("postgresql+psycopg://nobody@127.0.0.1:1/none") is None
    finally:
        over.set()
    assert logs[-1]["event"].startswith("starting without the database")
    assert "did not answer within 0.4 s" in logs[-1]["why"]


async def test_a_temporal_that_takes_connections_and_says_nothing_is_tried_again_and_given_up(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that waits for ever is never started anew, and a kill waits with it."""
    monkeypatch.setattr(worker, "CONNECT_SECONDS", 0.8)
    monkeypatch.setattr(worker, "ATTEMPT_SECONDS", 0.2)
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{taken}")
    config = settings.WorkerSettings.load().model_copy(update={"sdk_metrics_port": 0})
    with (
        capture_logs() as logs,
        pytest.raises(NotUp, match=r"Temporal did not answer .* does not answer within 0\.2 s"),
    ):
        async with asyncio.timeout(60):
            await worker._connect(config, None)
    assert any(entry["event"].startswith("waiting for Temporal") for entry in logs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_waits_for_temporal_ends_when_it_is_told_to(number: signal.Signals, tmp_path: Path) -> None:
    """Found: it heard nothing for two minutes, and whoever had corrected TEMPORAL_ADDRESS waited as long for the next one."""
    away = {"AIS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}"}
    environment = clean_environment() | away | {"PYTHONPATH": str(ROOT), "AIS_AGENTS": "none", "AIS_METRICS_PORT": "0"}
    said = tmp_path / "worker.log"
    with said.open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "worker"], cwd=tmp_path, env=environment, stderr=log)
        try:
            wait_until(lambda: "waiting for Temporal" in said.read_text(), "it waits for Temporal")
            process.send_signal(number)
            assert process.wait(180) == 0
        finally:
            process.kill()
    told = said.read_text()
    assert ("worker stopped" in told, "Traceback" in told) == (True, False), told


async def test_an_address_of_temporal_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "host:99999")
    config = settings.WorkerSettings.load().model_copy(update={"sdk_metrics_port": 0})
    with pytest.raises(settings.NotConfigured, match=r"Temporal at host:99999 cannot be called: .*; check TEMP"):
        await worker._connect(config, None)


def test_the_limit_of_descriptors_is_raised_and_never_lowered() -> None:
    code = """
import resource, sys
from startup import raise_descriptor_limit
for soft in (256, min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    raise_descriptor_limit()
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert [int(line) for line in done.stdout.split()] == [min(hard, 16_384), min(hard, 20_000)]
