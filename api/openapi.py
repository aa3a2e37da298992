"""What the OpenAPI document says of answers that several routes share."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from api.models import KILLED, Invalid, Problem, UnconfirmedKill
from domain.carried import Carried
from domain.limits import Limits
from domain.states import Mode
from domain.status import Status, status_of

Responses = dict[int | str, dict[str, Any]]

_TEXTS: dict[int, tuple[str, str]] = {
    401: ("The Bearer token is missing or invalid.", "Not authenticated"),
    404: ("No such thing.", "No command '9f1c' is known to the coordinator."),
    408: ("The body did not arrive in time.", "The body did not arrive within 10 s; nothing was done."),
    409: ("The state does not allow it.", KILLED),
    413: ("The body is too large.", "The body is larger than 64 KiB."),
    500: ("A bug; the trace is in the log.", "Internal Server Error"),
    503: (
        "Temporal, a worker or the database cannot be reached.",
        "the coordinator of desk 'main' was never started; if the desk is new, run `ais start`; if Temporal's store was lost, "
        "a person can start it again with `ais restart`",
    ),
}
COMMAND_ID = {
    "X-Command-Id": {"description": "The command's id.", "schema": {"type": "string"}},
    "X-AIS-Warning": {"description": "What could not be read or is unusual.", "schema": {"type": "string"}},
}
ACCEPTED = {
    **COMMAND_ID,
    "Location": {"description": "Where to ask what became of it.", "schema": {"type": "string"}},
    "Retry-After": {"description": "In seconds.", "schema": {"type": "string"}},
}


def problems(*statuses: int) -> Responses:
    """The errors of a route."""
    return {status: _problem(status) for status in statuses}


def answer(model: type[BaseModel] | object, description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    """One answer of a route."""
    return {"model": model, "description": description, **({"headers": headers} if headers else {})}


def unconfirmed_kill() -> dict[str, Any]:
    """503 of the kill."""
    detail = "not recorded: Temporal cannot be reached"
    example = {"detail": detail, "cancel_instructions": [{"tool": "cancel_all_orders", "symbol": "BTCUSDT"}]}
    found = answer(UnconfirmedKill, "Not recorded, or nobody knows whether it was.", COMMAND_ID)
    return {**found, "content": {"application/json": {"example": example}}}


def status_answer() -> dict[str, Any]:
    """200 of the whole status; the example is what a new coordinator answers."""
    at = datetime(2026, 3, 12, 14, 30, tzinfo=UTC)
    fresh = Carried(
        desk="main",
        mode=Mode.PAPER,
        symbols=["BTCUSDT", "ETHUSDT"],
        cycle_seconds=60,
        limits=Limits(),
        search_attributes=True,
        started_at=at,
        since=at,
    )
    example = status_of(fresh, run_id="0190f3a2-c4e1-7d00-8000-000000000001").model_dump(mode="json")
    return {**answer(Status, "The whole status."), "content": {"application/json": {"example": example}}}


def _problem(status: int) -> dict[str, Any]:
    if status == 422:
        return answer(Invalid, "The body, a header or the query is invalid.")
    description, detail = _TEXTS[status]
    return {**answer(Problem, description), "content": {"application/json": {"example": {"detail": detail}}}}
