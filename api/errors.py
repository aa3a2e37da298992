"""The API's errors: one class for each way in which a request can fail.

ApiError
├── NotAuthenticated      401
├── Forbidden             403   the key is known, but may not do this
│   ├── NeedsRole
│   └── NotForThisDesk
├── UnknownCommand        404
├── NoAccount             404   of this desk on the paper venue
├── BodyTooSlow           408
├── CommandRefused        409   the state does not allow it
├── BodyTooLarge          413
├── InvalidRequest        422   our own checks, in FastAPI's form
└── Unavailable           503
    ├── CoordinatorUnavailable   a worker or Temporal does not answer, or no coordinator is open
    ├── ReportsUnavailable       the database
    ├── BooksUnread              the books of a live account are not known yet
    ├── OtherDatabase            this process uses another database than the coordinator
    ├── OtherAccount             this process is set to another mode than the desk's, and so to another account
    ├── TooManyWaiting           too many commands are unconfirmed
    ├── TooManyStreams           too many streams of events are open
    ├── TooManyUnwritten         too many rows of the decision log wait for the database
    ├── NotRecorded              nothing was sent, or Temporal refused
    ├── PerhapsRecorded          sent, but Temporal did not answer
    └── CoordinatorClosed        recorded, then the coordinator was terminated
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from domain.desk.states import Mode
from domain.keys import Role
from domain.trading.instructions import CancelInstruction
from domain.values import printable
from workflows.gateway import GatewayError

Location = Sequence[str | int]


class ApiError(Exception):
    """Base class: subclasses set the HTTP status; the text becomes the response's `detail`."""

    status = 500
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, text: str) -> None:
        self.more_headers: Mapping[str, str] = {}
        super().__init__(text)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the response."""
        return {"detail": printable(str(self))}

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body, self.status, headers={**self.headers, **(headers or {}), **self.more_headers})


class NotAuthenticated(ApiError):
    """The token is missing, malformed or wrong; the response does not say which.

    `hint` goes into a header and tells the sender what it may know all the same: the key is mistyped, or has ended.
    `retry_after` is set if the same token may be accepted after so many seconds.
    """

    status = 401
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}

    def __init__(self, hint: str = "", retry_after: int = 0) -> None:
        super().__init__("Not authenticated")
        headers = {"X-AIS-Warning": hint, "Retry-After": str(retry_after or "")}
        self.more_headers = {name: value for name, value in headers.items() if value}


class Forbidden(ApiError):
    """The key is known, but may not do this."""

    status = 403


class NeedsRole(Forbidden):
    """The key's role does not allow it."""

    def __init__(self, actor: str, has: Role, needed: Role) -> None:
        super().__init__(f"The key of {actor} has the role {has}; this needs the role {needed}")


class NotForThisDesk(Forbidden):
    """The key is for other desks than the one that this process serves.

    Raised before the command's id is read. Only by this header can a sender tell the refusal from that of a proxy in between.
    """

    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}

    def __init__(self, name: str, desks: Iterable[str], served: str) -> None:
        super().__init__(f"The key of http:{name} is for the desk {', '.join(desks)}; this is the desk {served}")


class UnknownCommand(ApiError):
    """The coordinator does not remember a command with this id."""

    status = 404

    def __init__(self, command_id: str) -> None:
        super().__init__(f"The coordinator has no record of a command {command_id!r}.")


class NoAccount(ApiError):
    """The paper venue has no account for this desk."""

    status = 404

    def __init__(self, desk: str, mode: Mode) -> None:
        cure = (
            "the coordinator's first cycle opens it"
            if mode is Mode.PAPER
            else "`ais status` shows the account at the venue"
        )
        super().__init__(f"Desk {desk!r} ({mode}) has no paper account; {cure}.")


class CommandRefused(ApiError):
    """The coordinator refused the command and recorded the refusal."""

    status = 409


class BodyTooSlow(ApiError):
    """The headers announced a body, but it did not arrive in time."""

    status = 408

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The body did not arrive within {seconds:g} s; nothing was done.")


class BodyTooLarge(ApiError):
    """The body is larger than the API reads."""

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
    """The API cannot reach something it needs; the text says what, and what to do."""

    status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class CoordinatorUnavailable(Unavailable):
    """The coordinator does not answer."""


