"""One row a desk: that it was started, and the second place where a kill is latched (I2).

The failure behind this file: a kill that lives in one store alone is gone when that store comes back empty or old.
Writing `killed` here is a latch: the workflow can set it and never take it back. Only `clear_latch`, a restart by a
person, does, for the very kill that it names and in one transaction with the row that tells who did it.

A kill is never refused for its number: stores that come back old make numbers equal. A write that comes late, of a kill which a
restart has cleared, is known by that kill's id.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Result, Select, select, update
from sqlalchemy.dialects.postgresql import insert

from domain.audit import AuditKind
from domain.desk.outbox import DeskRow
from domain.desk.states import Mode
from domain.trading.decisions import Decision
from domain.trading.market import LatchRow
from domain.values import Moment, Value
from storage.audit.chain import AuditEntry, append, append_if_possible, decision_entry, entry
from storage.cleaning import clean, clean_values
from storage.decisions import decision_exists, insert_decisions
from storage.tables import desks, kills


class DeskRecord(Value):
    """The desk's row. `started_at` is None while a start is under way; `cleared_number` is the newest cleared kill."""

    desk: str
    started_at: Moment | None
    mode: Mode
    symbols: list[str]
    killed: bool
    kill_number: int
    cleared_number: int
    kill_id: str | None = None
    cleared_by: str | None = None
    reason: str | None = None
    actor: str | None = None
    killed_at: Moment | None = None
    quiet_at: Moment | None = None

    @property
    def latch(self) -> LatchRow:
        """What the row says of the kill."""
        return LatchRow(**{name: getattr(self, name) for name in LatchRow.model_fields})


class Written(NamedTuple):
    """What a write of the row left there, and whether it was this one that told of the silence after a kill."""

    latch: LatchRow
    newly_quiet: bool


class ClearedKill(NamedTuple):
    """The kill that a restart names; without an id where its coordinator knew none yet."""

    number: int
    kill_id: str | None


class KnownKill(StrEnum):
    """What the database knows of a kill's id already."""

    NEW = "new"
    HELD = "held"
    CLEARED = "cleared"


class DeskFacts(Value):
    """What a start fixes."""

    desk: str
    mode: Mode
    symbols: list[str]
    now: Moment


def read_desk(connection: Connection, desk: str) -> DeskRecord | None:
    """The desk's row; None where it was never started."""
    return _record(connection.execute(_by_desk(desk)))


def is_killed(connection: Connection, desk: str) -> bool:
    """Whether the row holds a kill; False where there is no row.

    FOR SHARE: until the caller's transaction ends no kill is written there, and what it commits came before the kill. A kill's
    write waits for it, so ask last.
    """
    return bool(connection.scalar(select(desks.c.killed).where(desks.c.desk == clean(desk)).with_for_update(read=True)))


def begin_start(connection: Connection, facts: DeskFacts) -> bool:
    """Notes that a start is under way, unless the desk has a row. True where this call wrote it."""
    return _insert_desk(connection, facts)


def finish_start(connection: Connection, desk: str, now: datetime) -> None:
    """Notes that the coordinator runs; the first time stands."""
    statement = update(desks).where(desks.c.desk == clean(desk), desks.c.started_at.is_(None))
    connection.execute(statement.values(started_at=now))


def write_desk(connection: Connection, row: DeskRow) -> Written:
    """Writes the workflow's view. `killed` is only ever set here; the answer is what the row says after the write."""
    _insert_desk(connection, DeskFacts(desk=row.desk, mode=row.mode, symbols=row.symbols, now=row.started_at))
    stored = _locked(connection, row.desk)
    if stored is None:
        # Nothing of ours deletes a desk; the workflow's next try finds what is going on.
        raise LookupError(f"the row of desk {row.desk!r} vanished while it was written")
    merged = merge(stored, row, _seen(connection, stored, row.latch))
    _update(connection, row.desk, merged.model_dump(exclude={"desk"}))
    if merged.kill_id and merged.kill_id == row.latch.kill_id:
        _note_kill(
            connection, row.desk, merged.kill_number, merged.kill_id, None if merged.killed else merged.cleared_by
        )
    if merged.killed and (
        not stored.killed or (merged.kill_number, merged.kill_id) != (stored.kill_number, stored.kill_id)
    ):
        # Whatever becomes of the chain, the kill is latched.
        append_if_possible(connection, [_latch_entry(merged)])
    return Written(merged.latch, newly_quiet=stored.quiet_at is None and merged.quiet_at is not None)


