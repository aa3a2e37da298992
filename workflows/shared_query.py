"""One query in flight a desk and process; whoever arrives while it runs shares the next one.

The incident behind this file: 16 clients that each signalled and then queried took up to 16 s, because the server buffers one
query a workflow and refuses the rest, and two processes that retried at the SDK's own pace starved each other (8 s). Sharing
the *next* query keeps a promise too: it began after they asked, so nobody reads a state older than the request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from domain.status import Outcomes

Ask = Callable[[list[str]], Awaitable[Outcomes]]


@dataclass
class _Batch:
    ids: set[str] = field(default_factory=set)
    answer: asyncio.Future[Outcomes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class SharedQuery:
    """Shares the answers of `ask`, which is given every id that was asked for and never runs twice at once."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._next: _Batch | None = None
        self._runner: asyncio.Task[None] | None = None

    async def read(self, command_ids: Iterable[str] = ()) -> Outcomes:
        """The answer of a query that begins after this call; raises what that query raised."""
        if self._next is None:
            self._next = _Batch()
        batch = self._next
        batch.ids.update(command_ids)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        # Shielded: one waiter that gives up must not take the answer from the others.
        return await asyncio.shield(batch.answer)

    async def _run(self) -> None:
        try:
            while (batch := self._next) is not None:
                self._next = None
                await self._answer(batch)
        finally:
            self._runner = None

    async def _answer(self, batch: _Batch) -> None:
        try:
            batch.answer.set_result(await self._ask(sorted(batch.ids)))
        except asyncio.CancelledError:
            batch.answer.cancel()
            raise
        except Exception as error:
            batch.answer.set_exception(error)
            # Read once here, so that an answer nobody waited for is not reported as a lost exception.
            batch.answer.exception()
