"""What the tasks of a coordinator share: the carried state, the workflow's clock and ids, and whether the run is ending."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import IntEnum

from pydantic import ValidationError
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
from workflows.calling import Calling, Handle, begin, never_ended, read

with workflow.unsafe.imports_passed_through():
    from activities import calls, options
    from domain.desk.ahead import DecisionFacts, ObservedAndChosen
    from domain.desk.carried import Carried
    from domain.desk.commands import NewTerms
    from domain.desk.knowledge import known_of
    from domain.desk.moving import moves
    from domain.desk.outbox import NOT_SENT_IN_SHADOW
    from domain.desk.recording import Tick
    from domain.desk.states import Mode, State
    from domain.desk.versions import gives_up_paused_calls
    from domain.trading.decisions import ENTROPY_BITS, time_ordered_id
    from domain.trading.market import DatabaseSeen, Observation
    from domain.trading.orders import Fate, Order, OrderReport

MAX_DRAIN = timedelta(seconds=20)
# A workflow's clock stands still within a task. Without a counter, rows of one task would sort in no particular order.
COUNTER_BITS = 16
# Symbol names come from the venue and may take four bytes per character.
MAX_SUMMARY_CHARS = 90
REPORT_DROPPED = "its report came together with a command that stopped it"


class DrainPhase(IntEnum):
    """How far a run has wound down before it continues as a new one."""

    NOT_DRAINING = 0
    # No new cycle; everything else continues. The last cycle may take half a minute, and a kill's latch and rows cannot
    # wait for it.
    LAST_CYCLE = 1
    # Only cancels that were never tried start. Rows are written meanwhile.
    HANDING_OVER = 2
    # Even those are left to the next run: an endless stream of kills must not delay it.
    OVERDUE = 3


class CoordinatorRun:
    """One run of the coordinator. `draining` means that the run ends as soon as its tasks are idle."""

    def __init__(self, carried: Carried) -> None:
        self.c = carried
        self.draining = False
        self._drains_since: datetime | None = None
        self.changed = True
        self.calling = Calling()
        self.cancellation_taken = False
        self._took_at: datetime | None = None
        # Kept, since it is the same generator for the whole run, and a flood of signals uses it twice per signal.
        self._random = workflow.random()
        self._made = 0
        # A run may begin with outdated state (a restored store, a reset). It reports no state until it has read the latch.
        self.latch_read = False
        self.resets = 0
        workflow.register_random_seed_callback(self._was_reset)
        self._order: Handle | None = None
        self._order_limits = carried.limits

    @property
    def scope(self) -> calls.Scope:
        """Whose venue and whose database the activities should use."""
        c = self.c
        return calls.Scope(
            desk=c.desk,
            mode=c.mode,
            database_id=c.database_id,
            account=c.account,
            database_seen_at=c.database_seen_at,
        )

    @property
    def queue(self) -> str:
        """The task queue of the desk's activities; each mode has its own."""
        return names.activity_queue(self.c.desk, self.c.mode.value)

    def served_under(self, terms: NewTerms | None) -> tuple[calls.Scope, str]:
        """The scope and queue that the desk will have under these terms."""
        if terms is None or not moves(self.c, terms):
            return self.scope, self.queue
        assert terms.mode is not None
        scope = self.scope.model_copy(update={"mode": terms.mode, "account": terms.account})
        return scope, names.activity_queue(self.c.desk, terms.mode.value)

    def _was_reset(self, _seed: int) -> None:
        """Called on a reset of the workflow, which alone gives a run a new random seed. Anything read before is outdated
        then."""
        self.resets += 1
        self.latch_read, self.changed = False, True

    @property
    def may_tell(self) -> bool:
        """Whether the state may be shown: killed always, anything else once the latch was compared."""
        return self.latch_read or self.c.state is State.KILLED

    async def wait(self, condition: Callable[[], bool], seconds: float, summary: str) -> None:
        """Waits until the condition holds, but at most `seconds`."""
        # A time-out of wait_condition wakes in another order on Python 3.11 than on later versions, and a run must replay
        # on both.
        timer = asyncio.create_task(workflow.sleep(seconds, summary=summary))
        try:
            await workflow.wait_condition(lambda: timer.done() or condition())
        finally:
            timer.cancel()

    def drain(self) -> None:
        """Starts winding the run down: no new cycle, and the outbox hands over once the last cycle has ended."""
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
        """The reason of a cancellation that nobody has handled yet; None if there is none."""
        return None if self.cancellation_taken else workflow.cancellation_reason()

    @property
    def task_brought_command(self) -> bool:
        """Whether this workflow task brought a command. Then the task must issue nothing that the server could refuse."""
        return self._took_at == workflow.now() or self.cancellation is not None

    def note_arrival(self) -> Tick:
        """The tick for what arrived in this workflow task."""
        self._took_at = workflow.now()
        return self.tick()

    def tick(self) -> Tick:
        """The current time and a maker of ids, for a change that people will see. Both replay identically."""
        self.changed = True
        return self.moment()

    def moment(self) -> Tick:
        """Like `tick`, for a change that nobody sees yet. It does not wake `run`: one wake-up more or less would change the
        order of events, and recorded histories would no longer replay."""
        return Tick(workflow.now(), self.new_id)

    def new_id(self, prefix: str) -> str:
        """An id that sorts by time; ids of the same time sort in the order in which they were made."""
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
        """One reading of the venue, checked against the limits; with `decides`, a choice may come with it. Raises
        ActivityError."""
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
        answer = await self.calling.answer_of(
            calls.observe, call, task_queue=self.queue, summary=summary, **options.OBSERVE
        )
        return answer.split

    async def read_again(self) -> Observation | None:
        """A fresh reading that does not move the market on; None if there is none. Notes why a reading is doubtful."""
        try:
            reading = (await self.observe(None, "read again")).observation
        except ActivityError as error:
            self.c.observation_error = why(error)
            return None
        self.c.observation_error = reading.doubt
        return reading

    @property
    def cycle_id(self) -> str:
        """The id of the newest cycle. The market moves on once per id."""
        return f"{self.c.started_at.isoformat()}/{self.c.cycle_number}"

    async def look_for(self, symbols: Sequence[str]) -> Observation | str:
        """A reading that includes these symbols, or why there is none. It does not move the market on."""
        text = short(f"look for {', '.join(symbols)}")
        try:
            return (await self.observe(self.cycle_id, text, also=symbols)).observation
        except ActivityError as error:
            return why(error)

    async def send_order(self, order: Order) -> OrderReport:
        """Sends an order at most once, and reports what is known of it. In shadow, no order is ever sent."""
        if self.c.mode is Mode.SHADOW:
            return OrderReport(order_id=order.order_id, fate=Fate.PREPARED, detail=NOT_SENT_IN_SHADOW)
        patience = max(order.not_after - workflow.now(), timedelta(milliseconds=1))
        handle = begin(
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
            if not await self._order_ended(handle, patience):
                return OrderReport(order_id=order.order_id, fate=Fate.UNKNOWN, detail=never_ended(calls.place_order))
            return read(calls.place_order, await handle)
        except ActivityError as error:
            return OrderReport(order_id=order.order_id, fate=_fate_of(error), detail=why(error))
        except asyncio.CancelledError:
            if not handle.cancelled():
                raise
            # `stop_order` cancelled it in the very task that brought its report, which the SDK then drops. Let through, this
            # ended the cycle task: the workflow task failed again and again, and no kill was carried out.
            return OrderReport(order_id=order.order_id, fate=Fate.UNKNOWN, detail=REPORT_DROPPED)
        finally:
            if self._order is handle:
                self._order = None

    async def _order_ended(self, handle: Handle, patience: timedelta) -> bool:
        if not gives_up_paused_calls(self.c.schema_version):
            return True
        return await self.calling.order_ended(handle, patience + options.ORDER["start_to_close_timeout"])

    def stop_order(self) -> None:
        """Gives up an order that no worker has begun. One that has begun runs to its end, and its result counts."""
        changed = self.c.limits != self._order_limits
        if (changed or self.c.state is not State.RUNNING) and self._order is not None:
            self._order.cancel()


def _fate_of(error: ActivityError) -> Fate:
    cause = error.cause
    never_begun = isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START
    # A worker of another desk or mode refuses before it touches a venue.
    refused = isinstance(cause, ApplicationError) and cause.type == calls.WRONG_WORKER
    # An attempt that has begun never ends as cancelled: the activity reports what it knows instead.
    return Fate.NOT_SENT if never_begun or refused or isinstance(cause, CancelledError) else Fate.UNKNOWN


def short(text: str) -> str:
    """Cuts a summary to what the server takes. It refuses a whole workflow task, even one with a kill's cancels, for a
    summary of more than 400 bytes."""
    return text[:MAX_SUMMARY_CHARS]


def why(error: ActivityError) -> str:
    """The reason behind an ActivityError, whose own text never varies."""
    cause = error.cause
    if isinstance(cause, TimeoutError):
        kind = cause.type.name.lower().replace("_", " ") if cause.type else "time-out"
        last = f": {_message(cause.cause)}" if cause.cause else ""
        return f"{error.activity_type} exceeded its {kind} time-out{last}"[:300]
    return _message(cause or error)[:300]


def database_of(error: ActivityError) -> DatabaseSeen | None:
    """Which database a failed reading found, if any."""
    details = error.cause.details if isinstance(error.cause, ApplicationError) else ()
    found = next((detail for detail in details if isinstance(detail, dict)), None)
    try:
        return None if found is None else DatabaseSeen.model_validate(found)
    except ValidationError:
        # A person has ended the reading, by `temporal activity fail --detail`.
        return None


def was_busy(error: ActivityError) -> bool:
    """Whether nothing was sent because other calls came first."""
    return isinstance(error.cause, ApplicationError) and error.cause.type == calls.VENUE_NOT_SENT


def _message(error: BaseException) -> str:
    # str() of an ApplicationError begins with the type's name.
    return error.message if isinstance(error, FailureError) else str(error)
