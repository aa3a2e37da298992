"""From AIS_ASTER_MCP to an MCP client: streamable HTTP, SSE, or a process of our own over stdio."""

import os
import shlex
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import McpHttpClientFactory

from activities.venues.aster.last_look import LookingClient
from activities.venues.aster.session import Session

STDIO = "stdio:"
# The rules of every symbol come in one message, and the SDK's own limit of one megabyte is less than they take.
MOST_BYTES = 64 * 1024 * 1024


# A server that we start ourselves imports half a second to three seconds of Python first.
STDIO_CONNECT_SECONDS = 20.0


def session_for(address: str, timeout_seconds: float) -> Session:
    """A session with the server at an address, opened by the first call."""
    return Session(lambda: client_for(address, timeout_seconds), timeout_seconds, _patience(address, timeout_seconds))


def client_for(address: str, timeout_seconds: float) -> Client:
    """A client that is not connected yet; entering it connects."""
    # The response cache is for lists that we read once a connection.
    return Client(
        _transport(address, timeout_seconds), read_timeout_seconds=_patience(address, timeout_seconds), cache=None
    )


def _patience(address: str, timeout_seconds: float) -> float:
    return max(timeout_seconds, STDIO_CONNECT_SECONDS) if address.startswith(STDIO) else timeout_seconds


def shown(address: str) -> str:
    """The address as it may be logged: without a query or a command's arguments."""
    if address.startswith(STDIO):
        return STDIO + (shlex.split(address.removeprefix(STDIO)) or [""])[0]
    return address.partition("?")[0]


def _transport(address: str, timeout_seconds: float) -> AbstractAsyncContextManager[Any]:
    if address.startswith(STDIO):
        return _stdio(*shlex.split(address.removeprefix(STDIO)))
    if urlsplit(address).path.rstrip("/").endswith("/sse"):
        return sse_client(address, httpx_client_factory=_factory(address, timeout_seconds))
    return _streamable_http(address, timeout_seconds)


@asynccontextmanager
async def _streamable_http(address: str, timeout_seconds: float) -> AsyncIterator[Any]:
    async with (
        _http_client(address, timeout_seconds) as http,
        # No goodbye: to a server that hangs it would take as long as that hangs.
        streamable_http_client(
            address, http_client=http, terminate_on_close=False, max_sse_event_size=MOST_BYTES
        ) as streams,
    ):
        yield streams


@asynccontextmanager
async def _stdio(command: str, *arguments: str) -> AsyncIterator[Any]:
    """The server's own log goes nowhere: it writes down failed requests with their signatures."""
    with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230 - it never blocks
        async with stdio_client(StdioServerParameters(command=command, args=list(arguments)), nowhere) as streams:
            yield streams


def _factory(address: str, timeout_seconds: float) -> McpHttpClientFactory:
    def make(headers: dict[str, str] | None = None, timeout: object = None, auth: object = None) -> httpx2.AsyncClient:
        return _http_client(address, timeout_seconds)

    return make


def _http_client(address: str, timeout_seconds: float) -> httpx2.AsyncClient:
    """Reading has no time-out of its own: one slow call would end the connection and every other call with it.

    A proxy from the environment is for the world outside; plain HTTP is spoken with a neighbour.
    """
    return LookingClient(
        timeout=httpx2.Timeout(timeout_seconds, read=None, pool=None),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        trust_env=address.startswith("https:"),
    )
