"""The application behind its door, on a real socket, and clients that speak to it byte by byte."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI

from api.door import Door
from tests.api.world import KEY

KILL = "/control/kill-switch"


class _Server(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: FastAPI, grace: int = 1) -> AsyncIterator[int]:
    """The port on which it is served as `ais api` serves it; `grace`: seconds for those who have to be waited for."""
    config = uvicorn.Config(
        app, port=0, http=Door, ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=grace
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not running.done(), "it did not start"
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


class Reply(NamedTuple):
    """One answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.began = time.monotonic()

    @classmethod
    async def connect(cls, port: int) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, seconds: float = 10.0) -> Reply:
        async with asyncio.timeout(seconds):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(first.split()[1]), headers, body)

    async def is_closed(self, seconds: float = 10.0) -> float:
        """Waits until the server has closed it, without another byte; the connection's age then."""
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                assert await self.reader.read() == b""
        return time.monotonic() - self.began

    def close(self) -> None:
        self.writer.close()


def head(path: str, *headers: bytes, method: str = "POST", key: str | None = KEY) -> bytes:
    """A request's head, with whatever headers."""
    own = [f"{method} {path} HTTP/1.1".encode(), b"Host: api"]
    own += [f"Authorization: Bearer {key}".encode()] if key else []
    return b"\r\n".join([*own, *headers]) + b"\r\n\r\n"
