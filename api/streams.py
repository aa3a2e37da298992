"""An answer without an end: events (`text/event-stream`) for as long as the client stays.

It buffers nothing for a slow client: while an event is being sent, newer ones replace older ones. The door closes the connection
of a client that does not read at all.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any, Protocol

from fastapi import Response
from starlette.types import Receive, Scope, Send

_FLAG = "ais.endless"
_OVER = "ais.over"


def is_endless(scope: Mapping[str, Any]) -> bool:
    """Whether this request is answered by a stream, whose duration means nothing and whose end nobody waits for."""
    return bool(scope.get(_FLAG))


def end(scope: MutableMapping[str, Any]) -> None:
    """Ends this stream, even before it begins: another request waits behind it."""
    scope.setdefault(_OVER, asyncio.Event()).set()


class EventSource(Protocol):
    """The events that a stream sends. It occupies a place until it is closed."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def close(self) -> None:
        """Called at the end, however the stream ends."""


class EventStream(Response):
    """Sends what `events` yields, until the client leaves, asks for something else or the events end."""

    media_type = "text/event-stream"

    def __init__(self, events: EventSource, headers: Mapping[str, str] | None = None, status_code: int = 200) -> None:
        super().__init__(status_code=status_code, headers=headers)
        # The length of the answer is not known.
        del self.headers["content-length"]
        # Otherwise nginx and similar proxies would hold events back until they have a few KB.
        self.headers["X-Accel-Buffering"] = "no"
        self._events = events
        self._has_begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_FLAG] = True
        over: asyncio.Event = scope.setdefault(_OVER, asyncio.Event())
        tasks = [asyncio.create_task(work) for work in (self._send_all(send), _disconnected(receive), over.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._events.close()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        # Goes nowhere if the client has left. If another request waits behind this one, it is answered now.
        await self._begin(send)
        await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Send) -> None:
        await self._begin(send)
        async for data in self._events:
            await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _begin(self, send: Send) -> None:
        if not self._has_begun:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self._has_begun = True


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
