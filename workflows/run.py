"""What the tasks of a coordinator share: the carried state, the workflow's clock and ids, and whether the run is ending."""

import asyncio
import builtins
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import IntEnum

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    FailureError,
    TimeoutError,
    TimeoutType,
)

from workflows import names

with workflow.unsafe.imports_passed_through():
    from activities import calls, options
    from domain.desk.ahead import DecisionFacts, ObservedAndChosen
    from domain.desk.carried import Carried
    from domain.desk.commands import NewTerms
    from domain.desk.knowledge import known_of
    from domain.desk.moving import moves
    from domain.desk.outbox import NOT_SENT_IN_SHADOW
    from domain.desk.states import Mode, State
    from domain.desk.traces import Tick
    from domain.desk.versions import activities_by_desk, reads_latch_first, wakes_lanes
    from domain.trading.decisions import ENTROPY_BITS, time_ordered_id
    from domain.trading.market import DatabaseSeen, Observation
    from domain.trading.orders import Fate, Order, OrderReport

MAX_DRAIN = timedelta(seconds=20)
# A workflow's clock stands still within a task: rows of one task would else be listed in no order.
COUNTER_BITS = 16
# Names of symbols are the venue's, four bytes a character at most.
MAX_SUMMARY_CHARS = 90


class DrainPhase(IntEnum):
    """How far a run has wound down before it continues as a new one."""

    NOT_DRAINING = 0
    # No new cycle. All else goes on: the cycle may take half a minute, and a kill's latch and record cannot wait for it.
    LAST_CYCLE = 1
    # Only cancels that were never tried begin, and meanwhile rows are written.
    HANDING_OVER = 2
    # Those are left to the next run as well: kills without end must not hold it up.
    OVERDUE = 3


class CoordinatorRun:
    """One run of the coordinator. `draining` means that the run ends as soon as its tasks are idle."""

    def __init__(self, carried: Carried) -> None:
        self.c = carried
        self.draining = False
        self._drains_since: datetime | None = None
        self.changed = True
        self._by_desk = activities_by_desk(carried.schema_version)
        self.cancellation_taken = False
        self._took_at: datetime | None = None
        # Asked for once: it is the same generator all run long, and a flood of signals asks it twice a signal.
        self._random = workflow.random()
        self._made = 0
        # A run may begin in an old past (a store put back, a reset): until the latch was read, nobody hears of its state.
        self._reads_first = reads_latch_first(carried.schema_version)
        self.latch_read = not self._reads_first
        self.resets = 0
        if self._reads_first:
            workflow.register_random_seed_callback(self._was_reset)
        self._order: workflow.ActivityHandle[OrderReport] | None = None
        self._order_limits = carried.limits

    @property
    def scope(self) -> calls.Scope:
        """Whose venue and whose database are meant."""
        c = self.c
        return calls.Scope(
            desk=c.desk,
            mode=c.mode,
            database_id=c.database_id,
            account=c.account,
            database_seen_at=c.database_seen_at,
        )

    @property
    def queue(self) -> str | None:
        """Where the desk's activities go: a queue of its own for each mode. None is the queue of the workflow itself."""
        return self._queue_of(self.c.mode)

    def then_served_by(self, terms: NewTerms | None) -> tuple[calls.Scope, str | None]:
        """The scope and the queue that the desk has once it has taken these terms."""
        if terms is None or not moves(self.c, terms):
            return self.scope, self.queue
        assert terms.mode is not None
        scope = self.scope.model_copy(update={"mode": terms.mode, "account": terms.account})
        return scope, self._queue_of(terms.mode)

    def _queue_of(self, mode: Mode) -> str | None:
        return names.activity_queue(self.c.desk, mode.value) if self._by_desk else None

    def _was_reset(self, _seed: int) -> None:
        """Only a reset of the workflow gives a run another seed. What was read by then was read in the past it came from."""
        self.resets += 1
        self.latch_read, self.changed = False, True

    @property
    def may_tell(self) -> bool:
        """Whether the state may be shown: killed always, anything else once the latch was compared."""
        return self.latch_read or self.c.state is State.KILLED

    async def wait(self, condition: Callable[[], bool], seconds: float, summary: str) -> None:
        """Until the condition holds, or for so long."""
        if not wakes_lanes(self.c.schema_version):
            with contextlib.suppress(builtins.TimeoutError):
                await workflow.wait_condition(condition, timeout=seconds, timeout_summary=summary)
            return
        # A time-out of wait_condition wakes in another order on Python 3.11 than on later ones: a run has to replay on both.
        timer = asyncio.create_task(workflow.sleep(seconds, summary=summary))
        try:
            await workflow.wait_condition(lambda: timer.done() or condition())
        finally:
            timer.cancel()

    def drain(self) -> None:
        """From now on the run winds down: no new cycle, and the outbox hands over once the last cycle has ended."""
        if not self.draining:
            self.draining, self._drains_since = True, workflow.now()

    def drain_phase(self, cycle_is_idle: bool) -> DrainPhase:
        """How far the run has wound down."""
        if not self.draining or self._drains_since is None:
            return DrainPhase.NOT_DRAINING
        if not cycle_is_idle:
            return DrainPhase.LAST_CYCLE
        is_overdue = workflow.now() - self._drains_since > MAX_DRAIN
        return DrainPhase.OVERDUE if is_overdue else DrainPhase.HANDING_OVER

    @property
    def cancellation(self) -> str | None:
        """The reason of a cancellation that nobody has taken yet; None where there is none."""
        return None if self.cancellation_taken else workflow.cancellation_reason()

    @property
    def takes_now(self) -> bool:
        """Whether this very workflow task brought a command: then it issues nothing that the server could refuse."""
        return self._took_at == workflow.now() or self.cancellation is not None

    def takes(self) -> Tick:
        """The tick of what arrived in this workflow task."""
        self._took_at = workflow.now()
        return self.tick()

    def tick(self) -> Tick:
        """Now, and a maker of ids, for a change that people are shown; both replay alike."""
        self.changed = True
        return self.moment()

    def moment(self) -> Tick:
        """The same, where there is nothing to show yet. Waking `run` once more or less reorders what wakes with it, and a
        history that was recorded otherwise no longer replays."""
        return Tick(workflow.now(), self.new_id)

    def new_id(self, prefix: str) -> str:
        """An id that sorts by time, and by the order in which ids were made where the time is the same."""
        self._made = (self._made + 1) % (1 << COUNTER_BITS)
        entropy = self._made << (ENTROPY_BITS - COUNTER_BITS) | self._random.getrandbits(ENTROPY_BITS - COUNTER_BITS)
        return time_ordered_id(prefix, workflow.now(), entropy)

    async def observe(
        self,
        cycle_id: str | None,
        summary: str,
        previous: calls.CycleSummary | None = None,
        also: Sequence[str] = (),
        decides: DecisionFacts | None = None,
    ) -> ObservedAndChosen:
        """One reading of the venue, watched by the limits; with `decides` perhaps a choice. Raises ActivityError."""
        c = self.c
        call = calls.ObserveCall(
            scope=self.scope,
            symbols=[*c.symbols, *also],
            cycle_id=cycle_id,
            previous=previous,
            limits=c.limits,
            risk=c.risk,
            known=known_of(c),
            decides=decides,
        )
        answer: calls.ObserveAnswer = await workflow.execute_activity(
            calls.observe, call, task_queue=self.queue, summary=summary, **options.OBSERVE
        )
        return answer.apart

    async def read_again(self) -> Observation | None:
        """A fresh reading that moves nothing on; None where there is none. One that is no fact tells of its doubts."""
        try:
            reading = (await self.observe(None, "read again")).observation
        except ActivityError as error:
            self.c.observation_error = why(error)
            return None
        self.c.observation_error = reading.doubt
        return reading

    @property
    def cycle_id(self) -> str:
        """The newest cycle's: a market moves on once for each."""
        return f"{self.c.started_at.isoformat()}/{self.c.cycle_number}"

    async def look_for(self, symbols: Sequence[str]) -> Observation | str:
        """A reading of these symbols beside the desk's own; or why there is none. It moves nothing on."""
        text = short(f"look for {', '.join(symbols)}")
        try:
            return (await self.observe(self.cycle_id, text, also=symbols)).observation
        except ActivityError as error:
            return why(error)

    async def send_order(self, order: Order) -> OrderReport:
        """Sends an order at most once, and says what is known of it. In shadow none is ever sent."""
        if self.c.mode is Mode.SHADOW:
            return OrderReport(order_id=order.order_id, fate=Fate.PREPARED, detail=NOT_SENT_IN_SHADOW)
        patience = max(order.not_after - workflow.now(), timedelta(milliseconds=1))
        handle = workflow.start_activity(
            calls.place_order,
            calls.OrderCall(scope=self.scope, order=order, limits=self.c.limits),
            task_queue=self.queue,
            schedule_to_start_timeout=patience,
            summary=short(f"{order.instruction.side} {order.instruction.quantity} {order.instruction.symbol}"),
            **options.ORDER,
        )
        if not order.instruction.reduce_only:
            self._order, self._order_limits = handle, self.c.limits
        try:
            report: OrderReport = await handle
            return report
        except ActivityError as error:
            return OrderReport(order_id=order.order_id, fate=_fate_of(error), detail=why(error))
        finally:
            if self._order is handle:
                self._order = None

    def stop_order(self) -> None:
        """Gives up an order that no worker has begun; one that has begun runs to its end, and its result is taken."""
        changed = self.c.limits != self._order_limits
        if (changed or self.c.state is not State.RUNNING) and self._order is not None:
            self._order.cancel()


