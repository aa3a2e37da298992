"""The `ais` command. It puts things together and turns outcomes into exit codes; what is allowed is decided elsewhere.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage. An expected failure is one line on stderr, never a traceback.
"""

from datetime import UTC, datetime

# Before the imports, which take a second: a kill that comes from now on was not what a restart was asked for.
STARTED_AT = datetime.now(UTC)

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

import settings
from domain.values import printable_lines

app = typer.Typer(
    help="AIS: the control plane of a trading desk.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="The data folder of a running `ais dev` (or AIS_DATA_DIR).")
]


def main() -> None:
    """The entry point of the console script `ais` and of `python -m cli`."""
    from startup import leave

    try:
        app(prog_name="ais")
    except SystemExit as stop:
        leave(stop.code)


@app.command()
def dev(
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept. [default: .ais]")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0 picks a free one. [default: 8000]")] = None,
    temporal_port: Annotated[int, typer.Option(help="Port of Temporal; 0 picks a free one.")] = 7233,
    ui_port: Annotated[int, typer.Option(help="Port of Temporal's web UI; 0 picks a free one.")] = 8233,
    desk: Annotated[str | None, typer.Option(help="The desk to run. [default: main]")] = None,
    symbols: Annotated[str | None, typer.Option(help="The whitelist. [default: BTCUSDT,ETHUSDT]")] = None,
    cycle_seconds: Annotated[float | None, typer.Option(help="From one cycle to the next. [default: 5]")] = None,
    market: Annotated[
        str | None, typer.Option(help="simulated, aster, or replay:FILE.csv. [default: simulated]")
    ] = None,
    without: Annotated[str, typer.Option(help="Parts to run by hand beside it: worker,api.")] = "",
) -> None:
    """Run everything on this machine: Temporal, PostgreSQL, worker, API and the coordinator. Ctrl-C stops it."""
    # Here and not above: it needs the development requirements, which a container of the worker does not have.
    from deploy.dev.config import Flags
    from deploy.dev.console import Console
    from deploy.dev.errors import StackError
    from deploy.dev.stack import Stack

    left_out = _parts(without)
    with expected_failures(StackError):
        flags = Flags(data_dir, port, temporal_port, ui_port, desk, symbols, cycle_seconds, market, left_out)
        asyncio.run(Stack(flags.resolve(), Console()).run())


def _parts(without: str) -> frozenset[str]:
    parts = frozenset(part.strip() for part in without.split(",") if part.strip())
    if unknown := parts - {"worker", "api"}:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: only worker and api can be left out.")
    return parts


@app.command()
def api(
    port: Annotated[int | None, typer.Option(help="[default: AIS_API_PORT, or 8000]")] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many processes serve the port.")] = 1,
    host: Annotated[str, typer.Option(help="0.0.0.0 listens on all addresses.")] = "127.0.0.1",
    data_dir: DataDir = None,
) -> None:
    """Serve the HTTP API."""
    import uvicorn

    from api.descriptors import raise_limit

    with expected_failures():
        use_data_dir(data_dir)
        configured = settings.ApiSettings.load()
        settings.DeskSettings.load()
        settings.DatabaseSettings.load()
        chosen = configured.api_port if port is None else port
        _refuse_a_taken_port(host, chosen)
    with _shared_metrics(workers):
        uvicorn.run(
            "api.app:create_app", factory=True, host=host, port=chosen, workers=workers, log_config=None,
            access_log=False, server_header=False, timeout_graceful_shutdown=10, timeout_keep_alive=75,
            http="api.door:Door", ws="none", backlog=raise_limit().waiting,
        )  # fmt: skip


def _refuse_a_taken_port(host: str, port: int) -> None:
    """uvicorn would say it too, but with several workers each of them does, in a traceback, for ever."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            fail(f"Cannot listen on {host}:{port} ({error.strerror}): choose another with --port.")


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """Several processes answer one /metrics: they count in files of one folder, which prometheus_client reads together.

    It has to be named before prometheus_client is imported, and to be empty: an earlier run's counts are not ours.
    """
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="ais-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database schema up to date."""
    from storage import migrate as migrations
    from storage.database import DatabaseUnavailable

    with expected_failures(DatabaseUnavailable, migrations.SchemaOutOfDate):
        migrations.upgrade(settings.DatabaseSettings.load(data_dir).url)
    typer.echo("The schema is up to date and complete.")


@app.command()
def start(data_dir: DataDir = None) -> None:
    """Start the coordinator of a desk that never ran; nothing happens where it is open already."""
    import desk_commands

    with expected_failures(*desk_commands.EXPECTED):
        use_data_dir(data_dir)
        typer.echo(asyncio.run(desk_commands.start(say)))


