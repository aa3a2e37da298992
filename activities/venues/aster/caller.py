"""Calls the server's tools by name: adds the account, keeps the exchange's pauses, counts, and turns every failure into a
VenueError. Neither arguments nor answers are logged: the account's name is in the one, and its money in the other.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from activities.venues.aster.backoff import Backoff
from activities.venues.aster.results import TooManyRequests, payload
from activities.venues.aster.room import Room
from activities.venues.aster.session import Connection, GivenUp, Session
from activities.venues.port import VenueError, VenueMisconfigured, VenueUnavailable
from activities.venues.watch import Watch

PASSED = "passed"
"""The lane of a call whose way past the pause an earlier one of the same errand has paid for."""

log = structlog.get_logger("aster")


class Ready:
    """A tool that may be called now, over a connection that is open. Until it is called, nothing has been sent."""

    def __init__(self, connection: Connection, tool: str, label: str, call: Callable[..., Any]) -> None:
        self.label = label
        self._properties: Mapping[str, Any] = connection.schemas[tool].get("properties", {})
        self._connection = connection
        self._tool = tool
        self._call = call

    def takes_text(self, argument: str) -> bool:
        """Whether an argument is a string, by the tool's own schema."""
        return bool(self._properties.get(argument, {}).get("type") == "string")

    async def __call__(self, arguments: dict[str, Any], seconds: float) -> object:
        """Sends it, once."""
        answer: object = await self._call(self._connection, self._tool, self.label, arguments, seconds)
        return answer


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
        return Ready(connection, tool, label, self._send)

    async def close(self) -> None:
        """Ends the session."""
        await self._session.close()

    async def _send(
        self, connection: Connection, tool: str, label: str, arguments: dict[str, Any], seconds: float
    ) -> object:
        began, outcome = time.monotonic(), "ok"
        if "account_id" in connection.schemas[tool].get("properties", {}):
            arguments = {"account_id": self._account_id} | arguments
        try:
            return await self._answer(connection, tool, label, arguments, seconds)
        except (VenueError, asyncio.CancelledError) as error:
            outcome = type(error).__name__
            raise
        finally:
            self._told(tool, time.monotonic() - began, outcome)

    async def _answer(
        self, connection: Connection, tool: str, label: str, arguments: dict[str, Any], seconds: float
    ) -> object:
        try:
            result = await connection.call(tool, label, arguments, seconds)
        except GivenUp:
            if not tool.startswith("cancel_"):
                self._room.given_up()
            raise
        try:
            answer = payload(label, result)
        except TooManyRequests as error:
            raise self._backoff.told(label, error.status) from None
        if tool == "ping" and isinstance(answer, Mapping) and answer.get("ok") is False:
            # The one tool that fails without an error flag.
            raise VenueUnavailable("ping: the MCP server does not reach the exchange")
        self._backoff.answered()
        return answer

    def _told(self, tool: str, seconds: float, outcome: str) -> None:
        self._watch.venue_called(tool, seconds, outcome != "ok")
        say = log.debug if outcome == "ok" else log.warning
        say("venue call", tool=tool, seconds=round(seconds, 3), outcome=outcome)
