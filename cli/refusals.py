"""Texts for a start or restart that is refused or breaks off: what is certain at that point, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from domain.values import printable
from startup import NotUp
from workflows import names
from workflows.gateway import GatewayError

LOOK = "look at `ais status`"


class Refused(Exception):
    """The desk was not started or restarted; the text says why and what to do.

    `passing`: a store did not answer, so the same attempt may succeed a moment later.
    """

    def __init__(self, text: str, passing: bool = False) -> None:
        super().__init__(printable(text))
        self.passing = passing


# What a command to a desk may end with, for a person to resolve.
EXPECTED = (Refused, NotUp, GatewayError)


@contextmanager
def told_if_it_fails(known: str) -> Iterator[None]:
    """Wraps a step that may fail; `known` says what is certain in that case, and what to do."""
    # Imported late: only a start and a restart need the database, and a kill must not wait for its packages.
    from storage.database import DatabaseUnavailable

    try:
        yield
    except DatabaseUnavailable as error:
        raise Refused(f"{known} (the database cannot be reached: {error})", passing=True) from error
    except GatewayError as error:
        raise Refused(f"{known} ({error})", passing=True) from error


def how_to_stop(desk: str) -> str:
    """Two ways to kill without the API."""
    return f"`ais kill --desk {desk}` or `temporal workflow signal --workflow-id {names.workflow_id(desk)} --name kill` kills it"


def may_run(desk: str) -> str:
    """What to do after a step whose effect is not known."""
    return f"the desk may be running; {LOOK}; {how_to_stop(desk)}"
