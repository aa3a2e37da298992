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
from activities.venues.port import CLEARED, Clearance, VenueUnavailable

# The server gives a request to the exchange up after half a minute; its late answer gives a turn back until then.
LISTENS_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 1.0
# So many calls given up, and for the time of two not one answer, not even a late one: the connection is taken for dead.
SILENT_CALLS = 3
SILENT_TIMES = 2
# The part of its time in which a cancel may wait for its turn; one sent with the rest of a moment is given up for nothing.
WAITS_FOR_A_TURN = 2 / 3
# Nothing that reads waits longer for its turn; an operation that has less time waits less.
WAITS_SECONDS = 10.0

log = structlog.get_logger("aster")

Schemas = Mapping[str, Mapping[str, Any]]


class GivenUp(VenueUnavailable):
    """We stopped waiting; the server may still be working on the call."""

    retryable = True

    def __init__(self, call: str, seconds: float) -> None:
        super().__init__(f"{call}: the MCP server did not answer within {seconds:.1f} s")


def silence_the_sdk() -> None:
    """Its loggers write down whole messages, arguments and error texts: nothing of that may reach a log."""
    for name in ("mcp", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class Call(NamedTuple):
    """One tool call. `label` names it for people; its `turn` lasts until the call has really ended; an order needs its
    `clearance`.
    """

    tool: str
    label: str
    arguments: dict[str, Any]
    urgency: Urgency
    turn: Turn
    clearance: Clearance = CLEARED


class Connection:
    """One client block, held open by a task of its own."""

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
        """Whether new calls may go through it."""
        return self._opened.is_set() and not self._retired.is_set() and not self._owner.done()

    async def opened(self) -> bool:
        """Waits until it is open; False where that failed or took too long."""
        waiting = asyncio.create_task(self._opened.wait())
        await asyncio.wait({waiting, self._owner}, timeout=self._connect_seconds, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self.is_open:
            self._owner.cancel()
        return self.is_open

    async def call(self, call: Call, seconds: float) -> CallToolResult:
        """Sends it once, within `seconds`. Raises VenueUnavailable, whose text is our own."""
        if self._turns is None:
            return await call.clearance.send(lambda: self._call(call, seconds))
        until = time.monotonic() + seconds
        # A cancel and its reading back have to fit into one attempt; whatever only reads has its time from its turn on.
        waits = seconds * WAITS_FOR_A_TURN if call.urgency <= Urgency.CANCEL else current().left(WAITS_SECONDS)
        async with self._turns.turn(call.label, call.urgency, waits):
            left = until - time.monotonic() if call.urgency <= Urgency.CANCEL else current().left(seconds)
            return await call.clearance.send(lambda: self._call(call, max(0.0, left)))

    async def _call(self, call: Call, seconds: float) -> CallToolResult:
        look = LastLook(call.clearance)
        running = asyncio.create_task(self._written(call, look), context=look.context())
        self._calls.add(running)
        running.add_done_callback(self._ended)
        call.turn.lasts_as_long_as(running)
        either: set[asyncio.Future[Any]] = {running, look.withheld}
        # Whoever gives it up leaves it running: the server is at it all the same, and its late answer gives the turn back.
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if look.withheld.done():
            running.cancel()
            raise look.withheld.result()
        if not running.done():
            raise self._given_up(call.label, seconds)
        return self._outcome(running, call.label, seconds)

    async def _written(self, call: Call, look: LastLook) -> CallToolResult:
        assert self._session is not None
        # Over stdio this is the last look; HTTP takes another one where the bytes leave.
        look.check()
        # Not `Client.call_tool`: that one sends a second time where the server asks it to.
        return await self._session.call_tool(call.tool, call.arguments, read_timeout_seconds=LISTENS_SECONDS)

    def retire(self) -> None:
        """No new calls; those under way end by themselves."""
        self._retired.set()

    async def close(self) -> None:
        """Ends it with whatever is under way."""
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
            # An ExceptionGroup as a rule, around something whose text may hold an address: the class has to do.
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
            # The SDK's way to say that an answer breaks its tool's own schema, as `null` does: the connection is well.
            raise Unreadable(label, "it is not what the tool promises") from None
        except Exception as error:
            # Closed streams and broken transports.
            self.retire()
            raise VenueUnavailable(f"{label}: the MCP server broke off ({type(error).__name__})") from None
        return result

    def _given_up(self, label: str, seconds: float) -> GivenUp:
        """Nobody reads its late answer."""
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

    An attempt to connect may take `connect_seconds`, which can exceed the time of a call: our own process has to start.
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
        """An open connection; everybody who waits for one waits for the same attempt. Raises VenueUnavailable."""
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
        """Ends the connection, if there is one."""
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
        # Even one that breaks at once is not followed by another at once.
        self._not_before = loop.time() + FIRST_PAUSE_SECONDS
        log.info("connected to the MCP server", tools=len(connection.schemas))
        return connection


async def _schemas(session: ClientSession) -> Schemas:
    """Every tool's input schema. Listing them also spares the SDK from doing so behind the first call."""
    found: dict[str, Mapping[str, Any]] = {}
    cursor: str | None = None
    while True:
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        found |= {tool.name: tool.input_schema for tool in page.tools}
        cursor = page.next_cursor
        if not cursor:
            return found


def _runs_one_at_a_time(client: Client) -> bool:
    """A server that gives itself no version has that of fastmcp, and fastmcp 2 runs one call after another."""
    if client.server_info is None or not client.server_info.version.startswith("2."):
        return False
    log.warning(
        "this MCP server runs one call after another, so that one that hangs holds up every cancel: run it with a "
        "newer fastmcp",
        version=client.server_info.version,
    )
    return True


def _forget(task: asyncio.Task[Any]) -> None:
    """Takes note of a task's exception, which asyncio would otherwise write to the log with all that it holds."""
    if not task.cancelled():
        task.exception()
