"""The worker, whole, but that it stops itself (SIGSTOP) once, at one named point of an order's way out.

    python -m tests.e2e.stopping_worker POINT --data-dir DIR

Nobody sleeps for the right moment: the process stands still between two instructions, until whoever started it sends SIGCONT.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

import worker
from activities import clearance
from activities.clearance import FreshClearance
from activities.venues import paper
from activities.venues.aster.last_look import LastLook
from storage.desks import is_killed
from workflows.gateway import DeskGateway

_stopped: list[bool] = []
GO_ON = Path(sys.argv[-1]).parent / "go-on"


def stop() -> None:
    """Stands still here, the first time."""
    if not _stopped:
        _stopped.append(True)
        os.kill(os.getpid(), signal.SIGSTOP)
        # Another thread may take the signal: this one must not get away before all of them stand still.
        while not GO_ON.exists():
            time.sleep(0.01)


def at_the_answer() -> None:
    """Once the coordinator has answered for the second time: the first look is taken before anything is read."""
    ask, answers = DeskGateway.status, [0]

    async def status(self: DeskGateway, *more: Any) -> Any:
        answer = await ask(self, *more)
        answers[0] += 1
        if answers[0] == 2:
            stop()
        return answer

    DeskGateway.status = status  # type: ignore[method-assign]


def at_the_last_look() -> None:
    """Aster: the SDK and the HTTP client have it, the head is out, and the look before the body is next."""
    trace = LastLook.trace

    async def stopping(self: LastLook, event: str, info: dict[str, Any]) -> None:
        # Readings and cancels ask for nobody's word.
        if event.endswith("send_request_body.started") and isinstance(self._clearance, FreshClearance):
            stop()
        await trace(self, event, info)

    LastLook.trace = stopping  # type: ignore[method-assign]


def in_the_transaction() -> None:
    """Paper: everything is written but the last check and the COMMIT."""
    check, before = FreshClearance.check, [0]

    def stopping(self: FreshClearance) -> None:
        before[0] += 1
        if before[0] == 2:
            stop()
        check(self)

    FreshClearance.check = stopping  # type: ignore[method-assign]


def at_the_commit() -> None:
    """Paper: the last check has passed, and COMMIT is next."""
    look, commit, looked = is_killed, Connection.commit, [False]

    def looking(connection: Connection, desk: str) -> bool:
        looked[0] = True
        return look(connection, desk)

    def committing(self: Connection) -> None:
        if looked[0]:
            stop()
        commit(self)

    vars(paper)["is_killed"] = looking
    Connection.commit = committing  # type: ignore[method-assign]


POINTS: dict[str, Callable[[], None]] = {
    point.__name__: point for point in (at_the_answer, at_the_last_look, in_the_transaction, at_the_commit)
}

# A busy machine may need more than half a second for an order five times in a row. Less than the 3 s that a kill waits for
# its confirmation, while this process stands still.
FRESH_SECONDS = 2.0

if __name__ == "__main__":
    vars(clearance)["FRESH_SECONDS"] = FRESH_SECONDS
    POINTS[sys.argv.pop(1)]()
    worker.main()
