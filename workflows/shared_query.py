"""One query in flight per desk and process; requests that arrive while it runs share the next one.

The incident behind this file: 16 clients that each signalled and then queried took up to 16 s, because the server buffers one
query per workflow and refuses the rest. Two processes that retried at the SDK's own pace starved each other (8 s). The shared
query is the *next* one, which begins after the requests arrived: no request gets a state older than itself.

And an answer is bounded: what a kill of 400 symbols has come to takes 80 kB, and Temporal refuses an answer of more than 2 MB.
Of 60 such kills at once none was confirmed (measured), since each query asked about all of them. So a query asks about a few,
and the rest share the ones after it, kills first (I8).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from temporalio.api.common.v1 import Payload

from domain.desk.status import Outcomes

Headers = Mapping[str, Payload]
MOST_IDS = 16

OutcomesQuery = Callable[[list[str], Headers], Awaitable[Outcomes]]


@dataclass
class _Batch:
    ids: set[str] = field(default_factory=set)
    headers: Headers = field(default_factory=dict)
    readers: int = 0
    answer: asyncio.Future[Outcomes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class SharedQuery:
    """Shares the answers of `ask`. One call of `ask` gets the ids of as many waiting requests as one may; calls never
    overlap."""

    def __init__(self, ask: OutcomesQuery) -> None:
        self._ask = ask
        self._waiting: deque[_Batch] = deque()
        self._urgent: deque[_Batch] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def read(
        self, command_ids: Iterable[str] = (), headers: Headers | None = None, *, urgent: bool = False
    ) -> Outcomes:
        """The answer of a query that begins after this call. Raises what the query raised. An urgent one comes before all that
        are not. The first caller of a batch that passes `headers` decides which are sent."""
        batch = self._with_room({*command_ids}, self._urgent if urgent else self._waiting)
        batch.headers = batch.headers or headers or {}
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        # Shielded: a waiter that gives up must not take the answer from the others.
        batch.readers += 1
        try:
            return await asyncio.shield(batch.answer)
        finally:
            batch.readers -= 1

    def _with_room(self, ids: set[str], waiting: deque[_Batch]) -> _Batch:
        """The first waiting batch that takes these ids too. Any has room for a request without ids."""
        batch = next((b for b in waiting if not ids or len(b.ids | ids) <= MOST_IDS), None)
        if batch is None:
            waiting.append(batch := _Batch())
        batch.ids.update(ids)
        return batch

    async def _run(self) -> None:
        try:
            while waiting := self._urgent or self._waiting:
                batch = waiting.popleft()
                if not batch.readers:
                    # Without a worker each query takes seconds: those who have left must not delay those who have come.
                    continue
                try:
                    batch.answer.set_result(await self._ask(sorted(batch.ids), batch.headers))
                except asyncio.CancelledError:
                    batch.answer.cancel()
                    raise
                except Exception as error:
                    batch.answer.set_exception(error)
                    # Retrieve it here, so that asyncio does not report an exception that nobody waited for.
                    batch.answer.exception()
        finally:
            self._runner = None