def _fate_of(error: ActivityError) -> Fate:
    cause = error.cause
    never_begun = isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START
    # A worker of another desk or mode refuses before it touches a venue.
    refused = isinstance(cause, ApplicationError) and cause.type == calls.WRONG_WORKER
    # An attempt that began never ends as cancelled: the activity reports what it knows instead.
    return Fate.NOT_SENT if never_begun or refused or isinstance(cause, CancelledError) else Fate.UNKNOWN


def short(text: str) -> str:
    """A summary that the server takes: it refuses the whole workflow task for one above 400 bytes, a kill's cancels with it."""
    return text[:MAX_SUMMARY_CHARS]


def why(error: ActivityError) -> str:
    """The reason behind an ActivityError, whose own text is always the same."""
    cause = error.cause
    if isinstance(cause, TimeoutError):
        kind = cause.type.name.lower().replace("_", " ") if cause.type else "time-out"
        last = f": {_message(cause.cause)}" if cause.cause else ""
        return f"{error.activity_type} exceeded its {kind} time-out{last}"[:300]
    return _message(cause or error)[:300]


def database_of(error: ActivityError) -> DatabaseSeen | None:
    """Which database a reading found that failed all the same."""
    details = error.cause.details if isinstance(error.cause, ApplicationError) else ()
    return next((DatabaseSeen.model_validate(detail) for detail in details if isinstance(detail, dict)), None)


def was_busy(error: ActivityError) -> bool:
    """Whether nothing was sent, since other calls were before it."""
    return isinstance(error.cause, ApplicationError) and error.cause.type == calls.VENUE_NOT_SENT


def _message(error: BaseException) -> str:
    # str() of an ApplicationError puts the type's name in front.
    return error.message if isinstance(error, FailureError) else str(error)
