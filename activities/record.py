"""Activities that write to the database: decisions, instructions, and the latch in the desk's row."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.calls import ClearLatchCall, RecordCall, Scope, WriteDeskCall
from activities.instruments import Instruments
from activities.scope import refuse_other
from domain.decisions import Decision
from domain.instructions import InstructionRow
from domain.market import LatchRow
from storage.database import Database, DatabaseUnavailable
from storage.decisions import insert_decisions
from storage.desks import Cleared, clear_latch, write_desk
from storage.instructions import upsert_instructions

T = TypeVar("T")


class RecordActivities:
    """Writes rows. Every method is idempotent: a retry finds its rows and changes nothing."""

    def __init__(self, scope: Scope, database: Database, instruments: Instruments) -> None:
        self._scope = scope
        self._database = database
        self._instruments = instruments

    @activity.defn(name="record")
    async def record(self, call: RecordCall) -> None:
        """Writes a batch in one transaction."""
        refuse_other(self._scope, call.scope)
        batch = call.batch

        def work(connection: Connection) -> tuple[list[Decision], list[InstructionRow]]:
            decisions = insert_decisions(connection, batch.decisions)
            return decisions, upsert_instructions(connection, batch.instructions)

        decisions, instructions = await self._run(work)
        for row in decisions:
            self._instruments.decision_written(row)
        for changed in instructions:
            self._instruments.instruction_written(changed)

    @activity.defn(name="write_desk")
    async def write_desk(self, call: WriteDeskCall) -> LatchRow:
        """Writes the desk's row; a kill becomes the second place of the latch. What the row says of it then."""
        refuse_other(self._scope, call.scope)
        row = call.row
        written = await self._run(lambda connection: write_desk(connection, row))
        if written.newly_quiet and row.killed_at and row.quiet_at:
            seconds = (row.quiet_at - row.killed_at).total_seconds()
            self._instruments.kill_to_quiet.labels(row.desk).observe(seconds)
        return written.latch

    @activity.defn(name="clear_latch")
    async def clear_latch(self, call: ClearLatchCall) -> bool:
        """The first step of a restart, in one transaction."""
        refuse_other(self._scope, call.scope)
        cleared = Cleared(number=call.kill_number, kill_id=call.kill_id or None)
        return await self._run(lambda connection: clear_latch(connection, call.scope.desk, cleared, call.row))

    async def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._database.run(work)
        except DatabaseUnavailable as error:
            raise ApplicationError(f"the database cannot be reached: {error}", type="DatabaseUnavailable") from None
