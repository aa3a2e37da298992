"""Calls the server's tools by name: adds the account, keeps the exchange's pauses, counts, and turns every failure into a
VenueError. Neither arguments nor answers are logged: the account's name is in the one, and its money in the other.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from activities.venues.aster.backoff import Backoff
from activities.venues.aster.results import TooManyRequests, payload
from activities.venues.aster.room import Room
from activities.venues.aster.session import Call, Connection, GivenUp, Session
from activities.venues.aster.turns import Urgency
from activities.venues.port import CLEARED, Clearance, VenueError, VenueMisconfigured, VenueUnavailable
from activities.venues.watch import Watch

PASSED = "passed"
"""The lane of a call whose way past the pause an earlier one of the same errand has paid for."""

log = structlog.get_logger("aster")


Send = Callable[[Connection, Call, float], Awaitable[object]]


class Ready:
    """A tool that may be called now, over a connection that is open. Until it is called, nothing has been sent."""

    def __init__(self, connection: Connection, call: Call, send: Send) -> None:
        self.label = call.label
        self._properties: Mapping[str, Any] = connection.schemas[call.tool].get("properties", {})
        self._connection = connection
        self._call = call
        self._send = send

    def takes_text(self, argument: str) -> bool:
        """Whether an argument is a string, by the tool's own schema."""
        return bool(self._properties.get(argument, {}).get("type") == "string")

    async def __call__(self, arguments: dict[str, Any], seconds: float, clearance: Clearance = CLEARED) -> object:
        """Sends it, once; VenueNotSent where something stands in the way in the last moment."""
        return await self._send(
            self._connection, self._call._replace(arguments=arguments, clearance=clearance), seconds
        )


class Caller:
    """One account's way to the tools. Each call is bounded by `timeout_seconds`, connecting included."""

    def __init__(
        self, session: Session, account_id: str, timeout_seconds: float, watch: Watch, backoff: Backoff | None = None
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self._session = session
        self._account_id = account_id
        self._watch = watch
        self._backoff = backoff or Backoff()
        self._room = Room()

    async def call(
        self,
        tool: str,
        symbol: str | None = None,
        *,
        seconds: float | None = None,
        lane: str | None = None,
        **more: Any,
    ) -> object:
        """What the tool answers, bare. Raises VenueError."""
        began = time.monotonic()
        bound = self.timeout_seconds if seconds is None else max(0.0, min(seconds, self.timeout_seconds))
        ready = await self.ready(tool, symbol, seconds=bound, lane=lane)
        arguments = ({} if symbol is None else {"symbol": symbol}) | more
        return await ready(arguments, max(0.0, bound - (time.monotonic() - began)))

    async def ready(
        self, tool: str, symbol: str | None = None, *, seconds: float | None = None, lane: str | None = None
    ) -> Ready:
        """All that comes before a send: an error raised here means that nothing was sent."""
        label = tool if symbol is None else f"{tool} {symbol}"
        if lane is None:
            self._room.refuse(label)
        if lane != PASSED:
            self._backoff.refuse(label, lane)
        connection = await self._session.connection(self.timeout_seconds if seconds is None else seconds)
        if tool not in connection.schemas:
            raise VenueMisconfigured(f"{label}: the MCP server has no such tool; is it Aster's?")
        return Ready(connection, Call(tool, label, {}, _urgency(tool, lane)), self._send)

    async def close(self) -> None:
        """Ends the session."""
        await self._session.close()

    async def _send(self, connection: Connection, call: Call, seconds: float) -> object:
        began, outcome = time.monotonic(), "ok"
        if "account_id" in connection.schemas[call.tool].get("properties", {}):
            call = call._replace(arguments={"account_id": self._account_id} | call.arguments)
        try:
            return await self._answer(connection, call, seconds)
        except (VenueError, asyncio.CancelledError) as error:
            outcome = type(error).__name__
            raise
        finally:
            self._told(call.tool, time.monotonic() - began, outcome)

    async def _answer(self, connection: Connection, call: Call, seconds: float) -> object:
        try:
            result = await connection.call(call, seconds)
        except GivenUp:
            if not call.tool.startswith("cancel_"):
                self._room.given_up()
            raise
        try:
            answer = payload(call.label, result)
        except TooManyRequests as error:
            raise self._backoff.told(call.label, error.status) from None
        if call.tool == "ping" and isinstance(answer, Mapping) and answer.get("ok") is False:
            # The one tool that fails without an error flag.
            raise VenueUnavailable("ping: the MCP server does not reach the exchange")
        self._backoff.answered()
        return answer

    def _told(self, tool: str, seconds: float, outcome: str) -> None:
        self._watch.venue_called(tool, seconds, outcome != "ok")
        say = log.debug if outcome == "ok" else log.warning
        say("venue call", tool=tool, seconds=round(seconds, 3), outcome=outcome)


def _urgency(tool: str, lane: str | None) -> Urgency:
    if lane == PASSED or tool == "create_order":
        return Urgency.UNDER_WAY
    return Urgency.READING if lane is None else Urgency.CANCEL
