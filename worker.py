"""The worker process: runs the coordinator's workflow tasks and its activities. `python worker.py [--data-dir DIR]`.

It needs Temporal to start. It does not wait for the database: while that is away it must still be able to carry out a kill.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from activities.claiming import ClaimCheck, Refusing
from activities.doorkeeper import Doorkeeper, Leave
from activities.instruments import Instruments
from activities.market.port import MarketError
from activities.observe import ObserveActivities
from activities.record import RecordActivities
from activities.standby import Ask, Standby
from activities.venues.port import Venue
from domain.books import EXCHANGE
from domain.decisions import ENTROPY_BITS, time_ordered_id
from domain.identity import fingerprint
from domain.limits import Limits
from domain.states import Mode
from domain.status import Status
from modes import NotAllowed, VenueConfig, build_bookkeeper, build_venue, check_account, check_settings
from startup import NotUp, configure_logging, leave, patiently
from storage import migrate
from storage.claims import AccountKey
from storage.database import Database, DatabaseUnavailable
from storage.disks import DiskWatch
from storage.installation import read_id
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway, GatewayError, connect, registered_attributes
from workflows.patience import allow_a_full_signal_queue

CONNECT_SECONDS = 120.0
SCHEMA_SECONDS = 5.0
STATE_SECONDS = 2.0
PORT_SECONDS = 5.0

log = structlog.get_logger("worker")


@dataclass(frozen=True)
class Workers:
    """What this process polls: `shared` takes workflow tasks, and the activities of runs that began before each desk had a
    queue of its own; `own` takes this desk's activities in this mode.
    """

    shared: Worker
    own: Worker

    @property
    def both(self) -> tuple[Worker, Worker]:
        """In the order in which they begin."""
        return self.shared, self.own


class Stranger(Exception):
    """This worker does not belong to the desk; the text names what differs and says what to do."""


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
    settings.NotConfigured, NotUp, NotAllowed, Stranger, UnknownAgent, migrate.SchemaOutOfDate, MarketError, OSError,
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
    scope = scope_of(config, await _check_schema(config.database.url))
    client = await _connect(config.worker)
    databases = [
        Database(config.database.url, application_name=f"ais-{part}") for part in ("records", "latch", "paper")
    ]
    records, latch, paper = databases
    instruments = Instruments(config.desk.desk)
    venue = build_venue(config, paper, instruments)
    if config.desk.mode == "live":
        await check_account(venue)
    await _serve_metrics(config.worker, instruments)
    gateway, gone = DeskGateway(client, scope.desk, patience=STATE_SECONDS), asyncio.get_running_loop().create_future()
    workers = build_workers(config, scope, gateway, venue, room, instruments, records, latch, _leaving(gone))
    standby = Standby(scope, _asking(gateway), log.warning)
    try:
        async with _books(config, scope, instruments):
            await _run_until(workers, _with_claim(scope, standby, latch, _asking(gateway)), stop, gone)
    finally:
        await venue.close()
        for database in databases:
            database.close()


@contextlib.asynccontextmanager
async def _books(config: Config, scope: Scope, instruments: Instruments) -> AsyncIterator[None]:
    """Keeps a live desk's books meanwhile; nothing waits for them."""
    if scope.mode is not Mode.LIVE:
        yield
        return
    database = Database(config.database.url, threads=1, application_name="ais-books")
    keeper = build_bookkeeper(config, database, scope.account or "", instruments)
    running = asyncio.create_task(keeper.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})
        await keeper.close()


def _with_claim(scope: Scope, standby: Standby, database: Database, ask: Ask) -> Refusing:
    """A live account belongs to one desk."""
    if scope.mode is not Mode.LIVE:
        return standby
    key = AccountKey(EXCHANGE, scope.account or "")
    return ClaimCheck(standby, database, scope.desk, key, ask, log.warning)


def scope_of(config: VenueConfig, database_id: str | None) -> Scope:
    """What this worker serves. On paper the venue's account is in the database, and that has an id of its own."""
    account = config.aster.aster_account_id if config.desk.mode != "paper" else None
    return Scope(
        desk=config.desk.desk,
        mode=Mode(config.desk.mode),
        database_id=database_id,
        account=fingerprint(account.get_secret_value() if account else ""),
    )


