"""One query in flight per desk and process; requests that arrive while it runs share the next one.

The incident behind this file: 16 clients that each signalled and then queried took up to 16 s, because the server buffers one
query per workflow and refuses the rest. Two processes that retried at the SDK's own pace starved each other (8 s). The shared
query is the *next* one, which begins after the requests arrived: no request gets a state older than itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from temporalio.api.common.v1 import Payload

from domain.desk.status import Outcomes

Headers = Mapping[str, Payload]
OutcomesQuery = Callable[[list[str], Headers], Awaitable[Outcomes]]


@dataclass
class _Batch:
    ids: set[str] = field(default_factory=set)
    headers: Headers = field(default_factory=dict)
    answer: asyncio.Future[Outcomes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class SharedQuery:
    """Shares the answers of `ask`. One call of `ask` gets the ids of all waiting requests; calls never overlap."""

    def __init__(self, ask: OutcomesQuery) -> None:
        self._ask = ask
        self._next: _Batch | None = None
        self._runner: asyncio.Task[None] | None = None

    async def read(self, command_ids: Iterable[str] = (), headers: Headers | None = None) -> Outcomes:
        """The answer of a query that begins after this call. Raises what the query raised. The first caller of a batch that
        passes `headers` decides which are sent."""
        if self._next is None:
            self._next = _Batch()
        batch = self._next
        batch.ids.update(command_ids)
        batch.headers = batch.headers or headers or {}
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        # Shielded: a waiter that gives up must not take the answer from the others.
        return await asyncio.shield(batch.answer)

    async def _run(self) -> None:
        try:
            while (batch := self._next) is not None:
                self._next = None
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
