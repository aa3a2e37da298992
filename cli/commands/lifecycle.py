"""Commands that start a desk, bring it back from a kill, or end its claim: `ais start`, `restart` and `release`."""

import asyncio
import sys
from enum import StrEnum
from typing import Annotated

import typer

from cli import STARTED_AT
from cli.options import DataDir, DeskName, Reason, need_reason, use_data_dir, use_desk
from cli.terminal import expected_failures, fail, say, tell, told_if_interrupted


class ModeName(StrEnum):
    """The modes, defined here so that `ais --help` need not import the domain."""

    paper = "paper"
    shadow = "shadow"
    live = "live"


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
NewSymbols = Annotated[str | None, typer.Option(help="The new whitelist, separated by commas.")]
NewCycle = Annotated[float | None, typer.Option(help="The new time from one cycle to the next.")]
NewFlattens = Annotated[
    bool | None, typer.Option("--kill-flattens/--no-kill-flattens", help="Whether kills close positions from now on.")
]
FromSettings = Annotated[bool, typer.Option("--from-settings", help="Take all of these from the settings.")]
ToMode = Annotated[
    ModeName | None, typer.Option(help="The new mode: paper, shadow or live. A worker of that mode has to be up.")
]
WithPositions = Annotated[
    bool, typer.Option("--with-positions", help="Change the mode even if the old venue has positions or orders.")
]


MAY_RUN = (
    "it is not known whether the desk was started: it may be running; look at `ais status`, or stop it with `ais kill`"
)


def start(desk: DeskName = None, data_dir: DataDir = None) -> None:
    """Start the coordinator of a desk that never ran. Does nothing if it is open already. Example: ais start"""
    from cli import desk as desk_commands
    from cli.refusals import EXPECTED

    use_desk(desk)
    with expected_failures(*EXPECTED), told_if_interrupted(MAY_RUN):
        use_data_dir(data_dir)
        tell(asyncio.run(desk_commands.start(say)))


def restart(
    reason: Reason,
    yes: Yes = False,
    symbols: NewSymbols = None,
    cycle_seconds: NewCycle = None,
    kill_flattens: NewFlattens = None,
    from_settings: FromSettings = False,
    mode: ToMode = None,
    with_positions: WithPositions = False,
    desk: DeskName = None,
    data_dir: DataDir = None,
) -> None:
    """Bring a killed desk back to running. There is no other way; a kill that arrives meanwhile wins.

    The desk keeps its symbols, cycle, mode and AIS_KILL_FLATTENS unless you name others.

    Example: ais restart --reason "add SOL" --symbols BTCUSDT,SOLUSDT
    """
    from cli import desk as desk_commands
    from cli.lifecycle import RestartAsked
    from cli.refusals import EXPECTED

    use_desk(desk)
    need_reason(reason)
    if not yes and not is_terminal():
        raise typer.BadParameter(
            "stdin is not a terminal, so `ais` cannot ask for confirmation: add --yes.", param_hint="--yes"
        )
    with expected_failures(*EXPECTED):
        use_data_dir(data_dir)
        terms = desk_commands.asked_terms(symbols, cycle_seconds, kill_flattens, from_settings)
        new_mode = desk_commands.named_mode(mode.value if mode else None, with_positions)
        if new_mode or terms.model_dump(exclude_none=True):
            say(asyncio.run(desk_commands.preview(terms, new_mode)))
        # Whoever confirms thinks of this kill, and may take an hour to answer.
        asked = RestartAsked(STARTED_AT, None if yes else asyncio.run(desk_commands.newest_kill()))
        if not yes:
            _confirm(desk_commands.desk_name(), mode)
        with told_if_interrupted(MAY_RUN):
            tell(asyncio.run(desk_commands.restart(reason.strip(), asked, terms, new_mode, say)))


def is_terminal() -> bool:
    """Whether there is a person to ask."""
    return sys.stdin.isatty()


def _confirm(desk: str, mode: ModeName | None) -> None:
    """Asks a person to confirm; raises Exit if the answer is no. Real money takes more than a single letter."""
    if mode is not ModeName.live:
        sure = typer.confirm(f"Trading will start again. Restart desk {desk!r}?")
    else:
        sure = typer.prompt(f"Type the desk's name ({desk}) to have it trade with real money", default="") == desk
    if not sure:
        fail("nothing was restarted")


def release(reason: Reason, desk: DeskName = None, data_dir: DataDir = None) -> None:
    """Give back the account of a live desk that is killed and verified, so that another desk can use it.

    Example: ais release --reason "the account moves to desk second"
    """
    from cli import desk as desk_commands
    from cli.refusals import EXPECTED

    use_desk(desk)
    need_reason(reason)
    with expected_failures(*EXPECTED):
        use_data_dir(data_dir)
        tell(asyncio.run(desk_commands.release(reason.strip(), say)))
