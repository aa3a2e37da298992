"""The database in memory: the desk's row and its kills by the real rules of `storage/desks.py`, and the rows of the log."""

from typing import Any

from domain.desk.outbox import DeskRow, RecordBatch
from domain.desk.states import Mode
from domain.trading.decisions import Decision
from domain.trading.instructions import InstructionRow
from domain.trading.market import LatchRow
from storage import desks
from storage.desks import ClearedKill, DeskRecord, KnownKill


class FakeDatabase:
    """One desk's. Each method is one transaction."""

    def __init__(self, database_id: str) -> None:
        self.database_id = database_id
        self.row: DeskRecord | None = None
        self.kills: dict[str, str | None] = {}
        self.decisions: dict[str, Decision] = {}
        self.instructions: dict[str, InstructionRow] = {}

    @property
    def latch(self) -> LatchRow | None:
        """What the row says of the kill; None where there is no row."""
        return self.row.latch if self.row else None

    def write_desk(self, row: DeskRow) -> LatchRow:
        """As `storage.desks.write_desk`."""
        stored = self._stored(row.desk, row.mode, row.symbols)
        merged = self.row = desks.merge(stored, row, self._seen(stored, row.latch))
        if merged.kill_id and merged.kill_id == row.latch.kill_id:
            self.kills.setdefault(merged.kill_id, None if merged.killed else merged.cleared_by)
        elif row.latch.killed and row.latch.kill_id and merged.killed:
            self.kills.setdefault(row.latch.kill_id, None)
        return merged.latch

    def clear_latch(self, cleared: ClearedKill, control: Decision) -> bool:
        """As `storage.desks.clear_latch`."""
        if control.decision_id in self.decisions:
            return self.row is not None and not self.row.killed
        if self.row is None or not desks._may_clear(self.row, cleared):
            return False
        changes: dict[str, Any] = {
            "kill_number": cleared.number,
            "kill_id": cleared.kill_id or self.row.kill_id,
            "cleared_number": max(self.row.cleared_number, cleared.number),
            "cleared_by": control.decision_id,
        }
        self.row = self.row.model_copy(update=changes | {"killed": False, "killed_at": None, "quiet_at": None})
        if cleared.kill_id:
            self.kills.setdefault(cleared.kill_id, None)
        self.kills = {kill: by or control.decision_id for kill, by in self.kills.items()}
        self.decisions[control.decision_id] = control
        return True

    def record(self, batch: RecordBatch) -> None:
        """As `activities.record`: a row that stands already is left as it is, an instruction gets its newest state."""
        for row in batch.decisions:
            first = self.decisions.setdefault(row.decision_id, row)
            assert first == row, f"two rows have the id {row.decision_id}"
        for instruction in batch.instructions:
            self.instructions[instruction.instruction_id] = instruction

    def _stored(self, desk: str, mode: Mode, symbols: list[str]) -> DeskRecord:
        fresh = {"killed": False, "kill_number": 0, "cleared_number": 0, "started_at": None}
        return self.row or DeskRecord(desk=desk, mode=mode, symbols=symbols, **fresh)

    def _seen(self, stored: DeskRecord, latch: LatchRow) -> KnownKill:
        if latch.kill_id is None:
            return KnownKill.NEW if latch.kill_number > stored.cleared_number else KnownKill.CLEARED
        if latch.kill_id not in self.kills:
            return KnownKill.NEW
        return KnownKill.HELD if self.kills[latch.kill_id] is None else KnownKill.CLEARED
