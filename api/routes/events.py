"""The console's stream of events."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from api.auth import GuardedRoute, holder_of, needs, require_authentication
from api.commands import header_text
from api.errors import NotAuthenticated
from api.openapi import problems, see
from api.parts import PartsOf
from api.streams import EventStream
from domain.keys import Role

# The path of the stream, for code that treats it differently from other requests.
STREAM = "/control/events"

router = APIRouter(
    prefix="/control", tags=["status"], dependencies=[Depends(require_authentication)], route_class=GuardedRoute
)

_EXAMPLE = 'event: unavailable\ndata: {"detail": "no worker answered for the coordinator of desk \'main\'"}\n\n'
_TEXT = {"type": "string", "description": "Events and comments, without end."}
_ANSWER: dict[str, Any] = {
    "description": "`event: status` with the body of `GET /control/coordinator` whenever it changed, `event: unavailable` with "
    "the detail of its 503, `event: log` with id and time of the newest decision. A comment confirms that nothing changed.",
    "content": {"text/event-stream": {"schema": _TEXT, "example": _EXAMPLE}},
}


@router.get(
    "/events",
    summary="Follow the desk as it changes",
    response_class=Response,
    responses={200: _ANSWER, **problems(401, 403, 422, 500, 503)},
)
@see("console")
@needs(Role.VIEWER)
async def events(parts: PartsOf, request: Request, last_event_id: Annotated[str | None, Header()] = None) -> Response:
    """Status and newest decision as they change, for as long as the client stays: what the console shows. All streams of a
    process share one query, and `Last-Event-ID` continues a stream that broke off. The stream ends when its key is revoked or
    expires.
    """
    holder = holder_of(request.scope)
    if holder is None:
        raise NotAuthenticated
    watcher = parts.feed.watch(last_event_id, lambda: parts.ring.still_opens(holder))
    return EventStream(
        watcher, {**parts.page_terms, "X-AIS-Actor": header_text(holder.actor), "X-AIS-Role": holder.role.value}
    )
