"""Sends a command and waits for its outcome: recorded, confirmed, refused or unknown, never guessed.

    signal ─┬─ accepted ── outcome found ─┬─ applied ─── 200
            │                             └─ refused ─── 409, 422, 503
            │            ─ none in time ──────────────── 202
            ├─ never sent ────────────────────────────── 503 "not recorded"
            ├─ no answer ─────────────────────────────── 503 "it is not known …"
            ├─ no answer, then refused ─┬─ kill: cancellation, 200, 202 or 503 as above
            │                           └─ others ────── 503 "it is not known …"
            └─ refused ─┬─ kill: cancellation ────────── 200, 202, or 503 as above
                        └─ others ────────────────────── 503 "not recorded"

The kill's way through here needs no database, no thread and no limit.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import structlog
from pydantic_core import to_json

from api.command_answers import applied_body, pending_body, unconfirmed_body
from api.coordinator import CoordinatorClient
from api.errors import (
    ApiError,
    CommandRefused,
    CoordinatorClosed,
    InvalidRequest,
    NotRecorded,
    PerhapsRecorded,
    Unavailable,
)
from api.keys import OWN_ACTOR
from api.metrics import ApiMetrics
from domain.desk.carried import Outcome, RefusalCode
from domain.desk.commands import Command
from domain.desk.payloads import RawPayload, read_cancellation, read_command
from domain.desk.states import CommandKind
from domain.desk.status import CommandOutcome
from domain.trading.instructions import CancelInstruction, cancel_instructions
from domain.values import encodable
from workflows.gateway import (
    SIGNAL_SECONDS,
    CoordinatorPaused,
    GatewayError,
    NoCoordinator,
    RefusedInTheEnd,
    SignalRefused,
    SignalUnanswered,
    TemporalUnreachable,
)

_SIGNAL_SHARE = 2 / 3
# After the kill is in: how long to look for the cancellation that the run was asked for first.
STANDING_SECONDS = 0.5
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.2
_WAITS_FOR_A_CYCLE = (CommandKind.PROPOSE,)
# The field to blame if the coordinator finds a command invalid.
_BLAMED = {CommandKind.DELEVERAGE: "symbol", CommandKind.PROPOSE: "symbol", CommandKind.SET_LIMITS: "limits"}

log: Any = structlog.get_logger("api")


@dataclass(frozen=True)
class CommandRequest:
    """One command as it arrived. `fields` are the fields of its signal, without the id."""

    kind: CommandKind
    command_id: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    actor: str = OWN_ACTOR

    @property
    def fingerprint(self) -> str:
        """The fingerprint that the coordinator will compute: the same function reads the same bytes."""
        return self.command.fingerprint

    @property
    def command(self) -> Command:
        """The command as the coordinator will read it."""
        return read_command(self.kind, [RawPayload("json/plain", to_json(dict(self.fields)))], self.command_id)

    def payload(self, now: datetime) -> dict[str, Any]:
        """The signal's input. Its actor is the key's, whatever the fields contain."""
        return {**self.fields, "command_id": self.command_id, "actor": self.actor, "sent_at": now.isoformat()}

    def need_readable(self) -> None:
        """Raises InvalidRequest if the coordinator would not even read the id: after a 202 there would never be an outcome."""
        data = to_json(encodable(self.payload(datetime.now(UTC))))
        sent = read_command(self.kind, [RawPayload("json/plain", data)], "")
        if not sent.named:
            raise InvalidRequest(("body",), f"nothing was sent: {sent.problem}")


class CommandResponse(NamedTuple):
    """Status, JSON body and headers."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


