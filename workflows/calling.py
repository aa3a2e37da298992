"""Calls an activity, and takes an answer that cannot be read for a failed call.

The failure behind this file: anybody with the `temporal` command line can end an activity that hangs, by `temporal activity
complete` and a result of any kind. The SDK (temporalio 1.35) reads the result before the workflow sees it. What it could not
read failed this workflow task and every later one of the run: no kill was carried out any more. So the SDK passes the result
on as it is, and it is read here.
"""

from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

UNREADABLE = "UnreadableAnswer"


class Signature(Protocol[T_co]):
    """An activity of `activities/calls.py`: its name, and what it answers."""

    __name__: str
    __annotations__: dict[str, Any]

    def __call__(self, call: Any, /) -> Awaitable[T_co]: ...


async def answer_of(activity: Signature[T], call: object, **how: Any) -> T:
    """Calls the activity; `how` are `activities/options.py`, queue and summary. Raises ActivityError."""
    # By its name: for a function the SDK would read the result as what the function returns.
    return read(activity, await workflow.execute_activity(activity.__name__, call, result_type=RawValue, **how))


def begin(activity: Signature[object], call: object, **how: Any) -> workflow.ActivityHandle[RawValue | None]:
    """Schedules the activity. What its handle returns is for `read`."""
    return workflow.start_activity(activity.__name__, call, result_type=RawValue, **how)


def read(activity: Signature[T], result: RawValue | None) -> T:
    """The answer that a worker, or a person, has given. Raises ActivityError for one that this activity cannot give."""
    kind = activity.__annotations__["return"]
    if kind is None:
        # This activity has no result: it is enough that it completed.
        return None  # type: ignore[return-value]
    try:
        if result is None:
            raise ValueError("it is empty")
        answer: T = workflow.payload_converter().from_payload(result.payload, kind)
    except Exception as error:
        raise _unreadable(activity.__name__, error) from None
    return answer


def _unreadable(name: str, error: Exception) -> ActivityError:
    failed = ActivityError(
        "Activity task failed", scheduled_event_id=0, started_event_id=0, identity="", activity_type=name,
        activity_id="", retry_state=None,
    )  # fmt: skip
    why = (str(error).splitlines() or [""])[0][:200]
    failed.__cause__ = ApplicationError(f"the answer of {name} cannot be read: {why}", type=UNREADABLE)
    return failed
