"""The API's composition root: `uvicorn --factory api.app:create_app`.

Everything is built here and handed down. The process listens at once and waits for nothing: Temporal's client connects
with the first call that needs it, and again with the next one for as long as that fails; so does the database's pool.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import settings as configuration
from api import docs, errors, logs
from api.access import Access
from api.auth import Authentication
from api.belonging import Belonging
from api.commands import Commander
from api.descriptors import raise_limit
from api.desk import Desk, Gateway
from api.doorkeeper import STATE_KEY, Doorkeeper
from api.headers import SecurityHeaders
from api.health import Expected, Health
from api.limits import BodyLimit
from api.metrics import Instruments
from api.reporting import PostgresReports, Reports
from api.routes import control, proposals, public, reports
from api.state import Parts
from domain.states import Mode
from storage.disks import DiskWatch
from workflows.gateway import DeskGateway, connect

DESCRIPTION = "Control plane of an automated trading desk: pause, resume, kill, cancel, deleverage, decision log."


@dataclass(frozen=True)
class AppSettings:
    """All that the API is configured by. `temporal` are arguments of `Client.connect`."""

    api: configuration.ApiSettings
    desk: configuration.DeskSettings
    database: configuration.DatabaseSettings
    log: configuration.LogSettings
    disks: configuration.DiskSettings
    temporal: Mapping[str, Any]

    @classmethod
    def load(cls) -> "AppSettings":
        """From the environment, `.env` or a running `ais dev`; a wrong one ends the process, naming the variable."""
        try:
            found = cls(
                api=configuration.ApiSettings.load(),
                desk=configuration.DeskSettings.load(),
                database=configuration.DatabaseSettings.load(),
                log=configuration.LogSettings.load(),
                disks=configuration.DiskSettings.load(),
                temporal=dict(configuration.temporal_connect_config()),
            )
        except ValidationError as error:
            raise SystemExit(configuration.explain(error)) from None
        except configuration.NotConfigured as error:
            raise SystemExit(str(error)) from None
        if found.desk.mode == "live" and not found.api.fit_for_live:
            raise SystemExit(
                f"AIS_MODE=live needs {configuration.LIVE_KEY}. Make one: {configuration.HOW_TO_MAKE_A_KEY}"
            )
        return found


def create_app(
    settings: AppSettings | None = None, gateway: Gateway | None = None, reports: Reports | None = None
) -> FastAPI:
    """The application. What is not given is built from the settings, which are read only now."""
    own_process = settings is None
    if settings is None:
        settings = AppSettings.load()
        logs.configure(settings.log.log_level, settings.log.log_format)
    instruments = Instruments(settings.desk.desk)
    app = FastAPI(
        title="AIS",
        version="0.1.0",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings, instruments, gateway, reports),
        middleware=_middleware(settings, instruments),
    )
    errors.install(app)
    _include_routes(app)
    if own_process:
        _warm_up(app)
    return app


def _warm_up(app: FastAPI) -> None:
    """What FastAPI would do in the middle of the first requests: 0.1 to 0.3 s (measured) in which a kill waits."""
    app.openapi()
    docs.load_assets()


def _include_routes(app: FastAPI) -> None:
    for router in (control.queries, control.commands, proposals.router, reports.router, public.router, docs.router):
        app.include_router(router)


def _middleware(settings: AppSettings, instruments: Instruments) -> list[Middleware]:
    """Outermost first. A preflight carries no token: CORS, where it is open at all, stands before authentication."""
    origins = settings.api.cors_origins
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        expose_headers=["X-Command-Id", "X-AIS-Warning", "X-Request-Id", "Location", "Link", "Retry-After"],
    )
    return [
        Middleware(SecurityHeaders),
        Middleware(Access, instruments=instruments),
        *([cors] if origins else []),
        Middleware(Authentication, key=settings.api.key),
        Middleware(BodyLimit),
    ]


def _lifespan(
    settings: AppSettings, instruments: Instruments, gateway: Gateway | None, reports: Reports | None
) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        desk = Desk(gateway or await _gateway(settings), settings.api.ack_timeout)
        found = reports or _reports(settings, desk)
        app.state.parts = _parts(settings, instruments, desk, found)
        try:
            yield {STATE_KEY: Doorkeeper(raise_limit().connections, instruments)}
        finally:
            if reports is None:
                found.close()

    return run


def _reports(settings: AppSettings, desk: Desk) -> Reports:
    return PostgresReports(settings.database.url, Belonging(desk), live=settings.desk.mode == "live")


async def _gateway(settings: AppSettings) -> Gateway:
    client = await connect(dict(settings.temporal), lazy=True)
    return DeskGateway(client, settings.desk.desk, patience=settings.api.ack_timeout)


def _parts(settings: AppSettings, instruments: Instruments, desk: Desk, reports: Reports) -> Parts:
    name, mode, symbols = settings.desk.desk, settings.desk.mode, settings.desk.symbols
    return Parts(
        desk_name=name,
        mode=Mode(mode),
        desk=desk,
        commander=Commander(desk, symbols, settings.api.ack_timeout, instruments),
        reports=reports,
        health=Health(desk, reports, Expected(name, mode, symbols), DiskWatch(settings.disks.disk_folders)),
        instruments=instruments,
    )
