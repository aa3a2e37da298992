"""Proposals of agents outside: taken in here, taken up by the next cycle."""

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from api.auth import require_authentication
from api.commands import Ask
from api.json_route import CommandRoute
from api.models import ProposalAcceptedAnswer, ProposedAnswer
from api.openapi import ACCEPTED, COMMAND_ID, answer, problems
from api.requests import ProposalBody
from api.routes.control import CommandId, as_json
from api.state import PartsOf
from domain.states import CommandKind

router = APIRouter(tags=["proposals"], dependencies=[Depends(require_authentication)], route_class=CommandRoute)


@router.post(
    "/proposals",
    status_code=202,
    responses={
        200: answer(ProposedAnswer, "Repeated, and taken up by a cycle meanwhile.", COMMAND_ID),
        202: answer(ProposalAcceptedAnswer, "Taken in; `Location` tells later what a cycle made of it.", ACCEPTED),
        **problems(401, 408, 409, 413, 422, 500, 503),
    },
)
async def propose(parts: PartsOf, command_id: CommandId, body: ProposalBody) -> JSONResponse:
    """A proposal for the next cycle; it takes the place of what the same agent proposed before on the same symbol."""
    fields = body.model_dump(mode="json", exclude_none=True)
    return as_json(await parts.commander.carry_out(Ask(CommandKind.PROPOSE, command_id, fields)))
