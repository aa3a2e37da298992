"""Counts, times and logs every request, and contains our bugs."""

import re
import time
import uuid
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import holder_of
from api.metrics import ApiMetrics
from api.streams import is_endless

INTERNAL_ERROR = {"detail": "Internal Server Error"}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Machines request these every few seconds: useful for debugging, noise otherwise.
_QUIET = frozenset({"/health", "/health/live", "/metrics"})

log: Any = structlog.get_logger("api")


class AccessLog:
    """Wraps everything but the security headers. It logs no header, body or query string: each may contain a key."""

    def __init__(self, app: ASGIApp, instruments: ApiMetrics) -> None:
        self._app = app
        self._instruments = instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(scope, self._instruments).run(self._app, receive, send)
        else:
            await self._app(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, instruments: ApiMetrics) -> None:
        self._scope = scope
        self._instruments = instruments
        self._request_id = _request_id(scope)
        self._status: int | None = None

    async def run(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        started = time.perf_counter()

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = self._request_id
                if is_endless(self._scope):
                    # Counted now: at its end, a stream's hours would look like a slow answer.
                    self._count(time.perf_counter() - started)
            await send(message)

        try:
            await app(self._scope, receive, note)
        except Exception:
            log.exception("the request failed: a bug", **self._facts())
            if self._status is None:
                await JSONResponse(INTERNAL_ERROR, 500)(self._scope, receive, note)
        finally:
            if not is_endless(self._scope):
                self._count(time.perf_counter() - started)

    def _count(self, seconds: float) -> None:
        status = 499 if self._status is None else self._status
        route = getattr(self._scope.get("route"), "path", None)
        self._instruments.request(self._scope["method"], route, status, seconds)
        write = log.debug if self._scope["path"] in _QUIET else log.info
        write("request", **self._facts(), status=status, ms=round(seconds * 1000, 1))

    def _facts(self) -> dict[str, Any]:
        # The raw, percent-encoded path: a decoded one could contain a line break and forge a line of the log.
        path = self._scope.get("raw_path") or b""
        facts = {"method": self._scope["method"], "path": path.decode("ascii", "replace")[:200]}
        command_id = self._scope.get("state", {}).get("command_id")
        holder = holder_of(self._scope)
        ids = {"request_id": self._request_id, "command_id": command_id, "actor": holder.actor if holder else None}
        return facts | {name: value for name, value in ids.items() if value}


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
