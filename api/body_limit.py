"""Limits the size and time of bodies, after authentication and before a body is read.

Only the kill switch is exempt: it reads no more than the limit, for a shorter time, ignores the rest, and kills.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import is_protected
from api.errors import BodyTooLarge, BodyTooSlow

MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0
KILL_PATH = "/control/kill-switch"
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class BodyLimit:
    """Answers 413 to a body over the limit, announced or in chunks, and 408 to one that does not end in time."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_kill(scope):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                messages = await self._read(scope, receive)
        except TimeoutError:
            await BodyTooSlow(BODY_SECONDS).response({"Connection": "close"})(scope, receive, send)
            return
        if messages is None:
            await BodyTooLarge(self._limit).response()(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> list[Message] | None:
        """The messages of the body, if a route would read it; None if it is too large."""
        announced = [value for name, value in scope["headers"] if name == b"content-length" and value.isdigit()]
        if max(map(int, announced), default=0) > self._limit:
            return None
        messages: list[Message] = []
        size = 0
        more = scope["method"] in _WITH_BODY and is_protected(scope)
        while more:
            messages.append(message := await receive())
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > self._limit:
                return None
        return messages


def _is_kill(scope: Scope) -> bool:
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return scope["method"] == "POST" and path == KILL_PATH
