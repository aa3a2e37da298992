"""Authentication, before the body is read and before anything else.

As a FastAPI dependency it would answer 422 to an unauthenticated `{`: FastAPI parses the body first. So it is
middleware, and a flag in the scope lets the routers refuse whatever should ever reach them another way.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Security
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import NotAuthenticated

PROTECTED = ("/control", "/reports", "/proposals")
_FLAG = "ais.authenticated"


class Authentication:
    """Asks for the bearer token under the protected prefixes."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._digest = _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_protected(scope):
            if not self._is_authentic(scope):
                await NotAuthenticated().response()(scope, receive, send)
                return
            scope[_FLAG] = True
        await self._app(scope, receive, send)

    def _is_authentic(self, scope: Scope) -> bool:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        token = _token(values[0]) if len(values) == 1 else None
        # Digests of one length: the comparison tells neither the key's length nor how much of it was right.
        return token is not None and hmac.compare_digest(_digest(token), self._digest)


def is_protected(scope: Scope) -> bool:
    """Whether the path stands under a protected prefix."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in PROTECTED)


def _token(header: bytes) -> bytes | None:
    scheme, _, token = header.partition(b" ")
    return token if scheme.lower() == b"bearer" and token else None


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def is_authenticated(scope: Mapping[str, Any]) -> bool:
    """Whether the middleware found the key in this request."""
    return bool(scope.get(_FLAG))


_scheme = HTTPBearer(auto_error=False, description="The value of AIS_API_KEY.")


async def require_authentication(request: Request, _: object = Security(_scheme)) -> None:
    """The routers' own look at what the middleware found."""
    if not is_authenticated(request.scope):
        raise NotAuthenticated
