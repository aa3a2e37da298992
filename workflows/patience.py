"""How long a workflow task may take.

The hazard behind this file: Temporal takes 10,000 signals a run, and the first worker that comes back gets all of them in one
workflow task. That took 2 to 4 s on two cores (half of it the SDK's own), the SDK's deadlock detector ends a task after 2 s,
and the task would be tried again and fail again for ever, with the kill in it. The detector's bound is no public option.
"""

from datetime import timedelta

from temporalio.worker import Worker

DEADLOCK_SECONDS = 7.5
TASK_TIMEOUT = timedelta(seconds=8)
_ATTRIBUTE = "_deadlock_timeout_seconds"


def allow_a_full_signal_queue(worker: Worker) -> Worker:
    """Raises the bound of this worker's deadlock detector; AttributeError where the SDK has no such bound any more."""
    inner = worker._workflow_worker
    getattr(inner, _ATTRIBUTE)
    setattr(inner, _ATTRIBUTE, DEADLOCK_SECONDS)
    return worker
