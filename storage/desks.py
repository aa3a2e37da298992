"""One row a desk: that it was started, and the second place where a kill is latched (I2).

The failure behind this file: a kill that lives in one store alone is gone when that store comes back empty or old.
Writing `killed` here is a latch: the workflow can set it and never take it back. Only `clear_latch`, a restart by a
person, does, for the very kill that it names and in one transaction with the row that tells who did it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Result, Select, select, update
from sqlalchemy.dialects.postgresql import insert

from domain.decisions import Decision
from domain.market import LatchRow
from domain.outbox import DeskRow
from domain.states import Mode
from domain.values import Moment, Value
from storage.cleaning import clean, clean_values
from storage.decisions import decision_exists, insert_decisions
from storage.tables import desks


class DeskRecord(Value):
    """The desk's row. `started_at` is None while a start is under way; `cleared_number` is the newest cleared kill."""

    desk: str
    started_at: Moment | None
    mode: Mode
    symbols: list[str]
    killed: bool
    kill_number: int
    cleared_number: int
    reason: str | None = None
    actor: str | None = None
    killed_at: Moment | None = None
    quiet_at: Moment | None = None

    @property
    def latch(self) -> LatchRow:
        """What the row says of the kill."""
        return LatchRow(killed=self.killed, kill_number=self.kill_number, reason=self.reason, actor=self.actor)


class DeskFacts(Value):
    """What a start fixes."""

    desk: str
    mode: Mode
    symbols: list[str]
    now: Moment


def read_desk(connection: Connection, desk: str) -> DeskRecord | None:
    """The desk's row; None where it was never started."""
    return _record(connection.execute(_by_desk(desk)))


def begin_start(connection: Connection, facts: DeskFacts) -> bool:
    """Notes that a start is under way, unless the desk has a row. True where this call wrote it."""
    return _insert_desk(connection, facts)


def finish_start(connection: Connection, desk: str, now: datetime) -> None:
    """Notes that the coordinator runs; the first time stands."""
    statement = update(desks).where(desks.c.desk == clean(desk), desks.c.started_at.is_(None))
    connection.execute(statement.values(started_at=now))


def write_desk(connection: Connection, row: DeskRow) -> bool:
    """Writes the workflow's view. `killed` is only ever set here. True where `quiet_at` was set by this call."""
    _insert_desk(connection, DeskFacts(desk=row.desk, mode=row.mode, symbols=row.symbols, now=row.started_at))
    stored = _locked(connection, row.desk)
    if stored is None:
        # Nothing of ours deletes a desk; the workflow's next try finds what is going on.
        raise LookupError(f"the row of desk {row.desk!r} vanished while it was written")
    merged = merge(stored, row)
    _update(connection, row.desk, merged.model_dump(exclude={"desk"}))
    return stored.quiet_at is None and merged.quiet_at is not None


def merge(stored: DeskRecord, row: DeskRow) -> DeskRecord:
    """What the row becomes when the workflow writes `row` over it."""
    number = row.latch.kill_number
    # A write that was on its way since before a restart names a kill which that restart has cleared.
    kills = row.latch.killed and number > stored.cleared_number
    changes: dict[str, Any] = {
        "started_at": stored.started_at or row.started_at,
        "mode": row.mode,
        "symbols": row.symbols,
        "kill_number": max(stored.kill_number, number),
    }
    if kills and not stored.killed:
        changes |= {"killed": True, "reason": row.latch.reason, "actor": row.latch.actor, "killed_at": row.killed_at}
    if kills and stored.quiet_at is None:
        changes["quiet_at"] = row.quiet_at
    return stored.model_copy(update=changes)


def clear_latch(connection: Connection, desk: str, kill_number: int, control: Decision) -> bool:
    """Clears the kill `kill_number` and writes `control`, in the caller's transaction. False: nothing was written.

    Idempotent: True again where `control` is written already, or where an earlier restart had cleared this very kill.
    """
    if decision_exists(connection, control.decision_id):
        return True
    stored = _locked(connection, desk)
    if stored is None:
        return False
    if stored.killed and stored.kill_number == kill_number:
        _update(connection, desk, {**_CLEARED, "cleared_number": kill_number})
    elif stored.killed or stored.kill_number > kill_number:
        return False
    else:
        # Not killed here, as far as this row knows (cleared before, or it came back old or empty): settled all the same.
        _update(connection, desk, {"cleared_number": max(stored.cleared_number, kill_number)})
    insert_decisions(connection, [control])
    return True


_CLEARED: Mapping[str, Any] = {"killed": False, "killed_at": None, "quiet_at": None}


def _by_desk(desk: str) -> Select[Any]:
    return select(desks).where(desks.c.desk == clean(desk))


def _locked(connection: Connection, desk: str) -> DeskRecord | None:
    return _record(connection.execute(_by_desk(desk).with_for_update()))


def _record(result: Result[Any]) -> DeskRecord | None:
    found = result.mappings().one_or_none()
    return DeskRecord.model_validate(dict(found)) if found else None


def _insert_desk(connection: Connection, facts: DeskFacts) -> bool:
    values = clean_values(facts.model_dump(include={"desk", "mode", "symbols"}))
    fresh = {"created_at": facts.now, "killed": False, "kill_number": 0, "cleared_number": 0}
    statement = insert(desks).values(values | fresh).on_conflict_do_nothing().returning(desks.c.desk)
    return connection.scalar(statement) is not None


def _update(connection: Connection, desk: str, values: Mapping[str, Any]) -> None:
    connection.execute(update(desks).where(desks.c.desk == clean(desk)).values(clean_values(values)))
