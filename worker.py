"""The worker process: runs the coordinator's workflow tasks and its activities. `python worker.py [--data-dir DIR]`.

It needs Temporal to start. It does not wait for the database: while that is away it must still be able to carry out a kill.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from prometheus_client import start_http_server
from pydantic import ValidationError
from temporalio.client import Client
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import Worker

import settings
from activities.act import ActActivities, Word
from activities.agents.catalogue import InstalledAgent, UnknownAgent, installed_agents, select
from activities.agents.processes import ProcessRoom
from activities.agents.room import AgentRoom
from activities.attributes import AttributeActivities
from activities.calls import Scope
from activities.instruments import Instruments
from activities.market.port import MarketError
from activities.observe import ObserveActivities
from activities.record import RecordActivities
from activities.venues.port import Venue
from domain.decisions import ENTROPY_BITS, time_ordered_id
from domain.limits import Limits
from domain.states import Mode
from modes import NotAllowed, VenueConfig, build_venue, check_account, check_settings
from startup import NotUp, configure_logging, leave, patiently
from storage import migrate
from storage.database import Database, DatabaseUnavailable
from storage.disks import DiskWatch
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway, connect, registered_attributes
from workflows.patience import allow_a_full_signal_queue

CONNECT_SECONDS = 120.0
SCHEMA_SECONDS = 5.0
STATE_SECONDS = 2.0

log = structlog.get_logger("worker")


@dataclass(frozen=True)
class Config(VenueConfig):
    """Every setting that a worker reads."""

    database: settings.DatabaseSettings
    agents: settings.AgentSettings
    disks: settings.DiskSettings
    log: settings.LogSettings

    @classmethod
    def load(cls) -> "Config":
        """Raises ValidationError or NoRunningStack."""
        return cls(
            desk=settings.DeskSettings.load(),
            worker=settings.WorkerSettings.load(),
            paper=settings.PaperVenueSettings.load(),
            aster=settings.AsterSettings.load(),
            database=settings.DatabaseSettings.load(),
            agents=settings.AgentSettings.load(),
            disks=settings.DiskSettings.load(),
            log=settings.LogSettings.load(),
        )


EXPECTED = (
    settings.NotConfigured, NotUp, NotAllowed, UnknownAgent, migrate.SchemaOutOfDate, MarketError, OSError,
)  # fmt: skip


def main() -> None:
    """Runs until SIGTERM or SIGINT. Exit codes: 0 stopped, 1 refused or failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(description="The AIS worker.")
    parser.add_argument("--data-dir", type=Path, help="the data folder of a running `ais dev` (or AIS_DATA_DIR)")
    if (folder := parser.parse_args().data_dir) is not None:
        os.environ["AIS_DATA_DIR"] = str(folder.expanduser().resolve())
    try:
        config = Config.load()
        configure_logging(config.log)
        asyncio.run(serve(config))
    except ValidationError as error:
        leave(settings.explain(error))
    except EXPECTED as error:
        leave(str(error))
    leave(0)


async def serve(config: Config) -> None:
    """Connects, polls, and stops in order: running activities finish first."""
    stop = _stop_signal()
    for name in settings.unknown_variables():
        log.warning("no such setting: a typo? docs/settings.md lists them all", variable=name)
    check_settings(config)
    room = ProcessRoom(choose_agents(config.agents), config.agents.agent_seconds)
    # In the background: a kill must not wait for an agent that hangs while it is imported.
    opening = asyncio.create_task(room.open())
    try:
        await _serve(config, room, stop)
    finally:
        opening.cancel()
        await room.close()
    log.info("worker stopped")


async def _serve(config: Config, room: AgentRoom, stop: asyncio.Event) -> None:
    await _check_schema(config.database.url)
    client = await _connect(config.worker)
    databases = [
        Database(config.database.url, application_name=f"ais-{part}") for part in ("records", "latch", "paper")
    ]
    records, latch, paper = databases
    instruments = Instruments(config.desk.desk)
    venue = build_venue(config, paper, instruments)
    if config.desk.mode == "live":
        await check_account(venue)
    worker = build_worker(config, client, venue, room, instruments, records, latch)
    log.info("worker polls", task_queue=names.TASK_QUEUE, desk=config.desk.desk, mode=config.desk.mode)
    try:
        await _run_until(worker, stop)
    finally:
        await venue.close()
        for database in databases:
            database.close()


