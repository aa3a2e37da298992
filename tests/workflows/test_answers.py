"""Whatever ends an activity, no workflow task fails: people can do it by `temporal activity complete` and `fail`.

A run whose task fails at an answer fails every later task too, and no kill is carried out any more.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure
from temporalio.api.history.v1 import (
    ActivityTaskCompletedEventAttributes,
    ActivityTaskFailedEventAttributes,
    History,
    HistoryEvent,
)
from temporalio.client import WorkflowHistory
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from activities import calls
from tests.workflows.histories import FOLDER
from workflows.calling import Signature, read
from workflows.converter import DATA_CONVERTER
from workflows.coordinator import Coordinator
from workflows.run import why

# Each with a history in which it is answered.
ACTIVITIES: dict[str, list[Callable[[Any], object]]] = {
    "fresh": [calls.read_latch, calls.missing_attributes, calls.write_desk, calls.observe, calls.record],
    "overtaken": [calls.decide],
    "ordering": [calls.place_order, calls.settle_order],
    "commanded": [calls.plan_deleverage],
    "killed": [calls.cancel_many],
    "quoted": [calls.cancel],
    "restarted": [calls.clear_latch],
}
PAIRS = [(story, activity.__name__) for story, activities in ACTIVITIES.items() for activity in activities]
RESULTS = {
    "another type": Payload(metadata={"encoding": b"json/plain"}, data=b'"done"'),
    "an empty list": Payload(metadata={"encoding": b"json/plain"}, data=b"[]"),
    "no JSON": Payload(metadata={"encoding": b"json/plain"}, data=b"done"),
    "an encoding that nobody has": Payload(metadata={"encoding": b"x/y"}, data=b"done"),
}
DETAILS = {
    "an object": Payload(metadata={"encoding": b"json/plain"}, data=b'{"by": "operations"}'),
    "an encoding that nobody has": Payload(metadata={"encoding": b"x/y"}, data=b"z"),
}


def cut_at_answer(story: str, activity: str) -> tuple[History, ActivityTaskCompletedEventAttributes, int]:
    """The history up to the workflow task that takes the first answer of this activity, the answer, and where it is."""
    for events in _runs(story):
        named = {event.event_id: event.activity_task_scheduled_event_attributes.activity_type.name for event in events}
        for place, event in enumerate(events):
            answer = event.activity_task_completed_event_attributes
            if answer.scheduled_event_id and named.get(answer.scheduled_event_id) == activity:
                ends = (n for n in range(place, len(events)) if events[n].event_type == COMPLETED)
                return History(events=events[: next(ends) + 1]), answer, place
    raise LookupError(f"{activity} is never answered in {story}")


COMPLETED = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED


def _runs(story: str) -> Iterator[list[HistoryEvent]]:
    for file in sorted(FOLDER.glob(f"{story}_*.json")):
        yield list(WorkflowHistory.from_json("coordinator-x", file.read_text()).events)


async def replay(history: History) -> None:
    """Raises if a workflow task fails. What the last one commands is not in the history, and not compared."""
    replayer = Replayer(
        workflows=[Coordinator],
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=DATA_CONVERTER,
        # Without the SDK's limit of 2 s, which a busy machine exceeds.
        debug_mode=True,
    )
    await replayer.replay_workflow(WorkflowHistory("coordinator-x", list(history.events)))


@pytest.mark.parametrize(("story", "activity"), PAIRS, ids=[name for _, name in PAIRS])
async def test_an_answer_that_an_activity_cannot_give_fails_no_workflow_task(story: str, activity: str) -> None:
    for result in RESULTS.values():
        history, _, place = cut_at_answer(story, activity)
        answer = history.events[place].activity_task_completed_event_attributes
        answer.result.CopyFrom(Payloads(payloads=[result]))
        await replay(history)


@pytest.mark.parametrize(("story", "activity"), PAIRS, ids=[name for _, name in PAIRS])
async def test_a_failure_that_no_worker_reports_fails_no_workflow_task(story: str, activity: str) -> None:
    for detail in DETAILS.values():
        history, answer, place = cut_at_answer(story, activity)
        info = ApplicationFailureInfo(type="operations", details=Payloads(payloads=[detail]))
        history.events[place].event_type = EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED
        history.events[place].activity_task_failed_event_attributes.CopyFrom(
            ActivityTaskFailedEventAttributes(
                scheduled_event_id=answer.scheduled_event_id,
                started_event_id=answer.started_event_id,
                failure=Failure(message="it hangs", application_failure_info=info),
            )
        )
        await replay(history)


@pytest.mark.parametrize("activity", [calls.cancel, calls.record])
def test_what_a_person_says_confirms_no_cancel_and_writes_no_row(activity: Callable[[Any], object]) -> None:
    """`temporal activity complete` needs a result, and a worker has none."""
    for result in (*RESULTS.values(), Payload(metadata={"encoding": b"json/plain"}, data=b"null")):
        with pytest.raises(ActivityError) as raised:
            read(cast(Signature[object], activity), RawValue(result))
        assert "it comes from no worker" in why(raised.value)
    nothing = Payload(metadata={"encoding": b"binary/null"})
    assert read(cast(Signature[object], activity), RawValue(nothing)) is None
