"""Commands and the coordinator's state."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Request
from fastapi.responses import JSONResponse
from pydantic.json_schema import SkipJsonSchema

from api.auth import ActorOf, GuardedRoute, actor_of, needs, require_authentication
from api.command_answers import outcome_body
from api.commands import CommandRequest, CommandResponse
from api.errors import InvalidRequest, UnknownCommand
from api.json_route import CommandRoute, idempotency_key
from api.kill_body import read_kill_body
from api.models import (
    COMMAND_EXAMPLES,
    KILLED,
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
from api.openapi import (
    ACCEPTED,
    COMMAND_ID,
    COMMANDING,
    SENDING,
    Examples,
    Responses,
    accepted,
    answer,
    bodies,
    problem,
    problems,
    refusal,
    see,
    unconfirmed_kill,
)
from api.parts import PartsOf
from api.requests import CancelAllRequest, DeleverageRequest, KillRequest, LimitsRequest, PauseRequest, ResumeRequest
from domain.desk.facts import MAX_COMMAND_ID_CHARS
from domain.desk.states import CommandKind
from domain.desk.status import Status
from domain.keys import Role

_GUARDED = [Depends(require_authentication)]
commands = APIRouter(prefix="/control", tags=["control"], dependencies=_GUARDED, route_class=CommandRoute)
queries = APIRouter(prefix="/control", tags=["status"], dependencies=_GUARDED, route_class=GuardedRoute)

_KEY_PROBLEM = "Idempotency-Key must be one value of 1 to 128 printable ASCII characters"
_KEY_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": 128, "pattern": r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$"}
_KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Becomes the command's id: a command that is repeated under the same id is carried out only once.",
        json_schema_extra=_KEY_SCHEMA,
    ),
]

# A body that may be left out. The document does not offer `null`: generated clients get that wrong.
_Nothing = SkipJsonSchema[None]
_NOT_SENT = (
    "Nothing was sent, or it is not known whether the command was recorded; `detail` says which, and what to do."
)
_KILLED = refusal(killed=KILLED)
_MORE_THAN_ALL = InvalidRequest(("body", "reduce_pct"), "Input should be less than or equal to 1", "less_than_equal")
_UNKNOWN_LIMIT = InvalidRequest(
    ("body", "limits"), "there is no limit 'max_levrage'; did you mean 'max_leverage'?", "value_error"
)
_BAD_ID = InvalidRequest(("path", "command_id"), "Field required", "missing")


def _symbol_problem(*where: str | int) -> InvalidRequest:
    return InvalidRequest(("body", *where), "DOGEUSDT is neither whitelisted nor held; allowed are BTCUSDT, ETHUSDT")


async def _checked_id(request: Request, _key: _KeyHeader = None) -> str:
    if unknown := next(iter(request.query_params), None):
        # Ignored, `cancel-all?symbols=BTCUSDT` would cancel the orders of every symbol.
        raise InvalidRequest(
            ("query", unknown[:64]), "a command takes no query parameters: use the body", "extra_forbidden"
        )
    if "idempotency-key" in request.headers and idempotency_key(request) is None:
        raise InvalidRequest(("header", "Idempotency-Key"), _KEY_PROBLEM)
    return str(request.state.command_id)


def answers_of(applied: type[Any], action: str, refused: dict[str, Any], examples: Examples = COMMANDING) -> Responses:
    """The answers of a command's route; `action` is that of its 202."""
    return {
        200: answer(applied, "Applied, and confirmed by the coordinator.", COMMAND_ID),
        202: accepted(action),
        409: refused,
        422: problem(422, examples),
        503: problem(503, SENDING, _NOT_SENT),
        **problems(401, 403, 408, 413, 500),
    }


def as_json(found: CommandResponse) -> JSONResponse:
    """The HTTP response."""
    return JSONResponse(found.body, found.status, headers=found.headers)


CommandId = Annotated[str, Depends(_checked_id)]


