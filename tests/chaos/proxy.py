"""A TCP proxy that can fail in every way in which a network does."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]
SLOW_SECONDS = 0.15
CHUNK = 65536


class Proxy:
    """Passes bytes on between whoever connects and `connect`, as `mode` says:

    pass         as they come
    refused      nobody listens; open connections are closed
    reset        open connections are reset, and so is every new one
    black_hole   connections stand, and nothing arrives on either side; what was sent meanwhile arrives afterwards
    slow         every piece takes a moment, each way
    half_closed  what the client says arrives; of the answers nothing does, and the client sees the end of them
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.mode = "pass"
        self.pause = SLOW_SECONDS
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passes = asyncio.Event()
        self._passes.set()

    async def start(self) -> None:
        """Listens, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def change(self, mode: str) -> None:
        """From now on."""
        self.mode = mode
        if mode == "refused":
            await self._stop_listening()
        elif self._server is None:
            await self.start()
        if mode in ("refused", "reset"):
            self._cut(reset=mode == "reset")
        if mode == "black_hole":
            self._passes.clear()
        else:
            self._passes.set()

    async def close(self) -> None:
        """Ends it."""
        await self._stop_listening()
        self._cut(reset=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _cut(self, *, reset: bool) -> None:
        for writer in [*self._open]:
            cut(writer, reset=reset)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            if self.mode == "reset":
                cut(writer, reset=True)
                return
            await self._passes.wait()
            there, back = await self._connect()
            self._open.add(back)
            try:
                await asyncio.gather(
                    self._pass_on(reader, back, answers=False), self._pass_on(there, writer, answers=True)
                )
            finally:
                self._open.discard(back)
                back.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        ended = False
        while chunk := await reader.read(CHUNK):
            await self._passes.wait()
            if self.mode == "slow":
                await asyncio.sleep(self.pause)
            if ended or (self.mode == "half_closed" and answers):
                # For good: a direction that has ended takes nothing any more, whatever comes after the fault.
                ended = True
                end_of_answers(writer)
                continue
            writer.write(chunk)
            await writer.drain()
        await self._passes.wait()
        end_of_answers(writer)


def end_of_answers(writer: asyncio.StreamWriter) -> None:
    """The one direction ends, the other goes on."""
    with contextlib.suppress(OSError, RuntimeError):
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()


def cut(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Ends a connection: with a reset, or as one that is closed."""
    with contextlib.suppress(OSError, RuntimeError):
        found = writer.get_extra_info("socket")
        if reset and found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort() if reset else writer.close()


def to_port(port: int) -> Connect:
    """Of a server on this machine."""
    return lambda: asyncio.open_connection("127.0.0.1", port)


def to_socket(path: str) -> Connect:
    """Of a server behind a Unix socket."""
    return lambda: asyncio.open_unix_connection(path)
