"""What identifies a desk beside its name and mode: its own database, and its account at the venue.

The failure behind this file: a second worker with another database, migrated but empty, was silently accepted, and a kill's
latch ended up in both databases. The remedy must allow for one case: if the desk's database is lost and recreated, some
worker must still serve the desk and its kill.
"""

import hashlib

from domain.desk.carried import Carried, ForeignDatabase, Outcome
from domain.desk.commands import Command, Source
from domain.desk.outbox import queue_row
from domain.desk.recording import Tick, control_row, decision_row, enter, remember
from domain.desk.states import CommandKind, State
from domain.desk.warnings import Topic, unwarn, warn
from domain.trading.decisions import DecisionType
from domain.trading.market import DatabaseSeen

READINGS_TO_ADOPT = 3


def fingerprint(account_id: str) -> str:
    """A short hash that people see in place of a venue account's name, which never leaves the settings."""
    return hashlib.sha256(account_id.encode()).hexdigest()[:16] if account_id else ""


def take_account(c: Carried, account: str | None) -> None:
    """Takes the venue account from the first reading, if the desk was started without one."""
    if c.account is None:
        c.account = account


def take_database(c: Carried, seen: DatabaseSeen | None, tick: Tick) -> None:
    """Notes which database a reading saw. After several readings in a row, an empty foreign one becomes the desk's own.

    A reading that names no database breaks the series. A foreign database that knows this desk has a history of its own,
    and perhaps a worker: only a person's `ais restart` adopts it.
    """
    if seen is None:
        c.stranger = None
    elif c.database_id in (None, seen.database_id):
        c.database_id = seen.database_id
        _served(c, tick)
    else:
        _meet(c, seen, tick)


def database_written(c: Carried, database_id: str | None, tick: Tick) -> None:
    """Notes a successful write to `database_id`; it counts only if that is the desk's own database."""
    if database_id is not None and database_id == c.database_id:
        _served(c, tick)


def _served(c: Carried, tick: Tick) -> None:
    """Notes that the desk's own database was just read or written, so that a foreign one cannot replace it."""
    c.database_seen_at, c.stranger = tick.now, None
    unwarn(c, Topic.FOREIGN_DATABASE)


def adopt(c: Carried, database_id: str, tick: Tick) -> None:
    """Makes this database the desk's. It lacks the old one's rows. So a kill is latched in it at once, and a running desk
    is paused until a person has looked."""
    text = f"the desk moved to another database: {database_id} instead of {c.database_id}"
    c.database_id, c.latched_number, c.row_dirty = database_id, 0, True
    _served(c, tick)
    if c.state is State.RUNNING:
        _pause(c, text, tick)
    else:
        queue_row(c, decision_row(c, DecisionType.CONTROL, f"database changed: {text}", tick))


def is_other(c: Carried, database_id: str | None) -> bool:
    """Whether both databases are known and differ."""
    return None not in (database_id, c.database_id) and database_id != c.database_id


def _pause(c: Carried, reason: str, tick: Tick) -> None:
    pause = Command(
        command_id=tick.new_id("command"),
        kind=CommandKind.PAUSE,
        actor="database",
        reason=reason,
        source=Source.DATABASE,
        named=False,
    )
    enter(c, State.PAUSED, pause, tick)
    remember(c, pause, Outcome.APPLIED, tick)
    queue_row(c, control_row(c, pause, "applied", tick))


def _meet(c: Carried, seen: DatabaseSeen, tick: Tick) -> None:
    before = c.stranger.readings if c.stranger and c.stranger.database_id == seen.database_id else 0
    readings = 0 if seen.knows_desk else before + 1
    c.stranger = ForeignDatabase(database_id=seen.database_id, knows_desk=seen.knows_desk, readings=readings)
    if readings >= READINGS_TO_ADOPT:
        adopt(c, seen.database_id, tick)
        return
    if seen.knows_desk:
        what = "has a row of this desk: correct AIS_DATABASE_URL; to move the desk there, kill, then `ais restart`"
    else:
        what = f"is empty, and becomes the desk's after {READINGS_TO_ADOPT} readings in a row ({readings} so far)"
    text = f"another database: a worker has {seen.database_id}, the desk's is {c.database_id}; no new order. It {what}"
    unwarn(c, Topic.FOREIGN_DATABASE)
    warn(c, Topic.FOREIGN_DATABASE, text)
