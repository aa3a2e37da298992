"""The outbox task: carries out effects in lanes that never wait for each other, nor for the cycle.

Measured on a single loop: with the database down, a confirmed kill had sent no cancel after 8 s, because the loop was
awaiting a record. So each symbol and venue has a lane of its own, and so have the records and the latch.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import partial

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.host import Host, short, why
from workflows.lanes import CancelLanes, backoff_seconds, spaced_seconds

with workflow.unsafe.imports_passed_through():
    from activities import calls, options
    from domain import desk, enforcing, identity, killing, latch, outbox
    from domain.carried import OrderPhase, PendingDeleverage, PendingOrder
    from domain.instructions import Tool
    from domain.reducing import Plan
    from domain.traces import unwarn, warn
    from domain.versions import flattens_on, knows_generations

# From one closing order of a symbol to the next, where each fills in part.
BETWEEN_ORDERS_SECONDS = 0.5
MOMENT_SECONDS = 0.01
# Dust stays until a person trades it away. Looked at as often as what can be closed, it takes more weight than the exchange
# allows in a minute.
DUST_SECONDS = 15.0
LOG_AWAY = "the decision log cannot be written"
LATCH_AWAY = "the latch cannot be written"

Lane = Callable[[], Coroutine[None, None, None]]


class OutboxTask:
    """Starts a lane for whatever is due. While the run drains, only cancels that were never tried are started."""

    def __init__(self, host: Host, cycle_is_idle: Callable[[], bool]) -> None:
        self._host = host
        self._c = host.c
        self._cycle_is_idle = cycle_is_idle
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._cancels = CancelLanes(host, lambda: self._winding_down, lambda: self._takes_fresh_cancels)
        # Readings in a row that did not end a kill, and when the last of them began.
        self._unverified = 0
        self._verifying_since = workflow.now()
        # Closing orders that filled something: progress, which is no reason to slow down.
        self._closed = 0

    @property
    def _winding_down(self) -> bool:
        # Not before the cycle stands still: it may take half a minute, and a kill's latch and record cannot wait for it.
        return self._host.draining and self._cycle_is_idle()

    @property
    def _takes_fresh_cancels(self) -> bool:
        return not (self._winding_down and self._host.drains_too_long)

    @property
    def _writes(self) -> bool:
        # While cancels hold up the next run, the latch and the rows of a kill must not wait for it.
        held_up = self._cancels.under_way > 0 and not self._host.drains_too_long
        return not self._winding_down or held_up

    @property
    def idle(self) -> bool:
        """Whether no lane runs and none has to start before the run may end."""
        return not self._lanes and not self._due()

    async def run(self) -> None:
        """Runs lanes for as long as the run lasts."""
        while True:
            await workflow.wait_condition(lambda: self._cancels.must_wake or bool(self._due()) or self._any_done())
            self._reap()
            self._cancels.wake()
            for key, lane in self._due().items():
                self._lanes[key] = asyncio.create_task(lane())

    def _any_done(self) -> bool:
        return any(task.done() for task in self._lanes.values())

    def _reap(self) -> None:
        for key in [key for key, task in self._lanes.items() if task.done()]:
            # A lane that raised is a bug: raising it here fails the workflow task, which shows and is tried again.
            self._lanes.pop(key).result()

    def _due(self) -> dict[str, Lane]:
        due = self._due_cancels()
        if not self._winding_down:
            due |= self._due_orders() | self._due_restart()
        if self._writes:
            due |= self._due_rows()
        return {key: lane for key, lane in due.items() if key not in self._lanes}

    def _due_cancels(self) -> dict[str, Lane]:
        return {f"{tool}/{symbol}": _bind(self._cancels.run, tool, symbol) for tool, symbol in self._cancels.due()}

    def _due_orders(self) -> dict[str, Lane]:
        lanes: dict[str, Lane] = {}
        for pending in self._c.orders:
            if pending.phase is OrderPhase.UNKNOWN:
                lanes[f"settle/{pending.order.order_id}"] = _bind(self._settle_lane, pending)
        for deleverage in self._c.deleverages:
            if self._next_deleverage(deleverage.symbol):
                lanes[f"deleverage/{deleverage.symbol}"] = _bind(self._deleverage_lane, deleverage.symbol)
        if enforcing.flattening(self._c):
            lanes["flatten"] = self._flatten_lane
        if killing.verifying(self._c):
            lanes["verify"] = self._verify_lane
        return lanes

    def _due_rows(self) -> dict[str, Lane]:
        c, lanes = self._c, dict[str, Lane]()
        if c.records or c.instruction_rows:
            lanes["records"] = self._records_lane
        if c.latch_due and not self._is_clearing():
            lanes["latch"] = self._latch_lane
        return lanes

    def _is_clearing(self) -> bool:
        """Whether this kill is being cleared: written meanwhile, it would answer that it is lost. A newer kill does not wait."""
        c = self._c
        if c.restart is None or c.restart.kill_number != c.kill_number or not knows_generations(c.schema_version):
            return False
        return "restart" in self._lanes or bool(self._due_restart())

    def _due_restart(self) -> dict[str, Lane]:
        due = self._c.restart and self._cycle_is_idle() and "latch" not in self._lanes
        return {"restart": self._restart_lane} if due else {}

    async def _settle_lane(self, pending: PendingOrder) -> None:
        """Asks the venue until an order's fate is known; never sends it again (I4)."""
        call, failures = calls.OrderCall(scope=self._host.scope, order=pending.order), 0
        while pending in self._c.orders and not self._winding_down:
            began = workflow.now()
            try:
                report = await workflow.execute_activity(
                    calls.settle_order, call, task_queue=self._host.queue, **options.SETTLE
                )
            except ActivityError as error:
                told = desk.unknown_text(pending.order.order_id)
                unwarn(self._c, told)
                warn(self._c, f"{told}: {why(error)}")
            else:
                if report.fate.is_known:
                    desk.take_report(self._c, pending, report, self._host.tick())
                    return
            failures += 1
            await self._space_out(failures, began, lambda: False)

    def _next_deleverage(self, symbol: str) -> PendingDeleverage | None:
        """One at a time: none while an order of an earlier one is still on its way. What a kill or a limit asks for waits
        until the symbol's cancels are confirmed."""
        mine = [d for d in self._c.deleverages if d.symbol == symbol]
        if any(d.order_id for d in mine):
            return None
        held_up = self._c.cancels.lane(Tool.CANCEL_ALL_ORDERS, symbol)
        return next((d for d in mine if not (d.automatic and held_up)), None)

    async def _deleverage_lane(self, symbol: str) -> None:
        while not self._winding_down and (pending := self._next_deleverage(symbol)):
            began, closed = workflow.now(), self._closed
            await self._deleverage(pending)
            if flattens_on(self._c.schema_version) and self._closed > closed and self._next_deleverage(symbol):
                spent = (workflow.now() - began).total_seconds()
                await workflow.sleep(max(MOMENT_SECONDS, BETWEEN_ORDERS_SECONDS - spent))

    async def _flatten_lane(self) -> None:
        """Closes every position after a kill that flattens, and reads until none is left."""
        failures = 0
        while enforcing.flattening(self._c) and not self._winding_down:
            began, closed = workflow.now(), self._closed
            reading = await self._host.read_again()
            if not enforcing.flattening(self._c):
                return  # A restart came while it was read.
            if reading is not None and enforcing.flatten(self._c, reading, self._host.tick()):
                return
            failures += 1
            if enforcing.only_dust_is_left(self._c):
                await self._wait(DUST_SECONDS, partial(self._has_closed_since, closed))
                continue
            await self._space_out(failures, began, partial(self._has_closed_since, closed))
            # While orders close one part after another, a reading of everything has little to add.
            if self._has_closed_since(closed):
                failures = 0

    def _has_closed_since(self, closed: int) -> bool:
        """Whether something was closed, and nothing is on its way any more: a reading may find that nothing is left."""
        is_over = self._closed > closed and not enforcing.reducing(self._c)
        return is_over and flattens_on(self._c.schema_version)

    async def _verify_lane(self) -> None:
        """Reads the whole account after a kill, until it shows no open order."""
        while killing.verifying(self._c) and not self._winding_down:
            if self._unverified:
                await self._space_out(self._unverified, self._verifying_since, lambda: False)
            self._verifying_since = workflow.now()
            asked, reading = self._to_verify(), await self._host.read_again()
            self._unverified += 1
            # A kill, or an order's fate, may have asked for more cancels while it was read, and seen them confirmed.
            still = killing.verifying(self._c) and asked == self._to_verify()
            if reading is not None and still and killing.verify(self._c, reading, self._host.tick()):
                self._unverified = 0

    def _to_verify(self) -> tuple[int, datetime | None]:
        """Which kill, and since when it is quiet: a reading verifies what it began after."""
        return self._c.kill_number, self._c.kill.quiet_at if self._c.kill else None

    async def _deleverage(self, pending: PendingDeleverage) -> None:
        call = calls.PlanCall(
            scope=self._host.scope,
            symbol=pending.symbol,
            reduce_pct=pending.reduce_pct,
            quantity=pending.quantity,
            automatic=pending.automatic,
        )
        try:
            plan = await workflow.execute_activity(
                calls.plan_deleverage,
                call,
                task_queue=self._host.queue,
                summary=short(f"deleverage {pending.symbol}"),
                **options.PLAN,
            )
        except ActivityError as error:
            plan = Plan(refusal=f"the position cannot be read: {why(error)}")
        if not any(waiting is pending for waiting in self._c.deleverages):
            return  # A kill, or a restart, has dropped it while the position was read.
        if plan.instruction is None:
            desk.finish_deleverage(self._c, pending, plan.refusal or "nothing to reduce", self._host.tick())
        else:
            await self._reduce(pending, plan)

    async def _reduce(self, pending: PendingDeleverage, plan: Plan) -> None:
        placed = desk.reduction_prepared(self._c, pending, plan, self._host.moment())
        report = await self._host.send_order(placed.order)
        self._closed += bool(report.filled_quantity)
        desk.take_report(self._c, placed, report, self._host.tick())

    async def _records_lane(self) -> None:
        failures = 0
        while (self._c.records or self._c.instruction_rows) and self._writes:
            batch = outbox.next_batch(self._c)
            try:
                call = calls.RecordCall(scope=self._host.scope, batch=batch)
                await workflow.execute_activity(
                    calls.record, call, task_queue=self._host.queue, summary=_batch_text(batch), **options.RECORD
                )
            except ActivityError as error:
                failures += 1
                warn(self._c, f"{LOG_AWAY}: {why(error)}")
                await self._back_off(failures, self._another_database_than(call.scope))
            else:
                failures = 0
                outbox.batch_written(self._c, batch)
                identity.database_written(self._c, call.scope.database_id, self._host.moment())
                unwarn(self._c, LOG_AWAY)
            self._host.changed = True

    async def _latch_lane(self) -> None:
        failures = 0
        while self._c.latch_due and self._writes:
            row = outbox.desk_row(self._c)
            try:
                call = calls.WriteDeskCall(scope=self._host.scope, row=row)
                text = f"latch {row.latch.kill_number}"
                answer = await workflow.execute_activity(
                    calls.write_desk, call, task_queue=self._host.queue, summary=text, **options.RECORD
                )
            except ActivityError as error:
                failures += 1
                warn(self._c, f"{LATCH_AWAY}: {why(error)}")
                await self._back_off(failures, self._another_database_than(call.scope))
            else:
                latch.row_answered(self._c, row, answer, self._host.moment())
                identity.database_written(self._c, call.scope.database_id, self._host.moment())
                self._host.stop_order()
                unwarn(self._c, LATCH_AWAY)
            self._host.changed = True

    def _another_database_than(self, scope: calls.Scope) -> Callable[[], bool]:
        """Whether the desk has another database by now: what failed in the old one has not been tried there."""
        return lambda: scope.database_id is not None and self._c.database_id != scope.database_id

    async def _restart_lane(self) -> None:
        restart = self._c.restart
        assert restart is not None
        if self._c.kill_number != restart.kill_number:
            desk.finish_restart(self._c, "a kill came before it was carried out", self._host.tick())
            return
        call = calls.ClearLatchCall(
            scope=self._host.scope, kill_number=restart.kill_number, kill_id=restart.kill_id, row=restart.row
        )
        try:
            cleared = await workflow.execute_activity(
                calls.clear_latch, call, task_queue=self._host.queue, summary="restart", **options.CLEAR_LATCH
            )
            error = None if cleared else "the database's row of this desk does not match; see `ais status`"
        except ActivityError as failure:
            error = f"the latch could not be cleared: {why(failure)}"
        desk.finish_restart(self._c, error, self._host.tick())

    async def _space_out(self, failures: int, began: datetime, wake: Callable[[], bool]) -> None:
        """Before the next attempt at the venue: what the last one took is counted, so that a slow failure waits no longer than
        one that came at once.
        """
        spent = (workflow.now() - began).total_seconds()
        await self._wait(spaced_seconds(failures, spent), wake)

    async def _back_off(self, failures: int, wake: Callable[[], bool]) -> None:
        await self._wait(backoff_seconds(failures), wake)

    async def _wait(self, seconds: float, wake: Callable[[], bool]) -> None:
        await self._host.wait(lambda: self._winding_down or wake(), seconds, "back-off")


def _bind(lane: Callable[..., Coroutine[None, None, None]], *arguments: object) -> Lane:
    return lambda: lane(*arguments)


def _batch_text(batch: outbox.RecordBatch) -> str:
    return f"{len(batch.decisions)} decisions, {len(batch.instructions)} instructions"
