"""The API's composition root: `uvicorn --factory api.app:create_app`.

Everything is built here and handed down. The process listens at once and waits for nothing: Temporal's client connects with the
first call that needs it, and if that fails, with the next one. So does the database's pool.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope
from temporalio.runtime import Runtime, TelemetryConfig

from api import docs, errors, guide, manual
from api.access import AccessLog
from api.app_settings import AppSettings
from api.auth import Authentication, is_authenticated
from api.body_limit import BodyLimit
from api.commands import Commander, header_text
from api.connections import STATE_KEY, Connections
from api.coordinator import CoordinatorClient, Gateway
from api.descriptors import raise_limit
from api.desk_database import DeskDatabase
from api.feed import MOST_STREAMS, YIELD_SECONDS, EventFeed
from api.head_as_get import HeadAsGet
from api.headers import SecurityHeaders
from api.health import ExpectedDesk, Health, SharedRound
from api.keys import KeyRing, KeySource, KeyWatch, PostgresKeys
from api.metrics import ApiMetrics
from api.parts import ApiParts
from api.redis_probe import RedisProbe
from api.refused_keys import RefusedKeyCounter
from api.reporting import PostgresReports, Reports
from api.routes import console, control, events, proposals, public, reports
from console import files
from domain.desk.states import Mode
from domain.desk.status import Status
from domain.desk.terms import configured_terms, warn_if_different
from notify.channels import channels_of
from notify.notifier import Notifier
from startup import TracesNotInstalled, configure_logging, end_with_supervisor, in_background, once_known, open_traces
from storage.database import Database
from storage.disks import DiskWatch
from workflows import names
from workflows.gateway import DeskGateway, GatewayError, connect, sdk_logging

if TYPE_CHECKING:
    from tracing import Traces

STATUS_SECONDS = 2.0

ROUTERS = (
    control.commands,
    control.queries,
    events.router,
    public.health,
    proposals.router,
    reports.router,
    public.metrics,
    docs.router,
    manual.router,
    console.router,
)


log: Any = structlog.get_logger("api")


def create_app(
    settings: AppSettings | None = None,
    gateway: Gateway | None = None,
    reports: Reports | None = None,
    keys: KeySource | None = None,
    traces: "Traces | None" = None,
) -> FastAPI:
    """The application. Parts that are not given are built from the settings, which are read only now."""
    own_process = settings is None
    if settings is None:
        settings = AppSettings.load()
        configure_logging(settings.log)
        end_with_supervisor()
        traces = _traces(settings)
    instruments = ApiMetrics(settings.desk.desk)
    ring = KeyRing(settings.api.key, settings.desk.desk)
    app = guide.DocumentedApi(
        title="AIS",
        version="0.1.0",
        description=guide.DESCRIPTION,
        openapi_tags=guide.TAGS,
        generate_unique_id_function=guide.operation_id,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings, instruments, ring, gateway, reports, keys, traces),
        middleware=_middleware(settings, instruments, ring, traces),
    )
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    if own_process:
        _warm_up(app)
    return app


def _warm_up(app: FastAPI) -> None:
    """Does at once what the first requests would do otherwise: 0.1 to 0.3 s (measured) in which a kill would wait."""
    app.openapi()
    docs.load_assets()
    manual.load()
    files()


def _traces(settings: AppSettings) -> "Traces | None":
    try:
        return open_traces(settings.traces, "api", settings.desk.desk)
    except TracesNotInstalled as error:
        raise SystemExit(str(error)) from None


def _is_traced(scope: Scope) -> bool:
    """Traces authenticated requests, but no streams: a span of hours would contain everything that the feed reads."""
    return is_authenticated(scope) and not scope["path"].endswith(events.STREAM)


def _middleware(
    settings: AppSettings, instruments: ApiMetrics, ring: KeyRing, traces: "Traces | None"
) -> list[Middleware]:
    """Outermost first. A preflight carries no token, so CORS (if it is enabled) comes before authentication."""
    origins = settings.api.cors_origins
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
        expose_headers=[
            "X-Command-Id", "X-AIS-Warning", "X-Request-Id", "Location", "Link", "Retry-After", "WWW-Authenticate",
            "X-AIS-Actor", "X-AIS-Role", *_page_terms(settings),
        ],
    )  # fmt: skip
    return [
        Middleware(SecurityHeaders),
        Middleware(AccessLog, instruments=instruments),
        *([cors] if origins else []),
        Middleware(Authentication, ring=ring, refused=RefusedKeyCounter(instruments), desk=settings.desk.desk),
        # After authentication, so that a flood of strangers makes no spans.
        *([Middleware(traces.http, follows=_is_traced)] if traces else []),
        Middleware(BodyLimit),
        Middleware(HeadAsGet),
    ]


def _lifespan(
    settings: AppSettings,
    instruments: ApiMetrics,
    ring: KeyRing,
    gateway: Gateway | None,
    reports: Reports | None,
    keys: KeySource | None,
    traces: "Traces | None",
) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        desk = CoordinatorClient(gateway or await _own_gateway(settings, traces), settings.api.ack_timeout)
        found = reports or PostgresReports(settings.database.url, DeskDatabase(desk), live=settings.desk.mode == "live")
        most = raise_limit().connections
        # Half of the connections, so that streams leave room for commands.
        feed = EventFeed(desk, found, settings.desk.desk, min(MOST_STREAMS, most // 2))
        redis = RedisProbe(settings.redis.url, settings.desk.desk)
        app.state.parts = _parts(settings, instruments, desk, found, feed, ring, redis)
        source = keys or PostgresKeys(settings.database.url)
        loops = _beside(settings, desk, ring, source, own_gateway=gateway is None)
        try:
            async with _following(traces), in_background(*loops):
                yield {STATE_KEY: Connections(most, instruments)}
        finally:
            source.close()
            feed.close()
            await redis.close()
            if reports is None:
                found.close()

    return run


async def _own_gateway(settings: AppSettings, traces: "Traces | None") -> DeskGateway:
    runtime = Runtime(telemetry=TelemetryConfig(logging=sdk_logging()))
    client = await connect(dict(settings.temporal), lazy=True, runtime=runtime)
    return DeskGateway(client, settings.desk.desk, settings.api.ack_timeout, traces)


@asynccontextmanager
async def _following(traces: "Traces | None") -> AsyncIterator[None]:
    if traces is None:
        yield
        return
    try:
        with traces.statements():
            yield
    finally:
        await traces.close()


def _beside(
    settings: AppSettings, desk: CoordinatorClient, ring: KeyRing, source: KeySource, *, own_gateway: bool
) -> list[Coroutine[Any, Any, object]]:
    """What runs beside the requests: reading the keys, notifications, a hint in the log. No request waits for it."""
    loops: list[Coroutine[Any, Any, object]] = [KeyWatch(ring, source).run()]
    # The worker notifies too, but one that is gone cannot report itself.
    if channels := channels_of(settings.notify.targets):
        database = Database(settings.database.url, threads=3, application_name="ais-notify")
        loops.append(
            Notifier(settings.desk.desk, channels, database, _looking(desk), settings.desk.cycle_seconds).run()
        )
    # A caller with its own coordinator knows that coordinator's terms.
    if own_gateway:
        terms = configured_terms(settings.desk)
        loops.append(once_known(_looking(desk), partial(warn_if_different, log.warning, terms)))
    return loops


def _looking(desk: CoordinatorClient) -> Callable[[], Awaitable[Status | None]]:
    """The status for whatever only reports it."""

    async def look() -> Status | None:
        if desk.is_waited_for:
            # The whole process shares one query. Leave it to the commands, for a second at most.
            await asyncio.sleep(YIELD_SECONDS)
        try:
            return (await desk.read(seconds=STATUS_SECONDS)).status
        except GatewayError:
            return None

    return look


def _parts(
    settings: AppSettings,
    instruments: ApiMetrics,
    desk: CoordinatorClient,
    reports: Reports,
    feed: EventFeed,
    ring: KeyRing,
    redis: RedisProbe,
) -> ApiParts:
    name, mode, symbols = settings.desk.desk, settings.desk.mode, settings.desk.symbols
    health = Health(desk, reports, ExpectedDesk(name, mode, symbols), DiskWatch(settings.disks.disk_folders), redis)

    async def scrape() -> bytes:
        return instruments.scrape(await health.status(), ring.age_seconds)

    return ApiParts(
        desk_name=name,
        mode=Mode(mode),
        desk=desk,
        commander=Commander(desk, symbols, settings.api.ack_timeout, instruments),
        reports=reports,
        health=health,
        instruments=instruments,
        scrape=SharedRound(scrape),
        feed=feed,
        ring=ring,
        page_terms=_page_terms(settings),
    )


def _page_terms(settings: AppSettings) -> dict[str, str]:
    terms = {
        "X-AIS-Workflow": names.workflow_id(settings.desk.desk),
        "X-AIS-Temporal-Address": settings.api.console_temporal_address
        or settings.temporal.get("target_host", "127.0.0.1:7233"),
        "X-AIS-Temporal-Namespace": settings.temporal.get("namespace", "default"),
        "X-AIS-Lock-Minutes": f"{settings.api.console_lock_minutes:g}",
    }
    return {name: header_text(value) for name, value in terms.items()}
