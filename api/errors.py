"""What the API answers when it cannot do what it was asked.

ApiError
├── NotAuthenticated      401
├── UnknownCommand        404
├── NoAccount             404   of this desk on the paper venue
├── BodyTooSlow           408
├── CommandRefused        409   the state does not allow it
├── BodyTooLarge          413
├── InvalidRequest        422   our own checks, in FastAPI's form
└── Unavailable           503
    ├── CoordinatorUnavailable   a worker or Temporal does not answer, or no coordinator is open
    ├── ReportsUnavailable       the database
    ├── BooksUnread              nobody knows yet what a live account did
    ├── OtherDatabase            this process has another one than the coordinator
    ├── TooManyWaiting           more commands stand unconfirmed than may
    ├── TooManyUnwritten         more rows of the decision log wait for the database than may
    ├── NotRecorded              refused before it was sent
    ├── PerhapsRecorded          sent, and nobody answered
    └── CoordinatorClosed        recorded, then the coordinator was terminated
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from domain.instructions import CancelInstruction
from domain.states import Mode
from domain.values import printable
from workflows.gateway import GatewayError

Location = Sequence[str | int]


class ApiError(Exception):
    """Base: the status stands on the class, the text is the answer's `detail`."""

    status = 500
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, text: str) -> None:
        self.more_headers: Mapping[str, str] = {}
        super().__init__(text)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        return {"detail": printable(str(self))}

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body, self.status, headers={**self.headers, **(headers or {}), **self.more_headers})


class NotAuthenticated(ApiError):
    """The token is missing, malformed or wrong; which of them is nobody's business."""

    status = 401
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}

    def __init__(self) -> None:
        super().__init__("Not authenticated")


class UnknownCommand(ApiError):
    """No command of this id is remembered."""

    status = 404

    def __init__(self, command_id: str) -> None:
        super().__init__(f"No command {command_id!r} is known to the coordinator.")


class NoAccount(ApiError):
    """The paper venue has no account of this desk."""

    status = 404

    def __init__(self, desk: str, mode: Mode) -> None:
        cure = "the coordinator's first cycle opens it" if mode is Mode.PAPER else "`ais status` shows the venue's own"
        super().__init__(f"Desk {desk!r} ({mode}) has no paper account; {cure}.")


class CommandRefused(ApiError):
    """The coordinator refused, and recorded it."""

    status = 409


class BodyTooSlow(ApiError):
    """It was announced and did not come."""

    status = 408

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The body did not arrive within {seconds:g} s; nothing was done.")


class BodyTooLarge(ApiError):
    """More than is read."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than {limit // 1024} KiB.")


class InvalidRequest(ApiError):
    """The body, a header or a query parameter is invalid."""

    status = 422

    def __init__(self, location: Location, message: str, kind: str = "value_error") -> None:
        self._entries = [entry(location, message, kind)]
        super().__init__(message)

    @property
    def body(self) -> dict[str, Any]:
        return {"detail": self._entries}


class Unavailable(ApiError):
    """Something that this answer needs cannot be reached; the text says what, and what to do."""

    status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class CoordinatorUnavailable(Unavailable):
    """The coordinator cannot be asked."""


class ReportsUnavailable(Unavailable):
    """The database cannot be read."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"The decision log cannot be read: {error}. Check PostgreSQL and AIS_DATABASE_URL.")


class BooksUnread(Unavailable):
    """Nothing is known of a live account until two readings of it agree: "none" would be a guess."""

    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "10"}

    def __init__(self, desk: str, why: str | None) -> None:
        super().__init__(
            f"The books of desk {desk!r} are not known yet: a live worker reads them from the exchange, twice before they count. "
            f"{f'The last try failed: {why}.' if why else 'Is one up (python worker.py), and the desk started?'}"
        )


class OtherDatabase(Unavailable):
    """This process has another database than the coordinator: its log is not the desk's."""

    def __init__(self, found: str | None, wanted: str | None) -> None:
        super().__init__(
            f"AIS_DATABASE_URL of this process points to database {found or 'without an id'}, but the desk's is {wanted}: "
            "correct it and start this process again; see docs/operations.md, Another database."
        )


class TooManyWaiting(Unavailable):
    """Buffers are bounded; a kill is never counted out."""

    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(
            f"{waiting} commands are unconfirmed, and at most {limit} may be; nothing was sent. "
            "Check that a worker is up (python worker.py), then try again. A kill is always accepted."
        )


class TooManyUnwritten(Unavailable):
    """What was acknowledged is kept until the decision log takes it, and that is bounded; a kill is never counted out."""

    def __init__(self, rows: int, limit: int) -> None:
        super().__init__(
            f"{rows} rows of the decision log wait for the database, and at most {limit} may; nothing was sent. "
            "Bring PostgreSQL back, then try again. A kill is always accepted."
        )


class _Unconfirmed(Unavailable):
    """A command without a confirmation; that of a kill hands out what a person can act on."""

    def __init__(self, text: str, cancels: Iterable[CancelInstruction] | None) -> None:
        self._cancels = None if cancels is None else [cancel.model_dump(mode="json") for cancel in cancels]
        super().__init__(text)

    @property
    def body(self) -> dict[str, Any]:
        return super().body if self._cancels is None else {**super().body, "cancel_instructions": self._cancels}


class NotRecorded(_Unconfirmed):
    """Nothing was sent, or Temporal refused: the command will not take effect."""

    def __init__(self, why: str, cancels: Iterable[CancelInstruction] | None) -> None:
        super().__init__(f"not recorded: {why}", cancels)


class PerhapsRecorded(_Unconfirmed):
    """Sent and not answered: repeating it under the same id is safe."""

    def __init__(self, command_id: str, cancels: Iterable[CancelInstruction] | None) -> None:
        super().__init__(
            "it is not known whether this was recorded; it may still take effect; "
            f"repeat it with Idempotency-Key: {command_id}",
            cancels,
        )


class CoordinatorClosed(_Unconfirmed):
    """Temporal recorded the signal, and then the coordinator was closed from outside."""

    def __init__(self, why: str, cancels: Iterable[CancelInstruction] | None) -> None:
        super().__init__(f"recorded by Temporal, but nobody will carry it out: {why}", cancels)


def entry(location: Location, message: str, kind: str) -> dict[str, Any]:
    """One entry of a 422: these three keys alone, since echoing the input turns a NaN into a 500."""
    parts = [printable(part) if isinstance(part, str) else part for part in location]
    return {"loc": parts, "msg": printable(message), "type": kind}


async def _answer_error(request: Request, error: ApiError) -> JSONResponse:
    return error.response(command_headers(request))


async def _answer_gateway_error(request: Request, error: GatewayError) -> JSONResponse:
    return CoordinatorUnavailable(str(error)).response(command_headers(request))


async def _answer_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    entries = [entry(found["loc"], found["msg"], found["type"]) for found in error.errors()]
    return JSONResponse({"detail": entries}, 422, headers=command_headers(request))


async def _answer_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


def command_headers(request: Request) -> dict[str, str]:
    """What every answer to a command carries."""
    command_id = getattr(request.state, "command_id", None)
    return {"X-Command-Id": command_id} if command_id else {}


def install(app: FastAPI) -> None:
    """Registers the handlers."""
    app.exception_handler(ApiError)(_answer_error)
    app.exception_handler(GatewayError)(_answer_gateway_error)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(HTTPException)(_answer_http_exception)
