"""Runs workflows in Temporal's sandbox, and keeps a query that arrives between two workflow tasks from advancing a run.

The failure behind it: to answer a query, a worker reads the run's history. That history may reach beyond the last workflow
task: an activity has ended since, but the next task has not begun. The SDK (core of 1.35) hands those early events to the
workflow anyway, at the time of the previous task. Two things went wrong:

- Commands that the workflow issues at the wrong time go out with the next task. If the right time leads to other commands, for
  instance because a cycle is due by then, the run can never be replayed again. The next worker fails each of its tasks, and no
  kill is carried out.
- If the workflow continues as new at the wrong time, it never sees the signals of the next task: a kill is lost.

All it takes is to replace a worker while somebody queries the desk. So a run that was read for a query ignores early events.
It must then be read again, with its task, and the SDK may have that task already. If the run were dropped, the SDK would
forget the task as soon as a second query waits behind the first: a kill then waits for the task's time-out of ten seconds.
So the run stays, and answers its task with a command that the server never accepts. The server hands the task out again at once.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from temporalio.bridge.proto.workflow_activation import WorkflowActivation, WorkflowActivationJob
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.client import Client
from temporalio.converter import StorageDriverStoreContext
from temporalio.worker import Worker, WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from workflows import names
from workflows.begun import Begun, Drop, begun_by, drop_by

# How long such queries are refused while the run's history does not grow. The workflow task normally comes much sooner. The
# bound is a time, not a number of refusals: with five refusals allowed, the sixth query of a crowd got in and advanced the run.
# It exists so that the run would still go on if a later SDK gave a task the time of the previous one.
REFUSED_SECONDS = 300.0
MOST_REMEMBERED = 1_000
# The history shows it in the failure of the task.
READ_AGAIN = "a query came before this task, so the run is read again"
# No run has so many activities.
UNUSED = 1_000_000
# A workflow task is scheduled, then started.
EVENTS_TO_BEGIN = 2

_NO_STORE = StorageDriverStoreContext()

log = structlog.get_logger("worker")
_clock = time.monotonic
# When the first query was refused, by run and length of its history.
_refusals: dict[tuple[str, int], float] = {}


def _nobody_says(_workflow_id: str, _run_id: str, _event_id: int) -> None:
    """For tests without a server."""


def _nobody_drops(_run_id: str, _has_left: Callable[[], bool]) -> None:
    """For tests without a worker."""


@dataclass(frozen=True)
class TimelyRunner(SandboxedWorkflowRunner):
    """The sandbox, with a check of each activation before the workflow sees it."""

    begun: Begun = _nobody_says
    drop: Drop = _nobody_drops

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Called once for each run in the cache."""
        begun = partial(self.begun, det.info.workflow_id, det.info.run_id)
        return TimelyInstance(super().create_instance(det), begun, self.drop)


def timely(client: Client, identity: str, worker: Callable[[], Worker]) -> TimelyRunner:
    """The runner of a worker of this identity. It must be made in the thread of the client's event loop."""
    return TimelyRunner(begun=begun_by(client, identity), drop=drop_by(worker))


