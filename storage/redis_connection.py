"""The way to Redis: every wait has a time limit, and none takes a thread that others need.

The failure behind this file: a name server that does not answer blocks the thread that asks it for half a minute, and no
timeout ends that. The client's own lookups take their threads from the event loop's pool, a new one for every attempt, until
none is left for the venue's connection. So names are looked up here, in a separate thread, and one lookup at a time.
"""

import asyncio
import importlib
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

CLOSE_SECONDS = 1.0


class NameLookup:
    """Looks up a name, one lookup at a time: a caller during a lookup gets its answer."""

    def __init__(self) -> None:
        self._running: Future[list[str]] | None = None
        self.connected: str | None = None
        """The address that was connected last."""

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host. Raises OSError if it has none; cancelling this ends no lookup."""
        if self._running is None or self._running.done():
            self._running = Future()
            # Running: nobody can cancel it then.
            self._running.set_running_or_notify_cancel()
            # No executor: the interpreter waits for an executor's threads when it ends.
            asked = (self._running, host, port)
            threading.Thread(target=_look_up, args=asked, name="redis-name", daemon=True).start()
        return await asyncio.wrap_future(self._running)

    def in_turn(self, addresses: list[str]) -> list[str]:
        """The addresses, the one connected last at the end: that connection failed, so it may hang or be a replica by now."""
        begin = addresses.index(self.connected) + 1 if self.connected in addresses else 0
        return addresses[begin:] + addresses[:begin]


def _look_up(future: Future[list[str]], host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        future.set_result(list(dict.fromkeys(str(address[0]) for *_, address in found)))
    except Exception as error:
        future.set_exception(error)


class RedisConnection:
    """A process's connection to one URL. `seconds` is the limit for connecting, and for each answer."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._names = NameLookup()
        self._library: Any = None
        self._client: Any = None

    async def client(self) -> Any:
        """The client, which connects with its first command."""
        if self._client is None:
            if self._library is None:
                # Imported late, since most desks have no Redis, and in a thread, so that the event loop goes on.
                self._library = await asyncio.to_thread(importlib.import_module, "redis.asyncio")
            waits = {"socket_timeout": self._seconds, "socket_connect_timeout": self._seconds}
            self._client = self._library.from_url(self._url, **waits, retry=None)
            pool = self._client.connection_pool
            if hasattr(pool.connection_class, "_connection_arguments"):
                pool.connection_class = _looked_up(pool.connection_class, self._names)
        return self._client

    async def close(self) -> None:
        """Ends the connection, whatever state it is in; the next call of `client` makes a new one."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await client.aclose()


def _looked_up(kind: Any, names: NameLookup) -> Any:
    """A class of connection that connects to the addresses from `names` and never looks up a name itself."""

    class LookedUp(kind):  # type: ignore[misc]
        async def _connect(self) -> None:
            async with asyncio.timeout(self.socket_connect_timeout) as whole:
                *others, last = names.in_turn(await names.addresses(self.host, self.port))
                for number, address in enumerate(others):
                    # An equal share of the time that is left, so that a silent address leaves time for the others.
                    left = (whole.when() or 0.0) - asyncio.get_running_loop().time()
                    with suppress(OSError):
                        async with asyncio.timeout(left / (len(others) + 1 - number)):
                            await self._connect_to(address)
                        return
                await self._connect_to(last)

        async def _connect_to(self, address: str) -> None:
            self._address = address
            await super()._connect()
            names.connected = address

        def _connection_arguments(self) -> dict[str, Any]:
            given: dict[str, Any] = super()._connection_arguments() | {"host": self._address}
            # The certificate is for the name, not the address.
            return given | {"server_hostname": self.host} if "ssl" in given else given

    return LookedUp
