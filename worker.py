"""The worker process: runs the coordinator's workflow tasks and its activities. `python worker.py [--data-dir DIR]`.

It needs Temporal to start. It does not wait for the database: even while that is down, it must be able to carry out a kill.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from pydantic import ValidationError
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import Worker, WorkerDeploymentConfig

import settings
from activities.act import ActActivities, CoordinatorState
from activities.agents.catalogue import InstalledAgent, UnknownAgent, installed_agents, select
from activities.agents.pool import AgentPool
from activities.agents.runner import AgentRunner
from activities.attributes import AttributeActivities
from activities.audit_watch import ChainWatcher
from activities.auditing import Auditor
from activities.callers import OnlyTheCoordinator
from activities.calls import Scope
from activities.claiming import ClaimCheck, StartCheck
from activities.market.port import MarketError
from activities.metrics import WorkerMetrics
from activities.metrics_port import serve_metrics
from activities.mirror import Mirror
from activities.observe import ObserveActivities
from activities.record import RecordActivities
from activities.standby import Standby
from activities.venues.aster.access import AsterAccess
from activities.venues.build import PaperAccount, VenuePlan, build_bookkeeper, build_venue
from activities.venues.port import CERTAIN, Venue, VenueError
from activities.wrong_worker import Leave, WrongWorkerExit
from domain.books import EXCHANGE
from domain.desk.identity import fingerprint
from domain.desk.states import Mode
from domain.desk.status import Status
from domain.desk.terms import configured_terms, warn_if_different
from domain.health.troubles import KnownTroubles
from domain.risk.limits import Limits
from domain.trading.decisions import ENTROPY_BITS, time_ordered_id
from notify.channels import channels_of
from notify.notifier import Notifier
from settings.modes import NotAllowed, VenueConfig, check_settings
from startup import (
    NotUp,
    TracesNotInstalled,
    configure_logging,
    in_background,
    leave,
    once_known,
    open_traces,
    patiently,
    raise_descriptor_limit,
)
from storage import migrate
from storage.claims import AccountKey
from storage.database import Database, DatabaseUnavailable
from storage.disks import DiskWatch
from storage.installation import read_id
from storage.own_thread import in_own_thread
from workflows import names
from workflows.as_started import keep_workflow_code
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway, GatewayError, connect, registered_attributes, sdk_logging
from workflows.patience import allow_a_full_signal_queue
from workflows.polls import SHARE_FOR_THE_QUEUE, WORKFLOW_TASK_POLLS, end_polls
from workflows.queue_limits import limits_of, take_off, taking_off
from workflows.runner import timely
from workflows.serving import current_version, making_current, shown

if TYPE_CHECKING:
    from tracing import Traces

CONNECT_SECONDS = 120.0
# For one attempt: the SDK's connect has no limit of its own, and a port that accepts and says nothing would hold it for ever.
ATTEMPT_SECONDS = 15.0
SCHEMA_SECONDS = 5.0
STATE_SECONDS = 2.0
PORT_SECONDS = 5.0
VENUE_SECONDS = 5.0
VERSION_SECONDS = 10.0
QUEUE_SECONDS = 5.0
# The server knows a worker from its first heartbeat on, and only then can end its polls (`workflows/polls.py`).
HEARTBEAT = timedelta(seconds=1)
# Beside the activities' own time: what the SDK takes to end its polls.
END_SECONDS = 10.0

T = TypeVar("T")

log = structlog.get_logger("worker")


@dataclass(frozen=True)
class Workers:
    """The two Temporal workers of this process.

    `shared` takes the workflow tasks of any desk, `own` this desk's activities in this mode.
    """

    shared: Worker
    own: Worker
    # Asks Temporal to give them no more tasks.
    end_polls: Callable[[], Awaitable[None]]
    # How long running activities have to finish.
    patience: timedelta
    # Set once the SDK has given one of them up.
    broken: asyncio.Event

    @property
    def both(self) -> tuple[Worker, Worker]:
        """Both, in the order in which they start."""
        return self.shared, self.own

    async def end(self, running: Sequence[asyncio.Task[None]], seconds: float) -> None:
        """Stops those that run, and gives them up after so long. Raises what broke one of them.

        The incident behind the limit: a worker was told to stop while Temporal was frozen, and was still there after 100 s. The
        SDK (temporalio 1.35) waits for its polls without end if the server did not hear that they should end
        (temporalio/sdk-rust#1297). A worker in this state does nothing, and its supervisor starts no other.
        """
        endings = [asyncio.create_task(worker.shutdown()) for worker in self.both[: len(running)]]
        _, left = await asyncio.wait({*endings, *running}, timeout=seconds)
        if left:
            log.warning("the SDK does not end its polls; stopping without that")
        for each in left:
            each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*running)


@dataclass(frozen=True)
class ActivityParts:
    """What the activities work with. Records, latch and venue each have their own pool, so one that hangs stalls only itself."""

    venue: Venue
    agents: AgentRunner
    metrics: WorkerMetrics
    records: Database
    latch: Database


class Stopped(Exception):
    """The process was told to stop while it was still starting."""


class WrongWorker(Exception):
    """This worker does not belong to the desk; the text names what differs and says what to do."""


@dataclass(frozen=True)
class Config(VenueConfig):
    """Every setting that a worker reads."""

    database: settings.DatabaseSettings
    agents: settings.AgentSettings
    disks: settings.DiskSettings
    notify: settings.NotifySettings
    redis: settings.RedisSettings
    audit: settings.AuditSettings
    log: settings.LogSettings
    traces: settings.TraceSettings

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
            notify=settings.NotifySettings.load(),
            redis=settings.RedisSettings.load(),
            audit=settings.AuditSettings.load(),
            log=settings.LogSettings.load(),
            traces=settings.TraceSettings.load(),
        )


EXPECTED = (
    settings.NotConfigured, TracesNotInstalled, NotUp, NotAllowed, WrongWorker, UnknownAgent, migrate.SchemaOutOfDate,
    MarketError, OSError,
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
        raise_descriptor_limit()
        keep_workflow_code()
        asyncio.run(serve(config))
    except ValidationError as error:
        leave(settings.explain(error))
    except EXPECTED as error:
        leave(str(error))
    except Exception:
        # Whatever it is, its process has to end: the interpreter's own end may hang (`leave`), and nobody would start another.
        leave(traceback.format_exc())
    leave(0)


async def serve(config: Config) -> None:
    """Connects and polls. When it stops, running activities finish first."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for name in settings.unknown_variables():
        log.warning("unknown setting, perhaps a typo; docs/settings.md lists all settings", variable=name)
    check_settings(config)
    traces = open_traces(config.traces, "worker", config.desk.desk)
    pool = AgentPool(choose_agents(config.agents), config.agents.agent_seconds)
    # In the background: a kill must not wait for an agent whose import hangs.
    opening = asyncio.create_task(pool.open())
    try:
        with traces.statements() if traces else contextlib.nullcontext(), contextlib.suppress(Stopped):
            await _serve(config, pool, traces, stop)
    finally:
        opening.cancel()
        await pool.close()
        if traces:
            await traces.close()
    log.info("worker stopped")


async def _serve(config: Config, agents: AgentRunner, traces: "Traces | None", stop: asyncio.Event) -> None:
    versioned = versioned_as(config.worker)
    scope = scope_of(config, await _unless_stopped(stop, _check_schema(config.database.url)))
    client = await _unless_stopped(stop, _connect(config.worker, traces))
    url = config.database.url
    databases = [Database(url, application_name=f"ais-{part}") for part in ("records", "latch", "paper")]
    records, latch, paper = databases
    metrics = WorkerMetrics(
        config.desk.desk,
        config.desk.cycle_seconds,
        traces.venue_called if traces else None,
        books_seconds=config.aster.books_seconds,
    )
    venue = build_venue(plan_of(config), paper, metrics)
    await check_venue(venue)
    await _serve_metrics(config.worker, metrics)
    gateway, gone = DeskGateway(client, scope.desk, STATE_SECONDS, traces), asyncio.get_running_loop().create_future()
    activities = activities_of(config, scope, gateway, ActivityParts(venue, agents, metrics, records, latch))
    workers = build_workers(client, scope, activities, config.worker.graceful_shutdown, _leaving(gone), versioned)
    standby = _standby(scope, gateway, latch)
    try:
        async with _books(config, scope, metrics), in_background(*_beside(config, gateway, metrics, versioned)):
            await _run_until(workers, standby, stop, gone)
    finally:
        await venue.close()
        for database in databases:
            database.close()


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises Stopped, and gives up the work, once the process is told to stop.

    The incident behind this: a worker that waited for Temporal heard neither SIGTERM nor Ctrl-C for two minutes. Whoever had
    corrected TEMPORAL_ADDRESS waited as long for the next one, and a kill with them.
    """
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        raise Stopped
    return working.result()


async def _connect(config: settings.WorkerSettings, traces: "Traces | None") -> Client:
    """A connected client. Raises NotUp, or NotConfigured for an address that is none: waiting would not help."""
    runtime, following = await _runtime(config), [traces.interceptor] if traces else []

    async def attempt() -> Client:
        where = settings.temporal_connect_config()
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                return await connect(where, runtime=runtime, interceptors=following)
        except TimeoutError:
            raise RuntimeError(f"it accepts connections but does not answer within {ATTEMPT_SECONDS:g} s") from None
        except ValueError as error:
            raise settings.NotConfigured(
                f"Temporal at {where.get('target_host')} cannot be called: {error}; check TEMPORAL_ADDRESS"
            ) from error

    return await patiently("Temporal", attempt, CONNECT_SECONDS, log.warning, RuntimeError)


def _standby(scope: Scope, gateway: DeskGateway, latch: Database) -> StartCheck:
    """Keeps the worker from serving a desk that is not its own."""
    standby = Standby(scope, _asking(gateway), log.warning)
    if scope.mode is not Mode.LIVE:
        return standby
    # The account has to belong to this desk, too.
    key = AccountKey(EXCHANGE, scope.account or "")
    return ClaimCheck(standby, latch, scope.desk, key, _asking(gateway), log.warning)


@contextlib.asynccontextmanager
async def _books(config: Config, scope: Scope, metrics: WorkerMetrics) -> AsyncIterator[None]:
    """Keeps a live desk's books in the background; nothing waits for them."""
    if scope.mode is not Mode.LIVE:
        yield
        return
    database = Database(config.database.url, threads=1, application_name="ais-books")
    keeper = build_bookkeeper(plan_of(config), database, scope.account or "", metrics)
    running = asyncio.create_task(keeper.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})
        await keeper.close()


