"""Calls the server's tools by name: adds the account, respects the exchange's pauses, counts, and turns every failure into a
VenueError. It logs neither arguments (they contain the account's name) nor answers (they contain its money).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog

from activities.venues.aster.answers import TooManyRequests, payload
from activities.venues.aster.backoff import Backoff
from activities.venues.aster.operation import Urgency, current
from activities.venues.aster.session import WAITS_SECONDS, Connection, Session, ToolCall
from activities.venues.aster.signing import Signing
from activities.venues.aster.turns import FORTY_THREADS, Turn, Turns
from activities.venues.call_observer import CallObserver
from activities.venues.port import (
    CLEARED,
    Clearance,
    VenueError,
    VenueMisconfigured,
    VenueNotSent,
    VenueRateLimited,
    VenueRefused,
    VenueUnavailable,
)

log = structlog.get_logger("aster")

T = TypeVar("T")
Send = Callable[[Connection, ToolCall, float], Awaitable[object]]


class ReadyCall:
    """A tool ready to be called over an open connection. Until it is called, nothing has been sent."""

    def __init__(self, connection: Connection, call: ToolCall, send: Send) -> None:
        self.label = call.label
        self._properties: Mapping[str, Any] = connection.schemas[call.tool].get("properties", {})
        self._connection = connection
        self._call = call
        self._send = send

    def takes_text(self, argument: str) -> bool:
        """Whether an argument is a string, by the tool's own schema."""
        return bool(self._properties.get(argument, {}).get("type") == "string")

    async def __call__(self, arguments: dict[str, Any], seconds: float, clearance: Clearance = CLEARED) -> object:
        """Sends the call, once. Raises VenueNotSent if something prevents it at the last moment."""
        return await self._send(
            self._connection, self._call._replace(arguments=arguments, clearance=clearance), seconds
        )


class Caller:
    """Calls the tools for one account. From its turn on, a call may take `timeout_seconds`, including the time to connect."""

    def __init__(
        self,
        session: Session,
        account_id: str,
        timeout_seconds: float,
        watch: CallObserver,
        backoff: Backoff | None = None,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self._session = session
        self._account_id = account_id
        self._watch = watch
        self._backoff = backoff or Backoff()
        self._turns = Turns(FORTY_THREADS)
        self._signing = Signing()

    async def call(self, tool: str, symbol: str | None = None, *, seconds: float | None = None, **more: Any) -> object:
        """The tool's bare answer. Raises VenueError."""
        label, operation = _label(tool, symbol), current()
        # A call that completes a cancel goes before the next cancel.
        ends_a_cancel = operation.urgency is Urgency.CANCEL and not tool.startswith("cancel_")
        urgency = Urgency.UNDER_WAY if ends_a_cancel else operation.urgency
        self._backoff.refuse(label, tool, urgency)
        async with self._turns.turn(label, urgency, operation.left(WAITS_SECONDS)) as turn:
            if urgency > Urgency.CANCEL:
                # While it waited, the exchange may have asked for a pause. A cancel waits for no turn.
                self._backoff.refuse(label, tool, urgency)
            began = time.monotonic()
            bound = operation.left(self.timeout_seconds if seconds is None else min(seconds, self.timeout_seconds))
            if bound <= 0:
                raise VenueNotSent(f"{label}: not sent: nobody waits for it any more")
            ready = await self._ready(tool, label, urgency, bound, turn)
            arguments = ({} if symbol is None else {"symbol": symbol}) | more
            return await ready(arguments, max(0.0, bound - (time.monotonic() - began)))

    async def call_or_none(
        self, read: Callable[[object], T], tool: str, *, heeds_pauses: bool = True, **more: Any
    ) -> T | None:
        """What `read` makes of the answer; None if that fails, since the call is an extra. If it `heeds_pauses`, a pause that the
        exchange asks for is raised all the same."""
        try:
            return read(await self.call(tool, **more))
        except VenueError as error:
            if heeds_pauses and isinstance(error, VenueRateLimited):
                raise
            return None

    async def ready(self, tool: str, symbol: str | None = None) -> ReadyCall:
        """Everything that comes before the send of an order. An error raised here means that nothing was sent."""
        label = _label(tool, symbol)
        self._backoff.refuse(label, tool, current().urgency)
        return await self._ready(tool, label, Urgency.UNDER_WAY, self.timeout_seconds, Turn())

    async def close(self) -> None:
        """Closes the session."""
        await self._session.close()

    async def _ready(self, tool: str, label: str, urgency: Urgency, seconds: float, turn: Turn) -> ReadyCall:
        connection = await self._session.connection(seconds)
        if tool not in connection.schemas:
            raise VenueMisconfigured(f"{label}: the MCP server has no such tool; is it Aster's?")
        return ReadyCall(connection, ToolCall(tool, label, {}, urgency, turn), self._send)

    async def _send(self, connection: Connection, call: ToolCall, seconds: float) -> object:
        began, outcome = time.monotonic(), "ok"
        signed = "account_id" in connection.schemas[call.tool].get("properties", {})
        if signed:
            call = call._replace(arguments={"account_id": self._account_id} | call.arguments)
        try:
            answer = await self._answer(connection, call, seconds)
            self._signing.answered(signed=signed)
            return answer
        except VenueRefused as error:
            outcome = type(error).__name__
            raise self._signing.refused(call.tool, call.label, error) if signed else error from None
        except (VenueError, asyncio.CancelledError) as error:
            outcome = type(error).__name__
            raise
        finally:
            took = time.monotonic() - began
            self._watch.venue_called(call.tool, took, outcome, call.arguments.get("symbol"))
            say = log.debug if outcome == "ok" else log.warning
            say("venue call", tool=call.tool, seconds=round(took, 3), outcome=outcome)

    async def _answer(self, connection: Connection, call: ToolCall, seconds: float) -> object:
        # The kind of call that a refusal pauses. An order is neither held back like a cycle's readings nor a cancel.
        urgency = Urgency.SOON if call.tool == "create_order" else call.urgency
        began = self._backoff.now()
        result = await connection.call(call, seconds)
        try:
            answer = payload(call.label, result)
        except TooManyRequests as error:
            raise self._backoff.paused(call.label, call.tool, urgency, error.status, began) from None
        if call.tool == "ping" and isinstance(answer, Mapping) and answer.get("ok") is False:
            # The one tool that fails without an error flag.
            raise VenueUnavailable("ping: the MCP server does not reach the exchange")
        self._backoff.answered(call.tool, urgency, began)
        return answer


def _label(tool: str, symbol: str | None) -> str:
    return tool if symbol is None else f"{tool} {symbol}"
