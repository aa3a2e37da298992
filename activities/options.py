"""Timeouts and retries of each kind of activity. By default Temporal would retry for ever, and let one attempt run without end.

The outbox's lanes repeat by themselves, so most activities here have a single attempt. Otherwise a new instruction would wait
out the back-off of an older one.
"""

from datetime import timedelta
from typing import Any

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

_ONCE = RetryPolicy(maximum_attempts=1)
_TWICE = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=2)
_DATABASE = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=2))

OBSERVE: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=8),
    "schedule_to_close_timeout": timedelta(seconds=12),
    "retry_policy": _TWICE,
}
# Sixty symbols take 120 calls on a busy machine, and the agents come after that.
DECIDE: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=18),
    "schedule_to_close_timeout": timedelta(seconds=24),
    "retry_policy": _TWICE,
}
PLAN: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=5),
    "schedule_to_close_timeout": timedelta(seconds=10),
    "retry_policy": _TWICE,
}
RECORD: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=6),
    "schedule_to_close_timeout": timedelta(seconds=12),
    "retry_policy": _DATABASE,
}
# Two seconds for the database: until then a run reports no state.
READ_LATCH: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=4),
    "schedule_to_close_timeout": timedelta(seconds=6),
    "retry_policy": _ONCE,
}
CLEAR_LATCH: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=6),
    "schedule_to_close_timeout": timedelta(seconds=20),
    "retry_policy": _DATABASE,
}
# Two calls of AIS_ASTER_TIMEOUT, 3 s at most: the cancel, and the reading that confirms it.
CANCEL: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=7),
    "schedule_to_close_timeout": timedelta(seconds=15),
    "retry_policy": _ONCE,
}
SETTLE = CANCEL

# An order's activity has no heartbeat on purpose: without one a cancellation never reaches an attempt that has begun, so
# its result is always taken. It is given up only if no worker has begun it.
ORDER: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=15),
    "retry_policy": _ONCE,
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}

ATTRIBUTES: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=4),
    "schedule_to_close_timeout": timedelta(seconds=6),
    "retry_policy": _ONCE,
}

# An activity that somebody has paused is given up so long after its time. After an outage the server ends what is overdue one
# after the other, and news of before comes first.
SERVER_IS_LATE = timedelta(seconds=10)
# While a command is under way, or a cycle takes longer than usual, what is overdue is looked for so often; otherwise once a
# cycle, and with each command.
WATCH_SECONDS = 30.0
