"""Runs workflows in Temporal's sandbox, and never on a past that is still going on.

The failure behind it: a worker that has just started is asked a query, and fetches the run's history. That may go beyond the last
workflow task: an activity has ended since, and the task for it is not begun yet. The SDK (core of 1.35) applies this news all the
same, with the time of the task before. What the workflow commands then goes out with the next task, which has a time of its own.
Where the two make a difference, say whether a cycle is due, the run can never be replayed again: the next worker to start fails
each of its tasks, and no kill is carried out. All that it takes is a worker that is replaced while somebody looks at the desk.
So such a query is refused, and the run is read anew, with its task.
"""

from typing import Any

import structlog
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import StorageDriverStoreContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from workflows import names

# Of one run at one length of its history. Should a later SDK give a workflow task the time of the one before it, the run goes on.
MOST_REFUSALS = 5
MOST_REMEMBERED = 1_000

_NO_STORE = StorageDriverStoreContext()

log = structlog.get_logger("worker")
_refusals: dict[tuple[str, int], int] = {}


class TimelyRunner(SandboxedWorkflowRunner):
    """The sandbox, with a look at each activation before the workflow sees it."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """One for each run in the cache."""
        return TimelyInstance(super().create_instance(det))


class TimelyInstance(WorkflowInstance):
    """A run. `activate` is called by one thread at a time."""

    def __init__(self, run: WorkflowInstance) -> None:
        self._run = run
        # Of the last activation that was more than queries: whether it was replayed, and its time.
        self._last: tuple[bool, int, int] | None = None

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """The run's own answer; a failure, which drops the run from the cache, where its past is still going on."""
        if not self._is_early(act) or not _may_refuse(act):
            return self._run.activate(act)
        log.info("a query came before the workflow task that it has to wait for: it is refused", run_id=act.run_id)
        refused = WorkflowActivationCompletion()
        # The gateway asks again, as it does for a run that has not read the latch.
        refused.failed.failure.message = names.LATCH_UNREAD
        return refused

    def _is_early(self, act: WorkflowActivation) -> bool:
        """Whether it brings news at the time of a task that was replayed: that task is over, and the next one has its own."""
        if all(job.HasField("query_workflow") for job in act.jobs):
            return False
        now = (act.timestamp.seconds, act.timestamp.nanos)
        last, self._last = self._last, (act.is_replaying, *now)
        return not act.is_replaying and last == (True, *now)

    def get_serialization_context(self, command_info: Any) -> None:
        """None: our converter makes the same of a value wherever it stands. The SDK asks for each payload, and the sandbox would
        be entered for each answer."""

    def get_external_store_context(self, command_info: Any) -> StorageDriverStoreContext:
        """Of nothing: every payload is kept in the history itself."""
        return _NO_STORE

    def get_info(self) -> Any:
        """As the run has it."""
        return self._run.get_info()

    def get_thread_id(self) -> int | None:
        """As the run has it."""
        return self._run.get_thread_id()


def _may_refuse(act: WorkflowActivation) -> bool:
    at = (act.run_id, act.history_length)
    if len(_refusals) >= MOST_REMEMBERED:
        _refusals.clear()
    _refusals[at] = _refusals.get(at, 0) + 1
    return _refusals[at] <= MOST_REFUSALS
