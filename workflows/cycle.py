"""The cycle task: observe, decide, record, order."""

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.host import Host, database_of, why

with workflow.unsafe.imports_passed_through():
    from activities import calls, options
    from domain import books_seen, clocks, desk, enforcing, identity, inbox, latch
    from domain.assessment import Assessment
    from domain.carried import OrderPhase, PendingOrder
    from domain.deciding import Choice, nothing
    from domain.decisions import Decision
    from domain.limits import Limits
    from domain.market import LatchReading, Observation
    from domain.orders import Fate, Order, OrderReport
    from domain.outbox import RecordBatch, order_prepared, queue_row
    from domain.proposals import WaitingProposal
    from domain.states import State
    from domain.versions import knows_clocks

REDUCE_SECONDS = 20.0


class CycleTask:
    """Runs one cycle after another until the run drains; stands still while a restart is under way."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._c = host.c
        self.idle = True

    async def run(self) -> None:
        """Cycles for as long as the run lasts."""
        while not self._host.draining:
            if not self._host.may_tell:
                await self._read_latch()
            await self._wait_until_due()
            if not self._resting():
                self.idle = False
                await self._cycle()
                self.idle = True

    def _resting(self) -> bool:
        return self._host.draining or self._c.restart is not None or not self._host.may_tell

    async def _read_latch(self) -> None:
        """Before a run says anything, and before its first cycle. A restart waits for it, as it does for a cycle."""
        c, known, resets = self._c, latch.known_latch(self._c), self._host.resets
        self.idle = False
        try:
            call = calls.ReadLatchCall(scope=self._host.scope)
            reading = await workflow.execute_activity(
                calls.read_latch, call, task_queue=self._host.queue, summary="latch", **options.READ_LATCH
            )
        except ActivityError as error:
            reading = LatchReading(error=why(error))
        latch.unread(c, reading.error)
        if reading.error is None:
            latch.compare(c, reading.latch, known, self._host.tick())
            self._host.stop_order()
        # The workflow may have been reset to the very task that brought this answer: then it is one from before.
        self._host.latch_read = self._host.resets == resets
        self.idle = self._host.changed = True

    async def _wait_until_due(self) -> None:
        # A restart clears the latch; an observation under way would bring the old one back, so cycles stand still.
        await workflow.wait_condition(lambda: self._host.draining or self._c.restart is None)
        left = (self._due() - workflow.now()).total_seconds()
        if left > 0:
            await self._host.wait(self._resting, left, "until the next cycle")

    def _due(self) -> datetime:
        last = self._c.last_cycle_at
        return workflow.now() if last is None else last + timedelta(seconds=self._c.cycle_seconds)

    async def _cycle(self) -> None:
        c, started = self._c, workflow.now()
        previous, known = self._previous(), latch.known_latch(c)
        c.cycle_number += 1
        if c.proposals:
            inbox.expire(c, self._host.tick())
        observation, hold = await self._observe(previous), None
        if observation is not None:
            identity.take_account(c, observation.venue_account)
            identity.take_database(c, observation.database, self._host.moment())
            desk.take_observation(c, observation, known, self._host.tick())
            latch.unread(c, observation.latch_error)
            hold = await self._enforce(observation.assessment) or self._clocks_apart()
            hold = hold or books_seen.hold(observation.books)
        if self._host.takes_risk:
            await self._decide(observation, hold)
        c.last_cycle_at = started
        c.last_cycle_seconds = (workflow.now() - started).total_seconds()
        self._host.changed = True

    def _previous(self) -> calls.CycleSummary | None:
        c = self._c
        if c.last_cycle_at is None or c.last_cycle_seconds is None:
            return None
        ended_at = c.last_cycle_at + timedelta(seconds=c.last_cycle_seconds)
        open_ = len(c.cancels) + len(c.orders)
        return calls.CycleSummary(
            number=c.cycle_number, ended_at=ended_at, seconds=c.last_cycle_seconds, open_instructions=open_
        )

    async def _observe(self, previous: calls.CycleSummary | None) -> Observation | None:
        c = self._c
        cycle_id = f"{c.started_at.isoformat()}/{c.cycle_number}"
        try:
            seen = await self._host.observe(cycle_id, f"cycle {c.cycle_number}", previous)
        except ActivityError as error:
            c.observation_error = why(error)
            identity.take_database(c, database_of(error), self._host.moment())
            return None
        if seen.doubts:
            # It stands for nothing: what the last good reading showed is still what is known.
            c.observation_error = seen.doubt
            identity.take_database(c, seen.database, self._host.moment())
            return None
        return seen

    async def _enforce(self, assessment: Assessment | None) -> str | None:
        """Does what the limits ask for; why there is no new order this time, or None."""
        c, hold = self._c, None
        if assessment is None:
            return None
        enforcing.take_assessment(c, assessment, self._host.tick())
        if assessment.breaches and c.state is not State.KILLED:
            second = await self._host.read_again()
            again = second.assessment if second and not second.doubts else None
            hold = enforcing.confirm(c, assessment, again, self._host.tick())
        if cut := enforcing.reduce(c, assessment, self._host.tick()):
            hold = f"reducing {', '.join(cut)}"
            await self._until_reduced()
        return hold

    def _clocks_apart(self) -> str | None:
        """Why there is no new order, where the worker's clock is too far from another; what reduces goes on."""
        c = self._c
        if c.observation is None or not knows_clocks(c.schema_version):
            return None
        return clocks.too_far(c.observation.clocks, c.cycle_seconds)

    async def _until_reduced(self) -> None:
        """Before the next decision, where the venue lets it: what is cut is cut."""
        await self._host.wait(lambda: not enforcing.reducing(self._c), REDUCE_SECONDS, "until it is reduced")

    async def _decide(self, observation: Observation | None, hold: str | None) -> None:
        c = self._c
        if observation is None:
            hold = f"the venue was not observed: {c.observation_error}"
        if c.proposals:
            # Once more: a reading, a second one and a reduction may have taken longer than a proposal lives.
            inbox.expire(c, self._host.moment())
        taken, limits = list(c.proposals), c.limits
        if hold or observation is None:
            choice, taken = nothing(f"No new order: {hold}"), []
        else:
            choice, taken = await self._choose(observation, taken)
        # The state is read anew after every await: paused or killed meanwhile, and there is no cycle row.
        if not self._host.takes_risk:
            return
        row = self._row(choice)
        inbox.taken_up(c, taken, choice, row, self._host.moment())
        if choice.instruction is None:
            queue_row(c, row)
        else:
            await self._order(choice, row, limits)

    async def _choose(
        self, observation: Observation, waiting: list[WaitingProposal]
    ) -> tuple[Choice, list[WaitingProposal]]:
        """The choice, and the proposals from outside that it has taken up: none where the decision itself failed."""
        c = self._c
        call = calls.DecideCall(
            scope=self._host.scope,
            symbols=c.symbols,
            observation=observation,
            limits=c.limits,
            blocked=desk.blocked(c),
            sent=c.recent_orders,
            cycle=c.cycle_number,
            agents=c.agents,
            proposals=[w.proposal for w in waiting],
        )
        try:
            text = f"decide cycle {c.cycle_number}"
            choice = await workflow.execute_activity(
                calls.decide, call, task_queue=self._host.queue, summary=text, **options.DECIDE
            )
        except ActivityError as error:
            return nothing(f"No new order: the decision failed: {why(error)}"), []
        c.agents = choice.agents
        return choice, waiting

    async def _order(self, choice: Choice, row: Decision, limits: Limits) -> None:
        c = self._c
        order = desk.order_of(c, choice, row, self._host.moment())
        pending = order_prepared(c, order)
        report = await self._commit(row, order) or await self._send(pending, limits)
        desk.take_report(c, pending, report, self._host.tick())

    async def _commit(self, row: Decision, order: Order) -> OrderReport | None:
        """None once the decision is committed (I5); else the report of an order that is not sent."""
        try:
            call = calls.RecordCall(scope=self._host.scope, batch=RecordBatch(decisions=[row]))
            text = f"commit the decision on {order.instruction.symbol}"
            await workflow.execute_activity(
                calls.record, call, task_queue=self._host.queue, summary=text, **options.RECORD
            )
        except ActivityError as error:
            # The same row, by the records' own queue: whether or not it was written, it stands once.
            queue_row(self._c, row)
            return _not_sent(order, f"its decision could not be committed: {why(error)}")
        self._c.last_decision = row
        identity.database_written(self._c, call.scope.database_id, self._host.moment())
        return None

    async def _send(self, pending: PendingOrder, limits: Limits) -> OrderReport:
        c, order = self._c, pending.order
        if c.limits != limits:
            return _not_sent(order, "the limits were changed while it was being decided")
        if not self._host.takes_risk:
            told = c.state if self._host.may_tell else "reset, and has yet to read the latch"
            return _not_sent(order, f"the coordinator is {told}")
        others = [p for p in c.orders if p is not pending and p.order.instruction.symbol == order.instruction.symbol]
        if others:
            return _not_sent(order, f"another order of {order.instruction.symbol} is on its way, or unknown")
        if workflow.now() >= order.not_after:
            return _not_sent(order, "it took longer than a cycle to commit its decision")
        pending.phase = OrderPhase.SENDING
        return await self._host.send_order(order)

    def _row(self, choice: Choice) -> Decision:
        return desk.decision_of(self._c, choice, self._host.moment())


def _not_sent(order: Order, detail: str) -> OrderReport:
    return OrderReport(order_id=order.order_id, fate=Fate.NOT_SENT, detail=detail)
