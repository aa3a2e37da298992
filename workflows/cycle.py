"""The cycle task: decides when a cycle is due, and does for `domain/desk/cycle.py` what needs activities or timers."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.run import CoordinatorRun, database_of, why

with workflow.unsafe.imports_passed_through():
    from activities import calls, options
    from domain.deciding import Choice
    from domain.desk import enforcing, latch, requoting
    from domain.desk.ahead import DECISION_LASTS, ChoiceAhead, facts_of
    from domain.desk.cycle import NotDone, run_cycle, seconds_to_wait, takes_risk
    from domain.desk.outbox import RecordBatch
    from domain.desk.recording import Tick
    from domain.desk.versions import decides_ahead, gives_up_paused_calls
    from domain.trading.decisions import Decision
    from domain.trading.market import LatchReading, Observation
    from domain.trading.orders import Order, OrderReport
    from domain.trading.proposals import WaitingProposal

REDUCE_SECONDS = 20.0
# No limit is watched during this wait. A cancel that takes longer continues, and blocks its symbol.
REPLACE_SECONDS = 10.0


class CycleTask:
    """Runs one cycle after another until the run drains. Pauses while a restart is under way."""

    def __init__(self, run: CoordinatorRun) -> None:
        self._run = run
        self._c = run.c
        self._ahead: ChoiceAhead | None = None
        self._until_next: asyncio.Task[None] | None = None
        self.idle = True

    async def run(self) -> None:
        """Cycles for as long as the run lasts."""
        while not self._run.draining:
            if not self._run.may_tell:
                await self._read_latch()
            # A restart clears the latch. A reading already under way would bring the old one back, so no cycle runs
            # meanwhile.
            await workflow.wait_condition(lambda: self._run.draining or self._c.restart is None)
            await self._until_due()
            if not self._resting():
                self.idle, started = False, workflow.now()
                self._until_next = self._watched_for(self._c.cycle_seconds, "until the next cycle")
                await run_cycle(self._c, self)
                self._c.last_cycle_at = started
                self._c.last_cycle_seconds = (workflow.now() - started).total_seconds()
                self.idle = self._run.changed = True

    async def _until_due(self) -> None:
        """Waits for the timer that began with the last cycle, or for what is left if there is none."""
        timer, self._until_next = self._until_next, None
        seconds = seconds_to_wait(self._c, workflow.now())
        if timer is None and seconds > 0:
            await self._run.wait(self._resting, seconds, "until the next cycle")
        elif timer is not None:
            if seconds > 0:
                await workflow.wait_condition(lambda: timer.done() or self._resting())
            timer.cancel()

    def _watched_for(self, seconds: float, summary: str) -> asyncio.Task[None] | None:
        """A timer beside what is under way. If it is still under way then, somebody may have paused it: nothing else would wake
        the run, and no limit would be watched."""
        if not gives_up_paused_calls(self._c.schema_version):
            return None
        return asyncio.create_task(self._give_up_after(seconds, summary))

    async def _give_up_after(self, seconds: float, summary: str) -> None:
        await workflow.sleep(seconds, summary=summary)
        while not self.idle:
            self._run.calling.give_up_overdue()
            await workflow.sleep(options.WATCH_SECONDS, summary="until what is paused is given up")

    def _resting(self) -> bool:
        return self._run.draining or self._c.restart is not None or not self._run.may_tell

    async def _read_latch(self) -> None:
        """Reads the latch before the run reports any state and before its first cycle. A restart waits for it, as it does
        for a cycle."""
        c, known, resets = self._c, latch.known_latch(self._c), self._run.resets
        self.idle = False
        watch = self._watched_for(options.WATCH_SECONDS, "until what is paused is given up")
        try:
            call = calls.ReadLatchCall(scope=self._run.scope)
            reading = await self._run.calling.answer_of(
                calls.read_latch, call, task_queue=self._run.queue, summary="read the latch", **options.READ_LATCH
            )
        except ActivityError as error:
            reading = LatchReading(error=why(error))
        finally:
            if watch:
                watch.cancel()
        latch.unread(c, reading.error)
        if reading.error is None:
            latch.compare(c, reading.latch, known, self._run.tick())
            self._run.stop_order()
        # The workflow may have been reset to the very task that brought this answer, which is then outdated.
        self._run.latch_read = self._run.resets == resets
        self.idle = self._run.changed = True

    # --- what a cycle needs: domain.desk.cycle.Surroundings ------------------------------------------------------------

    @property
    def latch_read(self) -> bool:
        """Whether this run has compared the latch in the database, since it began or since a reset of the workflow."""
        return self._run.latch_read

    def tick(self) -> Tick:
        """Now, for a change that people are shown."""
        return self._run.tick()

    def moment(self) -> Tick:
        """Now, for a change with nothing to show yet."""
        return self._run.moment()

    async def observe(self) -> Observation:
        """Reads the venue, which moves the market on, and reports to the metrics how long the previous cycle took. A choice
        may come with the reading, unless none could be used."""
        c = self._c
        may_decide = decides_ahead(c.schema_version) and takes_risk(c, self)
        ahead = self._ahead = ChoiceAhead(c, workflow.now()) if may_decide else None
        try:
            text, facts = f"cycle {c.cycle_number}", ahead.facts if ahead else None
            came = await self._run.observe(self._run.cycle_id, text, self._previous(), decides=facts)
        except ActivityError as error:
            raise NotDone(why(error), database_of(error)) from error
        return ahead.take(came) if ahead else came.observation

    def _previous(self) -> calls.CycleSummary | None:
        c = self._c
        if c.last_cycle_at is None or c.last_cycle_seconds is None:
            return None
        return calls.CycleSummary(
            number=c.cycle_number - 1,
            ended_at=c.last_cycle_at + timedelta(seconds=c.last_cycle_seconds),
            seconds=c.last_cycle_seconds,
            open_instructions=len(c.cancels) + len(c.orders),
        )

    async def read_again(self) -> Observation | None:
        """A second reading, which does not move the market on."""
        return await self._run.read_again()

    async def until_reduced(self) -> None:
        """Waits until no automatic reduction is under way."""
        await self._run.wait(lambda: not enforcing.reducing(self._c), REDUCE_SECONDS, "until it is reduced")

    async def decide(
        self, observation: Observation, blocked: dict[str, str], waiting: Sequence[WaitingProposal]
    ) -> Choice:
        """Chooses among the agents' proposals and the `waiting` ones. Uses the choice that came with the reading if nothing
        it was made from has changed."""
        c, asked_at = self._c, workflow.now()
        if self._ahead and (early := self._ahead.choice(c, observation, blocked, waiting, asked_at)):
            return early
        call = calls.DecideCall(
            scope=self._run.scope,
            symbols=c.symbols,
            observation=observation,
            limits=c.limits,
            **vars(facts_of(c, blocked, waiting)),
        )
        try:
            text = f"decide cycle {c.cycle_number}"
            choice = await self._run.calling.answer_of(
                calls.decide, call, task_queue=self._run.queue, summary=text, **options.DECIDE
            )
        except ActivityError as error:
            raise NotDone(why(error)) from error
        if decides_ahead(c.schema_version) and workflow.now() - asked_at > DECISION_LASTS:
            raise NotDone("its answer waited until a worker was up again, and the market has moved on")
        return choice

    async def commit(self, row: Decision) -> None:
        """Writes the row of an order before the order goes out."""
        try:
            call = calls.RecordCall(scope=self._run.scope, batch=RecordBatch(decisions=[row]))
            text = f"commit the decision on {row.symbol}"
            await self._run.calling.answer_of(
                calls.record, call, task_queue=self._run.queue, summary=text, **options.RECORD
            )
        except ActivityError as error:
            raise NotDone(why(error)) from error

    async def until_canceled(self, order: Order) -> None:
        """Waits until the outbox has canceled the orders that this one replaces."""
        c, left = self._c, min((order.not_after - workflow.now()).total_seconds(), REPLACE_SECONDS)
        await self._run.wait(
            lambda: not requoting.replaced_by(c, order) or not takes_risk(c, self),
            left,
            "until the old order is canceled",
        )

    async def send(self, order: Order) -> OrderReport:
        """Sends the order at most once; never in shadow."""
        return await self._run.send_order(order)
