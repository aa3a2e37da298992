"""Output and failures of the commands of `ais`: an expected failure is one line on stderr, never a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer


def coloured(text: str, colour: str | None) -> str:
    """The text in colour, on a terminal and unless NO_COLOR is set."""
    wanted = colour and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return typer.style(text, fg=colour) if wanted else text


def tell(text: str) -> None:
    """Prints the result, which may hold what somebody else wrote, such as a reason, and must not control the terminal."""
    from domain.values import printable_lines

    typer.echo(printable_lines(text))


def say(text: str) -> None:
    """Prints progress to standard error, so that it stays out of the result."""
    from domain.values import printable_lines

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
        fail(str(error))


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
