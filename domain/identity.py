"""What a desk is, beside its name and mode: its own database, and its account at the venue.

The failure behind this file: a second worker with another, migrated, empty database was accepted without a word, and the
latch of a kill came to stand in both. What must not follow from the cure: that a database which was lost and made anew
leaves the desk, and its kill, without anybody who serves it.
"""

import hashlib

from domain.carried import Carried, Outcome, StrangeDatabase
from domain.commands import Command, Source
from domain.decisions import Decision, DecisionType
from domain.market import DatabaseSeen
from domain.outbox import queue_row
from domain.states import CommandKind, State
from domain.traces import Tick, control_row, enter, remember, unwarn, warn

READINGS_TO_ADOPT = 3
_WARNING = "another database"


def fingerprint(account_id: str) -> str:
    """What stands for a venue account wherever people read; the account's own name stays with its settings."""
    return hashlib.sha256(account_id.encode()).hexdigest()[:16] if account_id else ""


def take_account(c: Carried, account: str | None) -> None:
    """The venue account, from the first reading of a desk that was started without one."""
    if c.account is None:
        c.account = account


def take_database(c: Carried, seen: DatabaseSeen | None, tick: Tick) -> None:
    """Takes in which database a reading found. Readings in a row of one empty stranger make it the desk's own.

    A reading that says nothing of it ends such a row. A stranger that knows this desk has a past of its own, and perhaps a
    worker: only a person's `ais restart` takes it.
    """
    if seen is None:
        c.stranger = None
    elif c.database_id in (None, seen.database_id):
        c.database_id = seen.database_id
        _served(c, tick)
    else:
        _meet(c, seen, tick)


def database_written(c: Carried, database_id: str | None, tick: Tick) -> None:
    """What was written in `database_id` alone has been written: where that is the desk's own, it is there."""
    if database_id is not None and database_id == c.database_id:
        _served(c, tick)


def _served(c: Carried, tick: Tick) -> None:
    """The desk's own database has just been read or written: whoever has another is the stranger."""
    c.database_seen_at, c.stranger = tick.now, None
    unwarn(c, _WARNING)


def adopt(c: Carried, database_id: str, tick: Tick) -> None:
    """From now on this database is the desk's. What the old one held is not in it: a kill is latched there at once, and a
    running desk is paused until a person has looked."""
    told = f"{_WARNING} became the desk's: {database_id} instead of {c.database_id}"
    c.database_id, c.latched_number, c.row_dirty = database_id, 0, True
    _served(c, tick)
    if c.state is State.RUNNING:
        _pause(c, told, tick)
    else:
        queue_row(c, _row(c, told, tick))


def is_other(c: Carried, database_id: str | None) -> bool:
    """Whether both databases are known, and differ."""
    return None not in (database_id, c.database_id) and database_id != c.database_id


def _pause(c: Carried, told: str, tick: Tick) -> None:
    pause = Command(
        command_id=tick.new_id("command"),
        kind=CommandKind.PAUSE,
        actor="database",
        reason=told,
        source=Source.DATABASE,
        named=False,
    )
    enter(c, State.PAUSED, pause, tick)
    remember(c, pause, Outcome.APPLIED, tick)
    queue_row(c, control_row(c, pause, "applied", tick))


def _meet(c: Carried, seen: DatabaseSeen, tick: Tick) -> None:
    before = c.stranger.readings if c.stranger and c.stranger.database_id == seen.database_id else 0
    readings = 0 if seen.knows_desk else before + 1
    c.stranger = StrangeDatabase(database_id=seen.database_id, knows_desk=seen.knows_desk, readings=readings)
    if readings >= READINGS_TO_ADOPT:
        adopt(c, seen.database_id, tick)
        return
    unwarn(c, _WARNING)
    warn(c, _told(c, seen, readings))


def _told(c: Carried, seen: DatabaseSeen, readings: int) -> str:
    text = f"{_WARNING}: a worker has {seen.database_id}, the desk's is {c.database_id}; no new order"
    if seen.knows_desk:
        return f"{text}. It has a row of this desk: correct AIS_DATABASE_URL; to move the desk there, kill, then `ais restart`"
    return (
        f"{text}. It is empty, and becomes the desk's after {READINGS_TO_ADOPT} readings in a row ({readings} so far)"
    )


def _row(c: Carried, told: str, tick: Tick) -> Decision:
    return Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=DecisionType.CONTROL,
        summary=f"database changed: {told}",
        desk=c.desk,
    )
