"""Generates docs/cli.md, the page of all arguments and options, from the commands themselves (`make docs`)."""

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

INTRODUCTION = """\
# Arguments and options

<!-- Written by `make docs` from cli/commands/: change that, not this. -->

What `ais COMMAND --help` says, for every command. What they need, their exit status and JSON: [commands](commands.md).
`--data-dir`, which most of them have, is explained [there](commands.md) as well.
"""
_EXAMPLE = re.compile(r"\s*Example: (ais .*?) *$", re.MULTILINE)
_NOT_TOLD = {"--help", "--data-dir"}


def page() -> str:
    """The text of docs/cli.md. A test fails if the file differs."""
    # Not at the top: that module is about to import its commands.
    from cli.app import app

    return INTRODUCTION + "".join(_section(name, command) for name, command in _commands("ais", get_command(app)))


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command that does something, in the order of `ais --help`."""
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child in command.list_commands(None):
        yield from _commands(f"{name} {child}", children[child])


def _section(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    help_text = command.help or ""
    shell = "\n".join([usage, *_EXAMPLE.findall(help_text)])
    text = f"\n## {name}\n\n{_EXAMPLE.sub('', help_text).strip()}\n\n```\n{shell}\n```\n"
    records = [it.get_help_record(context) for it in command.params if _NOT_TOLD.isdisjoint(it.opts)]
    rows = [_row(*record) for record in records if record]
    return text + ("\n| argument or option | meaning |\n|---|---|\n" + "".join(rows) if rows else "")


def _row(names: str, meaning: str) -> str:
    cells = (f"`{names}`", meaning)
    return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|").strip() for cell in cells) + " |\n"