def _beside(
    config: Config, gateway: DeskGateway, metrics: WorkerMetrics, versioned: WorkerDeploymentConfig | None
) -> list[Coroutine[Any, Any, object]]:
    """What runs beside the activities: the audit, notifications, the mirror, and hints in the log. Nothing waits for it."""
    desk, url, channels = config.desk.desk, config.database.url, channels_of(config.notify.targets)
    levels = {channel.name: channel.critical_only for channel in channels}
    audited = Database(url, threads=1, application_name="ais-audit")
    auditor = Auditor(desk, config.audit.audit_key, levels, audited)
    loops: list[Coroutine[Any, Any, object]] = [
        auditor.run(),
        ChainWatcher(desk, audited, metrics, levels, lambda: auditor.signed).run(),
        once_known(_looking(gateway, 1.0), partial(warn_if_different, log.warning, configured_terms(config.desk))),
        _keep_unlimited(gateway.client, names.activity_queue(desk, config.desk.mode)),
    ]
    if channels:
        notices = Database(url, threads=3, application_name="ais-notify")
        loops.append(Notifier(desk, channels, notices, _looking(gateway, 1.0), config.desk.cycle_seconds).run())
    if config.redis.url is not None:
        loops.append(Mirror(config.redis.url, desk, _looking(gateway, 0.5)).run())
    if versioned is not None:
        loops.append(_watch_version(gateway.client, versioned.version))
    return loops


