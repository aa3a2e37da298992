"""Answers HEAD like GET, without the body: load balancers and `wget --spider` ask that way.

Only on public paths. Under the protected ones HEAD remains a method that they do not have.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import is_protected


class HeadAsGet:
    """The innermost middleware, so that those that count and log requests still see a HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or is_protected(scope):
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            emptied = {**message, "body": b""} if message["type"] == "http.response.body" else message
            await send(emptied)

        # A copy: by its own scope the server knows that no body follows the announced length.
        asked = {**scope, "method": "GET"}
        try:
            await self._app(asked, receive, send_without_body)
        finally:
            if "route" in asked:
                scope["route"] = asked["route"]
