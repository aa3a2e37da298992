"""The coordinator: signal handlers only queue, except for the first kill of a task; `run` takes the queue in turns; four
tasks act."""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from workflows import names
from workflows.cycle import CycleTask
from workflows.outbox import OutboxTask
from workflows.patience import LONGEST_RUN_EVENTS, QUIET_BEFORE_END
from workflows.run import CoordinatorRun
from workflows.showing import ShowTask
from workflows.watching import WatchTask

with workflow.unsafe.imports_passed_through():
    from domain.desk import applying
    from domain.desk.arrivals import Arrival, Arrivals
    from domain.desk.carried import Carried
    from domain.desk.details import details
    from domain.desk.handover import pack, unpack
    from domain.desk.payloads import MAX_INPUTS, RawPayload, read_command
    from domain.desk.recording import Issued, Tick
    from domain.desk.states import CommandKind
    from domain.desk.status import CommandOutcome, Outcomes, Status, outcome_of, outcomes_of, status_of
    from domain.desk.versions import SCHEMA_VERSION, check_known, gives_up_paused_calls

# Long enough for a timer, which starts a workflow task of its own.
MOMENT_SECONDS = 0.001
# If the timer fires this late, the server refused the continue-as-new and is retrying it: check again what the run would
# carry over.
LATE_END = timedelta(seconds=2)
MAX_LATE_ENDS = 3


