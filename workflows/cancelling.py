"""Sends cancels to the venue: one at a time per symbol and market. Cancels due together share an activity.

Measured with fifty symbols and calls of 20 ms: with one activity per cancel, a kill took more than twice as long as a bare
client with the same calls, since each result needed its own workflow task.
"""

import asyncio
from typing import NamedTuple

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.run import CoordinatorRun, short, was_busy, why

with workflow.unsafe.imports_passed_through():
    from activities import calls, options
    from domain.desk import outbox
    from domain.trading.instructions import Tool

# Two activities fill all 32 places (`lanes.MAX_CANCELS_AT_ONCE`). If one is lost with its worker, the other half still goes
# out.
MAX_TOGETHER = 16


class Failed(NamedTuple):
    """Why a cancel is not confirmed. `busy`: it was not sent, because other calls came first."""

    why: str
    busy: bool


class Together:
    """Cancels that became due at the same moment, and the activity that sends them."""

    def __init__(self) -> None:
        self.cancels: list[calls.CancelCall] = []
        self.task: asyncio.Task[list[calls.CancelAnswer | Failed]] | None = None


class Cancelling:
    """Sends cancels and notes what the venue answered."""

    def __init__(self, run: CoordinatorRun) -> None:
        self._run = run
        self._c = run.c
        self._open: Together | None = None

    async def cancel(self, tool: Tool, symbol: str, ids: list[str]) -> Failed | None:
        """Makes one venue call for these instructions. Returns None once the venue has confirmed them."""
        orders = [cancel.venue_order_id for cancel in self._c.cancels.named(ids) if cancel.venue_order_id]
        call = calls.CancelCall(scope=self._run.scope, tool=tool, symbol=symbol, instruction_ids=ids, order_ids=orders)
        outbox.cancels_begun(self._c, ids)
        # A kill's cancels never share an activity with the cancel of an order that is only being replaced.
        failed = await (self._cancel_alone(call) if tool is Tool.CANCEL_ORDER else self._with_others(call))
        if failed:
            outbox.cancels_failed(self._c, ids, failed.why)
        else:
            outbox.cancels_confirmed(self._c, ids, workflow.now())
        self._run.changed = True
        return failed

    async def _with_others(self, call: calls.CancelCall) -> Failed | None:
        if self._open is None or len(self._open.cancels) == MAX_TOGETHER:
            self._open = Together()
            # This task starts after every lane that runs at this moment, so it takes all their cancels along.
            self._open.task = asyncio.create_task(self._carry_out(self._open))
        mine, number = self._open, len(self._open.cancels)
        mine.cancels.append(call)
        assert mine.task is not None
        answer = (await mine.task)[number]
        if isinstance(answer, Failed):
            return answer
        if not answer.done:
            return await self._cancel_alone(call.model_copy(update={"goes_on": True}))
        return Failed(answer.error, answer.not_sent) if answer.error else None

    async def _carry_out(self, together: Together) -> list[calls.CancelAnswer | Failed]:
        if self._open is together:
            self._open = None
        if len(together.cancels) == 1:
            return [await self._cancel_alone(together.cancels[0]) or calls.CancelAnswer()]
        call = calls.CancelManyCall(scope=self._run.scope, cancels=together.cancels)
        symbols = list(dict.fromkeys(cancel.symbol for cancel in together.cancels))
        try:
            answers = await self._run.calling.answer_of(
                calls.cancel_many,
                call,
                task_queue=self._run.queue,
                summary=short(f"{len(together.cancels)} cancels: {', '.join(symbols)}"),
                **options.CANCEL,
            )
        except ActivityError as error:
            return [Failed(why(error), was_busy(error))] * len(together.cancels)
        # A person may have ended the activity with fewer.
        missing = len(together.cancels) - len(answers)
        return [*answers, *[Failed("there is no answer about this cancel", busy=False)] * missing]

    async def _cancel_alone(self, call: calls.CancelCall) -> Failed | None:
        try:
            await self._run.calling.answer_of(
                calls.cancel,
                call,
                task_queue=self._run.queue,
                summary=short(f"{call.tool.value.replace('_', ' ')} of {call.symbol}"),
                **options.CANCEL,
            )
        except ActivityError as error:
            return Failed(why(error), was_busy(error))
        return None
