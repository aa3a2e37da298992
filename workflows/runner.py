"""Runs workflows in Temporal's sandbox, and refuses a query that arrives between two workflow tasks.

The failure behind it: a worker that has just started is asked a query, and fetches the run's history. That history may
reach beyond the last workflow task: an activity has ended since, but its task has not begun. The SDK (core of 1.35) applies
that result all the same, at the time of the previous task. What the workflow then commands goes out with the next task,
which has its own time. If the two times make a difference, for instance to whether a cycle is due, the run can never be
replayed again: the next worker to start fails each of its tasks, and no kill is carried out. All it takes is to replace a
worker while somebody looks at the desk. So such a query is refused, and the run is read again, with its task.
"""

import time
from typing import Any

import structlog
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import StorageDriverStoreContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from workflows import names

# How long every query is refused while a run's history keeps one length. The workflow task normally comes much sooner. The
# bound is a time, not a number of refusals: with five refusals allowed, the sixth query of a crowd was let in, and took the run
# further. It exists so that the run would still go on if a later SDK gave a task the time of the one before it.
REFUSED_SECONDS = 300.0
MOST_REMEMBERED = 1_000

_NO_STORE = StorageDriverStoreContext()

log = structlog.get_logger("worker")
_clock = time.monotonic
# When the first query was refused, by run and length of its history.
_refusals: dict[tuple[str, int], float] = {}


class TimelyRunner(SandboxedWorkflowRunner):
    """The sandbox, with a check of each activation before the workflow sees it."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Called once for each run in the cache."""
        return TimelyInstance(super().create_instance(det))


class TimelyInstance(WorkflowInstance):
    """One run. Only one thread at a time calls `activate`."""

    def __init__(self, run: WorkflowInstance) -> None:
        self._run = run
        # Of the last activation with more than queries: its time, the history that it knew, and whether it was a replay.
        self._at: tuple[int, int] | None = None
        self._history, self._replayed = 0, False
        # Whether this worker has read the run anew and answered no query since, and how many tasks it has carried out since then.
        self._was_read, self._tasks = False, 0

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """Lets the run answer. Refuses an early query with a failure, which also drops the run from the cache."""
        is_doubtful = self._is_early(act) or self._may_have_been_early(act)
        if not is_doubtful or not _may_refuse(act):
            return self._run.activate(act)
        log.info("a query came before the workflow task that it has to wait for: it is refused", run_id=act.run_id)
        refused = WorkflowActivationCompletion()
        # The gateway then asks again, as it does for a run that has not read the latch.
        refused.failed.failure.message = names.LATCH_UNREAD
        return refused

    def _is_early(self, act: WorkflowActivation) -> bool:
        """Whether the activation brings news at the time of a task that is over. The news belongs to the next one.

        A run that was replayed for the query has no other activation at that time. A cached one may: what its own commands
        bring about at once comes in another activation of the same task, with the same history. Found: a worker that was
        stopped for a second, with the run in its cache, was sent a query with a longer one.
        """
        if all(job.HasField("query_workflow") for job in act.jobs):
            return False
        at = (act.timestamp.seconds, act.timestamp.nanos)
        is_new = self._replayed or act.history_length > self._history
        is_early = not act.is_replaying and at == self._at and is_new
        if act.is_replaying:
            self._was_read, self._tasks = True, 0
        elif at != self._at:
            self._tasks += 1
        self._at, self._history, self._replayed = at, act.history_length, act.is_replaying
        return is_early

    def _may_have_been_early(self, act: WorkflowActivation) -> bool:
        """Whether a query comes right after the first news of a run that was read anew: it may have been read for the query. If
        its last task has timed out, its news comes at the time of that task, which differs from the one before.
        """
        # One that came with a task of its own (it has an id of the server's) is never refused: the task would fail with it.
        is_alone = any(job.query_workflow.query_id.startswith("legacy") for job in act.jobs)
        is_doubtful = is_alone and self._was_read and self._tasks == 1
        if is_alone and not is_doubtful:
            # Read without news: the next ones come with their tasks. Otherwise the first query after each of them were refused.
            self._was_read = False
        return is_doubtful

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


def _may_refuse(act: WorkflowActivation) -> bool:
    if len(_refusals) >= MOST_REMEMBERED:
        _refusals.clear()
    now = _clock()
    return now - _refusals.setdefault((act.run_id, act.history_length), now) < REFUSED_SECONDS
