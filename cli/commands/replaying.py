"""The command that needs no desk: `ais replay`."""

import gc
from pathlib import Path
from typing import Annotated

import typer

from cli.terminal import expected_failures

OwnLimits = Annotated[list[str] | None, typer.Option(help="NAME=VALUE, repeatable: overrides a limit of the desk.")]
Balance = Annotated[str | None, typer.Option(help="Opening balance of the account. [default: AIS_PAPER_BALANCE]")]
Unit = Annotated[str | None, typer.Option(help="Unit of the volume: base or quote. [default: AIS_MARKET_VOLUME]")]


def replay(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV of bars: open_time_ms,open,high,low,close,volume; a column `episode` splits the file."
        ),
    ],
    symbol: Annotated[str, typer.Option(help="The symbol of these bars.")],
    limit: OwnLimits = None,
    balance: Balance = None,
    agents: Annotated[str | None, typer.Option(help="Agents, separated by commas. [default: AIS_AGENTS]")] = None,
    volume: Unit = None,
    funding: Annotated[Path | None, typer.Option(help="CSV of funding rates: funding_time_ms,funding_rate.")] = None,
    episode: Annotated[str | None, typer.Option(help="One episode of the file, by its name or a prefix of it.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="Time of the first bar, UTC.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Stop before this time, UTC.")] = None,
    json: Annotated[
        str | None, typer.Option(help="File for the JSON; - is standard output. [default: FILE.replay.json]")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="File for the PNG chart. [default: FILE.replay.png]")] = None,
    no_json: Annotated[bool, typer.Option("--no-json", help="Write no JSON.")] = False,
    no_chart: Annotated[bool, typer.Option("--no-chart", help="Draw no chart.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No table and no progress.")] = False,
) -> None:
    """Show what a desk would have done over a file of bars: decisions, fills, equity, limits. Needs no server.

    Example: ais replay bars.csv --symbol BTCUSDT
    """
    # It imports for half a second, and nothing of that is garbage.
    gc.disable()
    try:
        from replay import command
    finally:
        gc.enable()

    if volume not in (None, "base", "quote"):
        raise typer.BadParameter(f"{volume!r} is neither base nor quote.", param_hint="--volume")
    with expected_failures(*command.EXPECTED):
        command.run(command.Options(
            file, symbol, volume, episode, since, until, balance, agents, limit or (), funding,  # type: ignore[arg-type]
            json=None if no_json else json or f"{file.stem}.replay.json",
            chart=None if no_chart else chart or Path(f"{file.stem}.replay.png"), quiet=quiet,
        ))  # fmt: skip