class TimelyInstance(WorkflowInstance):
    """One run. Only one thread at a time calls `activate`.

    `begun` says whether an event of the history begins a workflow task of this worker; None if that is not known.
    """

    def __init__(self, run: WorkflowInstance, begun: Callable[[int], bool | None], drop: Drop = _nobody_drops) -> None:
        self._run = run
        self._begun, self._drop = begun, drop
        # The last activation with more than queries: its time, its length of history, and whether it was a replay.
        self._at: tuple[int, int] | None = None
        self._length, self._replayed = 0, False
        # How many events the history has once the server has accepted that activation's task, if nothing else happens.
        self._events = 0
        # The length of history about which the server was last asked.
        self._asked = 0
        self._is_doubtful = self._has_ended = self._is_behind = self._has_left = False

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """Passes the activation on to the run, unless its events are early."""
        if any(job.HasField("remove_from_cache") for job in act.jobs):
            self._has_left = True
            return self._run.activate(act)
        if all(job.HasField("query_workflow") for job in act.jobs):
            return self._queried(act)
        if self._is_behind:
            return _completion(act)
        if self._has_ended:
            # The server did not accept the run's end, and these events would be lost with the run.
            return _refused(act, "events for a run that has ended")
        is_task = self._is_task(act)
        if is_task is False and _may_refuse(act):
            self._is_behind = True
            self._drop(act.run_id, lambda: self._has_left)
            return _never_taken(act)
        self._take_note(act, is_task)
        done = self._run.activate(act)
        issued = [command.WhichOneof("variant") for command in done.successful.commands]
        self._events += len(issued)
        self._has_ended = "continue_as_new_workflow_execution" in issued and not act.is_replaying
        return done

    def _queried(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """A run that is behind or has ended answers no query.

        The server passes on a task's answers to queries even if it refuses the task. So a run that ends answers none: its
        signals are about to be handled once more.
        """
        if self._replayed:
            # A run that is read for a query is replayed with its whole history known.
            self._events = act.history_length
        ids = [job.query_workflow.query_id for job in act.jobs]
        # Any other query comes with a workflow task, and refusing it would fail that task.
        is_alone = any(query_id.startswith("legacy") for query_id in ids)
        if self._has_ended or self._is_behind:
            return _unanswered(act, ids)
        if is_alone and not self._replayed and self._length != self._asked:
            # Did the last events come with a task of this worker, or were they read for this query? The run cannot tell.
            self._asked = self._length
            self._is_doubtful = self._is_doubtful or self._begun(self._length) is False
        if self._is_doubtful and is_alone and _may_refuse(act):
            return _refused(act, "a query between two workflow tasks")
        return self._run.activate(act)

    def _is_early(self, act: WorkflowActivation) -> bool:
        """Whether the activation brings events at the time of a task that is over. They belong to the next task.

        A run that was replayed for the query has no other activation at that time. A cached run may: immediate results of its
        own commands come in another activation of the same task, with the same history. Found: a worker that was suspended
        for a second, with the run in its cache, got a query with a longer history.
        """
        is_new = self._replayed or act.history_length > self._length
        return not act.is_replaying and _time_of(act) == self._at and is_new

    def _is_task(self, act: WorkflowActivation) -> bool | None:
        """Whether the events come with a workflow task; None if that is not known.

        If the last task failed or timed out, early events come at the time of that task, and only their number gives them away:
        two begin a task, and others end the one that failed. Then the server is asked what the last event is. Found: another
        worker was suspended in its task. The events of that task were read here for a query, and came again once it had timed
        out.
        """
        if any(job.HasField("do_update") for job in act.jobs):
            # An update always comes with a task. No history has the events that begin it, so there is nothing to ask.
            self._asked = act.history_length
            return True
        if self._is_early(act):
            # The SDK's time never goes back: once the server's clock was set back, a real task has the time of the one before.
            return bool(self._begun(act.history_length))
        if act.is_replaying or _time_of(act) == self._at:
            return True
        news = act.history_length - sum(map(_events_of, act.jobs)) - EVENTS_TO_BEGIN
        return True if news == self._events else self._begun(act.history_length)

    def _take_note(self, act: WorkflowActivation, is_task: bool | None) -> None:
        if _time_of(act) != self._at:
            self._events, self._is_doubtful = act.history_length + 1, is_task is None
        self._at, self._length, self._replayed = _time_of(act), act.history_length, act.is_replaying

    def get_serialization_context(self, command_info: Any) -> None:
        """None: our converter treats a value alike wherever it occurs. The SDK asks for each payload; passing the question
        on would enter the sandbox each time."""

    def get_external_store_context(self, command_info: Any) -> StorageDriverStoreContext:
        """An empty context: every payload is kept in the history itself."""
        return _NO_STORE

    def get_info(self) -> Any:
        """Passes the call on to the run."""
        return self._run.get_info()

    def get_thread_id(self) -> int | None:
        """Passes the call on to the run."""
        return self._run.get_thread_id()


def _time_of(act: WorkflowActivation) -> tuple[int, int]:
    return act.timestamp.seconds, act.timestamp.nanos


def _events_of(job: WorkflowActivationJob) -> int:
    """How many events of the history make a job. An activity that no worker began has one fewer; then the server is asked."""
    return 2 if job.HasField("resolve_activity") else 1


def _refused(act: WorkflowActivation, why: str) -> WorkflowActivationCompletion:
    log.info("refused, so that the run is read again", run_id=act.run_id, why=why)
    refused = WorkflowActivationCompletion()
    # The gateway then asks again, as it does for a run that has not read the latch.
    refused.failed.failure.message = names.LATCH_UNREAD
    return refused


def _completion(act: WorkflowActivation) -> WorkflowActivationCompletion:
    done = WorkflowActivationCompletion(run_id=act.run_id)
    done.successful.SetInParent()
    return done


def _never_taken(act: WorkflowActivation) -> WorkflowActivationCompletion:
    """Schedules an activity without any time limit, which the server refuses. The SDK keeps the command until it has the task of
    these events, even if it does not ask the run again."""
    log.info("a query brought events before their workflow task; the run is read again", run_id=act.run_id)
    done = _completion(act)
    activity = done.successful.commands.add().schedule_activity
    activity.seq, activity.activity_id, activity.activity_type = UNUSED, READ_AGAIN, "none"
    activity.task_queue = names.TASK_QUEUE
    return done


def _unanswered(act: WorkflowActivation, query_ids: list[str]) -> WorkflowActivationCompletion:
    done = _completion(act)
    for query_id in query_ids:
        answer = done.successful.commands.add().respond_to_query
        answer.query_id, answer.failed.message = query_id, names.LATCH_UNREAD
    return done


def _may_refuse(act: WorkflowActivation) -> bool:
    if len(_refusals) >= MOST_REMEMBERED:
        _refusals.clear()
    now = _clock()
    return now - _refusals.setdefault((act.run_id, act.history_length), now) < REFUSED_SECONDS