async def _watch_version(client: Client, mine: WorkerDeploymentVersion) -> None:
    """Says whether this worker's version is the current one, whenever that changes."""
    told: str | None = None
    while True:
        with contextlib.suppress(RPCError, RuntimeError):
            current = await current_version(client)
            if (seen := shown(current)) != told:
                told = seen
                _tell_version(mine, current)
        await asyncio.sleep(VERSION_SECONDS)


async def _keep_unlimited(client: Client, queue: str) -> None:
    """Takes off whatever rate limit somebody puts on the desk's queue of activities: it would hold up a kill's cancels."""
    troubles = KnownTroubles()
    while True:
        # A server that knows no limits refuses to say, and one that is away has other troubles.
        with contextlib.suppress(RPCError, RuntimeError):
            if (limits := await limits_of(client, queue)) is not None:
                await _unlimit(client, queue, limits, troubles)
        await asyncio.sleep(QUEUE_SECONDS)


async def _unlimit(client: Client, queue: str, limits: str, troubles: KnownTroubles) -> None:
    try:
        await take_off(client, queue)
    except (RPCError, RuntimeError) as error:
        if troubles.begin():
            log.warning(
                "a rate limit holds up this desk's activities, and a kill's cancels with them",
                task_queue=queue, limits=limits, why=str(error), do=taking_off(queue),
            )  # fmt: skip
        return
    troubles.end()
    log.warning("took a rate limit off this desk's activities", task_queue=queue, limits=limits)


