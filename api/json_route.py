"""Routes whose body is JSON whatever `Content-Type` says (`curl -d` sends another). Each request gets a command id."""

import json
import re
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response

from api.auth import GuardedRoute

_KEY = re.compile(r"[\x20-\x7e]{1,128}")
_JSON_TYPE = (b"content-type", b"application/json")


class JsonRequest(Request):
    """A request whose body must be JSON. It raises the error that FastAPI answers with 422, whatever is wrong with the body."""

    async def json(self) -> Any:
        try:
            return json.loads(await self.body(), object_pairs_hook=_object)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            raise json.JSONDecodeError(type(error).__name__, "", 0) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses a repeated name: it is not clear which of its values is meant."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


class CommandRoute(GuardedRoute):
    """A route of one command."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_command(request: Request) -> Response:
            scope = request.scope
            # The id is set first, so that refusals carry it too. A valid Idempotency-Key is the id.
            request.state.command_id = idempotency_key(request) or uuid.uuid4().hex
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"content-type"] + [_JSON_TYPE]
            return await handle(JsonRequest(scope, request.receive))

        return handle_command


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, if there is exactly one, of 1 to 128 printable ASCII characters."""
    keys = [key.strip() for key in request.headers.getlist("idempotency-key")]
    return keys[0] if len(keys) == 1 and _KEY.fullmatch(keys[0]) else None
