"""One open MCP session, reopened after it breaks.

It has to survive three faults. A server that dies takes the whole client block with it (an ExceptionGroup out of a task
group, or a stream that silently ends); a server that hangs never answers; and a server that is gone must not be hammered. So
our own task holds the client block, and calls from any task go through it. We bound each call ourselves, since the SDK takes
five seconds more to get out of a stuck transport.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import structlog
from mcp import Client, MCPError
from mcp.client.session import ClientSession
from mcp_types import REQUEST_TIMEOUT, CallToolResult, PaginatedRequestParams

from activities.venues.aster.last_look import LastLook
from activities.venues.aster.operation import Urgency, current
from activities.venues.aster.results import Unreadable
from activities.venues.aster.turns import Turn, Turns
from activities.venues.port import CLEARED, Clearance, VenueNotSent, VenueUnavailable

# The server gives up a request to the exchange after half a minute. Until then a late answer returns its turn.
LISTENS_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 1.0
# After this many calls given up, without any answer (even a late one) for the time of two calls, the connection counts as dead.
SILENT_CALLS = 3
SILENT_TIMES = 2
# The share of its time that a cancel may spend waiting for its turn: one sent too late would be given up for nothing.
WAITS_FOR_A_TURN = 2 / 3
# The longest wait of a reading for its turn; an operation with less time waits less.
WAITS_SECONDS = 10.0

log = structlog.get_logger("aster")

Schemas = Mapping[str, Mapping[str, Any]]


class GivenUp(VenueUnavailable):
    """We stopped waiting; the server may still be working on the call."""

    retryable = True

    def __init__(self, call: str, seconds: float) -> None:
        super().__init__(f"{call}: the MCP server did not answer within {seconds:.1f} s")


def silence_the_sdk() -> None:
    """Silences the SDK's loggers: they would log whole messages, arguments and error texts, which must never reach a log."""
    for name in ("mcp", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class ToolCall(NamedTuple):
    """One tool call. `label` names it for people, `turn` lasts until it has really ended, `clearance` permits an order."""

    tool: str
    label: str
    arguments: dict[str, Any]
    urgency: Urgency
    turn: Turn
    clearance: Clearance = CLEARED


class Connection:
    """One client block, held open by its own task."""

    def __init__(self, client: Client, timeout_seconds: float, connect_seconds: float) -> None:
        self.schemas: Schemas = {}
        self._turns: Turns | None = None
        self._client = client
        self._timeout = timeout_seconds
        self._connect_seconds = connect_seconds
        self._session: ClientSession | None = None
        self._opened = asyncio.Event()
        self._retired = asyncio.Event()
        self._calls: set[asyncio.Task[CallToolResult]] = set()
        self._silent = 0
        self._heard_at = time.monotonic()
        self._owner = asyncio.create_task(self._hold())
        self._owner.add_done_callback(_forget)

    @property
    def is_open(self) -> bool:
        """Whether it takes new calls."""
        return self._opened.is_set() and not self._retired.is_set() and not self._owner.done()

    async def opened(self) -> bool:
        """Waits until it is open; False if that failed or took too long."""
        waiting = asyncio.create_task(self._opened.wait())
        await asyncio.wait({waiting, self._owner}, timeout=self._connect_seconds, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self.is_open:
            self._owner.cancel()
        return self.is_open

    async def call(self, call: ToolCall, seconds: float) -> CallToolResult:
        """Sends the call once, within `seconds`. Raises VenueUnavailable, with a text of our own."""
        if self._turns is None:
            return await call.clearance.send(lambda: self._call(call, seconds))
        until = time.monotonic() + seconds
        # A cancel and its confirmation have to fit into one attempt. The time of a reading starts with its turn.
        waits = seconds * WAITS_FOR_A_TURN if call.urgency <= Urgency.CANCEL else current().left(WAITS_SECONDS)
        async with self._turns.turn(call.label, call.urgency, waits):
            left = until - time.monotonic() if call.urgency <= Urgency.CANCEL else current().left(seconds)
            if left <= 0:
                raise VenueNotSent(f"{call.label}: not sent: nobody waits for it any more")
            return await call.clearance.send(lambda: self._call(call, left))

    async def _call(self, call: ToolCall, seconds: float) -> CallToolResult:
        look = LastLook(call.clearance)
        running = asyncio.create_task(self._written(call, look), context=look.context())
        self._calls.add(running)
        running.add_done_callback(self._ended)
        call.turn.lasts_as_long_as(running)
        either: set[asyncio.Future[Any]] = {running, look.withheld}
        # A call that we give up keeps running: the server works on it all the same, and its late answer returns the turn.
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if look.withheld.done():
            running.cancel()
            raise look.withheld.result()
        if not running.done():
            raise self._given_up(call.label, seconds)
        return self._outcome(running, call.label, seconds)

    async def _written(self, call: ToolCall, look: LastLook) -> CallToolResult:
        assert self._session is not None
        # Over stdio this is the last check; HTTP makes another one where the bytes leave.
        look.check()
        # Not `Client.call_tool`: it sends a second time if the server asks for that.
        return await self._session.call_tool(call.tool, call.arguments, read_timeout_seconds=LISTENS_SECONDS)

    def retire(self) -> None:
        """Takes no new calls; those under way end by themselves."""
        self._retired.set()

    async def close(self) -> None:
        """Closes it, with all calls under way."""
        self._retired.set()
        self._owner.cancel()
        await asyncio.wait({self._owner}, timeout=self._timeout)

    async def _hold(self) -> None:
        try:
            async with self._client as client:
                self.schemas = await _schemas(client.session)
                self._turns = Turns() if _runs_one_at_a_time(client) else None
                self._session = client.session
                self._opened.set()
                await self._retired.wait()
                if self._calls:
                    await asyncio.wait(self._calls, timeout=LISTENS_SECONDS)
        except Exception as error:
            # Usually an ExceptionGroup around an error whose text may contain an address, so only the class is logged.
            say = log.debug if self._retired.is_set() else log.warning
            say("the MCP connection broke", error=type(error).__name__)
        finally:
            self._retired.set()
            for call in self._calls:
                call.cancel()

    def _outcome(self, call: asyncio.Task[CallToolResult], label: str, seconds: float) -> CallToolResult:
        try:
            result = call.result()
        except asyncio.CancelledError:
            raise VenueUnavailable(f"{label}: the connection to the MCP server broke") from None
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                raise self._given_up(label, seconds) from None
            self.retire()
            raise VenueUnavailable(f"{label}: the MCP server broke off (code {error.code})") from None
        except RuntimeError:
            # So the SDK reports an answer that breaks its tool's schema, as `null` does. The connection is fine.
            raise Unreadable(label, "it is not what the tool promises") from None
        except Exception as error:
            # Closed streams and broken transports.
            self.retire()
            raise VenueUnavailable(f"{label}: the MCP server broke off ({type(error).__name__})") from None
        return result

    def _given_up(self, label: str, seconds: float) -> GivenUp:
        """Notes a call given up. After too many without any answer, the connection takes no new calls."""
        self._silent += 1
        if self._silent >= SILENT_CALLS and time.monotonic() - self._heard_at > SILENT_TIMES * self._timeout:
            self.retire()
        return GivenUp(label, seconds)

    def _ended(self, call: asyncio.Task[CallToolResult]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and call.exception() is None:
            self._silent, self._heard_at = 0, time.monotonic()


class Session:
    """The way to the server: the open connection, or a new one.

    Connecting may take `connect_seconds`, longer than a call: a server over stdio has to start first.
    """

    def __init__(
        self, open_client: Callable[[], Client], timeout_seconds: float, connect_seconds: float | None = None
    ) -> None:
        silence_the_sdk()
        self._open_client = open_client
        self._timeout = timeout_seconds
        self._connect_seconds = connect_seconds or timeout_seconds
        self._connecting: asyncio.Task[Connection] | None = None
        self._failures = 0
        self._not_before = 0.0

    async def connection(self, seconds: float) -> Connection:
        """An open connection. All callers wait for the same attempt to connect. Raises VenueUnavailable."""
        attempt = self._connecting
        if attempt is None or (
            attempt.done() and (attempt.cancelled() or attempt.exception() or not attempt.result().is_open)
        ):
            attempt = self._connecting = asyncio.create_task(self._connect())
            attempt.add_done_callback(_forget)
        await asyncio.wait({attempt}, timeout=seconds)
        if not attempt.done():
            raise VenueUnavailable(f"the MCP server opened no session within {seconds:.1f} s")
        return attempt.result()

    async def close(self) -> None:
        """Closes the connection, if there is one."""
        attempt, self._connecting = self._connecting, None
        if attempt is not None and not attempt.done():
            attempt.cancel()
        elif attempt is not None and not attempt.exception():
            await attempt.result().close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._not_before - loop.time()))
        connection = Connection(self._open_client(), self._timeout, self._connect_seconds)
        try:
            if not await connection.opened():
                pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10), LAST_PAUSE_SECONDS)
                self._failures += 1
                self._not_before = loop.time() + pause
                log.warning("no connection to the MCP server", failures=self._failures)
                raise VenueUnavailable("the MCP server cannot be reached")
        except asyncio.CancelledError:
            await connection.close()
            raise
        self._failures = 0
        # Even if this connection breaks at once, the next does not follow at once.
        self._not_before = loop.time() + FIRST_PAUSE_SECONDS
        log.info("connected to the MCP server", tools=len(connection.schemas))
        return connection


async def _schemas(session: ClientSession) -> Schemas:
    """Every tool's input schema. Otherwise the SDK would list them with the first call."""
    found: dict[str, Mapping[str, Any]] = {}
    cursor: str | None = None
    while True:
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        found |= {tool.name: tool.input_schema for tool in page.tools}
        cursor = page.next_cursor
        if not cursor:
            return found


def _runs_one_at_a_time(client: Client) -> bool:
    """Whether the server is fastmcp 2, which runs one call after another. One with no version of its own reports that one."""
    if client.server_info is None or not client.server_info.version.startswith("2."):
        return False
    log.warning(
        "this MCP server runs one call after another, so a call that hangs holds up every cancel: run it with a "
        "newer fastmcp",
        version=client.server_info.version,
    )
    return True


def _forget(task: asyncio.Task[Any]) -> None:
    """Retrieves a task's exception. Otherwise asyncio would log it with everything in it."""
    if not task.cancelled():
        task.exception()
