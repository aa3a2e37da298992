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

from workflows.lanes import CancelLanes, backoff_seconds, spaced_seconds
from workflows.run import CoordinatorRun, DrainPhase, short, why

with workflow.unsafe.imports_passed_through():
    from activities import calls, options
    from domain.desk import applying, enforcing, identity, killing, latch, ordering, outbox
    from domain.desk.carried import OrderPhase, PendingDeleverage, PendingOrder
    from domain.desk.warnings import Topic, unwarn, warn
    from domain.risk.reducing import Reduction
    from domain.values import has

# The time between two closing orders of a symbol if each fills only in part.
BETWEEN_ORDERS_SECONDS = 0.5
MOMENT_SECONDS = 0.01
# Dust stays until a person trades it away. Reading for it as often as for a position that can be closed would exceed the
# exchange's weight limit per minute.
DUST_SECONDS = 15.0
LOG_NOT_WRITABLE = "the decision log cannot be written"
LATCH_NOT_WRITABLE = "the latch cannot be written"

Lane = Callable[[], Coroutine[None, None, None]]


class OutboxTask:
    """Starts a lane for whatever is due. While the run drains, it starts only cancels that were never tried."""

    def __init__(self, run: CoordinatorRun, cycle_is_idle: Callable[[], bool]) -> None:
        self._run = run
        self._c = run.c
        self._cycle_is_idle = cycle_is_idle
        self._lanes: dict[str, asyncio.Task[None]] = {}
        # Noted as they end: to look for them among 800 lanes after every event took longer than most events.
        self._ended: list[str] = []
        self._cancels = CancelLanes(run, self._drain)
        # How many readings in a row have not ended the kill, and when the last of them began.
        self._unverified = 0
        self._verifying_since = workflow.now()
        # How many closing orders have filled at least in part. That is progress, so it resets the back-off.
        self._closed = 0

    def _drain(self) -> DrainPhase:
        return self._run.drain_phase(self._cycle_is_idle())

    @property
    def _hands_over(self) -> bool:
        # Each waiting lane asks after every event, so what is cheap comes first.
        return self._run.draining and self._drain() >= DrainPhase.HANDING_OVER

    @property
    def _writes(self) -> bool:
        # While cancels delay the next run, a kill's latch and rows must not wait for it.
        phase = self._drain()
        return phase < DrainPhase.HANDING_OVER or (phase < DrainPhase.OVERDUE and self._cancels.under_way > 0)

    @property
    def idle(self) -> bool:
        """Whether no lane runs, and none has to start before the run may end."""
        return not self._lanes and not self._due()

    async def run(self) -> None:
        """Runs lanes for as long as the run lasts."""
        while True:
            await workflow.wait_condition(lambda: self._cancels.must_wake or bool(self._due()) or bool(self._ended))
            while self._ended:
                # A lane that raised is a bug. Raising it again here fails the workflow task, which is visible and gets
                # retried.
                self._lanes.pop(self._ended.pop()).result()
            self._cancels.wake()
            for key, lane in self._due().items():
                self._lanes[key] = asyncio.create_task(self._carry_out(key, lane))

    async def _carry_out(self, key: str, lane: Lane) -> None:
        try:
            await lane()
        finally:
            self._ended.append(key)

    def _due(self) -> dict[str, Lane]:
        due: dict[str, Lane] = {
            f"{tool}/{symbol}": _bind(self._cancels.run, tool, symbol) for tool, symbol in self._cancels.due()
        }
        if not self._hands_over:
            due |= self._due_orders() | self._due_restart() | self._due_addition()
        if self._writes:
            due |= self._due_rows()
        return {key: lane for key, lane in due.items() if key not in self._lanes}

    def _due_orders(self) -> dict[str, Lane]:
        lanes: dict[str, Lane] = {}
        for pending in self._c.orders:
            if pending.phase is OrderPhase.UNKNOWN and (key := f"settle/{pending.order.order_id}") not in self._lanes:
                lanes[key] = _bind(self._settle_lane, pending)
        for symbol in ordering.due_deleverages(self._c):
            lanes[f"deleverage/{symbol}"] = _bind(self._deleverage_lane, symbol)
        if enforcing.flattening(self._c):
            lanes["flatten"] = self._flatten_lane
        if killing.verifying(self._c):
            lanes["verify"] = self._verify_lane
        return lanes

    def _due_rows(self) -> dict[str, Lane]:
        c, lanes = self._c, dict[str, Lane]()
        if c.records or c.instruction_rows:
            lanes["records"] = self._records_lane
        is_clearing = c.restart is not None and c.restart.kill_number == c.kill_number
        if is_clearing and ("restart" in self._lanes or self._due_restart()):
            # A row of this kill written while the restart clears it would make the kill look lost. A newer kill does not
            # wait.
            return lanes
        if c.latch_due:
            lanes["latch"] = self._latch_lane
        return lanes

    def _due_restart(self) -> dict[str, Lane]:
        due = self._c.restart and self._cycle_is_idle() and "latch" not in self._lanes
        return {"restart": self._restart_lane} if due else {}

    def _due_addition(self) -> dict[str, Lane]:
        return {"symbols": self._symbols_lane} if self._c.addition else {}

    async def _settle_lane(self, pending: PendingOrder) -> None:
        """Asks the venue until an order's fate is known; never sends it again (I4)."""
        call, failures = calls.OrderCall(scope=self._run.scope, order=pending.order), 0
        while has(self._c.orders, pending) and not self._hands_over:
            began = workflow.now()
            try:
                report = await self._run.calling.answer_of(
                    calls.settle_order, call, task_queue=self._run.queue, **options.SETTLE
                )
            except ActivityError as error:
                name = pending.order.order_id
                warn(self._c, Topic.ORDER_UNKNOWN, f"the fate of order {name} is unknown: {why(error)}", name)
            else:
                if report.fate.is_known:
                    ordering.take_report(self._c, pending, report, self._run.tick())
                    return
            failures += 1
            await self._space_out(failures, began, lambda: False)

    async def _deleverage_lane(self, symbol: str) -> None:
        while not self._hands_over and (pending := ordering.next_deleverage(self._c, symbol)):
            began, closed = workflow.now(), self._closed
            await self._deleverage(pending)
            if self._closed > closed and ordering.next_deleverage(self._c, symbol):
                spent = max((workflow.now() - began).total_seconds(), 0.0)
                await workflow.sleep(max(MOMENT_SECONDS, BETWEEN_ORDERS_SECONDS - spent))

    async def _flatten_lane(self) -> None:
        """Closes every position after a kill that flattens, and reads the account until no position is left."""
        failures = 0
        while enforcing.flattening(self._c) and not self._hands_over:
            began, closed = workflow.now(), self._closed
            reading = await self._run.read_again()
            if not enforcing.flattening(self._c):
                return  # A restart arrived during the reading.
            if reading is not None and enforcing.flatten(self._c, reading, self._run.tick()):
                return
            failures += 1
            if enforcing.only_dust_is_left(self._c):
                await self._wait(DUST_SECONDS, partial(self._has_closed_since, closed))
                continue
            await self._space_out(failures, began, partial(self._has_closed_since, closed))
            # While orders close positions piece by piece, another reading of the whole account adds little.
            if self._has_closed_since(closed):
                failures = 0

    def _has_closed_since(self, closed: int) -> bool:
        """Whether something was closed and nothing is on its way any more, so that a reading may find no position left."""
        return self._closed > closed and not enforcing.reducing(self._c)

    async def _verify_lane(self) -> None:
        """Reads the whole account after a kill, until a reading shows no open order."""
        while killing.verifying(self._c) and not self._hands_over:
            if self._unverified:
                await self._space_out(self._unverified, self._verifying_since, lambda: False)
            self._verifying_since = workflow.now()
            asked, reading = self._to_verify(), await self._run.read_again()
            self._unverified += 1
            # During the reading, a kill or the fate of an order may have asked for more cancels and seen them confirmed.
            still = killing.verifying(self._c) and asked == self._to_verify()
            if reading is not None and still and killing.verify(self._c, reading, self._run.tick()):
                self._unverified = 0

    def _to_verify(self) -> tuple[int, datetime | None]:
        """Which kill, and since when it is quiet. A reading verifies a kill only if it began after both."""
        return self._c.kill_number, self._c.kill.quiet_at if self._c.kill else None

    async def _deleverage(self, pending: PendingDeleverage) -> None:
        call = calls.PlanCall(
            scope=self._run.scope,
            symbol=pending.symbol,
            reduce_pct=pending.reduce_pct,
            quantity=pending.quantity,
            automatic=pending.automatic,
        )
        try:
            plan = await self._run.calling.answer_of(
                calls.plan_deleverage,
                call,
                task_queue=self._run.queue,
                summary=short(f"deleverage {pending.symbol}"),
                **options.PLAN,
            )
        except ActivityError as error:
            plan = Reduction(refusal=f"the position cannot be read: {why(error)}")
        if not has(self._c.deleverages, pending):
            return  # A kill or a restart dropped it while the position was being read.
        if plan.instruction is None:
            ordering.nothing_to_send(self._c, pending, plan, self._run.tick())
            return
        placed = ordering.reduction_prepared(self._c, pending, plan, self._run.moment())
        report = await self._run.send_order(placed.order)
        self._closed += bool(report.filled_quantity)
        ordering.take_report(self._c, placed, report, self._run.tick())

    async def _records_lane(self) -> None:
        failures = 0
        while (self._c.records or self._c.instruction_rows) and self._writes:
            batch = outbox.next_batch(self._c)
            try:
                call = calls.RecordCall(scope=self._run.scope, batch=batch)
                text = f"write rows: {len(batch.decisions)} decisions, {len(batch.instructions)} instructions"
                await self._run.calling.answer_of(
                    calls.record, call, task_queue=self._run.queue, summary=text, **options.RECORD
                )
            except ActivityError as error:
                failures += 1
                warn(self._c, Topic.LOG_UNWRITTEN, f"{LOG_NOT_WRITABLE}: {why(error)}")
                await self._back_off(failures, self._another_database_than(call.scope))
            else:
                failures = 0
                outbox.batch_written(self._c, batch)
                identity.database_written(self._c, call.scope.database_id, self._run.moment())
                unwarn(self._c, Topic.LOG_UNWRITTEN)
            self._run.changed = True

    async def _latch_lane(self) -> None:
        failures = 0
        while self._c.latch_due and self._writes:
            row = outbox.desk_row(self._c)
            try:
                call = calls.WriteDeskCall(scope=self._run.scope, row=row)
                text = f"write the desk's row: {'killed' if row.latch.killed else 'not killed'}, kill {row.latch.kill_number}"
                answer = await self._run.calling.answer_of(
                    calls.write_desk, call, task_queue=self._run.queue, summary=text, **options.RECORD
                )
            except ActivityError as error:
                failures += 1
                warn(self._c, Topic.LATCH_UNWRITTEN, f"{LATCH_NOT_WRITABLE}: {why(error)}")
                await self._back_off(failures, self._another_database_than(call.scope))
            else:
                latch.row_answered(self._c, row, answer, self._run.moment())
                identity.database_written(self._c, call.scope.database_id, self._run.moment())
                self._run.stop_order()
                unwarn(self._c, Topic.LATCH_UNWRITTEN)
            self._run.changed = True

    def _another_database_than(self, scope: calls.Scope) -> Callable[[], bool]:
        """Whether the desk has another database by now: then a failure in the old one says nothing about the new one."""
        return lambda: scope.database_id is not None and self._c.database_id != scope.database_id

    async def _restart_lane(self) -> None:
        restart = self._c.restart
        assert restart is not None
        if self._c.kill_number != restart.kill_number:
            applying.finish_restart(self._c, "a kill came before it was carried out", self._run.tick())
            return
        # The new mode's own worker clears the latch. That proves it is up, with the right account and database.
        scope, queue = self._run.served_under(restart.command.terms)
        call = calls.ClearLatchCall(
            scope=scope, kill_number=restart.kill_number, kill_id=restart.kill_id, row=restart.row
        )
        try:
            cleared = await self._run.calling.answer_of(
                calls.clear_latch,
                call,
                task_queue=queue,
                summary="clear the latch",
                **options.CLEAR_LATCH,
            )
            error = None if cleared else "the database's row of this desk does not match; see `ais status`"
        except ActivityError as failure:
            error = f"the latch could not be cleared by a worker of mode {scope.mode.value}: {why(failure)}"
        applying.finish_restart(self._c, error, self._run.tick())

    async def _symbols_lane(self) -> None:
        addition = self._c.addition
        assert addition is not None
        reading = await self._run.look_for(addition.symbols)
        applying.finish_addition(self._c, reading, self._run.tick())

    async def _space_out(self, failures: int, began: datetime, wake: Callable[[], bool]) -> None:
        """Waits before the next attempt at the venue. The time of the last attempt counts, so that after a slow failure the
        wait is no longer than after a quick one."""
        spent = (workflow.now() - began).total_seconds()
        await self._wait(spaced_seconds(failures, spent), wake)

    async def _back_off(self, failures: int, wake: Callable[[], bool]) -> None:
        await self._wait(backoff_seconds(failures), wake)

    async def _wait(self, seconds: float, wake: Callable[[], bool]) -> None:
        await self._run.wait(lambda: self._hands_over or wake(), seconds, "until the next attempt")


def _bind(lane: Callable[..., Coroutine[None, None, None]], *arguments: object) -> Lane:
    return lambda: lane(*arguments)
