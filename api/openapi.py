"""The OpenAPI descriptions of answers that several routes share.

The errors themselves make their examples, so that these read exactly like the API's answers.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from inspect import cleandoc
from typing import Any, TypeVar

from pydantic import BaseModel

from api.body_limit import BODY_SECONDS, MAX_BODY_BYTES
from api.errors import (
    ApiError,
    BodyTooLarge,
    BodyTooSlow,
    BooksUnread,
    CommandRefused,
    CoordinatorUnavailable,
    InvalidRequest,
    NeedsRole,
    NotAuthenticated,
    NotForThisDesk,
    NotRecorded,
    PerhapsRecorded,
    ReportsUnavailable,
    TooManyWaiting,
    UnknownCommand,
)
from api.models import KILLED, AcceptedAnswer, HealthAnswer, Invalid, Problem, UnconfirmedKill
from domain.desk.applying import apply
from domain.desk.carried import Carried
from domain.desk.commands import Command
from domain.desk.recording import Tick
from domain.desk.states import CommandKind, Mode
from domain.desk.status import status_of
from domain.keys import Role
from domain.risk.limits import Limits
from domain.trading.instructions import cancel_instructions
from workflows.gateway import NoCoordinator

Responses = dict[int | str, dict[str, Any]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

# The manual's address relative to /docs and /redoc, whatever prefix a proxy puts before both.
_MANUAL = "manual"
_COMMAND = "9f1c"
_NEVER_STARTED = str(NoCoordinator("main", None))
_UNREACHABLE = "Temporal cannot be reached (connection refused); check that it runs and what TEMPORAL_ADDRESS says"
_NO_WORKER = "no worker answered for the coordinator of desk 'main' within 3 s; start a worker: python worker.py"
_CANCELS = cancel_instructions(["BTCUSDT"])

Examples = Mapping[str, ApiError]
ASKING: Examples = {
    "no_coordinator": CoordinatorUnavailable(_NEVER_STARTED),
    "no_worker": CoordinatorUnavailable(_NO_WORKER),
    "temporal_is_down": CoordinatorUnavailable(_UNREACHABLE),
}
READING: Examples = {"database_is_down": ReportsUnavailable(ConnectionRefusedError("connection refused"))}
READING_BOOKS: Examples = {**READING, "books_not_known_yet": BooksUnread("main", None)}
SENDING: Examples = {
    "not_recorded": NotRecorded(_UNREACHABLE, None),
    "no_coordinator": NotRecorded(_NEVER_STARTED, None),
    "not_known": PerhapsRecorded(_COMMAND, None),
    "too_many_waiting": TooManyWaiting(101, 100),
}
KILLING: Examples = {
    "not_recorded": NotRecorded(_UNREACHABLE, _CANCELS),
    "not_known": PerhapsRecorded(_COMMAND, _CANCELS),
}
_UNKNOWN_FIELD = InvalidRequest(("body", "symbol"), "Extra inputs are not permitted", "extra_forbidden")
_REUSED_KEY = InvalidRequest(
    ("header", "Idempotency-Key"),
    "this key was used for another command (pause, applied); nothing was done",
    "idempotency_key_reused",
)
COMMANDING: Examples = {"unknown_field": _UNKNOWN_FIELD, "reused_key": _REUSED_KEY}
FILTERING: Examples = {
    "unknown_filter": InvalidRequest(("query", "symbols"), "Extra inputs are not permitted", "extra_forbidden"),
    "time_without_offset": InvalidRequest(
        ("query", "since"), "must be an ISO 8601 time with an offset (2026-03-12T14:30:00+00:00)", "moment"
    ),
}

_ERRORS: dict[int, tuple[str, Examples]] = {
    401: ("The Bearer token is missing or invalid.", {"no_key": NotAuthenticated()}),
    403: ("The key is valid, but its role or its desks do not allow this; nothing was done.", {
        "role": NeedsRole("http:wall-screen", Role.VIEWER, Role.OPERATOR),
        "desk": NotForThisDesk("alice", ("second",), "main"),
    }),
    404: ("There is nothing under this name or id.", {"unknown_id": UnknownCommand(_COMMAND)}),
    408: ("The body did not arrive in time; nothing was done.", {"too_slow": BodyTooSlow(BODY_SECONDS)}),
    409: ("The state does not allow it; nothing was done.", {"killed": CommandRefused(KILLED)}),
    413: ("The body is too large; nothing was done.", {"too_large": BodyTooLarge(MAX_BODY_BYTES)}),
    422: ("The body, a header or the query is invalid; nothing was done.", COMMANDING),
    500: ("A bug; the log has the traceback under the response's `X-Request-Id`.", {"bug": ApiError("Internal Server Error")}),
    503: ("Temporal, a worker or the database cannot be reached; `detail` says which, and what to do.", ASKING),
}  # fmt: skip
COMMAND_ID = {
    "X-Command-Id": {"description": "The command's id.", "schema": {"type": "string"}},
    "X-AIS-Warning": {"description": "What was ignored, or needs attention.", "schema": {"type": "string"}},
}
ACCEPTED = {
    **COMMAND_ID,
    "Location": {"description": "The URL of the command's outcome.", "schema": {"type": "string"}},
    "Retry-After": {"description": "In seconds.", "schema": {"type": "string"}},
}


def see(*pages: str) -> Callable[[Endpoint], Endpoint]:
    """Ends an endpoint's description with links to these pages of the manual."""

    def add(endpoint: Endpoint) -> Endpoint:
        endpoint.__doc__ = f"{cleandoc(endpoint.__doc__ or '')}\n\n{links(*pages)}"
        return endpoint

    return add


