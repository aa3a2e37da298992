"""The coordinator: handlers queue what arrives, but for a kill; `run` takes it in turns, and three tasks act on it."""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from workflows import names
from workflows.cycle import CycleTask
from workflows.host import Host
from workflows.outbox import OutboxTask
from workflows.showing import ShowTask

with workflow.unsafe.imports_passed_through():
    from domain import desk
    from domain.arrivals import Arrival, Arrivals
    from domain.carried import Carried
    from domain.commands import MAX_INPUTS, RawPayload, read_command
    from domain.details import details
    from domain.handover import pack, unpack
    from domain.states import CommandKind
    from domain.status import CommandOutcome, Outcomes, Status, outcome_of, outcomes_of, status_of
    from domain.traces import Issued, Tick
    from domain.versions import SCHEMA_VERSION, shows_apart, takes_turns

# Long enough for a timer, which begins a workflow task of its own.
MOMENT_SECONDS = 0.001
# The end was refused by the server and tried again: what it was made from is looked at anew.
LATE_END = timedelta(seconds=2)
MAX_LATE_ENDS = 3


@workflow.defn(name=names.WORKFLOW_TYPE)
class Coordinator:
    """One desk. Runs for as long as the desk exists, killed too, and never completes by itself."""

    @workflow.init
    def __init__(self, carried: Carried) -> None:
        self._host = Host(unpack(carried))
        self._version = carried.schema_version
        self._cycle = CycleTask(self._host)
        self._outbox = OutboxTask(self._host, lambda: self._cycle.idle)
        self._showing = ShowTask(self._host)
        self._arrivals = Arrivals()
        self._tasks: list[asyncio.Task[None]] = []
        self._late_ends = 0
        self._killed_at: datetime | None = None

    @workflow.run
    async def run(self, carried: Carried) -> None:
        """Takes in what arrives, shows what changed, and continues as new once that is due and all tasks stand still."""
        self._tasks = [asyncio.create_task(task.run()) for task in (self._cycle, self._outbox)]
        if shows_apart(self._version):
            self._tasks.append(asyncio.create_task(self._showing.run()))
        while not await self._over():
            self._raise_if_broken()
            self._show()
            await self._wait()
        carried = pack(self._ended(), self._host.tick(), workflow.info().run_id)
        workflow.continue_as_new(carried, search_attributes=self._showing.attributes)

    @workflow.signal(dynamic=True)
    def on_signal(self, name: str, payloads: Sequence[RawValue]) -> None:
        """Every signal: pause, resume, kill, cancel_all, deleverage, restart. Takes any input, in any number, and never fails."""
        self._arrivals.add(name, [raw_payload(value.payload) for value in payloads[:MAX_INPUTS]])
        if not takes_turns(self._version):
            self._take_turn()
        elif self._killed_at != workflow.now():
            self._take_first_kill()

    @workflow.query(name=names.STATUS_QUERY)
    def status(self) -> Status:
        """Everything that an operator needs."""
        self._refuse_unread()
        return status_of(self._host.c, workflow.info().run_id, len(self._arrivals))

    @workflow.query(name=names.OUTCOME_QUERY)
    def outcome(self, command_id: str) -> CommandOutcome | None:
        """What became of one command."""
        return outcome_of(self._host.c.commands.get(command_id))

    @workflow.query(name=names.OUTCOMES_QUERY)
    def outcomes(self, command_ids: list[str]) -> Outcomes:
        """The status, and what became of each of these commands."""
        self._refuse_unread()
        return outcomes_of(self._host.c, command_ids, workflow.info().run_id, len(self._arrivals))

    # --- what arrives ----------------------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """A cancellation, then kills, then other signals: no more than one workflow task has time for."""
        if takes_turns(self._version):
            self._take_cancellation()
        if not self._arrivals:
            return
        tick = self._host.takes()._replace(issued=Issued())
        for arrival in self._arrivals.turn():
            self._take(arrival, tick)
        self._host.stop_order()

    def _take_first_kill(self) -> None:
        """One kill in each workflow task waits for no turn, whatever `run` awaits: no query may say `running` behind it."""
        for arrival in self._arrivals.first_kill():
            self._killed_at = workflow.now()
            self._take(arrival, self._host.takes()._replace(issued=Issued()))
            self._host.stop_order()

    def _take_cancellation(self) -> None:
        """The Cancel button means kill, once a run: the server swallows every other request."""
        if self._host.cancellation is not None:
            reason = self._host.cancellation
            self._host.cancellation_taken = True
            desk.cancelled(self._host.c, reason, self._host.takes())
            self._host.stop_order()

    def _take(self, arrival: Arrival, tick: Tick) -> None:
        if arrival.kind is None:
            desk.unknown_signal(self._host.c, arrival.name, tick)
            return
        command = read_command(arrival.kind, arrival.payloads, tick.new_id("command"))
        try:
            desk.apply(self._host.c, command, tick)
        except Exception as error:
            if arrival.kind is CommandKind.KILL:
                raise
            desk.failed_to_apply(self._host.c, command, error, tick)

    # --- the run's end -----------------------------------------------------------------------------------------------

    async def _over(self) -> bool:
        """Whether the run may end in this very workflow task.

        The incident behind it: a run that was due to end when it began never gave the SDK a turn in which to deliver the
        cancellation that had come with it, and a kill was lost. So a run ends only in a task that it began itself, by a
        timer: by then all that the task brought stands before us.
        """
        if takes_turns(self._version):
            self._take_turn()
        if not self._may_end():
            return False
        if not takes_turns(self._version):
            self._take_cancellation()
            return self._may_end()
        return await self._all_is_in()

    async def _all_is_in(self) -> bool:
        await self._undisturbed(self._showing.look_before_the_end())
        began = workflow.now()
        await self._undisturbed(asyncio.sleep(MOMENT_SECONDS))
        if workflow.now() - began > LATE_END and self._late_ends < MAX_LATE_ENDS:
            self._late_ends += 1
            return False
        self._take_turn()
        return not self._arrivals and self._may_end()

    def _refuse_unread(self) -> None:
        if not self._host.may_tell:
            raise ApplicationError(names.LATCH_UNREAD)

    def _may_end(self) -> bool:
        # All tasks have to stand still: an activity still pending would be lost with the run.
        due = self._host.c.hand_over or workflow.info().is_continue_as_new_suggested()
        if due:
            self._host.drain()
        return due and self._cycle.idle and self._outbox.idle and self._showing.idle

    def _ended(self) -> Carried:
        self._host.c.hand_over, self._host.c.schema_version = False, SCHEMA_VERSION
        return self._host.c

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        if self._arrivals:
            # The rest of a flood gets workflow tasks of its own. What was decided until now goes out before.
            await self._undisturbed(asyncio.sleep(MOMENT_SECONDS))
        else:
            await self._undisturbed(workflow.wait_condition(self._has_something_to_do))

    def _has_something_to_do(self) -> bool:
        return self._host.changed or bool(self._arrivals) or self._may_end() or self._broken() is not None

    async def _undisturbed(self, awaited: Awaitable[object]) -> None:
        """A cancel reaches this task alone, wherever it waits; the work goes on in the others."""
        try:
            await awaited
        except asyncio.CancelledError:
            self._take_cancellation()
        if takes_turns(self._version):
            # An activity that was awaited may have taken the cancel for its own, and ended by an error that was dealt with.
            self._take_cancellation()

    def _show(self) -> None:
        self._host.changed = False
        workflow.set_current_details(details(self._host.c) if self._host.may_tell else names.LATCH_UNREAD)
        if not shows_apart(self._version):
            self._showing.show_at_once()

    def _broken(self) -> BaseException | None:
        ended = (task for task in self._tasks if task.done())
        errors = (RuntimeError("it was cancelled") if task.cancelled() else task.exception() for task in ended)
        return next((error for error in errors if error), None)

    def _raise_if_broken(self) -> None:
        """A task that ended by an error is a bug. An ordinary error fails the workflow task: it shows, and is tried again."""
        if error := self._broken():
            raise RuntimeError("a task of the coordinator broke") from error


def raw_payload(payload: Payload) -> RawPayload:
    """One input of a signal, as it arrived."""
    return RawPayload(payload.metadata.get("encoding", b"").decode("utf-8", "replace"), payload.data)