def build_workers(
    config: Config,
    scope: Scope,
    gateway: DeskGateway,
    venue: Venue,
    room: AgentRoom,
    instruments: Instruments,
    records: Database,
    latch: Database,
    leave: Leave,
) -> Workers:
    """Both workers and everything behind them. Records, latch and venue never share a pool: one that hangs stalls itself."""

    async def ask() -> Word:
        status = await gateway.status()
        return Word(status.state, Limits.model_validate(status.limits))

    async def registered() -> set[str]:
        return set(await registered_attributes(gateway.client))

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
    activities = [*_methods(observing), *_methods(acting), *_methods(recording), *_methods(asking)]
    keeper, patience = Doorkeeper(scope, leave), config.worker.graceful_shutdown
    shared = Worker(
        gateway.client,
        task_queue=names.TASK_QUEUE,
        workflows=[Coordinator],
        activities=activities,
        interceptors=[keeper],
        graceful_shutdown_timeout=patience,
        # After a kill -9 the server offers tasks to the dead worker's own queue for this long (10 s by default), and a
        # kill that comes then would wait for it.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )
    own = Worker(
        gateway.client,
        task_queue=names.activity_queue(scope.desk, scope.mode.value),
        activities=activities,
        interceptors=[keeper],
        graceful_shutdown_timeout=patience,
    )
    return Workers(allow_a_full_signal_queue(shared), own)


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


async def _check_schema(url: str) -> str | None:
    """The database's own id; None where it does not answer."""

    async def check() -> str | None:
        await asyncio.to_thread(migrate.check, url)
        database = Database(url, threads=1, timeout_seconds=SCHEMA_SECONDS, application_name="ais-worker-start")
        try:
            return await database.run(read_id)
        finally:
            database.close()

    try:
        return await patiently("PostgreSQL", check, SCHEMA_SECONDS, log.warning, DatabaseUnavailable)
    except NotUp as error:
        # A kill must not wait for the database: serve without it. No order goes out while the latch cannot be read.
        log.warning("starting without the database; no new orders until it answers", why=str(error))
        return None


async def _serve_metrics(config: settings.WorkerSettings, instruments: Instruments) -> None:
    """On a port that may still be the last worker's. A kill must not wait for it: without one, it goes on unmeasured."""

    async def attempt() -> None:
        start_http_server(config.metrics_port, config.metrics_host, instruments.registry)

    try:
        await patiently("the port of the metrics", attempt, PORT_SECONDS, log.warning, OSError)
    except NotUp as error:
        log.warning("going on without metrics; restart the worker once AIS_METRICS_PORT is free", why=str(error))


async def _runtime(config: settings.WorkerSettings) -> Runtime:
    """With the SDK's own metrics, where its port can be had."""

    async def attempt() -> Runtime:
        bind = f"{config.metrics_host}:{config.sdk_metrics_port}"
        return Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(bind_address=bind)))

    try:
        return await patiently("the port of the SDK's metrics", attempt, PORT_SECONDS, log.warning, ValueError)
    except NotUp as error:
        log.warning("going on without the SDK's metrics; restart the worker once its port is free", why=str(error))
        return Runtime(telemetry=TelemetryConfig())


async def _connect(config: settings.WorkerSettings) -> Client:
    runtime = await _runtime(config)

    async def attempt() -> Client:
        return await connect(settings.temporal_connect_config(), runtime=runtime)

    return await patiently("Temporal", attempt, CONNECT_SECONDS, log.warning, RuntimeError)


def _asking(gateway: DeskGateway) -> Callable[[], Awaitable[Status | None]]:
    async def ask() -> Status | None:
        try:
            return await gateway.status()
        except GatewayError:
            return None

    return ask


def _leaving(gone: asyncio.Future[str]) -> Leave:
    def leave(why: str) -> None:
        if not gone.done():
            gone.set_result(why)

    return leave


async def _run_until(workers: Workers, standby: Refusing, stop: asyncio.Event, gone: asyncio.Future[str]) -> None:
    """Workflow tasks at once, which any worker can do; activities once it is known that they are this one's to do."""
    running = [asyncio.create_task(workers.shared.run())]
    stopping, opening = asyncio.create_task(stop.wait()), asyncio.create_task(standby.refusal())
    ends: set[asyncio.Future[Any]] = {stopping, gone}
    await asyncio.wait({*ends, *running, opening}, return_when=asyncio.FIRST_COMPLETED)
    if opening.done() and (why := opening.result()) is not None and not gone.done():
        gone.set_result(why)
    if not any(end.done() for end in (*ends, *running)):
        log.info("worker polls", task_queues=[worker.task_queue for worker in workers.both])
        running.append(asyncio.create_task(workers.own.run()))
        await asyncio.wait({*ends, *running}, return_when=asyncio.FIRST_COMPLETED)
    opening.cancel()
    for task in running:
        if task.done():
            # It never ends by itself unless something broke: the error ends the process, and whoever watches restarts it.
            await task
            raise NotUp("the worker ended by itself")
    await _shut_down(workers.both[: len(running)], running)
    if gone.done():
        raise Stranger(gone.result())


async def _shut_down(workers: Sequence[Worker], running: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*(worker.shutdown() for worker in workers))
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*running)


if __name__ == "__main__":
    main()
