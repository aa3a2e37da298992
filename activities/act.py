"""Activities that change something at the venue: cancels, and orders, which are sent at most once.

Here the worker decides whether an order may still go out: `place_order` asks the database (`_latch_refusal`), then the
coordinator (`_coordinator_refusal`), and the venue asks both again right before it sends. `clearance.py` limits how old the
coordinator's answer may be. The coordinator has decided before: `_why_not_sent` in `domain/desk/cycle.py`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import structlog
from temporalio import activity

from activities.calls import CancelAnswer, CancelCall, CancelManyCall, OrderCall, PlanCall, Scope
from activities.clearance import FreshClearance
from activities.failures import failure
from activities.metrics import WorkerMetrics
from activities.scope import refuse_other
from activities.venues.arriving import none_can_arrive
from activities.venues.port import StateTooOld, Venue, VenueError, VenueNotSent, VenueRefused
from domain.desk.states import Mode, State
from domain.risk.limits import Limits
from domain.risk.reducing import Reduction, plan
from domain.trading.instructions import Tool
from domain.trading.orders import Fate, Order, OrderReport
from storage.database import Database, DatabaseUnavailable
from storage.desks import read_desk

LATCH_SECONDS = 2.0
# The cancels of one activity are answered together. One that hangs must not hold up the others: after this long without a
# new answer, and in any case before the activity's time is up, the activity returns what it has.
IDLE_SECONDS = 3.0
TOGETHER_SECONDS = 5.0
# However long the cycle is. With one of an hour, an order that waited for a worker went out at the prices of an hour ago, and one
# that was lost on its way stayed unknown for that hour: no kill was quiet, and no restart was accepted.
ORDER_LASTS = timedelta(seconds=60)

log = structlog.get_logger("orders")


class CoordinatorState(NamedTuple):
    """What the coordinator reports about itself."""

    state: State
    limits: Limits | None = None


AskCoordinator = Callable[[], Awaitable[CoordinatorState]]


class ActActivities:
    """Cancels and orders on one venue. `ask` queries the coordinator."""

    def __init__(
        self, scope: Scope, venue: Venue, database: Database, ask: AskCoordinator, instruments: WorkerMetrics
    ) -> None:
        self._scope = scope
        self._venue = venue
        self._database = database
        self._ask = ask
        self._instruments = instruments
        # Cancels begun by `cancel_many` that are still running; a later `cancel` call may join one.
        self._cancelling: dict[tuple[Tool, str], asyncio.Task[None]] = {}

    @activity.defn(name="cancel")
    async def cancel(self, call: CancelCall) -> None:
        """Cancels. It needs only the venue, so neither the database nor a record can hold it up."""
        refuse_other(self._scope, call.scope)
        joined = self._cancelling.get((call.tool, call.symbol)) if call.goes_on else None
        try:
            await (asyncio.shield(joined) if joined else self._cancel(call))
        except VenueError as error:
            raise failure(error) from None

    @activity.defn(name="cancel_many")
    async def cancel_many(self, call: CancelManyCall) -> list[CancelAnswer]:
        """Runs all cancels at once and returns their answers in the same order. A slow one keeps running without holding up the
        others; a later `cancel` call collects its answer."""
        refuse_other(self._scope, call.scope)
        running = []
        for each in call.cancels:
            key = (each.tool, each.symbol)
            task = self._cancelling[key] = asyncio.create_task(self._cancel(each))
            task.add_done_callback(partial(self._ended, key))
            running.append(task)
        left, until = set(running), time.monotonic() + TOGETHER_SECONDS
        while left and (more := until - time.monotonic()) > 0:
            patience = min(IDLE_SECONDS, more)
            came, left = await asyncio.wait(left, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not came:
                break
        return [_answer(task) for task in running]

    def _ended(self, key: tuple[Tool, str], task: asyncio.Task[None]) -> None:
        if self._cancelling.get(key) is task:
            del self._cancelling[key]
        if not task.cancelled():
            task.exception()

    async def _cancel(self, call: CancelCall) -> None:
        with self._counted(call.tool.value, call.symbol):
            if call.tool is not Tool.CANCEL_ORDER:
                await self._venue.cancel_all(call.tool, call.symbol)
                return
            # One that fails must not keep the others from being tried.
            cancels = (self._venue.cancel_order(call.symbol, order_id) for order_id in call.order_ids)
            for outcome in await asyncio.gather(*cancels, return_exceptions=True):
                if outcome is not None:
                    raise outcome

    @activity.defn(name="plan_deleverage")
    async def plan_deleverage(self, call: PlanCall) -> Reduction:
        """Sizes a reduce-only order from the live position, rounded down to the lot step."""
        refuse_other(self._scope, call.scope)
        with self._timed("get_positions", call.symbol):
            reading = await self._venue.look(call.symbol)
        return plan(reading, call.symbol, call.reduce_pct, call.quantity, automatic=call.automatic)

    @activity.defn(name="place_order")
    async def place_order(self, call: OrderCall) -> OrderReport:
        """Sends the order once, or reports why not. Never raises once the send has begun: the fate is unknown then."""
        refuse_other(self._scope, call.scope)
        if _was_tried():
            return _report(call.order, Fate.UNKNOWN, "an earlier attempt may have sent it")
        order = _by_our_clock(_soon(call.order))
        # An order that only reduces risk needs no permission. The coordinator is asked last, so its answer is the freshest.
        adds_risk = (partial(self._latch_refusal, order.desk), partial(self._coordinator_refusal, call))
        clearance = FreshClearance(
            () if order.instruction.reduce_only else adds_risk, order.not_after, self._count_too_old
        )
        # Ask once now, so that nothing is read for an order that must not go. The venue asks again right before the send.
        if why := await clearance.refusal():
            return _report(order, Fate.NOT_SENT, why)
        return await self._send(order, clearance)

    @activity.defn(name="settle_order")
    async def settle_order(self, call: OrderCall) -> OrderReport:
        """Asks the venue what became of an order. One it has never seen counts as not sent only when it can no longer arrive."""
        refuse_other(self._scope, call.scope)
        order = _soon(call.order)
        # Decided before the venue is asked: its answer cannot contain an order that arrives later.
        over = await none_can_arrive(order, self._venue.settles_after, self._venue.time)
        with self._timed("get_open_orders", order.instruction.symbol):
            found = await self._venue.find_order(_by_our_clock(order))
        if found is not None:
            return found
        if over:
            return _report(call.order, Fate.NOT_SENT, "the venue has never seen it")
        return _report(call.order, Fate.UNKNOWN, "the venue has not seen it yet")

    def _count_too_old(self, error: StateTooOld) -> None:
        self._instruments.answers_too_old.labels(self._scope.desk).inc()
        log.warning("an order was held back at the last moment; the coordinator is asked again", why=str(error))

    async def _latch_refusal(self, desk: str) -> str | None:
        try:
            row = await self._database.run(lambda connection: read_desk(connection, desk), LATCH_SECONDS)
        except DatabaseUnavailable as error:
            return f"the latch cannot be read: {error}"
        except Exception as error:  # Whatever went wrong: no latch, no send.
            log.exception("the desk's row cannot be read: a bug, or somebody has changed the tables")
            return f"the latch cannot be read: {type(error).__name__}"
        if row is None:
            return "the desk has no row in the database"
        return "the database says killed" if row.killed else None

    async def _coordinator_refusal(self, call: OrderCall) -> str | None:
        try:
            answer = await self._ask()
        except Exception as error:  # Whatever went wrong: no answer, no send.
            return f"the coordinator did not answer before the send: {error}"
        if answer.state is not State.RUNNING:
            return f"the coordinator is {answer.state.value}"
        outdated = call.limits is not None and call.limits != answer.limits
        return "the limits were changed since it was decided" if outdated else None

    async def _send(self, order: Order, clearance: FreshClearance) -> OrderReport:
        try:
            with self._counted("create_order", order.instruction.symbol):
                report = await self._venue.create_order(order, clearance)
        except VenueRefused as error:
            return _report(order, Fate.REJECTED, str(error))
        except VenueNotSent as error:
            return _report(order, Fate.NOT_SENT, str(error))
        except VenueError as error:
            return _report(order, Fate.UNKNOWN, str(error))
        except asyncio.CancelledError:
            return _report(order, Fate.UNKNOWN, "the worker stopped while it was being sent")
        if report.filled_quantity:
            on_paper, whole = self._scope.mode is Mode.PAPER, report.fate is Fate.FILLED
            self._instruments.fill_seen(order.instruction.symbol, whole=whole, on_paper=on_paper)
        return report

    @contextmanager
    def _timed(self, tool: str, symbol: str) -> Iterator[None]:
        """Counts the call, and turns its failure into one of Temporal's."""
        try:
            with self._counted(tool, symbol):
                yield
        except VenueError as error:
            raise failure(error) from None

    @contextmanager
    def _counted(self, tool: str, symbol: str) -> Iterator[None]:
        started, outcome = time.monotonic(), "ok"
        try:
            yield
        except VenueError as error:
            outcome = type(error).__name__
            raise
        finally:
            if not self._venue.counts_its_calls:
                self._instruments.venue_called(tool, time.monotonic() - started, outcome, symbol)


