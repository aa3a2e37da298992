"""How long a workflow task may take.

The hazard behind this file: Temporal takes 10,000 signals per run, and the first worker that comes back gets all of them in
one workflow task. That took 2 to 4 s on two cores (half of it in the SDK), but the SDK's deadlock detector fails a task after
2 s. The task, with any kill in it, would be retried and fail for ever. The detector's bound is not a public option.
"""

from datetime import timedelta

from temporalio.worker import Worker

DEADLOCK_SECONDS = 7.5
TASK_TIMEOUT = timedelta(seconds=8)
# A worker without the run in its cache replays it whole within one task. At the 4,096 events at which servers suggest an
# end, a run full of refused cancels took 5.2 s of a busy core. Changing this number needs a new schema version: runs longer
# than the new number would replay differently.
LONGEST_RUN_EVENTS = 2_048
# In a flood of signals a run takes long to end, and starts no cycle meanwhile. Signal events are cheap to replay.
QUIET_BEFORE_END = timedelta(seconds=1)
_ATTRIBUTE = "_deadlock_timeout_seconds"


def allow_a_full_signal_queue(worker: Worker) -> Worker:
    """Raises the time limit of this worker's deadlock detector. AttributeError if the SDK no longer has that limit."""
    inner = worker._workflow_worker
    getattr(inner, _ATTRIBUTE)
    setattr(inner, _ATTRIBUTE, DEADLOCK_SECONDS)
    return worker
