"""Proposals of agents outside: accepted here, weighed by the next cycle."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends
from fastapi.responses import JSONResponse

from api.auth import ActorOf, needs, require_authentication
from api.commands import CommandRequest
from api.errors import InvalidRequest
from api.json_route import CommandRoute
from api.models import KILLED, ProposalAcceptedAnswer, ProposedAnswer
from api.openapi import ACCEPTED, COMMAND_ID, COMMANDING, SENDING, answer, bodies, problem, problems, refusal, see
from api.parts import PartsOf
from api.requests import ProposalBody
from api.routes.control import CommandId, as_json
from domain.desk.states import PAUSED_REFUSAL, CommandKind
from domain.keys import Role

router = APIRouter(tags=["proposals"], dependencies=[Depends(require_authentication)], route_class=CommandRoute)

_AT_MARKET = {"agent_id": "my-agent", "symbol": "BTCUSDT", "side": "BUY", "confidence": 0.8, "ttl_seconds": 60}
_WITH_A_PRICE = {**_AT_MARKET, "price": "63950.5", "post_only": True, "rationale": "breakout on the daily chart"}
_PRICE_MISSING = InvalidRequest(("body",), "post_only needs a price", "quote")


@router.post(
    "/proposals",
    status_code=202,
    summary="Propose an order",
    responses={
        200: answer(ProposedAnswer, "Repeated, and taken up by a cycle meanwhile.", COMMAND_ID),
        202: answer(ProposalAcceptedAnswer, "Accepted; `Location` is the URL of its outcome.", ACCEPTED),
        409: refusal(paused=PAUSED_REFUSAL, killed=KILLED),
        422: problem(422, {**COMMANDING, "price_missing": _PRICE_MISSING}),
        503: problem(503, SENDING),
        **problems(401, 403, 408, 413, 500),
    },
)
@see("agents", "risk")
@needs(Role.OPERATOR)
async def propose(
    parts: PartsOf,
    command_id: CommandId,
    actor: ActorOf,
    body: Annotated[ProposalBody, Body(openapi_examples=bodies(at_market=_AT_MARKET, with_a_price=_WITH_A_PRICE))],
) -> JSONResponse:
    """For trading agents that run outside AIS. The next cycle weighs the proposal together with those of the desk's own agents,
    and chooses at most one; the guards may still refuse its order. A proposal replaces the same agent's earlier one
    on the same symbol. The usual response is **202**: the proposal was accepted, but nothing is decided yet.
    """
    # Workers from before limit orders existed refuse fields that they do not know.
    at_market = {"post_only"} if body.price is None else set()
    fields = body.model_dump(mode="json", exclude_none=True, exclude=at_market)
    ask = CommandRequest(CommandKind.PROPOSE, command_id, fields, actor=actor)
    return as_json(await parts.commander.carry_out(ask))