def _answer(task: asyncio.Task[None]) -> CancelAnswer:
    """The answer of one cancel. A bug in it costs no other cancel its confirmation."""
    if not task.done():
        return CancelAnswer(done=False)
    if task.cancelled():
        return CancelAnswer(error="it was cancelled: a bug")
    try:
        task.result()
    except VenueError as error:
        return CancelAnswer(error=str(error), not_sent=isinstance(error, VenueNotSent))
    except Exception as error:
        log.exception("a cancel failed: a bug")
        return CancelAnswer(error=f"a bug: {type(error).__name__}")
    return CancelAnswer()


def _was_tried() -> bool:
    """Whether this is not the first attempt. Somebody allowed more (`temporal activity update-options`); after `temporal activity
    reset` the next one counts as the first again, but it is scheduled later than the activity.
    """
    info = activity.info()
    return info.attempt > 1 or info.current_attempt_scheduled_time > info.scheduled_time


def _soon(order: Order) -> Order:
    """The order as it may be sent, and as it is looked for: both must go by the same time."""
    return order.model_copy(update={"not_after": min(order.not_after, order.prepared_at + ORDER_LASTS)})


def _by_our_clock(order: Order) -> Order:
    """The order, prepared at a time of this machine's clock, with which the venue's clock is compared. The coordinator's time is
    Temporal's. If that clock is ahead, the order would be searched for only among those of after it was placed.
    """
    ahead = activity.info().started_time - datetime.now(UTC)
    return order if ahead <= timedelta() else order.model_copy(update={"prepared_at": order.prepared_at - ahead})


def _report(order: Order, fate: Fate, detail: str) -> OrderReport:
    return OrderReport(order_id=order.order_id, fate=fate, detail=detail)
