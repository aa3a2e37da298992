"""Output and failures of the commands of `ais`: an expected failure is one line on stderr, never a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import typer


def coloured(text: str, colour: str | None) -> str:
    """The text in colour, on a terminal and unless NO_COLOR is set."""
    wanted = colour and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return typer.style(text, fg=colour) if wanted else text


def tell(text: str) -> None:
    """Prints the result, which may hold what somebody else wrote, such as a reason, and must not control the terminal."""
    from domain.values import printable_lines

    if not print_result(printable_lines(text)):
        say(text)


def print_result(text: str, *, err: bool = False) -> bool:
    """Prints the result as it is; whether it could. The exit status tells it too: a full disk, a closed pipe or a terminal that
    lacks a character must not make a kill or a restart look failed.
    """
    try:
        typer.echo(text, err=err)
        sys.stdout.flush()
    except (OSError, ValueError):
        # Whatever is still unwritten would fail again at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2 if err else 1)
        return False
    return True


def say(text: str) -> None:
    """Prints progress to standard error, so that it stays out of the result. Nobody has to read it: a closed pipe must not end a
    restart between two steps."""
    from domain.values import printable_lines

    with suppress(OSError, ValueError):
        typer.echo(printable_lines(text), err=True)


@contextmanager
def expected_failures(*kinds: type[Exception]) -> Iterator[None]:
    """Turns an error that a person can fix into one line and exit code 1. Anything else is a bug and keeps its traceback."""
    from pydantic import ValidationError

    import settings

    try:
        yield
    except ValidationError as error:
        fail(settings.explain(error))
    except settings.NotConfigured as error:
        fail(str(error))
    except kinds as error:
        from storage.database import DatabaseUnavailable

        advice = "; `ais doctor` shows which part does not answer" if isinstance(error, DatabaseUnavailable) else ""
        fail(f"{error}{advice}")


@contextmanager
def told_if_interrupted(known: str) -> Iterator[None]:
    """Around what may have taken effect already when a person presses Ctrl-C: says what is known then, and exits with 1."""
    try:
        yield
    except KeyboardInterrupt:
        fail(f"you stopped waiting: {known}")


def fail(text: str) -> NoReturn:
    """Prints what is wrong, and exits with 1."""
    from domain.values import printable_lines

    typer.echo(printable_lines(text), err=True)
    raise typer.Exit(1)