def _tell_version(mine: WorkerDeploymentVersion, current: WorkerDeploymentVersion | None) -> None:
    if mine == current:
        log.info("workers of this version are the current ones", worker=shown(mine))
        return
    log.warning(
        "this worker's version is not current: it takes workflow tasks only of desks that are pinned to it",
        worker=shown(mine),
        current=shown(current),
        to_make_it_current=making_current(mine, mine.deployment_name),
    )


def scope_of(config: VenueConfig, database_id: str | None) -> Scope:
    """What this worker serves. On paper the account has no fingerprint: it is in the database, which has its own id."""
    account = config.aster.aster_account_id if config.desk.mode != "paper" else None
    return Scope(
        desk=config.desk.desk,
        mode=Mode(config.desk.mode),
        database_id=database_id,
        account=fingerprint(account.get_secret_value() if account else ""),
    )


def plan_of(config: VenueConfig) -> VenuePlan:
    """Where this desk trades, as plain values instead of settings models."""
    desk, worker, paper, aster = config.desk, config.worker, config.paper, config.aster
    return VenuePlan(
        desk=desk.desk,
        mode=Mode(desk.mode),
        symbols=desk.symbols,
        paper=PaperAccount(
            balance=paper.paper_balance,
            terms=paper.terms(),
            market=worker.market,
            volume=worker.market_volume,
            seed=worker.seed,
            funding=paper.paper_funding,
            funding_rate=paper.paper_funding_rate,
        ),
        aster=AsterAccess(
            address=aster.aster_mcp,
            account_id=aster.aster_account_id.get_secret_value() if aster.aster_account_id else "",
            timeout_seconds=aster.aster_timeout,
            interval=aster.aster_interval,
            books_seconds=aster.books_seconds,
            leaves_this_machine=aster.leaves_this_machine,
        ),
    )


async def check_venue(venue: Venue) -> None:
    """Raises NotAllowed if this account certainly cannot be traded.

    A fault that may pass by itself is no reason to refuse, neither a missing answer nor a refusal such as 400 for clocks
    that differ: without a worker nobody carries out a kill. No order goes out unchecked all the same, since every send reads
    the account first.
    """

    async def attempt() -> None:
        try:
            await venue.check()
        except CERTAIN as error:
            raise NotAllowed(f"AIS_MODE=live cannot start: {error}") from None

    try:
        await patiently("the venue", attempt, VENUE_SECONDS, log.warning, VenueError)
    except NotUp as error:
        log.warning("starting without the venue; every order checks the account before it is sent", why=str(error))


def activities_of(
    config: Config, scope: Scope, gateway: DeskGateway, parts: ActivityParts
) -> list[Callable[..., object]]:
    """Builds every activity of this worker."""

    async def ask() -> CoordinatorState:
        status = await gateway.status()
        return CoordinatorState(status.state, Limits.model_validate(status.limits))

    async def registered() -> set[str]:
        return set(await registered_attributes(gateway.client))

    weights, disks = config.agents.agent_weights, DiskWatch(config.disks.disk_folders)
    observing = ObserveActivities(scope, parts.venue, parts.latch, parts.agents, parts.metrics, new_id, weights, disks)
    acting = ActActivities(scope, parts.venue, parts.latch, ask, parts.metrics)
    recording = RecordActivities(scope, parts.records, parts.metrics)
    asking = AttributeActivities(scope, registered)
    return [*_methods(observing), *_methods(acting), *_methods(recording), *_methods(asking)]