def build_worker(
    config: Config,
    client: Client,
    venue: Venue,
    room: AgentRoom,
    instruments: Instruments,
    records: Database,
    latch: Database,
) -> Worker:
    """The worker and everything behind it. Records, latch and venue never share a pool: one that hangs stalls itself."""
    scope = Scope(desk=config.desk.desk, mode=Mode(config.desk.mode))
    start_http_server(config.worker.metrics_port, config.worker.metrics_host, instruments.registry)
    gateway = DeskGateway(client, scope.desk, patience=STATE_SECONDS)

    async def ask() -> Word:
        status = await gateway.status()
        return Word(status.state, Limits.model_validate(status.limits))

    async def registered() -> set[str]:
        return set(await registered_attributes(client))

    observing = ObserveActivities(
        scope,
        venue,
        latch,
        room,
        instruments,
        new_id,
        config.agents.agent_weights,
        DiskWatch(config.disks.disk_folders),
    )
    acting = ActActivities(scope, venue, latch, ask, instruments)
    recording = RecordActivities(scope, records, instruments)
    asking = AttributeActivities(scope, registered)
    worker = Worker(
        client,
        task_queue=names.TASK_QUEUE,
        workflows=[Coordinator],
        activities=[*_methods(observing), *_methods(acting), *_methods(recording), *_methods(asking)],
        graceful_shutdown_timeout=config.worker.graceful_shutdown,
        # After a kill -9 the server offers tasks to the dead worker's own queue for this long (10 s by default), and a
        # kill that comes then would wait for it.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )
    return allow_a_full_signal_queue(worker)


def choose_agents(chosen: settings.AgentSettings) -> list[InstalledAgent]:
    """The agents that the settings name; UnknownAgent where one is not installed."""
    installed = installed_agents()
    for warning in installed.warnings:
        log.warning(warning)
    for name in chosen.agent_weights.keys() - installed.agents.keys():
        log.warning("AIS_AGENT_WEIGHTS names an agent that is not installed: one over HTTP, or a typo?", agent=name)
    agents = select(installed, chosen.agents)
    log.info("agents", names=[agent.name for agent in agents])
    return agents


def new_id(prefix: str) -> str:
    """An id that sorts by time."""
    return time_ordered_id(prefix, datetime.now(UTC), secrets.randbits(ENTROPY_BITS))


def _methods(activities: object) -> list[Callable[..., object]]:
    found = (getattr(activities, name) for name in dir(activities) if not name.startswith("_"))
    return [method for method in found if hasattr(method, "__temporal_activity_definition")]


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _check_schema(url: str) -> None:
    async def check() -> None:
        await asyncio.to_thread(migrate.check, url)

    try:
        await patiently("PostgreSQL", check, SCHEMA_SECONDS, log.warning, DatabaseUnavailable)
    except NotUp as error:
        # A kill must not wait for the database: serve without it. No order goes out while the latch cannot be read.
        log.warning("starting without the database; no new orders until it answers", why=str(error))


async def _connect(config: settings.WorkerSettings) -> Client:
    bind = f"{config.metrics_host}:{config.sdk_metrics_port}"
    runtime = Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(bind_address=bind)))

    async def attempt() -> Client:
        return await connect(settings.temporal_connect_config(), runtime=runtime)

    return await patiently("Temporal", attempt, CONNECT_SECONDS, log.warning, RuntimeError)


async def _run_until(worker: Worker, stop: asyncio.Event) -> None:
    running, stopping = asyncio.create_task(worker.run()), asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        # It never ends by itself unless something broke: the error ends the process, and whoever watches restarts it.
        await running
        raise NotUp("the worker ended by itself")
    await worker.shutdown()
    with contextlib.suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    main()
