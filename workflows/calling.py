"""Calls an activity, and takes an answer that cannot be read for a failed call.

The failure behind this file: anybody with the `temporal` command line can end an activity that hangs, by `temporal activity
complete` and a result of any kind. The SDK (temporalio 1.35) reads the result before the workflow sees it. What it could not
read failed this workflow task and every later one of the run: no kill was carried out any more. So the SDK passes the result
on as it is, and it is read here.

Anybody can also pause an activity, by `temporal activity pause` or in the web UI. The server (1.32) then lets none of its time
limits end it. With a paused reading a desk had no cycle and no restart any more, and its run no end; with a paused cancel, a
later kill waited. So the run gives up by itself what should have ended long ago.
"""

import asyncio
from collections.abc import Awaitable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities import options

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
Handle = workflow.ActivityHandle[RawValue | None]

UNREADABLE, NEVER_ENDED = "UnreadableAnswer", "NeverEnded"
# How the SDK writes what an activity without a result returns. The command line cannot write it.
NOTHING = b"binary/null"


class Signature(Protocol[T_co]):
    """An activity of `activities/calls.py`: its name, and what it answers."""

    __name__: str
    __annotations__: dict[str, Any]

    def __call__(self, call: Any, /) -> Awaitable[T_co]: ...


class Calling:
    """The calls of a run, and until when each should have ended."""

    def __init__(self) -> None:
        self._until: dict[Handle, datetime] = {}
        # For each order what ends the wait for it, and when it was first found to be late.
        self._orders: dict[Handle, asyncio.Future[None]] = {}
        self._late: dict[Handle, datetime] = {}

    async def answer_of(self, activity: Signature[T], call: object, **how: Any) -> T:
        """Calls the activity; `how` are `activities/options.py`, queue and summary. Raises ActivityError."""
        handle = begin(activity, call, **how)
        self._until[handle] = workflow.now() + how["schedule_to_close_timeout"] + options.SERVER_IS_LATE
        try:
            return read(activity, await handle)
        except (ActivityError, asyncio.CancelledError):
            if handle in self._until:
                raise
            raise _failed(activity.__name__) from ApplicationError(never_ended(activity), type=NEVER_ENDED)
        finally:
            self._until.pop(handle, None)

    async def order_ended(self, handle: Handle, lasts: timedelta) -> bool:
        """Waits for the activity of an order. False if it is given up: its fate is unknown then, whatever it returns later.

        The server cannot tell an order that nobody has begun from one whose attempt failed while it was paused, and no
        cancellation reaches an attempt that hangs. So neither is waited for: the venue is asked."""
        self._until[handle] = workflow.now() + lasts + options.SERVER_IS_LATE
        ended = self._orders[handle] = asyncio.get_running_loop().create_future()
        handle.add_done_callback(partial(_note_end, ended))
        try:
            await ended
            return handle in self._until
        finally:
            for kept in (self._until, self._orders, self._late):
                kept.pop(handle, None)

    def give_up_overdue(self) -> None:
        """Cancels the calls that the server should have ended by now. Each fails at once."""
        now = workflow.now()
        for handle in [handle for handle, until in self._until.items() if until < now]:
            if not self._may_have_come(handle, now):
                self._give_up(handle)

    def _may_have_come(self, handle: Handle, now: datetime) -> bool:
        # After an outage one task brings a kill and the order's report, and the kill is taken first. A report is not replaced
        # by asking the venue, which cannot always tell. So an order is given up only in a later task.
        return handle in self._orders and self._late.setdefault(handle, now) == now

    def _give_up(self, handle: Handle) -> None:
        del self._until[handle]
        handle.cancel()
        if (ended := self._orders.get(handle)) and not ended.done():
            ended.set_result(None)


def _note_end(ended: asyncio.Future[None], handle: asyncio.Task[RawValue | None]) -> None:
    if not handle.cancelled():
        # Nobody else takes the error of an order that was given up, and asyncio would complain.
        handle.exception()
    if not ended.done():
        ended.set_result(None)


def never_ended(activity: Signature[object]) -> str:
    """Why a call was given up."""
    return f"{activity.__name__} has not ended in time: if somebody has paused it, `temporal activity unpause`"


def begin(activity: Signature[object], call: object, **how: Any) -> Handle:
    """Schedules the activity. What its handle returns is for `read`."""
    # By its name: for a function the SDK would read the result as what the function returns.
    return workflow.start_activity(activity.__name__, call, result_type=RawValue, **how)


def read(activity: Signature[T], result: RawValue | None) -> T:
    """The answer that a worker, or a person, has given. Raises ActivityError for one that this activity cannot give."""
    kind = activity.__annotations__["return"]
    if kind is None and result is not None and result.payload.metadata.get("encoding") == NOTHING:
        return None  # type: ignore[return-value]
    try:
        if kind is None or result is None:
            # A worker says nothing here, and a person something: that confirms no cancel, and writes no row.
            raise ValueError("it comes from no worker")
        answer: T = workflow.payload_converter().from_payload(result.payload, kind)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        text = f"the answer of {activity.__name__} cannot be read: {first}"
        raise _failed(activity.__name__) from ApplicationError(text, type=UNREADABLE)
    return answer


def _failed(name: str) -> ActivityError:
    return ActivityError(
        "Activity task failed", scheduled_event_id=0, started_event_id=0, identity="", activity_type=name,
        activity_id="", retry_state=None,
    )  # fmt: skip
