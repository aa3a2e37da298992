"""The coordinator: handlers decide, two tasks act, `run` only waits (contract/temporal.md)."""

import asyncio
from collections.abc import Sequence

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from workflows import names
from workflows.cycle import CycleTask
from workflows.host import Host
from workflows.outbox import OutboxTask

with workflow.unsafe.imports_passed_through():
    from domain import desk
    from domain.carried import Carried
    from domain.commands import RawPayload, kind_of, read_command
    from domain.details import details
    from domain.handover import pack, unpack
    from domain.states import CommandKind, State
    from domain.status import CommandOutcome, Outcomes, Status, outcome_of, outcomes_of, status_of
    from domain.versions import SCHEMA_VERSION


@workflow.defn(name=names.WORKFLOW_TYPE)
class Coordinator:
    """One desk. Runs for as long as the desk exists, killed too, and never completes by itself."""

    @workflow.init
    def __init__(self, carried: Carried) -> None:
        self._host = Host(unpack(carried))
        self._cycle = CycleTask(self._host)
        self._outbox = OutboxTask(self._host, lambda: self._cycle.idle)
        self._shown_state: State | None = None

    @workflow.run
    async def run(self, carried: Carried) -> None:
        """Waits, shows what changed, and continues as new once that is due and both tasks stand still."""
        tasks = [asyncio.create_task(self._cycle.run()), asyncio.create_task(self._outbox.run())]
        while not self._may_end():
            _raise_if_broken(tasks)
            self._show()
            try:
                await workflow.wait_condition(
                    lambda: self._host.changed or self._may_end() or _broken(tasks) is not None
                )
            except asyncio.CancelledError:
                # The Cancel button means kill. The cancel reaches this task alone; the work goes on in the two others.
                desk.cancelled(self._host.c, self._host.tick())
                self._host.stop_order()
        workflow.continue_as_new(pack(self._ended()))

    @workflow.signal(dynamic=True)
    def on_signal(self, name: str, payloads: Sequence[RawValue]) -> None:
        """Every signal: pause, resume, kill, cancel_all, deleverage, restart. Takes any input, in any number, and never fails."""
        tick, kind = self._host.tick(), kind_of(name)
        if kind is None:
            desk.unknown_signal(self._host.c, name, tick)
            return
        command = read_command(kind, [_raw(value) for value in payloads], tick.new_id("command"))
        try:
            desk.apply(self._host.c, command, tick)
        except Exception as error:
            if kind is CommandKind.KILL:
                raise
            desk.failed_to_apply(self._host.c, command, error, tick)
        self._host.stop_order()

    @workflow.query(name=names.STATUS_QUERY)
    def status(self) -> Status:
        """Everything that an operator needs."""
        self._refuse_unread()
        return status_of(self._host.c, workflow.info().run_id)

    @workflow.query(name=names.OUTCOME_QUERY)
    def outcome(self, command_id: str) -> CommandOutcome | None:
        """What became of one command."""
        return outcome_of(self._host.c.commands.get(command_id))

    @workflow.query(name=names.OUTCOMES_QUERY)
    def outcomes(self, command_ids: list[str]) -> Outcomes:
        """The status, and what became of each of these commands."""
        self._refuse_unread()
        return outcomes_of(self._host.c, command_ids, workflow.info().run_id)

    def _refuse_unread(self) -> None:
        if not self._host.may_tell:
            raise ApplicationError(names.LATCH_UNREAD)

    def _may_end(self) -> bool:
        # Both tasks have to stand still: an activity still pending would be lost with the run.
        due = self._host.c.hand_over or workflow.info().is_continue_as_new_suggested()
        if due:
            self._host.drain()
        return due and self._cycle.idle and self._outbox.idle

    def _ended(self) -> Carried:
        self._host.c.hand_over, self._host.c.schema_version = False, SCHEMA_VERSION
        return self._host.c

    def _show(self) -> None:
        self._host.changed = False
        c = self._host.c
        workflow.set_current_details(details(c) if self._host.may_tell else names.LATCH_UNREAD)
        if c.search_attributes and self._shown_state is not c.state:
            workflow.upsert_search_attributes([names.STATE_ATTRIBUTE.value_set(c.state.value)])
        self._shown_state = c.state


def _raw(value: RawValue) -> RawPayload:
    payload = value.payload
    return RawPayload(payload.metadata.get("encoding", b"").decode("utf-8", "replace"), payload.data)


def _broken(tasks: Sequence[asyncio.Task[None]]) -> BaseException | None:
    ended = (task for task in tasks if task.done())
    errors = (RuntimeError("it was cancelled") if task.cancelled() else task.exception() for task in ended)
    return next((error for error in errors if error), None)


def _raise_if_broken(tasks: Sequence[asyncio.Task[None]]) -> None:
    """A task that ended by an error is a bug. An ordinary error fails the workflow task: it shows, and is tried again."""
    if error := _broken(tasks):
        raise RuntimeError("a task of the coordinator broke") from error
