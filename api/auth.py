"""Authentication, before anything else of a request is read; and what the key's role allows.

A FastAPI dependency would answer 422 to an unauthenticated `{`, because FastAPI parses the body first. So this is middleware. It
puts the key's holder into the scope, and the routers refuse any request that reaches them without one. The route checks the role
before it reads the body.
"""

from collections.abc import Callable, Coroutine, Mapping
from inspect import cleandoc
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.commands import header_text
from api.errors import ApiError, NeedsRole, NotAuthenticated, NotForThisDesk
from api.keys import OWN_ACTOR, Holder, KeyRefusal, KeyRing, RefusedKey
from api.refused_keys import RefusedKeyCounter
from domain.keys import Role

PROTECTED = ("/control", "/reports", "/proposals")
ROLE_IN_DOCUMENT = "x-ais-role"
RETRY_SECONDS = 1
_HOLDER = "ais.key"
_ROLE = "needed_role"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Authentication:
    """Requires a bearer token under the protected prefixes."""

    def __init__(self, app: ASGIApp, ring: KeyRing, refused: RefusedKeyCounter, desk: str) -> None:
        self._app = app
        self._ring = ring
        self._refused = refused
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_protected(scope):
            await self._app(scope, receive, send)
            return
        found = self._ring.check(_token(scope))
        if isinstance(found, RefusedKey):
            await self._refuse(found, scope, receive, send)
            return
        scope[_HOLDER] = found
        warning = found.warning(self._ring.now()) if found.key else ""
        await self._app(scope, receive, _warning(send, warning) if warning else send)

    async def _refuse(self, refused: RefusedKey, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        self._refused.count(refused, client[0] if client else "")
        # Right after a restart: the caller must not take this for the end of its key and give up a kill.
        retry_after = RETRY_SECONDS if refused.why is KeyRefusal.NOT_READ else 0
        error: ApiError = NotAuthenticated(header_text(refused.hint), retry_after)
        if refused.why is KeyRefusal.OTHER_DESK and refused.key:
            error = NotForThisDesk(refused.key.name, refused.key.desks or (), self._desk)
        await error.response()(scope, receive, send)


def _token(scope: Scope) -> bytes:
    """The bearer token; empty if there is none, or more than one Authorization header."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
    return bytes(token) if scheme.lower() == b"bearer" else b""


def _warning(send: Send, text: str) -> Send:
    """Adds the text to the answer's X-AIS-Warning."""

    async def send_with_warning(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-AIS-Warning"] = "; ".join(filter(None, [headers.get("X-AIS-Warning"), header_text(text)]))
        await send(message)

    return send_with_warning


def is_protected(scope: Scope) -> bool:
    """Whether the path is under a protected prefix."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in PROTECTED)


def holder_of(scope: Mapping[str, Any]) -> Holder | None:
    """The sender of this request, as the middleware found it."""
    return scope.get(_HOLDER)


def is_authenticated(scope: Mapping[str, Any]) -> bool:
    """Whether the middleware found a key in this request."""
    return _HOLDER in scope


_scheme = HTTPBearer(auto_error=False, description="The value of AIS_API_KEY, or a key of `ais keys create`.")


async def require_authentication(request: Request, _: object = Security(_scheme)) -> None:
    """The routers' own check that the middleware found a key."""
    if not is_authenticated(request.scope):
        raise NotAuthenticated


def needs(role: Role) -> Callable[[Endpoint], Endpoint]:
    """Sets the role that an endpoint requires, and adds it to its description."""

    def add(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ROLE, role)
        endpoint.__doc__ = f"{cleandoc(endpoint.__doc__ or '')}\n\nNeeds a key with the role `{role}`."
        return endpoint

    return add


class GuardedRoute(APIRoute):
    """A route under the protected prefixes. Without a role it would be open to every key, so every one needs a role."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        role: Role | None = getattr(endpoint, _ROLE, None)
        if role is None:
            raise TypeError(
                f"{endpoint.__name__} ({path}) does not say which role it needs: add @needs(Role.VIEWER) or another"
            )
        self.role = role
        extra = {**(options.pop("openapi_extra", None) or {}), ROLE_IN_DOCUMENT: role.value}
        super().__init__(path, endpoint, openapi_extra=extra, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Checks the role before anything else of the request is read."""
        handle = super().get_route_handler()

        async def handle_if_allowed(request: Request) -> Response:
            holder = holder_of(request.scope)
            if holder is None:
                raise NotAuthenticated
            if not holder.role.covers(self.role):
                raise NeedsRole(holder.actor, holder.role, self.role)
            return await handle(request)

        return handle_if_allowed


def actor_of(request: Request) -> str:
    """The sender, for the decision log. Only the key determines it, never the body."""
    holder = holder_of(request.scope)
    return holder.actor if holder else OWN_ACTOR


async def _actor(request: Request) -> str:
    return actor_of(request)


ActorOf = Annotated[str, Depends(_actor)]
