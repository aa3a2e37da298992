"""The `ais` command. It parses the command line and turns outcomes into exit codes; other modules decide what is allowed.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage. Commands to a desk also: 3 recorded but not confirmed, 4 not known.
"""

import errno
import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.commands import auditing, lifecycle, operating, processes, replaying, views
from cli.commands.keys import keys


class _GroupsLast(TyperGroup):
    """Lists groups of commands after single commands; Typer would list them first."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: isinstance(self.commands[name], TyperGroup))


app = typer.Typer(
    cls=_GroupsLast, help="AIS: the control plane of a trading desk.", no_args_is_help=True,
    pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip

# What writing to a disk without space, a quota or a broken disk ends with.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

# In the order of `ais --help`.
_COMMANDS = (
    processes.dev,
    processes.api,
    processes.migrate,
    processes.notify,
    lifecycle.start,
    lifecycle.restart,
    lifecycle.release,
    views.status,
    views.watch,
    views.doctor,
    operating.kill,
    operating.pause,
    operating.resume,
    operating.cancel_all,
    operating.deleverage,
    operating.limits,
    views.desks,
    views.log,
    replaying.replay,
)
for command in _COMMANDS:
    app.command(command.__name__.replace("_", "-"))(command)
app.add_typer(auditing.app, name="audit")
app.add_typer(keys, name="keys")
app.add_typer(operating.symbols, name="symbols")


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("ais"))
        raise typer.Exit


@app.callback()
def _ais(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """AIS: the control plane of a trading desk."""


def main() -> None:
    """The entry point of the console script `ais` and of `python -m cli`."""
    from startup import leave

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal may lack a character of somebody's reason: it is shown as an escape, as standard error does already.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="ais")
    except SystemExit as stop:
        leave(stop.code)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        leave(f"the output or a file cannot be written: {error.strerror}")


if __name__ == "__main__":
    main()
