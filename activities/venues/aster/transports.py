"""From AIS_ASTER_MCP to an MCP client: streamable HTTP, SSE, or a process of our own over stdio."""

import os
import shlex
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from activities.venues.aster.last_look import LookingClient
from activities.venues.aster.session import Session

STDIO = "stdio:"
# The rules of all symbols come in one message, which exceeds the SDK's own limit of one megabyte.
MOST_BYTES = 64 * 1024 * 1024


# A server that we start ourselves first spends 0.5 to 3 s on imports.
STDIO_CONNECT_SECONDS = 20.0
# The official server renders a coloured traceback of every error from the exchange, which costs a third of a second of CPU.
_QUIET = {"FASTMCP_LOG_LEVEL": "CRITICAL"}


def session_for(address: str, timeout_seconds: float) -> Session:
    """A session with the server at an address, opened by the first call."""
    return Session(lambda: client_for(address, timeout_seconds), timeout_seconds, _patience(address, timeout_seconds))


def client_for(address: str, timeout_seconds: float) -> Client:
    """A client that is not connected yet; entering it connects."""
    # No response cache: it would serve only lists that we read once a connection.
    return Client(
        _streams(address, timeout_seconds), read_timeout_seconds=_patience(address, timeout_seconds), cache=None
    )


def _patience(address: str, timeout_seconds: float) -> float:
    return max(timeout_seconds, STDIO_CONNECT_SECONDS) if address.startswith(STDIO) else timeout_seconds


def shown(address: str) -> str:
    """The address as it may be logged: without a query or a command's arguments."""
    if address.startswith(STDIO):
        return STDIO + (shlex.split(address.removeprefix(STDIO)) or [""])[0]
    return address.partition("?")[0]


@asynccontextmanager
async def _streams(address: str, timeout_seconds: float) -> AsyncIterator[Any]:
    transport: AbstractAsyncContextManager[Any]
    async with AsyncExitStack() as opened:
        if address.startswith(STDIO):
            command, *arguments = shlex.split(address.removeprefix(STDIO))
            parameters = StdioServerParameters(command=command, args=arguments, env=_QUIET)
            # Discard the server's own log: it contains failed requests with their signatures.
            nowhere = opened.enter_context(open(os.devnull, "w"))  # noqa: ASYNC230 - it never blocks
            transport = stdio_client(parameters, nowhere)
        elif urlsplit(address).path.rstrip("/").endswith("/sse"):
            transport = sse_client(address, httpx_client_factory=partial(_http_client, address, timeout_seconds))
        else:
            http = await opened.enter_async_context(_http_client(address, timeout_seconds))
            # Do not say goodbye: a server that hangs would hold that up.
            transport = streamable_http_client(
                address, http_client=http, terminate_on_close=False, max_sse_event_size=MOST_BYTES
            )
        yield await opened.enter_async_context(transport)


def _http_client(address: str, timeout_seconds: float, **_asked: object) -> httpx2.AsyncClient:
    """Our own HTTP client, whatever options the SDK asks for.

    Reading has no time-out of its own: one slow call would end the connection, and every other call with it. A proxy from the
    environment is for the outside world; plain HTTP goes to a neighbour.
    """
    encrypted = address.startswith("https:")
    return LookingClient(
        timeout=httpx2.Timeout(timeout_seconds, read=None, pool=None),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        trust_env=encrypted,
        verify=True if encrypted else _certificates(),
    )


@cache
def _certificates() -> ssl.SSLContext:
    """What plain HTTP trusts if a redirect leads it to HTTPS. Read once: each time would block the event loop for up to 80 ms."""
    return httpx2.create_ssl_context(trust_env=False)
