"""Load on an API, in a process of its own, so that it does not slow down the one that measures: `python -m bench.load …`.

Plain sockets, because an HTTP client in Python costs more than the server that it is meant to load. It imports nothing of ours,
so that it is there at once; bench/loading.py starts it.
"""

import asyncio
import json
import signal
import sys
import time
from typing import NamedTuple, cast

import uvloop

STATUS_CLIENTS = 64
KNOCKERS = 20
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
SERVE = "serve"


class Asked(NamedTuple):
    """What a generator has done: answers, seconds, and the seconds of the processor that it took."""

    answers: int
    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.answers / self.seconds:,.0f} answers a second with {self.cpu_seconds / self.seconds:.0%} of a core"
        )


class Generator:
    """64 status clients, as fast as they are answered, and so many unauthenticated requests a second."""

    def __init__(self, host: str, port: int, key: str, knocks_a_second: float) -> None:
        self._at = (host, port)
        self._status = f"GET /control/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        self._knock = b"POST /control/kill-switch HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        self._pause = KNOCKERS / knocks_a_second
        self._answers = 0

    async def run(self) -> Asked:
        """Asks until the process is told to end."""
        ended, began, used = asyncio.Event(), time.monotonic(), time.process_time()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        asking = [asyncio.create_task(self._ask(self._status, 0.0)) for _ in range(STATUS_CLIENTS)]
        asking += [asyncio.create_task(self._ask(self._knock, self._pause)) for _ in range(KNOCKERS)]
        # Whoever has started this reads a line, and knows that it asks.
        print(flush=True)
        await ended.wait()
        for task in asking:
            task.cancel()
        return Asked(self._answers, time.monotonic() - began, time.process_time() - used)

    async def _ask(self, request: bytes, every: float) -> None:
        """One connection: a request, its answer, and the next no sooner than `every` seconds after the last began."""
        reader, writer = await asyncio.open_connection(*self._at)
        while True:
            began = time.monotonic()
            await ask_once(reader, writer, request)
            self._answers += 1
            await asyncio.sleep(max(0.0, every - (time.monotonic() - began)))


async def ask_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    """A request and its answer, on a connection that stays open."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    await reader.readexactly(int(length.split(b":")[1]))


class Answers(asyncio.Protocol):
    """A server that only answers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one in all but name.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER * data.count(b"\r\n\r\n"))


async def serve(port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == SERVE:
        uvloop.run(serve(int(sys.argv[2])))
    else:
        host, port_, key_, knocks = sys.argv[1:]
        print(json.dumps(uvloop.run(Generator(host, int(port_), key_, float(knocks)).run())), flush=True)
