"""Commands to a desk: `ais kill`, `pause`, `resume`, `cancel-all`, `deleverage`, `limits` and `symbols`."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import AsJson, DataDir, DeskName, Reason, readable, use_data_dir, use_desk
from cli.terminal import expected_failures, print_result, say, tell, told_if_interrupted

if TYPE_CHECKING:
    from domain.desk.states import CommandKind

symbols = typer.Typer(help="The symbols that a desk trades.", no_args_is_help=True, rich_markup_mode=None)


def kill(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[REASON]", help="The reason, as an alternative to --reason.")
    ] = None,
    reason: Reason = "",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until the kill is verified.")] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Maximum number of seconds to wait for the kill to be verified.")
    ] = 120.0,
    desk: DeskName = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Stop trading and cancel all orders at once, without asking for confirmation. Example: ais kill --reason "flash crash"

    Exit status: 0 killed and verified (with --no-wait: killed), 1 not sent, 3 recorded or not verified yet, 4 not known.
    Only `ais restart` undoes it.
    """
    from domain.desk.states import CommandKind

    _operate(
        CommandKind.KILL,
        {"reason": reason or readable(" ".join(words or []))},
        desk,
        as_json,
        data_dir,
        0 if no_wait else timeout,
    )


def pause(reason: Reason = "", desk: DeskName = None, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Send no new orders until `ais resume`. Resting orders and positions stay. Example: ais pause --reason "CPI at 12:30" """
    from domain.desk.states import CommandKind

    _operate(CommandKind.PAUSE, {"reason": reason}, desk, as_json, data_dir)


def resume(reason: Reason = "", desk: DeskName = None, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Let a paused desk trade again; refused while it is killed. Example: ais resume"""
    from domain.desk.states import CommandKind

    _operate(CommandKind.RESUME, {"reason": reason}, desk, as_json, data_dir)


def cancel_all(
    symbols: Annotated[list[str] | None, typer.Argument(help="Symbols. Without any, all symbols of the desk.")] = None,
    reason: Reason = "",
    desk: DeskName = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Cancel open orders; the desk keeps its state. Example: ais cancel-all BTCUSDT ETHUSDT"""
    from domain.desk.states import CommandKind

    fields = {"reason": reason, **({"symbols": symbols} if symbols else {})}
    _operate(CommandKind.CANCEL_ALL, fields, desk, as_json, data_dir)


def deleverage(
    symbol: Annotated[str, typer.Argument(help="The symbol of the position.")],
    share: Annotated[str, typer.Argument(metavar="SHARE", help="The share to reduce: 50% or 0.5.")],
    reason: Reason = "",
    desk: DeskName = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Reduce a position by a share of it, with a reduce-only order. Example: ais deleverage BTCUSDT 50%"""
    from cli.operate import fraction
    from domain.desk.states import CommandKind

    try:
        asked = fraction(share)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="SHARE") from None
    fields = {"reason": reason, "symbol": symbol, "reduce_pct": float(asked)}
    _operate(CommandKind.DELEVERAGE, fields, desk, as_json, data_dir)


@symbols.command("add")
def add_symbols(
    names: Annotated[list[str], typer.Argument(metavar="SYMBOL...", help="The symbols.")],
    reason: Reason = "",
    desk: DeskName = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Add symbols to a paused desk; `ais resume` trades them. Only `ais restart --symbols` removes one.

    The venue must know each of them. Then set AIS_SYMBOLS as well. Example: ais symbols add SOLUSDT --reason "listed"
    """
    from domain.desk.states import CommandKind

    _operate(CommandKind.ADD_SYMBOLS, {"reason": reason, "symbols": names}, desk, as_json, data_dir)


def _operate(
    kind: "CommandKind", fields: dict[str, Any], desk: str | None, as_json: bool, data_dir: Path | None, wait: float = 0
) -> None:
    """Carries out one command, and ends with its exit status."""
    from cli import operate
    from cli.refusals import EXPECTED
    from domain.values import printable_lines

    use_desk(desk)
    with expected_failures(*EXPECTED):
        use_data_dir(data_dir)
        command = operate.OperatorCommand(kind, {name: value for name, value in fields.items() if value != ""}, say)
        try:
            result = asyncio.run(command.run(wait))
        except KeyboardInterrupt:
            result = command.interrupted()
    text = operate.as_json(command, kind, result) if as_json else printable_lines(result.text)
    print_result(text, err=not as_json and result.code is not operate.ExitCode.DONE)
    raise typer.Exit(result.code)


def limits(
    changes: Annotated[
        list[str] | None, typer.Argument(help="One or more NAME=VALUE. Without any, shows all limits.")
    ] = None,
    reason: Reason = "",
    desk: DeskName = None,
    data_dir: DataDir = None,
) -> None:
    """Show the limits of a desk, or change them. Tightening works at once, loosening only while the desk is paused.

    Example: ais limits max_leverage=1.5 --reason "volatile day"
    """
    from cli import status
    from cli.refusals import EXPECTED

    use_desk(desk)
    asked: dict[str, str] = {}
    for text in changes or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE, such as max_leverage=1.5.", param_hint="CHANGES")
        asked[name.strip()] = value.strip()
    with expected_failures(*EXPECTED), told_if_interrupted(status.NOT_KNOWN if asked else "nothing was changed"):
        use_data_dir(data_dir)
        done = status.set_limits(asked, reason.strip()) if asked else status.limits()
        tell(asyncio.run(done))
