"""HEAD, answered as GET without the body: load balancers and `wget --spider` ask that way.

On the public paths alone. Under the protected ones a HEAD stays what it was, a method that they do not have.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import is_protected


class HeadAsGet:
    """Innermost: whoever counts and logs a request outside still sees that it was a HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or is_protected(scope):
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            emptied = {**message, "body": b""} if message["type"] == "http.response.body" else message
            await send(emptied)

        # A copy: the server looks at its own scope to know that the announced length is not the body's.
        asked = {**scope, "method": "GET"}
        try:
            await self._app(asked, receive, send_without_body)
        finally:
            if "route" in asked:
                scope["route"] = asked["route"]
