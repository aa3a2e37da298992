"""Options shared by several commands of `ais`, and their meaning."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.terminal import say


def readable(reason: str) -> str:
    """As much of the reason as is recorded. Where an input is longer than 64 KiB, the coordinator does not read its command id
    either, and whoever waits for its outcome would never hear of it.

    Without lone surrogates, which terminals with another encoding produce: neither Temporal nor PostgreSQL accepts them.
    """
    from domain.desk.payloads import MAX_REASON_CHARS

    return reason.encode("utf-8", "replace").decode("utf-8")[:MAX_REASON_CHARS]


DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="The data folder of a running `ais dev` (or AIS_DATA_DIR).")
]
Reason = Annotated[str, typer.Option(help="Why; recorded in the decision log.", callback=readable)]
DeskName = Annotated[str | None, typer.Option(help="The desk. [default: AIS_DESK, or main]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def use_data_dir(data_dir: Path | None) -> None:
    """Exports the folder as AIS_DATA_DIR, for settings read later in this process or in a child."""
    import settings

    for name in settings.unknown_variables():
        say(f"warning: {name} is not a setting of AIS; docs/settings.md lists them all")
    if data_dir:
        os.environ["AIS_DATA_DIR"] = str(settings.absolute_folder(data_dir))


def need_reason(reason: str) -> None:
    """Refuses a blank reason."""
    if not reason.strip():
        raise typer.BadParameter("it must not be empty.", param_hint="--reason")


def use_desk(desk: str | None) -> None:
    """Exports the desk as AIS_DESK, for settings read later in this process."""
    if desk is not None and not desk.strip():
        raise typer.BadParameter("it must not be empty.", param_hint="--desk")
    if desk:
        os.environ["AIS_DESK"] = desk
