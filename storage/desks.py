"""One row per desk: that it was started, and the second place where a kill is latched (I2).

The failure behind this file: a kill that only one store holds is lost if that store comes back empty or old. So `killed` is a
latch: the workflow can set it, but never clear it. Only `clear_latch` does, for a restart by a person: it clears exactly the
named kill, in one transaction with the row that says who did it.

A kill is never refused for its number: after a store came back old, two kills may have the same one. A late write of a kill
that a restart has cleared is recognised by the kill's id.
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
        """The kill, according to the row."""
        return LatchRow(**{name: getattr(self, name) for name in LatchRow.model_fields})


class WrittenDesk(NamedTuple):
    """The latch after a write of the row, and whether this write set `quiet_at`."""

    latch: LatchRow
    newly_quiet: bool


class ClearedKill(NamedTuple):
    """The kill that a restart names. The id is None if the coordinator did not know one."""

    number: int
    kill_id: str | None


class KnownKill(StrEnum):
    """What the database knows about a kill's id."""

    NEW = "new"
    HELD = "held"
    CLEARED = "cleared"


class NewDesk(Value):
    """What a start fixes."""

    desk: str
    mode: Mode
    symbols: list[str]
    now: Moment


def read_desk(connection: Connection, desk: str) -> DeskRecord | None:
    """The desk's row; None if it was never started."""
    return _record(connection.execute(_by_desk(desk)))


def is_killed(connection: Connection, desk: str) -> bool:
    """Whether the row holds a kill; False if there is no row.

    It locks the row FOR SHARE: until the caller's transaction ends, no kill can be written, so what the caller commits came
    before the kill. A kill's write has to wait for that, so call this last.
    """
    return bool(connection.scalar(select(desks.c.killed).where(desks.c.desk == clean(desk)).with_for_update(read=True)))


def begin_start(connection: Connection, facts: NewDesk) -> bool:
    """Notes that a start is under way, unless the desk has a row. True if this call wrote it."""
    return _insert_desk(connection, facts)


def finish_start(connection: Connection, desk: str, now: datetime) -> None:
    """Notes that the coordinator runs. A time that is there already stays."""
    statement = update(desks).where(desks.c.desk == clean(desk), desks.c.started_at.is_(None))
    connection.execute(statement.values(started_at=now))


def write_desk(connection: Connection, row: DeskRow) -> WrittenDesk:
    """Writes the workflow's view. This can set `killed`, but never clear it. Returns what the row holds after the write."""
    _insert_desk(connection, NewDesk(desk=row.desk, mode=row.mode, symbols=row.symbols, now=row.started_at))
    stored = _locked(connection, row.desk)
    if stored is None:
        # AIS deletes no desk. The workflow tries again.
        raise LookupError(f"the row of desk {row.desk!r} vanished while it was written")
    merged = merge(stored, row, _seen(connection, stored, row.latch))
    _update(connection, row.desk, merged.model_dump(exclude={"desk"}))
    if merged.kill_id and merged.kill_id == row.latch.kill_id:
        _note_kill(
            connection, row.desk, merged.kill_number, merged.kill_id, None if merged.killed else merged.cleared_by
        )
    elif row.latch.killed and row.latch.kill_id and merged.killed:
        # An older kill. The restart that clears the newest one clears it too, and a write that is later still changes nothing.
        _note_kill(connection, row.desk, row.latch.kill_number, row.latch.kill_id, None)
    if merged.killed and (
        not stored.killed or (merged.kill_number, merged.kill_id) != (stored.kill_number, stored.kill_id)
    ):
        # The kill is latched even if the chain cannot be written.
        append_if_possible(connection, [_latch_entry(merged)])
    return WrittenDesk(merged.latch, newly_quiet=stored.quiet_at is None and merged.quiet_at is not None)


def merge(stored: DeskRecord, row: DeskRow, seen: KnownKill) -> DeskRecord:
    """The stored row after the workflow has written `row`."""
    latch = row.latch
    kills = latch.killed and seen is not KnownKill.CLEARED
    changes: dict[str, Any] = {
        "started_at": stored.started_at or row.started_at,
        "mode": row.mode,
        "symbols": row.symbols,
    }
    if kills or not latch.killed:
        changes["kill_number"] = max(stored.kill_number, latch.kill_number)
    if kills and seen is KnownKill.NEW and (not stored.killed or latch.kill_number >= stored.kill_number):
        # A late write of an older kill changes nothing: the coordinator would take its id for that of a kill that it does not
        # remember, and a restart of the newest kill would be refused.
        changes["kill_id"] = latch.kill_id
    if kills and not stored.killed:
        changes |= {"killed": True, "reason": latch.reason, "actor": latch.actor, "killed_at": row.killed_at}
    if kills and stored.quiet_at is None:
        changes["quiet_at"] = row.quiet_at
    if not latch.killed and not stored.killed and latch.kill_number > stored.kill_number:
        # This database came back from before a kill that is over, and must not take it for a new one.
        changes |= {"kill_id": latch.kill_id, "cleared_number": max(stored.cleared_number, latch.cleared_number)}
        # A restart that is named here stays: the coordinator does not remember it, and still has to find that out.
        changes["cleared_by"] = stored.cleared_by or latch.cleared_by
    return stored.model_copy(update=changes)


def clear_latch(connection: Connection, desk: str, cleared: ClearedKill, control: Decision) -> bool:
    """Clears the named kill and writes `control`, in the caller's transaction. False if it did not, and wrote nothing.

    Idempotent: True as well if an earlier restart cleared the same kill, or if `control` is written already and no kill has
    come since. A coordinator that was restored to before its restart's answer does not know of such a kill.
    """
    stored = _locked(connection, desk)
    if decision_exists(connection, control.decision_id):
        # No row proves nothing: somebody has removed it.
        return stored is not None and not stored.killed
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
    # This row holds no kill: it was cleared before, or the database came back old or empty. The restart may go on.
    return stored.kill_number <= cleared.number


def _seen(connection: Connection, stored: DeskRecord, latch: LatchRow) -> KnownKill:
    if latch.kill_id is None:
        # Somebody has written this kill into the row by hand, without an id, and the coordinator took it from there.
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


def _insert_desk(connection: Connection, facts: NewDesk) -> bool:
    values = clean_values(facts.model_dump(include={"desk", "mode", "symbols"}))
    fresh = {"created_at": facts.now, "killed": False, "kill_number": 0, "cleared_number": 0}
    statement = insert(desks).values(values | fresh).on_conflict_do_nothing().returning(desks.c.desk)
    return connection.scalar(statement) is not None


def _update(connection: Connection, desk: str, values: Mapping[str, Any]) -> None:
    connection.execute(update(desks).where(desks.c.desk == clean(desk)).values(clean_values(values)))
