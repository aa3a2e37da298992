"""Activities that write to the database: decisions, instructions, and the latch in the desk's row."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.calls import ClearLatchCall, RecordCall, Scope, WriteDeskCall
from activities.metrics import WorkerMetrics
from activities.scope import refuse_other
from domain.books import EXCHANGE
from domain.desk.states import Mode
from domain.trading.decisions import Decision
from domain.trading.instructions import InstructionRow
from domain.trading.market import LatchRow
from storage import claims
from storage.audit import chain
from storage.audit.chain import decision_entry, instruction_entry
from storage.claims import AccountKey
from storage.database import Database, DatabaseUnavailable, WrongDatabase
from storage.decisions import insert_decisions
from storage.desks import ClearedKill, clear_latch, write_desk
from storage.instructions import upsert_instructions

T = TypeVar("T")

# A refusal for another database comes at once. A run that winds down beside slow cancels asks again without a pause, and
# 20 s of that filled its history with 5,000 events: too many for another worker to replay within a workflow task.
WRONG_DATABASE_SECONDS = 0.5


class RecordActivities:
    """Writes rows. Every method is idempotent: a retry finds its rows and changes nothing."""

    def __init__(self, scope: Scope, database: Database, instruments: WorkerMetrics) -> None:
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
            written = upsert_instructions(connection, batch.instructions)
            chain.append(connection, [*map(decision_entry, decisions), *map(instruction_entry, written.stored)])
            return decisions, written.changed

        decisions, instructions = await self._run(work)
        for row in decisions:
            self._instruments.decision_written(row)
        for changed in instructions:
            self._instruments.instruction_written(changed)

    @activity.defn(name="write_desk")
    async def write_desk(self, call: WriteDeskCall) -> LatchRow:
        """Writes the desk's row, the second place of the latch, and returns what the row then says of the latch."""
        refuse_other(self._scope, call.scope)
        row = call.row
        written = await self._run(lambda connection: write_desk(connection, row))
        if written.newly_quiet and row.killed_at and row.quiet_at:
            seconds = (row.quiet_at - row.killed_at).total_seconds()
            self._instruments.kill_to_quiet.labels(row.desk).observe(seconds)
        return written.latch

    @activity.defn(name="clear_latch")
    async def clear_latch(self, call: ClearLatchCall) -> bool:
        """The first step of a restart, in one transaction: clears the latch. False for another kill."""
        refuse_other(self._scope, call.scope)
        cleared = ClearedKill(number=call.kill_number, kill_id=call.kill_id or None)

        def work(connection: Connection) -> bool:
            # A desk that runs again in live mode must own its account, or it stays killed.
            if self._scope.mode is Mode.LIVE and self._scope.account:
                claim = claims.take(connection, AccountKey(EXCHANGE, self._scope.account), self._scope.desk)
                if claim.desk != self._scope.desk:
                    text = claims.held_text(self._scope.desk, claim)
                    raise ApplicationError(text, type="AccountHeld", non_retryable=True)
            return clear_latch(connection, call.scope.desk, cleared, call.row)

        return await self._run(work)

    async def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._database.run(work)
        except DatabaseUnavailable as error:
            # A retry repeats the same call. Only the next call knows that the desk has another database by now.
            if is_wrong := isinstance(error, WrongDatabase):
                await asyncio.sleep(WRONG_DATABASE_SECONDS)
            text = f"the database cannot be reached: {error}"
            raise ApplicationError(text, type="DatabaseUnavailable", non_retryable=is_wrong) from None
