"""The real rules of the latch over small tuples: what a model needs of `domain/desk/latch.py` and `storage/desks.py`.

Each answer is worked out once. So a model explores what the code does, and not what somebody remembers of it.
"""

from functools import cache
from typing import NamedTuple

from domain.desk import killing, latch, outbox
from domain.desk.carried import Carried, KillRecord
from domain.desk.commands import Command, Source
from domain.desk.recording import Tick
from domain.desk.states import CommandKind, Mode, State
from domain.trading.market import LatchRow
from storage import desks
from storage.desks import ClearedKill, DeskRecord, KnownKill
from tests.domain.builders import NOW, a_desk


class Mind(NamedTuple):
    """What a coordinator remembers of kills; `latch.Carried` in short. `row_written`: of the kill in force."""

    killed: bool = False
    number: int = 0
    kill: str = ""
    latched: int = 0
    cleared_number: int = 0
    cleared_by: str = ""
    restarts: tuple[str, ...] = ()
    dirty: bool = False
    row_written: bool = False

    @property
    def latch_due(self) -> bool:
        """Whether the database row has to be written."""
        return self.dirty or (self.killed and self.latched < self.number)


class Row(NamedTuple):
    """What the database's row says, or what a coordinator would have it say."""

    killed: bool = False
    number: int = 0
    kill: str = ""
    cleared_number: int = 0
    cleared_by: str = ""


class Changed(NamedTuple):
    """What a coordinator remembers after something, and whether it has killed itself by it."""

    mind: Mind
    kills: bool


@cache
def killed_by_signal(mind: Mind, name: str) -> Mind:
    """After a kill."""
    c = _carried(mind)
    command = Command(command_id="c", kind=CommandKind.KILL, source=Source.SIGNAL)
    killing.kill(c, command, _tick(name))
    return _mind(c)


@cache
def compared(mind: Mind, row: Row | None, known: int, name: str) -> Changed:
    """After a reading of the row; `name` is that of a kill by which the coordinator may answer."""
    c = _carried(mind)
    latch.compare(c, _latch(row) if row else None, known, _tick(name))
    return _changed(mind, c)


@cache
def answered(mind: Mind, wanted: Row, answer: Row, name: str) -> Changed:
    """After the answer to a write of the row."""
    c = _carried(mind)
    # What a write says of time and terms matters to nobody here.
    row = outbox.desk_row(c).model_copy(update={"latch": _latch(wanted)})
    latch.row_answered(c, row, _latch(answer), _tick(name))
    return _changed(mind, c)


@cache
def wanted_by(mind: Mind) -> Row:
    """What the coordinator would write."""
    return _row(outbox.desk_row(_carried(mind)).latch)


@cache
def merged(stored: Row, wanted: Row, seen: KnownKill) -> Row:
    """The row after a write."""
    c = _carried(Mind())
    row = outbox.desk_row(c).model_copy(update={"latch": _latch(wanted)})
    return _row(desks.merge(_record(stored), row, seen).latch)


@cache
def may_clear(stored: Row, number: int, kill: str) -> bool:
    """Whether a restart that names this kill clears the row."""
    return desks._may_clear(_record(stored), ClearedKill(number, kill or None))


def _carried(mind: Mind) -> Carried:
    kill = KillRecord(
        command_id="c",
        reason="",
        actor="",
        source=Source.SIGNAL,
        at=NOW,
        row_id=mind.kill,
        row_written=mind.row_written,
    )
    return a_desk(
        state=State.KILLED if mind.killed else State.RUNNING,
        kill=kill if mind.killed else None,
        kill_number=mind.number,
        kill_id=mind.kill,
        latched_number=mind.latched,
        cleared_number=mind.cleared_number,
        cleared_by=mind.cleared_by,
        restarts=list(mind.restarts),
        row_dirty=mind.dirty,
    )


def _mind(c: Carried) -> Mind:
    return Mind(
        killed=c.state is State.KILLED,
        number=c.kill_number,
        kill=c.kill_id,
        latched=c.latched_number,
        cleared_number=c.cleared_number,
        cleared_by=c.cleared_by,
        restarts=tuple(c.restarts),
        dirty=c.row_dirty,
        row_written=c.kill is not None and c.kill.row_written,
    )


def _changed(before: Mind, c: Carried) -> Changed:
    after = _mind(c)
    return Changed(after, kills=c.last_kill_at is not None)


def _latch(row: Row) -> LatchRow:
    return LatchRow(
        killed=row.killed,
        kill_number=row.number,
        kill_id=row.kill or None,
        cleared_number=row.cleared_number,
        cleared_by=row.cleared_by or None,
    )


def _row(found: LatchRow) -> Row:
    return Row(found.killed, found.kill_number, found.kill_id or "", found.cleared_number, found.cleared_by or "")


def _record(row: Row) -> DeskRecord:
    facts = _latch(row).model_dump(exclude={"reason", "actor"})
    return DeskRecord(desk="main", started_at=NOW, mode=Mode.PAPER, symbols=["BTCUSDT"], **facts)


def _tick(name: str) -> Tick:
    """The first decision that is made gets this name: the kill's own."""
    names = iter([name])
    return Tick(NOW, lambda prefix: next(names, prefix) if prefix == "decision" else prefix)