@commands.post(
    "/kill-switch",
    summary="Kill the desk",
    responses={
        200: answer(KilledAnswer, "Killed, and confirmed by the coordinator.", COMMAND_ID),
        202: answer(KillAcceptedAnswer, "Recorded by Temporal, but not confirmed in time: it takes effect.", ACCEPTED),
        422: problem(422, {"reused_key": COMMANDING["reused_key"]}),
        503: unconfirmed_kill(),
        **problems(401, 403, 500),
    },
    openapi_extra={
        "requestBody": {
            "required": False,
            "description": "A kill is carried out whatever its body contains; `X-AIS-Warning` names what could not be read.",
            "content": {
                "application/json": {
                    "schema": KillRequest.model_json_schema(),
                    "examples": bodies(with_a_reason={"reason": "drawdown exceeded manual threshold"}, without_one={}),
                }
            },
        }
    },
)
@see("runbook", "architecture")
@needs(Role.OPERATOR)
async def kill_switch(parts: PartsOf, request: Request, _key: _KeyHeader = None) -> JSONResponse:
    """Stops the desk for good: from now on it opens no position, and sends only orders that reduce risk. It cancels all open
    orders, futures and spot, in every symbol that it trades or has seen an order or a position in.
    Positions stay open, unless the desk was started with `AIS_KILL_FLATTENS`.

    Only a person's `ais restart` brings it back. Killing a killed desk is allowed, and sends the cancels again.

    An authenticated kill is carried out whatever its body says. **200**: the coordinator confirmed it. **202**: it is recorded
    and takes effect, but no worker has confirmed it yet. **503**: it was not recorded, or this is not known; `detail` says which.
    After a 202 or 503, carry out the `cancel_instructions` by hand.
    """
    # A kill's path needs no database, no thread pool and no limiter.
    reason, warnings = await read_kill_body(request)
    if "idempotency-key" in request.headers and idempotency_key(request) is None:
        warnings += (f"{_KEY_PROBLEM}; a fresh id was used",)
    if request.scope.get("query_string"):
        warnings += ("the query parameters were ignored: a reason goes into the body",)
    ask = CommandRequest(CommandKind.KILL, request.state.command_id, {"reason": reason}, warnings, actor_of(request))
    return as_json(await parts.commander.carry_out(ask))


@commands.post("/pause", summary="Pause the desk", responses=answers_of(PausedAnswer, "pause_accepted", _KILLED))
@see("runbook")
@needs(Role.OPERATOR)
async def pause(
    parts: PartsOf,
    command_id: CommandId,
    actor: ActorOf,
    body: Annotated[
        PauseRequest | _Nothing,
        Body(openapi_examples=bodies(with_a_reason={"reason": "manual review"}, without_one={})),
    ] = None,
) -> JSONResponse:
    """Stops new decisions: the desk opens nothing until it is resumed. Open orders and positions stay as they are. The desk
    goes on observing the venue, and still reduces or kills itself at its limits. Pausing a paused desk changes nothing.
    """
    reason = (body or PauseRequest()).reason
    ask = CommandRequest(CommandKind.PAUSE, command_id, {"reason": reason}, actor=actor)
    return as_json(await parts.commander.carry_out(ask))


@commands.post("/resume", summary="Resume the desk", responses=answers_of(ResumedAnswer, "resume_accepted", _KILLED))
@see("runbook")
@needs(Role.OPERATOR)
async def resume(
    parts: PartsOf,
    command_id: CommandId,
    actor: ActorOf,
    body: Annotated[ResumeRequest | _Nothing, Body(openapi_examples=bodies(nothing_to_say={}))] = None,
) -> JSONResponse:
    """Lets a paused desk trade again. A killed desk stays killed (409): only `ais restart` brings it back."""
    return as_json(await parts.commander.carry_out(CommandRequest(CommandKind.RESUME, command_id, actor=actor)))


@commands.post(
    "/cancel-all",
    summary="Cancel open orders",
    responses=answers_of(
        CancelAllAnswer,
        "cancel_all_accepted",
        refusal(too_old="it reached the coordinator more than 24 h after it was sent"),
        {**COMMANDING, "unknown_symbol": _symbol_problem("symbols", 0)},
    ),
)
@see("runbook")
@needs(Role.OPERATOR)
async def cancel_all(
    parts: PartsOf,
    command_id: CommandId,
    actor: ActorOf,
    body: Annotated[
        CancelAllRequest | _Nothing,
        Body(openapi_examples=bodies(two_symbols={"symbols": ["BTCUSDT", "ETHUSDT"]}, every_symbol={"symbols": None})),
    ] = None,
) -> JSONResponse:
    """Cancels all open orders of the named symbols, futures and spot, or of every symbol if none is named. The response lists
    the cancels, which the desk sends now and repeats until the venue confirms them. Positions stay. Works in every state.
    """
    symbols = (body or CancelAllRequest()).symbols
    ask = CommandRequest(CommandKind.CANCEL_ALL, command_id, {"symbols": symbols}, actor=actor)
    return as_json(await parts.commander.carry_out(ask))