def build_workers(
    client: Client,
    scope: Scope,
    activities: Sequence[Callable[..., object]],
    patience: timedelta,
    leave: Leave,
    versioned: WorkerDeploymentConfig | None = None,
) -> Workers:
    """Builds both workers. When they stop, they give running activities `patience` to finish.

    Only workflow tasks have versions. A desk's activities go to any worker of the desk: whichever version decides that it is
    killed, the cancels never wait for a worker of that version.
    """
    # By pid and host alone, two containers may be named alike; the polls of another process must not be ended with ours.
    identity, broken = f"{os.getpid()}@{socket.gethostname()}-{secrets.token_hex(4)}", asyncio.Event()
    build = partial(
        Worker,
        client,
        identity=identity,
        graceful_shutdown_timeout=patience,
        on_fatal_error=partial(_note, broken),
    )
    shared = build(
        task_queue=names.TASK_QUEUE,
        workflows=[Coordinator],
        workflow_runner=timely(client, identity, lambda: shared),
        max_concurrent_workflow_task_polls=WORKFLOW_TASK_POLLS,
        nonsticky_to_sticky_poll_ratio=SHARE_FOR_THE_QUEUE,
        # After a kill -9 the server offers tasks to the dead worker's own queue for this long (10 s by default). A kill
        # that arrives then would have to wait.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        deployment_config=versioned,
    )
    own = build(
        task_queue=names.activity_queue(scope.desk, scope.mode.value),
        activities=activities,
        interceptors=[OnlyTheCoordinator(names.workflow_id(scope.desk)), WrongWorkerExit(scope, leave)],
    )
    ends = partial(end_polls, client, identity, names.workflow_id(scope.desk))
    return Workers(allow_a_full_signal_queue(shared), own, ends, patience, broken)


async def _note(broken: asyncio.Event, _: BaseException) -> None:
    broken.set()


BEHAVIORS: Mapping[str, VersioningBehavior] = {
    "auto-upgrade": VersioningBehavior.AUTO_UPGRADE,
    "pinned": VersioningBehavior.PINNED,
}


def versioned_as(config: settings.WorkerSettings) -> WorkerDeploymentConfig | None:
    """The version under which this worker polls; None if versioning is off. Raises NotConfigured."""
    if config.worker_versioning == "off":
        return None
    try:
        build_id = config.worker_build_id or version("ais")
    except PackageNotFoundError:
        raise settings.NotConfigured("AIS_WORKER_BUILD_ID is not set, and the package ais is not installed") from None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(config.worker_deployment, build_id),
        use_worker_versioning=True,
        default_versioning_behavior=BEHAVIORS[config.worker_versioning],
    )


def choose_agents(chosen: settings.AgentSettings) -> list[InstalledAgent]:
    """The agents that the settings name. Raises UnknownAgent if one is not installed."""
    installed = installed_agents()
    for warning in installed.warnings:
        log.warning(warning)
    for name in chosen.agent_weights.keys() - installed.agents.keys():
        log.warning("AIS_AGENT_WEIGHTS names an agent that is not installed; fine if it proposes over HTTP", agent=name)
    agents = select(installed, chosen.agents)
    log.info("agents", names=[agent.name for agent in agents])
    return agents


def new_id(prefix: str) -> str:
    """An id that sorts by time."""
    return time_ordered_id(prefix, datetime.now(UTC), secrets.randbits(ENTROPY_BITS))


def _methods(activities: object) -> list[Callable[..., object]]:
    found = (getattr(activities, name) for name in dir(activities) if not name.startswith("_"))
    return [method for method in found if hasattr(method, "__temporal_activity_definition")]


