"""Commands and the coordinator's state."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Request
from fastapi.responses import JSONResponse

from api.answers import outcome_body
from api.auth import require_authentication
from api.commands import Answer, Ask
from api.errors import InvalidRequest, UnknownCommand
from api.json_route import CommandRoute, idempotency_key
from api.kill_body import read_kill_body
from api.models import (
    AcceptedAnswer,
    CancelAllAnswer,
    CommandAnswer,
    DeleverageAnswer,
    KillAcceptedAnswer,
    KilledAnswer,
    LimitsAnswer,
    ModeAnswer,
    PausedAnswer,
    ResumedAnswer,
    StateAnswer,
)
from api.openapi import ACCEPTED, COMMAND_ID, Responses, answer, problems, status_answer, unconfirmed_kill
from api.requests import CancelAllRequest, DeleverageRequest, KillRequest, LimitsRequest, PauseRequest, ResumeRequest
from api.state import PartsOf
from domain.commands import MAX_COMMAND_ID_CHARS
from domain.states import CommandKind
from domain.status import Status

_GUARDED = [Depends(require_authentication)]
queries = APIRouter(prefix="/control", tags=["control"], dependencies=_GUARDED)
commands = APIRouter(prefix="/control", tags=["control"], dependencies=_GUARDED, route_class=CommandRoute)

_KEY_PROBLEM = "Idempotency-Key must be one value of 1 to 128 printable ASCII characters"
_KEY_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": 128, "pattern": r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$"}
_KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Becomes the command's id: however often a command is repeated under it, it is carried out once.",
        json_schema_extra=_KEY_SCHEMA,
    ),
]


async def _checked_id(request: Request, _key: _KeyHeader = None) -> str:
    if "idempotency-key" in request.headers and idempotency_key(request) is None:
        raise InvalidRequest(("header", "Idempotency-Key"), _KEY_PROBLEM)
    return str(request.state.command_id)


async def _kill_ask(request: Request, _key: _KeyHeader = None) -> Ask:
    body = await read_kill_body(request)
    warnings = body.warnings
    if "idempotency-key" in request.headers and idempotency_key(request) is None:
        warnings += (f"{_KEY_PROBLEM}; a fresh id was used",)
    return Ask(CommandKind.KILL, request.state.command_id, {"reason": body.reason}, warnings)


def answers_of(applied: type[Any], *others: int) -> Responses:
    """What a command's route answers."""
    return {
        200: answer(applied, "Applied, and confirmed by the coordinator.", COMMAND_ID),
        202: answer(AcceptedAnswer, "Recorded by Temporal and not confirmed in time.", ACCEPTED),
        **problems(401, 408, *others, 413, 422, 500, 503),
    }


def as_json(found: Answer) -> JSONResponse:
    """The response of an answer."""
    return JSONResponse(found.body, found.status, headers=found.headers)


CommandId = Annotated[str, Depends(_checked_id)]


@queries.get("/mode", responses=problems(401, 500))
async def mode(parts: PartsOf) -> ModeAnswer:
    """The configured mode; needs no coordinator."""
    return ModeAnswer(default_mode=parts.mode)


@queries.get("/status", responses=problems(401, 500, 503))
async def status(parts: PartsOf) -> StateAnswer:
    """The coordinator's state, from its own query."""
    return StateAnswer(state=(await parts.desk.read()).status.state)


@queries.get("/coordinator", responses={200: status_answer(), **problems(401, 500, 503)})
async def coordinator(parts: PartsOf) -> Status:
    """The coordinator's whole status."""
    return (await parts.desk.read()).status


@queries.get(
    "/commands/{command_id:path}",
    responses={200: answer(CommandAnswer, "Known."), **problems(401, 404, 422, 500, 503)},
)
async def command(parts: PartsOf, command_id: str) -> JSONResponse:
    """What became of one command."""
    if len(command_id) > MAX_COMMAND_ID_CHARS:
        # Nobody has such a command, and the query that it would ride in is shared with a kill that waits.
        raise UnknownCommand(command_id[:MAX_COMMAND_ID_CHARS])
    outcome = (await parts.desk.read([command_id])).outcomes.get(command_id)
    if outcome is None:
        raise UnknownCommand(command_id)
    return JSONResponse(outcome_body(outcome))


@commands.post("/pause", responses=answers_of(PausedAnswer, 409))
async def pause(
    parts: PartsOf, command_id: CommandId, body: Annotated[PauseRequest | None, Body()] = None
) -> JSONResponse:
    """Stops new decisions; open orders stay."""
    reason = (body or PauseRequest()).reason
    return as_json(await parts.commander.carry_out(Ask(CommandKind.PAUSE, command_id, {"reason": reason})))


@commands.post("/resume", responses=answers_of(ResumedAnswer, 409))
async def resume(
    parts: PartsOf, command_id: CommandId, body: Annotated[ResumeRequest | None, Body()] = None
) -> JSONResponse:
    """Decides again. Never out of `killed`."""
    return as_json(await parts.commander.carry_out(Ask(CommandKind.RESUME, command_id)))


@commands.post(
    "/kill-switch",
    responses={
        200: answer(KilledAnswer, "Killed, and confirmed by the coordinator.", COMMAND_ID),
        202: answer(KillAcceptedAnswer, "Recorded by Temporal and not confirmed in time.", ACCEPTED),
        503: unconfirmed_kill(),
        **problems(401, 422, 500),
    },
    openapi_extra={
        "requestBody": {
            "required": False,
            "description": "Whatever it holds, a kill kills; what could not be read is named in X-AIS-Warning.",
            "content": {"application/json": {"schema": KillRequest.model_json_schema()}},
        }
    },
)
async def kill_switch(parts: PartsOf, ask: Annotated[Ask, Depends(_kill_ask)]) -> JSONResponse:
    """Kills the desk for good. Its path has no database, no thread pool and no limiter."""
    return as_json(await parts.commander.carry_out(ask))


@commands.post("/cancel-all", responses=answers_of(CancelAllAnswer, 409))
async def cancel_all(
    parts: PartsOf, command_id: CommandId, body: Annotated[CancelAllRequest | None, Body()] = None
) -> JSONResponse:
    """Cancels open orders, in every state."""
    symbols = (body or CancelAllRequest()).symbols
    return as_json(await parts.commander.carry_out(Ask(CommandKind.CANCEL_ALL, command_id, {"symbols": symbols})))


@commands.post("/deleverage", responses=answers_of(DeleverageAnswer, 409))
async def deleverage(parts: PartsOf, command_id: CommandId, body: DeleverageRequest) -> JSONResponse:
    """Reduces one position by a fraction of what it is when the coordinator carries this out."""
    fields = {"symbol": body.symbol, "reduce_pct": body.reduce_pct}
    return as_json(await parts.commander.carry_out(Ask(CommandKind.DELEVERAGE, command_id, fields)))


@commands.post("/limits", responses=answers_of(LimitsAnswer, 409))
async def limits(parts: PartsOf, command_id: CommandId, body: LimitsRequest) -> JSONResponse:
    """Changes limits: tightening works at once, loosening only while the desk is paused."""
    fields = {"limits": body.limits, **({"reason": body.reason} if body.reason else {})}
    return as_json(await parts.commander.carry_out(Ask(CommandKind.SET_LIMITS, command_id, fields)))
