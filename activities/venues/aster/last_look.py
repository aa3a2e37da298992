"""The last check before an order's bytes leave.

The SDK passes a call from task to task before its HTTP client writes it, and may open a connection first. So the check runs
where the client is about to write: before the request's headers, and before its body, without which no server acts. A context
variable says which order a request is for: the SDK runs each message in its sender's context.

Only the call itself is checked, wherever it is redirected to. The SDK makes other requests in the same context: it asks for an
answer whose stream has ended, and takes back what nobody waits for any more. A check of these once took an order that was out
for one that was held back, and it was sent five times.

A failed check must not reach the SDK as an error: an error in the transport ends the connection, and with it the cancels of a
kill. So the SDK sees an accepted message, and only the sender of the order learns why it did not go out.
"""

import asyncio
import json
from contextvars import Context, ContextVar, copy_context
from typing import Any

import httpx2

from activities.venues.port import Clearance, VenueNotSent

_LOOK: ContextVar["LastLook | None"] = ContextVar("last_look", default=None)
_BEFORE_WRITING = ("send_request_headers.started", "send_request_body.started")
_CALL = "tools/call"


class LastLook:
    """Watches one send. `withheld` completes once something has kept the order from going out."""

    def __init__(self, clearance: Clearance) -> None:
        self._clearance = clearance
        self.withheld: asyncio.Future[VenueNotSent] = asyncio.get_running_loop().create_future()

    def context(self) -> Context:
        """The context for the task that sends."""
        context = copy_context()
        context.run(_LOOK.set, self)
        return context

    def check(self) -> None:
        """Raises VenueNotSent if the order must not go out."""
        try:
            self._clearance.check()
        except VenueNotSent as error:
            if not self.withheld.done():
                self.withheld.set_result(error)
            raise

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """Called by the HTTP client before each of its steps."""
        if event.endswith(_BEFORE_WRITING):
            self.check()


class LookingClient(httpx2.AsyncClient):
    """An HTTP client that makes the last check before it writes."""

    async def send(self, request: httpx2.Request, **more: Any) -> httpx2.Response:
        """Sends as the SDK asks; answers 202 if nothing was written."""
        look = _LOOK.get()
        if look is None or not await _is_call(request):
            return await super().send(request, **more)
        request.extensions = {**request.extensions, "trace": look.trace}
        try:
            return await super().send(request, **more)
        except VenueNotSent:
            return httpx2.Response(202, request=request)


async def _is_call(request: httpx2.Request) -> bool:
    """Whether the request calls a tool."""
    if request.method != "POST":
        return False
    # One that follows a redirect has not read its own body yet.
    message = json.loads(await request.aread())
    return isinstance(message, dict) and message.get("method") == _CALL
