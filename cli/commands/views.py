"""Commands that show and change nothing: `ais status`, `watch`, `doctor`, `desks` and `log`."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import AsJson, DataDir, DeskName, use_data_dir, use_desk
from cli.terminal import coloured, expected_failures, say

if TYPE_CHECKING:
    from cli.doctor import Finding
    from cli.log import LogLine, WrongOption


def status(as_json: AsJson = False, desk: DeskName = None, data_dir: DataDir = None) -> None:
    """Show the desk as its coordinator reports it now. Example: ais status --desk main"""
    from cli import status as status_commands
    from cli.refusals import EXPECTED

    use_desk(desk)
    with expected_failures(*EXPECTED):
        use_data_dir(data_dir)
        typer.echo(asyncio.run(status_commands.status(as_json, say)))


def watch(desk: DeskName = None, data_dir: DataDir = None) -> None:
    """Show the desk full-screen, refreshed every second, until Ctrl-C. Example: ais watch --desk main

    Into a pipe or a file it prints one frame. Data older than 3 seconds is marked STALE.
    """
    from rich.console import Console

    from cli import watch as watching
    from cli.refusals import EXPECTED

    use_desk(desk)
    answered = True
    with expected_failures(*EXPECTED):
        use_data_dir(data_dir)
        with suppress(KeyboardInterrupt):
            answered = asyncio.run(watching.run(Console(highlight=False)))
    raise typer.Exit(0 if answered else 1)


def doctor(as_json: AsJson = False, desk: DeskName = None, data_dir: DataDir = None) -> None:
    """Check settings, Temporal, coordinator, worker, database, clock, API and disk, and say what to do. Example: ais doctor

    Exit status: 0 if nothing failed (warnings do not count), otherwise 1.
    """
    from cli import doctor as checks

    use_desk(desk)
    if data_dir:
        os.environ["AIS_DATA_DIR"] = str(data_dir.expanduser().resolve())

    def show(finding: "Finding") -> None:
        if not as_json:
            colour = {"warn": "yellow", "fail": "red"}.get(finding.verdict.value)
            typer.echo(coloured(checks.text_of(finding), colour))

    # `asyncio.run` would also wait for threads, up to five minutes: for a file system that hangs, or for whatever answers on
    # the API's port byte by byte.
    loop = asyncio.new_event_loop()
    try:
        found = loop.run_until_complete(checks.run(show))
    finally:
        loop.close()
    if as_json:
        typer.echo(checks.as_json(found))
    raise typer.Exit(0 if checks.passed(found) else 1)


def desks(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List every desk that Temporal knows: open ones, and those whose coordinator is closed. Example: ais desks"""
    from cli import desks as listing
    from cli.refusals import EXPECTED

    with expected_failures(*EXPECTED):
        use_data_dir(data_dir)
        found = asyncio.run(listing.desks(say))
        typer.echo(listing.as_json(found) if as_json else listing.table(found))


class LogKind(StrEnum):
    """What `ais log` can show."""

    DECISIONS = "decisions"
    COMMANDS = "commands"
    INSTRUCTIONS = "instructions"
    FILLS = "fills"


def log(
    kind: Annotated[LogKind, typer.Option(help="What to show.")] = LogKind.DECISIONS,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Number of rows to show, from the newest back.")] = 20,
    since: Annotated[
        str | None,
        typer.Option(help="Earliest time: 10m, 2h or 1d ago, or 2026-03-12T14:30:00 (UTC unless it has an offset)."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Latest time, exclusive, written like --since.")] = None,
    decision_type: Annotated[
        str | None, typer.Option("--type", help="order_intent, control, risk_action or no_action.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="Only rows of this symbol.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only decisions in which this agent voted.")] = None,
    command_id: Annotated[str | None, typer.Option(help="Only rows of this command.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep showing new rows until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line, with the keys of the HTTP API.")
    ] = False,
    desk: DeskName = None,
    data_dir: DataDir = None,
) -> None:
    """Show the desk's decisions, commands, instructions or fills, newest last. Example: ais log --since 1h --follow"""
    from cli import log as log_commands

    if follow and until:
        raise typer.BadParameter("--follow has no end: leave --until out.", param_hint="--until")
    use_desk(desk)
    options = {
        "--since": since, "--until": until, "--type": decision_type, "--symbol": symbol, "--agent": agent,
        "--command-id": command_id,
    }  # fmt: skip

    def show(line: "LogLine") -> None:
        typer.echo(log_commands.as_json(line) if as_json else coloured(line.text, line.colour))

    with expected_failures(*log_commands.EXPECTED), _wrong_usage(log_commands.WrongOption), suppress(KeyboardInterrupt):
        use_data_dir(data_dir)
        asyncio.run(log_commands.run(log_commands.query_of(kind.value, limit, options), show, say, follow=follow))


@contextmanager
def _wrong_usage(kind: "type[WrongOption]") -> Iterator[None]:
    """Turns a wrong option into exit code 2."""
    try:
        yield
    except kind as error:
        raise typer.BadParameter(str(error), param_hint=error.option) from None