@commands.post(
    "/deleverage",
    summary="Reduce one position",
    responses=answers_of(
        DeleverageAnswer,
        "deleverage_accepted",
        refusal(
            no_position="There is no open position in BTCUSDT.",
            too_small="0.001 of 0.125 BTCUSDT is below the lot step 0.001.",
        ),
        {**COMMANDING, "unknown_symbol": _symbol_problem("symbol"), "more_than_all": _MORE_THAN_ALL},
    ),
)
@see("runbook")
@needs(Role.OPERATOR)
async def deleverage(
    parts: PartsOf,
    command_id: CommandId,
    actor: ActorOf,
    body: Annotated[
        DeleverageRequest,
        Body(
            openapi_examples=bodies(
                half={"symbol": "BTCUSDT", "reduce_pct": 0.5}, all_of_it={"symbol": "BTCUSDT", "reduce_pct": 1}
            )
        ),
    ],
) -> JSONResponse:
    """Sends one reduce-only market order for a fraction of the futures position: `0.5` is half of it, `1` all. It is a
    fraction of the position at the time when the coordinator carries this out, rounded down to the lot step. So two calls of
    0.5 leave a quarter. Works in every state.
    """
    fields = {"symbol": body.symbol, "reduce_pct": body.reduce_pct}
    ask = CommandRequest(CommandKind.DELEVERAGE, command_id, fields, actor=actor)
    return as_json(await parts.commander.carry_out(ask))


@commands.post(
    "/limits",
    summary="Change risk limits",
    responses=answers_of(
        LimitsAnswer,
        "set_limits_accepted",
        refusal(looser="this loosens max_leverage 2 -> 3; pause the desk first (tightening needs no pause)"),
        {**COMMANDING, "unknown_limit": _UNKNOWN_LIMIT},
    ),
)
@see("risk")
@needs(Role.ADMIN)
async def set_limits(
    parts: PartsOf,
    command_id: CommandId,
    actor: ActorOf,
    body: Annotated[
        LimitsRequest,
        Body(openapi_examples=bodies(tighter={"limits": {"max_leverage": 1.5}, "reason": "volatile day"})),
    ],
) -> JSONResponse:
    """Changes the named limits; the others stay. Lower is tighter. Tightening works at once in every state; loosening works
    only while the desk is paused (409 otherwise). `GET /control/coordinator` shows the limits in force.
    """
    fields = {"limits": body.limits, **({"reason": body.reason} if body.reason else {})}
    ask = CommandRequest(CommandKind.SET_LIMITS, command_id, fields, actor=actor)
    return as_json(await parts.commander.carry_out(ask))


@queries.get("/mode", summary="Read the configured mode", responses=problems(401, 403, 500))
@see("settings")
@needs(Role.VIEWER)
async def mode(parts: PartsOf) -> ModeAnswer:
    """The mode that this API process is configured for: `paper` trades on the built-in venue, `shadow` reads the real venue
    and sends nothing, `live` trades there. Needs no coordinator, so it works while everything else is down.
    """
    return ModeAnswer(default_mode=parts.mode)


@queries.get("/status", summary="Read the state of the desk", responses=problems(401, 403, 500, 503))
@see("architecture")
@needs(Role.VIEWER)
async def status(parts: PartsOf) -> StateAnswer:
    """`running`, `paused` or `killed`, as the coordinator says now. It is never guessed: without an answer the response is
    503."""
    return StateAnswer(state=(await parts.desk.read()).status.state)


@queries.get(
    "/coordinator",
    summary="Read everything about the desk",
    responses={200: answer(Status, "The whole status."), **problems(401, 403, 500, 503)},
)
@see("architecture", "risk")
@needs(Role.VIEWER)
async def coordinator(parts: PartsOf) -> Status:
    """State, reason, account, limits and how near each is, orders on their way, the kill and what is still open after it,
    warnings, and rows that wait for the database: all that the coordinator knows.
    """
    return (await parts.desk.read()).status


@queries.get(
    "/commands/{command_id:path}",
    summary="Read the outcome of a command",
    responses={
        200: answer(CommandAnswer, "What became of it.", examples=COMMAND_EXAMPLES),
        422: problem(422, {"bad_id": _BAD_ID}),
        **problems(401, 403, 404, 500, 503),
    },
)
@see("runbook")
@needs(Role.VIEWER)
async def command(
    parts: PartsOf,
    command_id: Annotated[
        str, Path(description="The `X-Command-Id` of the response to the command.", examples=["9f1c"])
    ],
) -> JSONResponse:
    """`applied`, `refused` (with the reason in `detail`) or `pending`, together with the body of the command's own response. The
    `Location` header of a 202 is this URL. The coordinator remembers the last 1,000 commands, and those of the last 24 h.
    """
    if len(command_id) > MAX_COMMAND_ID_CHARS:
        # There is no such command, and the query for it would be shared with a kill that waits.
        raise UnknownCommand(command_id[:MAX_COMMAND_ID_CHARS])
    outcome = (await parts.desk.read([command_id])).outcomes.get(command_id)
    if outcome is None:
        raise UnknownCommand(command_id)
    return JSONResponse(outcome_body(outcome))
