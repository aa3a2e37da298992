"""Commands that run a process or maintain what it needs: `ais dev`, `api`, `migrate` and `notify`."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir, DeskName, use_data_dir, use_desk
from cli.terminal import expected_failures, fail

# A folder of this process alone is made in it.
MEMORY = "/dev/shm"  # noqa: S108
# A process that says nothing for this long is killed and restarted. By default (5 s), one on a slow machine never came up: it
# takes longer until it can answer. One that was merely suspended died with the kills that it was answering.
SILENT_SECONDS = 30


def dev(
    data_dir: Annotated[Path | None, typer.Option(help="The folder for all data. [default: .ais]")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0 picks a free one. [default: 8000]")] = None,
    temporal_port: Annotated[int, typer.Option(help="Port of Temporal; 0 picks a free one.")] = 7233,
    ui_port: Annotated[int, typer.Option(help="Port of Temporal's web UI; 0 picks a free one.")] = 8233,
    desk: Annotated[str | None, typer.Option(help="The desk to run. [default: main]")] = None,
    symbols: Annotated[str | None, typer.Option(help="The whitelist. [default: BTCUSDT,ETHUSDT]")] = None,
    cycle_seconds: Annotated[float | None, typer.Option(help="Time from one cycle to the next. [default: 5]")] = None,
    market: Annotated[
        str | None, typer.Option(help="simulated, aster, or replay:FILE.csv. [default: simulated]")
    ] = None,
    without: Annotated[str, typer.Option(help="Parts to leave out because you run them by hand: worker,api.")] = "",
    redis: Annotated[bool, typer.Option("--redis", help="Also run a Redis that mirrors the desk's state.")] = False,
) -> None:
    """Run everything on this machine: Temporal, PostgreSQL, worker, API and the coordinator. Ctrl-C stops it.

    Example: ais dev --symbols BTCUSDT --cycle-seconds 1
    """
    # Imported here because it needs the development requirements, which a worker's container does not have.
    from cli.dev.config import Flags
    from cli.dev.console import Console
    from cli.dev.errors import StackError
    from cli.dev.stack import Stack

    left_out = frozenset(part.strip() for part in without.split(",") if part.strip())
    if unknown := left_out - {"worker", "api"}:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: only worker and api can be left out.")
    with expected_failures(StackError):
        flags = Flags(data_dir, port, temporal_port, ui_port, desk, symbols, cycle_seconds, market, left_out, redis)
        asyncio.run(Stack(flags.resolve(), Console()).run())


def api(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on. [default: AIS_API_PORT, or 8000]")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes that serve the port.")] = 1,
    host: Annotated[str, typer.Option(help="0.0.0.0 listens on all addresses.")] = "127.0.0.1",
    data_dir: DataDir = None,
) -> None:
    """Serve the HTTP API. Example: ais api --port 8000 --workers 2"""
    import uvicorn

    from api.app_settings import AppSettings
    from api.descriptors import raise_limit
    from startup import TracesNotInstalled, configure_logging, need_traces

    with expected_failures(TracesNotInstalled):
        use_data_dir(data_dir)
        # All of them, here: of several processes each would end over a wrong one, and be started again, for ever.
        configured = AppSettings.load()
        need_traces(configured.traces)
        chosen = configured.api.api_port if port is None else port
        _refuse_a_taken_port(host, chosen)
    with ExitStack() as shared:
        if workers > 1:
            # Each process counts in files of one folder, and prometheus_client adds them up for one /metrics. The folder must
            # be set before prometheus_client is imported, and must be empty: an earlier run's counts are not ours.
            counts = shared.enter_context(tempfile.TemporaryDirectory(prefix="ais-metrics-", dir=memory_folder()))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = counts
            # This process only supervises. Its log alone tells of a process that died, or was silent and is killed.
            configure_logging(configured.log)
        # Once everything is answered, uvicorn sends itself the signal again, which would end this process as if it had failed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        uvicorn.run(
            "api.app:create_app", factory=True, host=host, port=chosen, workers=workers, log_config=None,
            access_log=False, server_header=False, timeout_graceful_shutdown=10, timeout_keep_alive=75,
            http="api.door:Door", ws="none", backlog=raise_limit().waiting,
            timeout_worker_healthcheck=SILENT_SECONDS,
        )  # fmt: skip


def memory_folder() -> str | None:
    """A folder in memory; None where there is none, and a temporary folder has to do.

    Each count is written into a file that is mapped into memory. If its disk is full, that ends the process (SIGBUS, measured),
    and no kill gets through over HTTP although Temporal would take it.
    """
    return MEMORY if os.path.isdir(MEMORY) and os.access(MEMORY, os.W_OK | os.X_OK) else None


def _refuse_a_taken_port(host: str, port: int) -> None:
    """Checks the port here, because with several workers each uvicorn process would print a traceback, for ever."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        fail(f"Cannot listen on {host} ({error}): --host takes an address of this machine.")
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            fail(f"Cannot listen on {host}:{port} ({error.strerror}): choose another with --port.")


def migrate(
    schema_only: Annotated[
        bool,
        typer.Option(
            "--schema-only",
            help="Only change the schema, which is all that a worker needs; skip the indexes and totals of reports.",
        ),
    ] = False,
    grant: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE", help="Afterwards grant this role exactly the rights that worker, API and `ais` need."
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Bring the database schema up to date, as the role that owns the tables. Example: ais migrate --grant ais_desk"""
    import settings
    from storage import migrate as migrations
    from storage.database import DatabaseUnavailable
    from storage.rights import NotGranted

    with expected_failures(DatabaseUnavailable, migrations.SchemaOutOfDate, NotGranted):
        url = settings.TableOwnerSettings.load(data_dir).url
        bring_up = migrations.upgrade_schema if schema_only else migrations.upgrade
        bring_up(url, partial(typer.echo, err=True))
        if grant:
            migrations.grant(url, grant)
            typer.echo(f"The role {grant} has its rights.")
    if schema_only:
        typer.echo("The schema is up to date. `ais migrate` builds what only reports need.")
    else:
        typer.echo("The schema is up to date and complete.")


def notify(
    what: Annotated[str, typer.Argument(metavar="test", help="test: one message to each channel.")],
    desk: DeskName = None,
    data_dir: DataDir = None,
) -> None:
    """Send a test message to each channel of AIS_NOTIFY_URLS, and report the results. Example: ais notify test

    Exits with 1 if a channel did not accept it.
    """
    import settings
    from cli.notify import try_all
    from notify.channels import channels_of

    if what != "test":
        raise typer.BadParameter(f"{what}: there is only `ais notify test`.")
    with expected_failures():
        use_data_dir(data_dir)
        use_desk(desk)
        channels = channels_of(settings.NotifySettings.load().targets)
        name = settings.DeskName.load().desk
    if not channels:
        fail("AIS_NOTIFY_URLS is not set, so nobody is notified (docs/notifications.md).")
    tried = list(try_all(name, channels))
    for one in tried:
        typer.echo(one.text)
    if not all(one.was_sent for one in tried):
        raise typer.Exit(1)