class Commander:
    """Carries commands to the coordinator. `acknowledge_seconds` bounds signal and confirmation together."""

    def __init__(
        self, desk: CoordinatorClient, symbols: Sequence[str], acknowledge_seconds: float, instruments: ApiMetrics
    ) -> None:
        self._desk = desk
        self._symbols = symbols
        self._seconds = acknowledge_seconds
        self._instruments = instruments

    async def carry_out(self, ask: CommandRequest) -> CommandResponse:
        """Sends the command and waits; raises ApiError for everything but 200 and 202."""
        try:
            with self._desk.carrying_out():
                return await self._carry_out(ask)
        except ApiError as error:
            error.more_headers = _headers(ask)
            if isinstance(error, Unavailable):
                self._instruments.command(ask.kind, "failed")
            raise

    async def _carry_out(self, ask: CommandRequest) -> CommandResponse:
        if ask.kind is not CommandKind.KILL:
            ask.need_readable()
            await self._desk.admit()
        started = time.monotonic()
        deadline = started + self._seconds
        try:
            await self._signal(ask)
        except (SignalRefused, RefusedInTheEnd) as error:
            if ask.kind is CommandKind.KILL:
                return await self._kill_by_cancelling(ask, error, deadline)
            if isinstance(error, SignalRefused):
                raise NotRecorded(str(error), None) from error
            raise PerhapsRecorded(ask.command_id, None) from error
        told = list[str]()
        outcome = await self._confirmation(ask, deadline, told)
        if outcome is None:
            return self._accepted(ask, *told[:1])
        self._instruments.confirmed(ask.kind, time.monotonic() - started)
        if outcome.outcome is not Outcome.PENDING:
            return self._settled(ask, outcome)
        # Confirmed by the coordinator; its next cycle will settle it.
        self._refuse_reused_key(ask, outcome)
        self._instruments.command(ask.kind, "accepted")
        return CommandResponse(202, pending_body(outcome), _headers(ask) | _where_to_ask(ask.command_id))

    async def _signal(self, ask: CommandRequest) -> None:
        seconds = min(SIGNAL_SECONDS, self._seconds * _SIGNAL_SHARE)
        try:
            with self._desk.sending():
                await self._desk.gateway.signal(ask.kind.value, ask.payload(datetime.now(UTC)), seconds)
        except (NoCoordinator, TemporalUnreachable) as error:
            raise NotRecorded(str(error), self._cancels(ask)) from error
        except SignalUnanswered as error:
            self._desk.recorded(ask.command_id)
            if isinstance(error, RefusedInTheEnd):
                raise
            raise PerhapsRecorded(ask.command_id, self._cancels(ask)) from error
        self._desk.recorded(ask.command_id)

    async def _confirmation(self, ask: CommandRequest, deadline: float, told: list[str]) -> CommandOutcome | None:
        """The command's settled outcome, or None if there is none in time. If a cycle settles the command, pending is enough.

        Adds to `told` why the command will not take effect by itself.
        """
        pause = _FIRST_PAUSE_SECONDS
        while True:
            outcome = await self._look(ask, deadline, told)
            if outcome is not None and (outcome.outcome is not Outcome.PENDING or ask.kind in _WAITS_FOR_A_CYCLE):
                return outcome
            if time.monotonic() + pause >= deadline:
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _look(self, ask: CommandRequest, deadline: float, told: list[str]) -> CommandOutcome | None:
        try:
            left = max(deadline - time.monotonic(), 0.001)
            found = await self._desk.read([ask.command_id], left, urgent=ask.kind is CommandKind.KILL)
        except NoCoordinator as error:
            raise CoordinatorClosed(str(error), self._cancels(ask)) from error
        except CoordinatorPaused as error:
            told.append(str(error))
            return None
        except GatewayError:
            return None
        except Exception:
            # The signal is recorded, so an unreadable answer must not look as if the command were lost.
            log.exception("outcome cannot be read", command_id=ask.command_id)
            return None
        return found.outcomes.get(ask.command_id)

    async def _kill_by_cancelling(self, ask: CommandRequest, refusal: GatewayError, deadline: float) -> CommandResponse:
        """A run takes 10,000 signals. After that it still accepts a cancellation (measured), which means kill."""
        log.warning("kill signal refused, requesting cancellation", command_id=ask.command_id, error=str(refusal))
        await self._request_cancellation(ask, refusal, deadline)
        warning, told = (
            "Temporal refused the kill signal; the kill went in as a cancellation of the workflow",
            list[str](),
        )
        outcome = await self._confirmation(ask, deadline, told)
        if outcome is not None:
            return self._settled(ask, outcome)._replace(headers=_headers(ask, warning))
        return await self._accepted_as_cancellation(ask, warning, *told[:1])

    async def _request_cancellation(self, ask: CommandRequest, refusal: GatewayError, deadline: float) -> None:
        seconds = min(SIGNAL_SECONDS, max(deadline - time.monotonic(), 0.5))
        # The reason carries the content of a kill signal, so that the kill can be followed by its id.
        reason = to_json(ask.payload(datetime.now(UTC))).decode()
        try:
            await self._desk.gateway.request_cancel(reason, seconds)
        except SignalUnanswered as error:
            self._desk.recorded(ask.command_id)
            raise PerhapsRecorded(ask.command_id, self._cancels(ask)) from error
        except GatewayError as error:
            if isinstance(refusal, RefusedInTheEnd):
                raise PerhapsRecorded(ask.command_id, self._cancels(ask)) from error
            raise NotRecorded(f"{refusal}; a cancellation failed too: {error}", self._cancels(ask)) from error
        self._desk.recorded(ask.command_id)

    async def _accepted_as_cancellation(self, ask: CommandRequest, *warnings: str) -> CommandResponse:
        """If an earlier kill of this run also went in as a cancellation, it is carried out for both, under its id."""
        answer = self._accepted(ask, *warnings)
        reason = await self._desk.gateway.standing_cancellation(STANDING_SECONDS)
        standing = None if reason is None else read_cancellation(reason, "")
        if standing is None or standing.command_id == ask.command_id:
            return answer
        headers = _headers(
            ask, *warnings, "an earlier cancellation request already kills this run; this kill is carried out with it"
        )
        # A cancellation by hand has no id.
        where = _where_to_ask(standing.command_id) if standing.command_id else {}
        return answer._replace(headers=headers | where)

    def _accepted(self, ask: CommandRequest, *warnings: str) -> CommandResponse:
        self._instruments.command(ask.kind, "unconfirmed")
        headers = _headers(ask, *warnings) | _where_to_ask(ask.command_id)
        return CommandResponse(202, unconfirmed_body(ask.command, self._cancels(ask)), headers)

    def _refuse_reused_key(self, ask: CommandRequest, outcome: CommandOutcome) -> None:
        if outcome.fingerprint == ask.fingerprint:
            return
        self._instruments.command(ask.kind, "refused")
        raise InvalidRequest(
            ("header", "Idempotency-Key"),
            f"this key was used for another command ({outcome.command}, {outcome.outcome}); nothing was done",
            "idempotency_key_reused",
        )

    def _settled(self, ask: CommandRequest, outcome: CommandOutcome) -> CommandResponse:
        self._refuse_reused_key(ask, outcome)
        if outcome.outcome is Outcome.REFUSED:
            self._instruments.command(ask.kind, "refused")
            raise refusal_of(ask.kind, outcome)
        self._instruments.command(ask.kind, "repeated" if outcome.repeated else "applied")
        warnings = ("this Idempotency-Key was used for another command before; the kill was carried out anyway",)
        headers = _headers(ask, *(warnings if outcome.reused_id else ()))
        return CommandResponse(200, applied_body(outcome, ask.command.reason), headers)

    def _cancels(self, ask: CommandRequest) -> list[CancelInstruction] | None:
        """The cancels of a kill: of the configured symbols, and of those that the desk was last seen to cover besides.

        With the configured ones alone, a person who carries them out by hand would leave the orders of a symbol that was added.
        """
        symbols = dict.fromkeys((*self._symbols, *self._desk.covered_symbols))
        return cancel_instructions(list(symbols)) if ask.kind is CommandKind.KILL else None


def refusal_of(kind: CommandKind, outcome: CommandOutcome) -> ApiError:
    """The error for a recorded refusal."""
    detail = outcome.detail or "refused"
    match outcome.code:
        case RefusalCode.INVALID:
            return InvalidRequest(("body", _BLAMED.get(kind, "symbols")), detail)
        case RefusalCode.BUSY:
            return Unavailable(detail)
        case _:
            return CommandRefused(detail)


def _where_to_ask(command_id: str) -> dict[str, str]:
    return {"Location": f"/control/commands/{quote(command_id, safe='')}", "Retry-After": "1"}


def _headers(ask: CommandRequest, *warnings: str) -> dict[str, str]:
    every = (*ask.warnings, *warnings)
    return {"X-Command-Id": ask.command_id} | ({"X-AIS-Warning": header_text("; ".join(every))} if every else {})


def header_text(text: str) -> str:
    """The text as a header may hold it: one line of ASCII."""
    flat = text.encode("ascii", "backslashreplace").decode()
    return "".join(character if character.isprintable() else " " for character in flat)[:1000]