class ReportsUnavailable(Unavailable):
    """The database cannot be read."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"The decision log cannot be read: {error}. Check PostgreSQL and AIS_DATABASE_URL.")


class BooksUnread(Unavailable):
    """A live account's books are unknown until two readings agree; answering "none" would be a guess."""

    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "10"}

    def __init__(self, desk: str, why: str | None) -> None:
        check = "Check that a live worker is up (python worker.py), and that the desk is started."
        super().__init__(
            f"The books of desk {desk!r} are not known yet: a live worker reads them, and two readings must agree. "
            f"{f'The last attempt failed: {why}.' if why else check}"
        )


class OtherDatabase(Unavailable):
    """This process uses another database than the coordinator, so its log is not the desk's."""

    def __init__(self, found: str | None, wanted: str | None) -> None:
        super().__init__(
            f"AIS_DATABASE_URL of this process points to database {found or 'without an id'}, but the desk's is {wanted}: "
            "correct it and restart this process; see docs/operations.md, Another database."
        )


class OtherAccount(Unavailable):
    """The desk has moved between paper and live since this process started: its account is another one."""

    def __init__(self, mode: Mode) -> None:
        super().__init__(
            f"The desk is in mode {mode}, but this process was started with another AIS_MODE and would show another account: "
            f"set AIS_MODE={mode} and restart this process."
        )


class TooManyWaiting(Unavailable):
    """Too many unconfirmed commands: the buffer for them is bounded. Kills are exempt from this limit."""

    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(
            f"{waiting} commands are unconfirmed, and at most {limit} may be; nothing was sent. "
            "Check that a worker is up (python worker.py), then try again. A kill is always accepted."
        )


class TooManyUnwritten(Unavailable):
    """Too many unwritten rows: the buffer that keeps them for the database is bounded. Kills are exempt from this limit."""

    def __init__(self, rows: int, limit: int) -> None:
        super().__init__(
            f"{rows} rows of the decision log wait for the database, and at most {limit} may; nothing was sent. "
            "Bring PostgreSQL back, then try again. A kill is always accepted."
        )


class TooManyStreams(Unavailable):
    """Too many open streams of events: connections are kept free for commands."""

    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "10"}

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} streams of events are open, the most that this process serves; close some. Commands are not affected."
        )


class _Unconfirmed(Unavailable):
    """A command without a confirmation. For a kill, the body lists the cancels that a person can carry out by hand."""

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
    """The command was sent but not answered: repeating it under the same id is safe."""

    def __init__(self, command_id: str, cancels: Iterable[CancelInstruction] | None) -> None:
        super().__init__(
            "it is not known whether this was recorded; it may still take effect; "
            f"repeat it with Idempotency-Key: {command_id}",
            cancels,
        )


class CoordinatorClosed(_Unconfirmed):
    """Temporal recorded the signal, and then the coordinator was closed from outside."""

    def __init__(self, why: str, cancels: Iterable[CancelInstruction] | None) -> None:
        super().__init__(f"recorded by Temporal, but no coordinator will carry it out: {why}", cancels)


def entry(location: Location, message: str, kind: str) -> dict[str, Any]:
    """One entry of a 422. It has only these three keys: echoing the input would turn a NaN into a 500."""
    parts = [printable(part) if isinstance(part, str) else part for part in location]
    return {"loc": parts, "msg": printable(message), "type": kind}


async def _answer_error(request: Request, error: ApiError | GatewayError) -> JSONResponse:
    known = error if isinstance(error, ApiError) else CoordinatorUnavailable(str(error))
    return known.response(command_headers(request))


async def _answer_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    entries = [entry(found["loc"], found["msg"], found["type"]) for found in _of_the_body(error.errors())]
    return JSONResponse({"detail": entries}, 422, headers=command_headers(request))


def _of_the_body(errors: Sequence[Any]) -> list[Any]:
    """The errors as the caller's body has them. One that may be left out is the union of a model and None: to Pydantic each
    error is one of two, below the model's name, and the other says that the body should be None."""
    real = [found for found in errors if found["type"] != "none_required"]
    if len(real) == len(errors):
        return real
    return [{**found, "loc": (*found["loc"][:1], *found["loc"][2:])} for found in real]


async def _answer_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


def command_headers(request: Request) -> dict[str, str]:
    """The headers that every response to a command carries."""
    command_id = getattr(request.state, "command_id", None)
    return {"X-Command-Id": command_id} if command_id else {}


def install(app: FastAPI) -> None:
    """Registers the handlers."""
    app.exception_handler(ApiError)(_answer_error)
    app.exception_handler(GatewayError)(_answer_error)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(HTTPException)(_answer_http_exception)