async def _check_schema(url: str) -> str | None:
    """Checks the schema and returns the database's id; None if the database does not answer."""

    async def check() -> str | None:
        try:
            # On the server's side no limit holds where its disk hangs: a kill needs this worker all the same.
            async with asyncio.timeout(2 * SCHEMA_SECONDS):
                await in_own_thread(partial(migrate.check, url))
        except TimeoutError as error:
            raise DatabaseUnavailable(f"PostgreSQL did not answer within {2 * SCHEMA_SECONDS:g} s") from error
        except migrate.SchemaUnfinished as error:
            # Reports read these indexes, and no order does: a desk must not stand still for as long as they are built.
            log.warning("starting without all indexes; pages of the decision log are slow", why=str(error))
        database = Database(url, threads=1, timeout_seconds=SCHEMA_SECONDS, application_name="ais-worker-start")
        try:
            return await database.run(read_id)
        finally:
            database.close()

    try:
        return await patiently("PostgreSQL", check, SCHEMA_SECONDS, log.warning, DatabaseUnavailable)
    except NotUp as error:
        # A kill must not wait for the database, so serve without it. No order goes out while the latch cannot be read.
        log.warning("starting without the database; no new orders until it answers", why=str(error))
        return None


async def _serve_metrics(config: settings.WorkerSettings, metrics: WorkerMetrics) -> None:
    """Opens the metrics port, which the last worker may still hold. A kill must not wait for it: if need be, run without."""

    async def attempt() -> None:
        serve_metrics(str(config.metrics_host), config.metrics_port, metrics.registry)

    try:
        await patiently("the metrics port", attempt, PORT_SECONDS, log.warning, OSError)
    except NotUp as error:
        log.warning("running without metrics; restart the worker once AIS_METRICS_PORT is free", why=str(error))


async def _runtime(config: settings.WorkerSettings) -> Runtime:
    """The SDK's runtime, with the SDK's own metrics if their port is free."""

    async def attempt() -> Runtime:
        host = f"[{config.metrics_host}]" if ":" in config.metrics_host else config.metrics_host
        bind = f"{host}:{config.sdk_metrics_port}"
        metrics = TelemetryConfig(logging=sdk_logging(), metrics=PrometheusConfig(bind_address=bind))
        return Runtime(telemetry=metrics, worker_heartbeat_interval=HEARTBEAT)

    try:
        return await patiently("the SDK's metrics port", attempt, PORT_SECONDS, log.warning, ValueError)
    except NotUp as error:
        log.warning("running without SDK metrics; restart the worker once AIS_SDK_METRICS_PORT is free", why=str(error))
        return Runtime(telemetry=TelemetryConfig(logging=sdk_logging()), worker_heartbeat_interval=HEARTBEAT)


def _looking(gateway: DeskGateway, seconds: float) -> Callable[[], Awaitable[Status | None]]:
    """The status for whatever only reports it: a query of a kill's cancels never waits behind these."""

    async def look() -> Status | None:
        try:
            return await gateway.recent_status(seconds)
        except GatewayError:
            return None

    return look


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


async def _run_until(workers: Workers, standby: StartCheck, stop: asyncio.Event, gone: asyncio.Future[str]) -> None:
    """Takes workflow tasks at once, since any worker can; takes activities once it knows that they are this desk's."""
    running = [asyncio.create_task(workers.shared.run())]
    stopping, opening = asyncio.create_task(stop.wait()), asyncio.create_task(standby.refusal())
    broken = asyncio.create_task(workers.broken.wait())
    ends: set[asyncio.Future[Any]] = {stopping, gone, broken}
    await asyncio.wait({*ends, *running, opening}, return_when=asyncio.FIRST_COMPLETED)
    if opening.done() and (why := opening.result()) is not None and not gone.done():
        gone.set_result(why)
    if not any(end.done() for end in (*ends, *running)):
        log.info("worker polls", task_queues=[worker.task_queue for worker in workers.both])
        running.append(asyncio.create_task(workers.own.run()))
        await asyncio.wait({*ends, *running}, return_when=asyncio.FIRST_COMPLETED)
    opening.cancel()
    if broken.done() or any(task.done() for task in running):
        # A worker ends by itself only if something broke: exit with the error, and let the supervisor restart us.
        await workers.end(running, END_SECONDS)
        raise NotUp("the worker stopped by itself")
    await workers.end_polls()
    await workers.end(running, workers.patience.total_seconds() + END_SECONDS)
    if gone.done():
        raise WrongWorker(gone.result())


if __name__ == "__main__":
    main()
