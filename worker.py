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
from activities.act import ActActivities
from activities.agents.build import built_in_agents
from activities.calls import Scope
from activities.instruments import Instruments
from activities.market.build import MarketError, build_market
from activities.observe import ObserveActivities
from activities.record import RecordActivities
from activities.venues.aster.caller import Caller
from activities.venues.aster.transports import session_for, shown
from activities.venues.aster.venue import AsterVenue
from activities.venues.paper import PaperVenue
from activities.venues.port import Venue, VenueError, VenueRefused
from activities.venues.shadow import ShadowVenue
from domain.decisions import ENTROPY_BITS, time_ordered_id
from domain.states import Mode, State
from startup import NotUp, configure_logging, leave, patiently
from storage import migrate
from storage.database import Database, DatabaseUnavailable
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway, connect
from workflows.patience import allow_a_full_signal_queue

CONNECT_SECONDS = 120.0
SCHEMA_SECONDS = 5.0
STATE_SECONDS = 2.0
VENUE_SECONDS = 5.0
LIVE_KEY_CHARS = 32

log = structlog.get_logger("worker")


@dataclass(frozen=True)
class Config:
    """Every setting that a worker reads."""

    desk: settings.DeskSettings
    database: settings.DatabaseSettings
    worker: settings.WorkerSettings
    paper: settings.PaperVenueSettings
    aster: settings.AsterSettings
    log: settings.LogSettings

    @classmethod
    def load(cls) -> "Config":
        """Raises ValidationError or NoRunningStack."""
        return cls(
            settings.DeskSettings.load(),
            settings.DatabaseSettings.load(),
            settings.WorkerSettings.load(),
            settings.PaperVenueSettings.load(),
            settings.AsterSettings.load(),
            settings.LogSettings.load(),
        )


class NotAllowed(Exception):
    """A mode that is not fully set up; the text names everything that is missing."""


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
    except (settings.NoRunningStack, NotUp, NotAllowed, migrate.SchemaOutOfDate, MarketError, OSError) as error:
        leave(str(error))
    leave(0)


async def serve(config: Config) -> None:
    """Connects, polls, and stops in order: running activities finish first."""
    stop = _stop_signal()
    for name in settings.unknown_variables():
        log.warning("no such setting: a typo? docs/settings.md lists them all", variable=name)
    if missing := missing_for(config):
        raise NotAllowed(f"AIS_MODE={config.desk.mode} needs {'; '.join(missing)}")
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
    worker = build_worker(config, client, venue, instruments, records, latch)
    log.info("worker polls", task_queue=names.TASK_QUEUE, desk=config.desk.desk, mode=config.desk.mode)
    try:
        await _run_until(worker, stop)
    finally:
        if isinstance(venue, AsterVenue | ShadowVenue):
            await venue.close()
        for database in databases:
            database.close()
    log.info("worker stopped")


def build_worker(
    config: Config, client: Client, venue: Venue, instruments: Instruments, records: Database, latch: Database
) -> Worker:
    """The worker and everything behind it. Records, latch and venue never share a pool: one that hangs stalls itself."""
    scope = Scope(desk=config.desk.desk, mode=Mode(config.desk.mode))
    start_http_server(config.worker.metrics_port, config.worker.metrics_host, instruments.registry)
    gateway = DeskGateway(client, scope.desk, patience=STATE_SECONDS)

    async def ask_state() -> State:
        return (await gateway.status()).state

    observing = ObserveActivities(scope, venue, latch, built_in_agents(), instruments, new_id)
    acting = ActActivities(scope, venue, latch, ask_state, instruments)
    recording = RecordActivities(scope, records, instruments)
    worker = Worker(
        client,
        task_queue=names.TASK_QUEUE,
        workflows=[Coordinator],
        activities=[*_methods(observing), *_methods(acting), *_methods(recording)],
        graceful_shutdown_timeout=config.worker.graceful_shutdown,
        # After a kill -9 the server offers tasks to the dead worker's own queue for this long (10 s by default), and a
        # kill that comes then would wait for it.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )
    return allow_a_full_signal_queue(worker)


def build_venue(config: Config, database: Database, instruments: Instruments) -> Venue:
    """The venue of the configured mode. A new venue is one line here."""
    match config.desk.mode:
        case "paper":
            return _paper_venue(config, database)
        case "shadow":
            return ShadowVenue(_aster_venue(config.aster, instruments))
        case "live":
            return _aster_venue(config.aster, instruments)


def _paper_venue(config: Config, database: Database) -> PaperVenue:
    return PaperVenue(
        database,
        build_market(config.worker.market, config.desk.symbols, config.worker.seed),
        config.desk.desk,
        balance=config.paper.paper_balance,
        fee_bps=config.paper.paper_fee_bps,
        slippage_bps=config.paper.paper_slippage_bps,
    )


def _aster_venue(aster: settings.AsterSettings, instruments: Instruments) -> AsterVenue:
    if aster.leaves_this_machine:
        log.warning(
            "the MCP server has no authentication, and it is asked over plain HTTP beyond this machine: whoever reaches "
            "it can trade",
            address=shown(aster.aster_mcp),
        )
    account_id = aster.aster_account_id.get_secret_value() if aster.aster_account_id else ""
    session = session_for(aster.aster_mcp, aster.aster_timeout)
    return AsterVenue(Caller(session, account_id, aster.aster_timeout, instruments), instruments, aster.aster_interval)


def missing_for(config: Config) -> list[str]:
    """What the configured mode needs and does not have, as people are told it."""
    if config.desk.mode == "paper":
        return []
    missing = [] if config.aster.aster_account_id else ["AIS_ASTER_ACCOUNT_ID"]
    if config.desk.mode == "live":
        missing += [] if config.aster.enable_live_trading else ["AIS_ENABLE_LIVE_TRADING=true"]
        missing += [] if _key_length() >= LIVE_KEY_CHARS else [f"an AIS_API_KEY of {LIVE_KEY_CHARS} characters or more"]
    return missing


def _key_length() -> int:
    """Of the API's key, which only live mode asks for here: whoever holds it commands real money."""
    try:
        return len(settings.ApiSettings.load().key)
    except ValidationError:
        return 0


async def check_account(venue: Venue) -> None:
    """Refuses to start on an account that cannot be traded. Raises NotAllowed.

    A venue that does not answer is no reason to refuse: without a worker nobody carries out a kill. Every order reads the
    account anew before it is sent, so that none goes out unchecked.
    """
    assert isinstance(venue, AsterVenue)
    account = venue

    async def attempt() -> None:
        try:
            await account.check_one_way()
        except VenueRefused as error:
            raise NotAllowed(f"AIS_MODE=live cannot start: {error}") from None

    try:
        await patiently("the venue", attempt, VENUE_SECONDS, log.warning, VenueError)
    except NotUp as error:
        log.warning("starting without the venue; every order checks the account before it is sent", why=str(error))


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