@workflow.defn(name=names.WORKFLOW_TYPE)
class Coordinator:
    """The workflow of one desk. It runs as long as the desk exists, even when killed, and never completes by itself."""

    @workflow.init
    def __init__(self, carried: Carried) -> None:
        self._run = CoordinatorRun(unpack(carried))
        self._cycle = CycleTask(self._run)
        self._outbox = OutboxTask(self._run, lambda: self._cycle.idle)
        self._showing = ShowTask(self._run)
        self._arrivals = Arrivals()
        self._arrived_at: datetime | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._late_ends = 0
        self._killed_at: datetime | None = None

    @workflow.run
    async def run(self, carried: Carried) -> None:
        """Takes in what arrives, shows what changed, and continues as new once that is due and all tasks are idle."""
        check_known(carried.schema_version)
        tasks = self._cycle, self._outbox, self._showing, WatchTask(self._run)
        self._tasks = [asyncio.create_task(task.run()) for task in tasks]
        while not await self._ends_now():
            if error := self._broken():
                raise RuntimeError("a task of the coordinator broke") from error
            if gives_up_paused_calls(self._run.c.schema_version):
                self._run.calling.give_up_overdue()
            self._run.changed = False
            workflow.set_current_details(details(self._run.c) if self._run.may_tell else names.LATCH_UNREAD)
            await self._wait()
        c = self._run.c
        c.hand_over, c.schema_version = False, SCHEMA_VERSION
        carried = pack(c, self._run.tick(), workflow.info().run_id)
        workflow.continue_as_new(
            carried, search_attributes=self._showing.attributes, initial_versioning_behavior=next_version()
        )

    @workflow.signal(dynamic=True)
    def on_signal(self, name: str, payloads: Sequence[RawValue]) -> None:
        """Every signal: pause, resume, kill, cancel_all, deleverage, restart. Takes any input, in any number, and never fails."""
        self._arrived_at = workflow.now()
        self._arrivals.add(name, [raw_payload(value.payload) for value in payloads[:MAX_INPUTS]])
        if self._killed_at != workflow.now():
            # Apply one kill per workflow task at once, whatever `run` is awaiting: no query may say `running` after it.
            for arrival in self._arrivals.first_kill():
                self._killed_at = workflow.now()
                self._take(arrival, self._run.note_arrival()._replace(issued=Issued()))
                self._run.stop_order()

    @workflow.query(name=names.STATUS_QUERY)
    def status(self) -> Status:
        """Everything that an operator needs."""
        self._refuse_unread()
        return status_of(self._run.c, workflow.info().run_id, len(self._arrivals))

    @workflow.query(name=names.OUTCOME_QUERY)
    def outcome(self, command_id: str) -> CommandOutcome | None:
        """What became of one command."""
        return outcome_of(self._run.c.commands.get(command_id))

    @workflow.query(name=names.OUTCOMES_QUERY)
    def outcomes(self, command_ids: list[str]) -> Outcomes:
        """The status, and what became of each of these commands."""
        self._refuse_unread()
        return outcomes_of(self._run.c, command_ids, workflow.info().run_id, len(self._arrivals))

    # --- what arrives ----------------------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """Takes a cancellation, then kills, then other signals: as many as fit into one workflow task."""
        self._take_cancellation()
        if not self._arrivals:
            return
        tick = self._run.note_arrival()._replace(issued=Issued())
        for arrival in self._arrivals.turn():
            self._take(arrival, tick)
        self._run.stop_order()

    def _take_cancellation(self) -> None:
        """Treats the Cancel button as a kill. It works once per run: the server swallows every later request."""
        if self._run.cancellation is not None:
            reason = self._run.cancellation
            self._run.cancellation_taken = True
            applying.cancelled(self._run.c, reason, self._run.note_arrival())
            self._run.stop_order()

    def _take(self, arrival: Arrival, tick: Tick) -> None:
        if arrival.kind is None:
            applying.unknown_signal(self._run.c, arrival.name, tick)
            return
        command = read_command(arrival.kind, arrival.payloads, tick.new_id("command"))
        try:
            applying.apply(self._run.c, command, tick)
        except Exception as error:
            if arrival.kind is CommandKind.KILL:
                raise
            applying.failed_to_apply(self._run.c, command, error, tick)

    # --- the run's end -----------------------------------------------------------------------------------------------

    async def _ends_now(self) -> bool:
        """Whether the run may end in this workflow task.

        The incident behind it: a run that was due to end as soon as it began never gave the SDK a chance to deliver the
        cancellation that had come with it, and a kill was lost. So a run ends only in a task that its own timer started. By
        then it has everything that the server delivered before.
        """
        self._take_turn()
        if not self._may_end():
            return False
        await self._undisturbed(self._showing.look_before_the_end())
        began = workflow.now()
        await self._undisturbed(asyncio.sleep(MOMENT_SECONDS))
        if workflow.now() - began > LATE_END:
            if self._late_ends < MAX_LATE_ENDS:
                self._late_ends += 1
                return False
            # Checking again did not help, for instance because nobody may ask for the attributes.
            self._showing.leave_out()
        self._take_turn()
        return not self._arrivals and self._may_end()

    def _refuse_unread(self) -> None:
        if not self._run.may_tell:
            raise ApplicationError(names.LATCH_UNREAD)

    def _may_end(self) -> bool:
        info = workflow.info()
        is_quiet = self._arrived_at is None or workflow.now() - self._arrived_at >= QUIET_BEFORE_END
        is_long = is_quiet and info.get_current_history_length() >= LONGEST_RUN_EVENTS
        is_long = is_long or info.is_continue_as_new_suggested()
        if not (is_long or self._run.c.hand_over or self._run.draining):
            return False
        self._run.drain()
        # All tasks must be idle: an activity that is still pending would be lost with the run.
        return self._cycle.idle and self._outbox.idle and self._showing.idle

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        if self._arrivals:
            # The rest of a flood gets workflow tasks of its own. What was decided so far goes out first.
            await self._undisturbed(asyncio.sleep(MOMENT_SECONDS))
        else:
            await self._undisturbed(
                workflow.wait_condition(
                    lambda: self._run.changed or bool(self._arrivals) or self._may_end() or self._broken() is not None
                )
            )

    async def _undisturbed(self, awaited: Awaitable[object]) -> None:
        """Awaits, but turns a cancel into a kill. A cancel reaches only this task, wherever it waits; the others keep
        working."""
        with suppress(asyncio.CancelledError):
            await awaited
        # Check even without a CancelledError: an awaited activity may have taken the cancel for its own, and failed with an
        # error that somebody handled.
        self._take_cancellation()

    def _broken(self) -> BaseException | None:
        """The error of a task that broke. That is a bug; raising it fails the workflow task, which is visible and gets
        retried."""
        ended = (task for task in self._tasks if task.done())
        errors = (RuntimeError("it was cancelled") if task.cancelled() else task.exception() for task in ended)
        return next((error for error in errors if error), None)


def next_version() -> workflow.ContinueAsNewVersioningBehavior | None:
    """The next run of a versioned desk starts on the current worker version. Otherwise a pinned desk would stay on its own
    for ever."""
    version = workflow.info().get_current_deployment_version()
    return workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE if version and version.deployment_name else None


def raw_payload(payload: Payload) -> RawPayload:
    """One input of a signal, as it arrived."""
    return RawPayload(payload.metadata.get("encoding", b"").decode("utf-8", "replace"), payload.data)
