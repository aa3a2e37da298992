"""What a full queue of each kind of signal costs a new worker, of a running desk and of a killed one.

A workflow task that takes longer than 7.5 s of its thread is tried again for ever, so half of that is allowed.
"""

import json
import time
from collections.abc import Callable

from bench.subject import Pair, Remark, Sample, Steps, Subject
from tests.domain.queues import KINDS, SYMBOLS, price_of_a_queue
from workflows.patience import DEADLOCK_SECONDS

SAMPLES = 3
ROUND_TRIPS = 2_000


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time, so that what else the machine does is no part of it."""
    start = time.process_time()
    work()
    return time.process_time() - start


def floor() -> float:
    """CPU seconds of work that never changes, just now."""
    return cpu_seconds(lambda: [json.loads(json.dumps(SYMBOLS)) for _ in range(ROUND_TRIPS)])


def price_of(kind: str, state: str) -> Sample:
    """CPU seconds of a full queue."""
    return lambda: price_of_a_queue(kind, state, cpu_seconds)


def pairs(_size: int) -> Steps:
    """One for each kind and state."""
    dearest = 0.0
    for kind in KINDS:
        for state in ("running", "paused", "killed"):
            row = yield Pair(f"{kind}, {state}", price_of(kind, state), floor, SAMPLES, warm_up=0)
            assert row
            dearest = max(dearest, min(row.ours))
    yield Remark(f"the dearest queue takes {dearest:.2f} s of the processor; {DEADLOCK_SECONDS / 2} s are allowed")


SUBJECT = Subject(
    "prices", "a full queue of one kind of signal, in CPU time",
    f"{ROUND_TRIPS:,} JSON round trips of {len(SYMBOLS)} symbols", pairs,
)  # fmt: skip