@app.command()
def restart(
    reason: Annotated[str, typer.Option(help="Why; recorded in the decision log.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Bring a killed desk back to running. The only way there is; a kill that comes meanwhile wins."""
    import desk_commands

    if not reason.strip():
        raise typer.BadParameter("it must not be empty.", param_hint="--reason")
    _confirm(yes)
    with expected_failures(*desk_commands.EXPECTED):
        use_data_dir(data_dir)
        typer.echo(asyncio.run(desk_commands.restart(reason.strip(), STARTED_AT, say)))


@app.command()
def release(
    reason: Annotated[str, typer.Option(help="Why; recorded in the decision log.")], data_dir: DataDir = None
) -> None:
    """Give back the account of a live desk that is killed and verified, so that another desk may trade on it."""
    import desk_commands

    if not reason.strip():
        raise typer.BadParameter("it must not be empty.", param_hint="--reason")
    with expected_failures(*desk_commands.EXPECTED):
        use_data_dir(data_dir)
        typer.echo(asyncio.run(desk_commands.release(reason.strip(), say)))


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("stdin is not a terminal, so nobody can be asked: add --yes.", param_hint="--yes")
    if not typer.confirm("Trading starts again. Restart the desk?"):
        raise typer.Exit(1)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False, data_dir: DataDir = None
) -> None:
    """Show the coordinator's status."""
    import desk_commands

    with expected_failures(*desk_commands.EXPECTED):
        use_data_dir(data_dir)
        typer.echo(asyncio.run(desk_commands.status(as_json, say)))


@app.command()
def limits(
    changes: Annotated[
        list[str] | None, typer.Argument(help="One or more NAME=VALUE; without any, shows all limits.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the decision log.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Show the limits of a desk, or change them: tighter at once, looser only while it is paused."""
    import desk_commands

    asked = dict(_change(text) for text in changes or [])
    with expected_failures(*desk_commands.EXPECTED):
        use_data_dir(data_dir)
        done = desk_commands.set_limits(asked, reason.strip(), say) if asked else desk_commands.limits(say)
        typer.echo(asyncio.run(done))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Bars: open_time_ms,open,high,low,close,volume; episodes by `episode`.")],
    symbol: Annotated[str, typer.Option(help="Whose bars these are.")],
    limit: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, repeatable: overrides a limit of the desk.")
    ] = None,
    balance: Annotated[
        str | None, typer.Option(help="What the account starts with. [default: AIS_PAPER_BALANCE]")
    ] = None,
    agents: Annotated[str | None, typer.Option(help="Names with commas between. [default: AIS_AGENTS]")] = None,
    volume: Annotated[
        str | None, typer.Option(help="What the volume counts: base or quote. [default: AIS_MARKET_VOLUME]")
    ] = None,
    funding: Annotated[Path | None, typer.Option(help="Rates: funding_time_ms,funding_rate.")] = None,
    episode: Annotated[str | None, typer.Option(help="One episode of the file, by its name or how it begins.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="The first bar's time, UTC.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="No bar from this time on, UTC.")] = None,
    json: Annotated[
        str | None, typer.Option(help="Where the JSON goes; - is standard output. [default: FILE.replay.json]")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="Where the PNG goes. [default: FILE.replay.png]")] = None,
    no_json: Annotated[bool, typer.Option("--no-json", help="Write no JSON.")] = False,
    no_chart: Annotated[bool, typer.Option("--no-chart", help="Draw no chart.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No table and no progress.")] = False,
) -> None:
    """Show what a desk would have done over a file of bars: decisions, fills, equity, limits. No server is needed."""
    from replay import command

    if volume not in (None, "base", "quote"):
        raise typer.BadParameter(f"{volume!r} is neither base nor quote.", param_hint="--volume")
    options = command.Options(
        file, symbol, volume, episode, since, until, balance, agents, limit or (), funding,  # type: ignore[arg-type]
        json=None if no_json else json or f"{file.stem}.replay.json",
        chart=None if no_chart else chart or Path(f"{file.stem}.replay.png"),
        quiet=quiet,
    )  # fmt: skip
    with expected_failures(*command.EXPECTED):
        command.run(options)


def _change(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE, such as max_leverage=1.5.", param_hint="CHANGES")
    return name.strip(), value.strip()


def say(text: str) -> None:
    """Progress, for people: beside the answer, not in it."""
    typer.echo(printable_lines(text), err=True)


def use_data_dir(data_dir: Path | None) -> None:
    """For processes that read the settings again, in this process or in a child: they look at AIS_DATA_DIR."""
    for name in settings.unknown_variables():
        say(f"warning: {name} is not a setting of AIS; docs/settings.md lists them all")
    if data_dir:
        os.environ["AIS_DATA_DIR"] = str(data_dir.expanduser().resolve())


@contextmanager
def expected_failures(*kinds: type[Exception]) -> Iterator[None]:
    """What a person can put right is a line and exit code 1; anything else is a bug and keeps its traceback."""
    try:
        yield
    except ValidationError as error:
        fail(settings.explain(error))
    except settings.NotConfigured as error:
        fail(str(error))
    except kinds as error:
        fail(str(error))


def fail(text: str) -> NoReturn:
    typer.echo(printable_lines(text), err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    main()
