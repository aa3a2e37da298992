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
# How the SDK writes what an activity without a result returns. The command line cannot write it.
NOTHING = b"binary/null"


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
