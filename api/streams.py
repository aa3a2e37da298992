"""An answer that has no end: events (`text/event-stream`) for as long as the client stays.

It keeps nothing for a slow client. Whatever came while an earlier event was on its way is replaced by what is newest, and a
client that does not read at all is closed by the door.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any, Protocol

from fastapi import Response
from starlette.types import Receive, Scope, Send

_FLAG = "ais.endless"
_OVER = "ais.over"


def is_endless(scope: Mapping[str, Any]) -> bool:
    """Whether this request is answered by a stream: its length says nothing, and nobody waits for its end."""
    return bool(scope.get(_FLAG))


def end(scope: MutableMapping[str, Any]) -> None:
    """Ends this stream, before it begins too: somebody waits behind it."""
    scope.setdefault(_OVER, asyncio.Event()).set()


class EventSource(Protocol):
    """What a stream sends. Its place is taken from the beginning, and free once it is closed."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def close(self) -> None:
        """Called at the end, however that comes."""


class EventStream(Response):
    """Sends what `events` yields, until the client leaves, asks for something else or the events end."""

    media_type = "text/event-stream"

    def __init__(self, events: EventSource, headers: Mapping[str, str] | None = None, status_code: int = 200) -> None:
        super().__init__(status_code=status_code, headers=headers)
        # Until the client leaves, the length of the answer is not known.
        del self.headers["content-length"]
        # A proxy of the nginx kind would keep events until it has a few KB of them.
        self.headers["X-Accel-Buffering"] = "no"
        self._events = events
        self._has_begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_FLAG] = True
        over: asyncio.Event = scope.setdefault(_OVER, asyncio.Event())
        tasks = [asyncio.create_task(work) for work in (self._send_all(send), _left(receive), over.wait())]
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
        await self._finish(send)

    async def _send_all(self, send: Send) -> None:
        await self._begin(send)
        async for data in self._events:
            await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _begin(self, send: Send) -> None:
        if not self._has_begun:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self._has_begun = True

    async def _finish(self, send: Send) -> None:
        """Where the client has left, this goes nowhere; where another request waits behind, it is answered now."""
        await self._begin(send)
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
