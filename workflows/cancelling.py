"""Cancels at the venue: so many under way at once, each symbol and market by itself, those that are due together in one activity.

Measured with fifty symbols and calls of 20 ms: with an activity for each cancel, a kill took more than twice as long as a bare
client with the same calls, since each result was a workflow task of its own.
"""

import asyncio
from typing import NamedTuple

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.host import Host, short, was_busy, why

with workflow.unsafe.imports_passed_through():
    from activities import calls, options
    from domain import outbox
    from domain.instructions import Tool
    from domain.versions import cancels_together

# Two activities keep the room full, and one that is lost with its worker takes no more than its half with it.
MAX_TOGETHER = 16


class Failed(NamedTuple):
    """Why a cancel is not confirmed; `busy` where it was not sent, since other calls were before it."""

    why: str
    busy: bool


class Together:
    """Cancels that became due in the same moment, and the activity that carries them out."""

    def __init__(self) -> None:
        self.cancels: list[calls.CancelCall] = []
        self.task: asyncio.Task[list[calls.CancelAnswer | Failed]] | None = None


class Cancelling:
    """Carries out cancels."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._c = host.c
        self._open: Together | None = None

    async def cancel(self, tool: Tool, symbol: str, ids: list[str]) -> Failed | None:
        """One call at the venue for these instructions; None once it has confirmed them."""
        call = calls.CancelCall(scope=self._host.scope, tool=tool, symbol=symbol, instruction_ids=ids)
        outbox.cancels_begun(self._c, ids)
        together = cancels_together(self._c.schema_version)
        failed = await (self._with_others(call) if together else self._alone(call))
        if failed:
            outbox.cancels_failed(self._c, ids, failed.why)
        else:
            outbox.cancels_confirmed(self._c, ids, workflow.now())
        self._host.changed = True
        return failed

    async def _with_others(self, call: calls.CancelCall) -> Failed | None:
        if self._open is None or len(self._open.cancels) == MAX_TOGETHER:
            self._open = Together()
            # It begins after every lane that runs in this moment, so that all of them are in it.
            self._open.task = asyncio.create_task(self._carry_out(self._open))
        mine, number = self._open, len(self._open.cancels)
        mine.cancels.append(call)
        assert mine.task is not None
        answer = (await mine.task)[number]
        if isinstance(answer, Failed):
            return answer
        if not answer.done:
            return await self._alone(call.model_copy(update={"goes_on": True}))
        return Failed(answer.error, answer.not_sent) if answer.error else None

    async def _carry_out(self, together: Together) -> list[calls.CancelAnswer | Failed]:
        if self._open is together:
            self._open = None
        if len(together.cancels) == 1:
            return [await self._alone(together.cancels[0]) or calls.CancelAnswer()]
        call = calls.CancelManyCall(scope=self._host.scope, cancels=together.cancels)
        try:
            return list(
                await workflow.execute_activity(
                    calls.cancel_many,
                    call,
                    task_queue=self._host.queue,
                    summary=_text(together.cancels),
                    **options.CANCEL,
                )
            )
        except ActivityError as error:
            return [Failed(why(error), was_busy(error))] * len(together.cancels)

    async def _alone(self, call: calls.CancelCall) -> Failed | None:
        try:
            await workflow.execute_activity(
                calls.cancel,
                call,
                task_queue=self._host.queue,
                summary=short(f"{call.tool.value} {call.symbol}"),
                **options.CANCEL,
            )
        except ActivityError as error:
            return Failed(why(error), was_busy(error))
        return None


def _text(cancels: list[calls.CancelCall]) -> str:
    symbols = list(dict.fromkeys(cancel.symbol for cancel in cancels))
    return short(f"{len(cancels)} cancels: {', '.join(symbols)}")
