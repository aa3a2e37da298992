"""Cancel lanes: one call at a time per symbol and market, a bounded number of lanes at once, each repeated until confirmed.

The incident behind this file: each of 400 waiting lanes checked in every workflow task whether to continue. When the venue
had refused for minutes, the run could no longer be replayed within a workflow task's time-out. The desk hung, and so did
the next kill. So a waiting lane now costs nothing until it is woken.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from temporalio import workflow

from workflows.cancelling import Cancelling
from workflows.run import CoordinatorRun, DrainPhase

with workflow.unsafe.imports_passed_through():
    from domain.desk.open_cancels import Lane
    from domain.trading.instructions import Tool

FIRST_BACKOFF_SECONDS = 0.5
LAST_BACKOFF_SECONDS = 10.0
# The longest time from the start of one attempt at the venue to the start of the next: once the venue recovers, the next
# attempt is never far off.
LAST_VENUE_SECONDS = 4.0
# Caps the wait at two seconds. The cap is not lower, so that a hanging server does not fill the history with attempts that
# never got a turn.
MOST_BUSY_FAILURES = 3
# The MCP server answers 40 calls at a time. The remaining 8 are for readings.
MAX_CANCELS_AT_ONCE = 32


def backoff_seconds(failures: int) -> float:
    """How long to wait after this many failures in a row."""
    return float(min(FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 10), LAST_BACKOFF_SECONDS))


def spaced_seconds(failures: int, spent: float) -> float:
    """How long to wait before the next attempt at the venue. The time of the last attempt counts, so that after a slow
    failure the wait is no longer than after a quick one.

    `spent` is below 0 if Temporal's clock was set back during the attempt. The next one must not wait for as long as that.
    """
    return max(FIRST_BACKOFF_SECONDS, min(backoff_seconds(failures), LAST_VENUE_SECONDS) - max(spent, 0.0))


class CancelLanes:
    """All lanes of cancels, as the outbox sees them. `drain` says how far the run has wound down."""

    def __init__(self, run: CoordinatorRun, drain: Callable[[], DrainPhase]) -> None:
        self._run = run
        self._c = run.c
        self._drain = drain
        self._cancelling = Cancelling(run)
        self.under_way = 0
        self._running: set[Lane] = set()
        self._queue: deque[asyncio.Future[bool]] = deque()
        self._resting: dict[Lane, asyncio.Future[None]] = {}
        self._woken_by = self._what_wakes()

    def due(self) -> list[Lane]:
        """Lanes that should start. While the run winds down, only those with a cancel that was never tried."""
        phase = self._drain()
        if phase >= DrainPhase.OVERDUE:
            return []
        lanes = [lane for lane in self._c.cancels.lanes if lane not in self._running]
        return (
            lanes if phase < DrainPhase.HANDING_OVER else [lane for lane in lanes if self._c.cancels.has_fresh(*lane)]
        )

    @property
    def must_wake(self) -> bool:
        """Whether anything happened that a waiting lane has to know."""
        return self._woken_by != self._what_wakes()

    def wake(self) -> None:
        """Wakes every lane that has a new cancel, or all lanes if the run is ending."""
        self._woken_by = self._what_wakes()
        for lane, rest in self._resting.items():
            if not rest.done() and (self._hands_over or self._c.cancels.has_fresh(*lane)):
                rest.set_result(None)
        while self._queue and not self._takes_fresh:
            self._queue.popleft().set_result(False)

    def _what_wakes(self) -> tuple[int, DrainPhase]:
        # Until the last cycle has ended, draining changes nothing for cancels.
        return self._c.cancels.added, max(self._drain(), DrainPhase.LAST_CYCLE)

    @property
    def _hands_over(self) -> bool:
        return self._drain() >= DrainPhase.HANDING_OVER

    @property
    def _takes_fresh(self) -> bool:
        return self._drain() < DrainPhase.OVERDUE

    async def run(self, tool: Tool, symbol: str) -> None:
        """Repeats the call until the lane has no open cancel. A call confirms each cancel that was prepared before it
        began."""
        self._running.add((tool, symbol))
        try:
            await self._carry_out(tool, symbol)
        finally:
            self._running.remove((tool, symbol))

    async def _carry_out(self, tool: Tool, symbol: str) -> None:
        failures = 0
        while self._c.cancels.lane(tool, symbol):
            # Cancels of single orders, which are only being replaced, use none of the places that a kill's cancels need.
            takes_room = tool is not Tool.CANCEL_ORDER
            if takes_room and not await self._enter():
                return
            began = workflow.now()
            ids = [cancel.instruction_id for cancel in self._c.cancels.lane(tool, symbol)]
            failed = await self._cancelling.cancel(tool, symbol, ids)
            if takes_room:
                self._leave()
            failures = 0 if failed is None else failures + 1
            if failed is not None and failed.busy:
                # A call that only waits for its turn must come back soon, or it misses the turn.
                failures = min(failures, MOST_BUSY_FAILURES)
            if failures:
                spent = (workflow.now() - began).total_seconds()
                await self._rest((tool, symbol), spaced_seconds(failures, spent))
            if self._hands_over and not (self._takes_fresh and self._c.cancels.has_fresh(tool, symbol)):
                return

    async def _enter(self) -> bool:
        """Waits for a free place, first come first served. Returns False if the cancel is left to the next run."""
        if self.under_way >= MAX_CANCELS_AT_ONCE and self._takes_fresh:
            self._queue.append(asyncio.get_running_loop().create_future())
            # The lane that left has handed its place over.
            return await self._queue[-1]
        if self.under_way >= MAX_CANCELS_AT_ONCE:
            return False
        self.under_way += 1
        return True

    def _leave(self) -> None:
        if self._queue:
            self._queue.popleft().set_result(True)
        else:
            self.under_way -= 1

    async def _rest(self, lane: Lane, seconds: float) -> None:
        if self._hands_over or self._c.cancels.has_fresh(*lane):
            return
        loop = asyncio.get_running_loop()
        rest = self._resting[lane] = loop.create_future()
        # Not wait_for: it wakes in another order on Python 3.11 than on later versions, and a run must replay on both.
        timer = loop.call_later(seconds, _wake, rest)
        try:
            await rest
        finally:
            timer.cancel()
            del self._resting[lane]


def _wake(rest: asyncio.Future[None]) -> None:
    if not rest.done():
        rest.set_result(None)