def merge(stored: DeskRecord, row: DeskRow, seen: KnownKill) -> DeskRecord:
    """What the row becomes when the workflow writes `row` over it."""
    latch = row.latch
    kills = latch.killed and seen is not KnownKill.CLEARED
    changes: dict[str, Any] = {
        "started_at": stored.started_at or row.started_at,
        "mode": row.mode,
        "symbols": row.symbols,
    }
    if kills or not latch.killed:
        changes["kill_number"] = max(stored.kill_number, latch.kill_number)
    if kills and seen is KnownKill.NEW:
        changes["kill_id"] = latch.kill_id
    if kills and not stored.killed:
        changes |= {"killed": True, "reason": latch.reason, "actor": latch.actor, "killed_at": row.killed_at}
    if kills and stored.quiet_at is None:
        changes["quiet_at"] = row.quiet_at
    if not latch.killed and not stored.killed and latch.kill_number > stored.kill_number:
        # This database came back from before a kill that is over: it must not take that kill for a new one.
        changes |= {"kill_id": latch.kill_id, "cleared_number": max(stored.cleared_number, latch.cleared_number)}
        # A restart that is named here already stays: the coordinator has yet to find that it does not remember it.
        changes["cleared_by"] = stored.cleared_by or latch.cleared_by
    return stored.model_copy(update=changes)


def clear_latch(connection: Connection, desk: str, cleared: ClearedKill, control: Decision) -> bool:
    """Clears the kill that is named and writes `control`, in the caller's transaction. False: nothing was written.

    Idempotent: True again where `control` is written already, or where an earlier restart had cleared this very kill.
    """
    if decision_exists(connection, control.decision_id):
        return True
    stored = _locked(connection, desk)
    if stored is None or not _may_clear(stored, cleared):
        return False
    settled = {
        "kill_number": cleared.number,
        "kill_id": cleared.kill_id or stored.kill_id,
        "cleared_number": max(stored.cleared_number, cleared.number),
        "cleared_by": control.decision_id,
    }
    _update(connection, desk, settled | {"killed": False, "killed_at": None, "quiet_at": None})
    if cleared.kill_id:
        _note_kill(connection, desk, cleared.number, cleared.kill_id, None)
    open_ = (kills.c.desk == clean(desk)) & kills.c.cleared_by.is_(None)
    connection.execute(update(kills).where(open_).values(cleared_by=clean(control.decision_id)))
    rows = insert_decisions(connection, [control])
    body = {"kill_number": cleared.number, "kill_id": settled["kill_id"], "cleared_by": control.decision_id}
    cleared_entry = entry(desk, AuditKind.LATCH_CLEARED, control.decision_id, body)
    append(connection, [*map(decision_entry, rows), cleared_entry])
    return True


def _latch_entry(row: DeskRecord) -> AuditEntry:
    named = row.model_dump(include={"kill_number", "kill_id", "reason", "actor", "killed_at"})
    return entry(row.desk, AuditKind.LATCH_SET, row.kill_id or f"kill {row.kill_number}", named)


def _may_clear(stored: DeskRecord, cleared: ClearedKill) -> bool:
    if stored.killed:
        another = cleared.kill_id and stored.kill_id and stored.kill_id != cleared.kill_id
        return stored.kill_number == cleared.number and not another
    # Not killed here, as far as this row knows (cleared before, or it came back old or empty): settled all the same.
    return stored.kill_number <= cleared.number


def _seen(connection: Connection, stored: DeskRecord, latch: LatchRow) -> KnownKill:
    if latch.kill_id is None:
        # Written for a run of schema 3, which knows numbers only.
        return KnownKill.NEW if latch.kill_number > stored.cleared_number else KnownKill.CLEARED
    mine = (kills.c.desk == clean(stored.desk)) & (kills.c.kill_id == clean(latch.kill_id))
    found = connection.execute(select(kills.c.cleared_by).where(mine)).one_or_none()
    if found is None:
        return KnownKill.NEW
    return KnownKill.HELD if found.cleared_by is None else KnownKill.CLEARED


def _note_kill(connection: Connection, desk: str, number: int, kill_id: str, cleared_by: str | None) -> None:
    values = {"desk": desk, "kill_number": number, "kill_id": kill_id, "cleared_by": cleared_by}
    connection.execute(insert(kills).values(clean_values(values)).on_conflict_do_nothing())


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