def links(*pages: str) -> str:
    """`More: …`, with a link to each page."""
    return f"More: {', '.join(f'[{page}]({_MANUAL}/{page}.md)' for page in pages)}."


def bodies(**examples: Any) -> dict[str, Any]:
    """Named examples of a request's body, each titled with its name."""
    return {name: {"summary": name.replace("_", " ").capitalize(), "value": value} for name, value in examples.items()}


def problems(*statuses: int) -> Responses:
    """The errors that a route shares with most others."""
    return {status: problem(status) for status in statuses}


def problem(status: int, examples: Examples | None = None, description: str | None = None) -> dict[str, Any]:
    """One error of a route, with the route's own examples if it has any."""
    meaning, usual = _ERRORS[status]
    shown = {name: error.body for name, error in (examples or usual).items()}
    return answer(Invalid if status == 422 else Problem, description or meaning, examples=shown)


def refusal(**details: str) -> dict[str, Any]:
    """The 409 of a command, with an example of each refusal."""
    return problem(409, {name: CommandRefused(detail) for name, detail in details.items()})


def answer(
    model: type[BaseModel] | object,
    description: str,
    headers: dict[str, Any] | None = None,
    examples: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One answer of a route. Without `examples`, those of the model are shown."""
    content = {"content": {"application/json": {"examples": bodies(**examples)}}} if examples else {}
    return {"model": model, "description": description, **({"headers": headers} if headers else {}), **content}


def accepted(action: str) -> dict[str, Any]:
    """202 of a command."""
    description = "Recorded by Temporal, but not confirmed in time: it takes effect once a worker is up."
    return answer(AcceptedAnswer, description, ACCEPTED, {"not_confirmed_yet": {"action": action}})


def unconfirmed_kill() -> dict[str, Any]:
    """503 of the kill."""
    description = "Not recorded, or this is not known; carry out the cancels by hand, and try another way to kill."
    shown = {name: error.body for name, error in KILLING.items()}
    return answer(UnconfirmedKill, description, COMMAND_ID, shown)


def unhealthy() -> dict[str, Any]:
    """503 of health."""
    found = HealthAnswer(
        status="degraded", aster_connected=False, db_connected=True, redis_connected=False, temporal_connected=False
    )
    return answer(HealthAnswer, "Temporal cannot be reached.", examples={"temporal_is_down": found.model_dump()})


@cache
def status_example() -> dict[str, Any]:
    """The status right after a kill."""
    at = datetime(2026, 3, 12, 14, 30, tzinfo=UTC)
    carried = Carried(
        desk="main",
        mode=Mode.PAPER,
        symbols=["BTCUSDT", "ETHUSDT"],
        cycle_seconds=60,
        limits=Limits(),
        search_attributes=True,
        started_at=at,
        since=at,
        last_cycle_at=at,
    )
    kill = Command(
        command_id=_COMMAND, kind=CommandKind.KILL, actor="http", reason="drawdown exceeded manual threshold"
    )
    apply(carried, kill, Tick(at, lambda prefix: f"{prefix}_0190f3a2c4e1d0000000000000000001"))
    return status_of(carried, run_id="0190f3a2-c4e1-7d00-8000-000000000001").model_dump(mode="json")
