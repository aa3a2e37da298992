"""The cycle task: observe, decide, record, order."""

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.host import Host, why

with workflow.unsafe.imports_passed_through():
    from activities import calls, options
    from domain import desk
    from domain.carried import OrderPhase, PendingOrder
    from domain.deciding import Choice, nothing
    from domain.decisions import Decision
    from domain.market import Observation
    from domain.orders import Fate, Order, OrderReport
    from domain.outbox import RecordBatch, order_prepared, queue_row
    from domain.states import State

# An order is valid for one cycle. In replays with cycles of a second or less, committing its decision would use that up.
SHORTEST_ORDER_SECONDS = 2.0


class CycleTask:
    """Runs one cycle after another until the run drains; stands still while a restart is under way."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._c = host.c
        self.idle = True

    async def run(self) -> None:
        """Cycles for as long as the run lasts."""
        while not self._host.draining:
            await self._wait_until_due()
            if not self._resting():
                self.idle = False
                await self._cycle()
                self.idle = True

    def _resting(self) -> bool:
        return self._host.draining or self._c.restart is not None

    async def _wait_until_due(self) -> None:
        # A restart clears the latch; an observation under way would bring the old one back, so cycles stand still.
        await workflow.wait_condition(lambda: self._host.draining or self._c.restart is None)
        left = (self._due() - workflow.now()).total_seconds()
        if left > 0:
            try:
                await workflow.wait_condition(self._resting, timeout=left, timeout_summary="until the next cycle")
            except TimeoutError:
                return

    def _due(self) -> datetime:
        last = self._c.last_cycle_at
        return workflow.now() if last is None else last + timedelta(seconds=self._c.cycle_seconds)

    async def _cycle(self) -> None:
        c, started = self._c, workflow.now()
        previous, known = self._previous(), desk.known_latch(c)
        c.cycle_number += 1
        observation = await self._observe(previous)
        if observation is not None:
            desk.take_observation(c, observation, known, self._host.tick())
        if c.state is State.RUNNING:
            await self._decide(observation)
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
        call = calls.ObserveCall(
            scope=self._host.scope,
            symbols=c.symbols,
            cycle_id=f"{c.started_at.isoformat()}/{c.cycle_number}",
            previous=previous,
        )
        try:
            return await workflow.execute_activity(
                calls.observe, call, summary=f"cycle {c.cycle_number}", **options.OBSERVE
            )
        except ActivityError as error:
            c.observation_error = why(error)
            return None

    async def _decide(self, observation: Observation | None) -> None:
        c = self._c
        if observation is None:
            choice = nothing(f"No new order: the venue was not observed: {c.observation_error}")
        else:
            choice = await self._choose(observation)
        # The state is read anew after every await: paused or killed meanwhile, and there is no cycle row.
        if c.state is not State.RUNNING:
            return
        if choice.instruction is None:
            queue_row(c, self._row(choice, None))
        else:
            await self._order(choice)

    async def _choose(self, observation: Observation) -> Choice:
        c = self._c
        call = calls.DecideCall(
            scope=self._host.scope,
            symbols=c.symbols,
            observation=observation,
            limits=c.limits,
            blocked={p.order.instruction.symbol: f"order_unknown: {p.order.order_id}" for p in c.orders},
        )
        try:
            text = f"decide cycle {c.cycle_number}"
            return await workflow.execute_activity(calls.decide, call, summary=text, **options.DECIDE)
        except ActivityError as error:
            return nothing(f"No new order: the decision failed: {why(error)}")

    async def _order(self, choice: Choice) -> None:
        row, order = self._row_and_order(choice)
        pending = order_prepared(self._c, order)
        report = await self._commit(row, order) or await self._send(pending)
        desk.take_report(self._c, pending, report, self._host.tick())

    async def _commit(self, row: Decision, order: Order) -> OrderReport | None:
        """None once the decision is committed (I5); else the report of an order that is not sent."""
        try:
            call = calls.RecordCall(scope=self._host.scope, batch=RecordBatch(decisions=[row]))
            text = f"commit the decision on {order.instruction.symbol}"
            await workflow.execute_activity(calls.record, call, summary=text, **options.RECORD)
        except ActivityError as error:
            # The same row, by the records' own queue: whether or not it was written, it stands once.
            queue_row(self._c, row)
            return _not_sent(order, f"its decision could not be committed: {why(error)}")
        self._c.last_decision = row
        return None

    async def _send(self, pending: PendingOrder) -> OrderReport:
        c, order = self._c, pending.order
        if c.state is not State.RUNNING:
            return _not_sent(order, f"the coordinator is {c.state}")
        if workflow.now() >= order.not_after:
            return _not_sent(order, "it took longer than a cycle to commit its decision")
        pending.phase = OrderPhase.SENDING
        return await self._host.send_order(order)

    def _row_and_order(self, choice: Choice) -> tuple[Decision, Order]:
        c, now = self._c, workflow.now()
        order_id = self._host.new_id("ord")
        row = self._row(choice, order_id)
        assert choice.instruction is not None
        order = Order(
            order_id=order_id,
            command_id=row.decision_id,
            desk=c.desk,
            instruction=choice.instruction,
            not_after=now + timedelta(seconds=max(c.cycle_seconds, SHORTEST_ORDER_SECONDS)),
            prepared_at=now,
        )
        return row, order

    def _row(self, choice: Choice, order_id: str | None) -> Decision:
        proposal = choice.proposal
        return Decision(
            decision_id=self._host.new_id("decision"),
            timestamp=workflow.now(),
            decision_type=choice.decision_type,
            summary=choice.summary,
            agent_votes=choice.votes,
            selected_signal_id=proposal.proposal_id if proposal else None,
            selected_order_id=order_id,
            risk_passed=choice.risk_passed,
            risk_reasons=choice.risk_reasons,
            desk=self._c.desk,
            symbol=proposal.symbol if proposal else None,
        )


def _not_sent(order: Order, detail: str) -> OrderReport:
    return OrderReport(order_id=order.order_id, fate=Fate.NOT_SENT, detail=detail)
