"""A small model of kills and restarts: the coordinator's memory, the database's row, and the log, with stores that come back old.

Two commands, one crash and one lost message come at any moment. What each of them does to the latch is the real code's word
(`latch_rules.py`). `wrong` names what a mutated model does otherwise.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from storage.desks import KnownKill
from tests.interleavings import latch_rules as rules
from tests.interleavings.explore import Model, ModelStep
from tests.interleavings.latch_rules import Mind, Row

REFUSES_EQUAL = "merge refuses a kill whose number the row has already"
BELIEVES = "a write of the latch that was refused is taken for done"
RUNS_FIRST = "a restart runs before the latch is cleared"
BEATEN = "a kill that comes while a restart is under way does not beat it"
LOOKS_AWAY = "a run trades before it has read the latch"
WRITES_TWICE = "a batch that is repeated is written twice"
DROPS_ROWS = "rows whose answer was lost are dropped"
WRONGS = {
    REFUSES_EQUAL: "I2",
    BELIEVES: "I6",
    RUNS_FIRST: "I2",
    BEATEN: "I2",
    LOOKS_AWAY: "I2",
    WRITES_TWICE: "I4",
    DROPS_ROWS: "I1",
}


class PersonsRestart(NamedTuple):
    """One that is under way. Whoever names the newest kill names all before it."""

    number: int
    kill: str
    row: str
    names: frozenset[str]


class LatchWorld(NamedTuple):
    """Everything, in order: the workflow, what is under way, the database, what must be remembered of it all, and what may
    still happen.

    `unnamed`: kills that no person's restart has named since,
    and of which a store still knows. `told`: kills
    that belong into the log. `refused` and `believed` are what must never be.
    """

    mind: Mind = Mind()
    looked: bool = True
    inbox: tuple[tuple[str, int], ...] = ()
    restart: PersonsRestart | None = None
    rows: tuple[str, ...] = ()
    write: tuple[Row, Row | None] | None = None
    late: Row | None = None
    clear: str = ""
    look: tuple[int, Row | None, bool] | None = None
    row: Row | None = Row()
    kills: tuple[tuple[str, str], ...] = ()
    log: tuple[str, ...] = ()
    unnamed: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()
    refused: bool = False
    believed: bool = False
    made: int = 0
    old_mind: Mind = Mind()
    old_row: Row | None = Row()
    commands: int = 2
    crashes: int = 1
    losses: int = 1


W = LatchWorld
Moves = Callable[[W], Iterable[W]]
KILLED = Mind(killed=True, number=1, kill="k0", latched=1, row_written=True)
AFTER = Mind(number=1, kill="k0", latched=1, cleared_number=1, cleared_by="r0", restarts=("r0",))
AFTER_ROW = Row(False, 1, "k0", 1, "r0")
STARTS = {
    "a desk runs": W(),
    "a desk runs, and the database may come back empty": W(old_row=None),
    "a desk is killed": W(KILLED, row=Row(True, 1, "k0"), kills=(("k0", ""),), unnamed=frozenset({"k0"})),
    "a desk runs again after a kill": W(AFTER, row=AFTER_ROW, kills=(("k0", "r0"),)),
    "a desk runs again, and Temporal may come back from when the kill was not latched": W(
        AFTER, row=AFTER_ROW, kills=(("k0", "r0"),), old_mind=KILLED._replace(latched=0), old_row=AFTER_ROW
    ),
}


def latch_model(wrong: str = "") -> Model[W]:
    """The model, or a mutation of it."""
    return Model(
        starts=STARTS,
        steps=_steps(wrong),
        holds={
            "I2: no desk trades over a kill that nobody has cleared": lambda w: not (_trades(w, wrong) and w.unnamed),
            "I2: a kill that is written stands there": lambda w: not w.refused,
            "I4: no row stands twice": lambda w: len(w.log) == len({*w.log}),
            "I6: what counts as latched is latched": lambda w: not w.believed,
        },
        rests={
            "I1: what was acknowledged is in the log": lambda w: w.told <= {*w.log},
            "I2: both places say the same": lambda w: _more_to_find(w) or _agree(w),
        },
    )


def _more_to_find(w: W) -> bool:
    """Whether the next reading of the row would change anything. Readings go on for ever: none of them is a rest."""
    name, _ = _new(w, "k")
    return not w.looked or rules.compared(w.mind, w.row, _known(w), name).mind != w.mind


def _agree(w: W) -> bool:
    return w.row is not None and w.row[:3] == w.mind[:3]


def _trades(w: W, wrong: str) -> bool:
    """Whether an order could go out now: the coordinator runs, has looked, has no kill before it, and the row lets it."""
    no_kill_waits = all(name != "kill" for name, _ in w.inbox)
    row_lets = w.row is not None and not w.row.killed
    if wrong == LOOKS_AWAY:
        return not w.mind.killed and no_kill_waits
    return not w.mind.killed and w.looked and no_kill_waits and row_lets


def _steps(wrong: str) -> tuple[ModelStep[W], ...]:
    def step(name: str, moves: Moves, *code: str, due: bool = True) -> ModelStep[W]:
        return ModelStep(name, code, moves, due)

    return (
        step("a command is recorded", _recorded, "workflows.gateway:DeskGateway.signal",
             "cli.lifecycle:Lifecycle.restart", due=False),
        step("the coordinator takes its signals", lambda w: _turn(w, wrong), "workflows.coordinator:Coordinator._take_turn",
             "domain.desk.applying:apply", "domain.desk.applying:_check_restart", "domain.desk.latch:restart_tried"),
        step("the rows are written", _writes_rows, "domain.desk.outbox:next_batch",
             "activities.record:RecordActivities.record", "storage.decisions:insert_decisions",
             "domain.desk.outbox:batch_written"),
        step("a write of the latch begins", _begins_write, "workflows.outbox:OutboxTask._due_rows",
             "domain.desk.outbox:desk_row"),
        step("the latch is written", lambda w: _lands(w, wrong), "storage.desks:write_desk", "storage.desks:merge"),
        step("the coordinator hears of the latch", lambda w: _hears_write(w, wrong), "domain.desk.latch:row_answered",
             "domain.desk.outbox:desk_row_written"),
        step("a late write of the latch lands", lambda w: _lands_late(w, wrong)),
        step("the clearing of the latch begins", _begins_clear, "workflows.outbox:OutboxTask._restart_lane",
             "domain.desk.applying:finish_restart"),
        step("the latch is cleared", _clears, "storage.desks:clear_latch", "storage.desks:_may_clear"),
        step("the coordinator hears that it is cleared", lambda w: _hears_clear(w, wrong), "domain.desk.applying:finish_restart",
             "domain.desk.latch:restart_applied"),
        step("a reading of the latch begins", _begins_look, "domain.desk.latch:known_latch",
             "workflows.cycle:CycleTask._read_latch", due=False),
        step("the latch is read", _looks, "storage.desks:read_desk"),
        step("the coordinator compares the latch", _compares, "domain.desk.latch:compare",
             "domain.desk.observing:take_observation"),
        step("a message is lost", lambda w: _lost(w, wrong) if w.losses else (), due=False),
        step("the worker dies", _dies, due=False),
        step("Temporal's store comes back old", _temporal_comes_back, due=False),
        step("the database comes back old", _database_comes_back, due=False),
    )  # fmt: skip


def _new(w: W, kind: str) -> tuple[str, int]:
    """A name that nothing else has, and the count of names after it."""
    return f"{kind}{w.made + 1}", w.made + 1


# --- commands -------------------------------------------------------------------------------------------------------


def _recorded(w: W) -> Iterator[W]:
    """A person restarts the kill that the status shows: a killed desk says so at any time."""
    if w.commands:
        left = w._replace(commands=w.commands - 1)
        yield left._replace(inbox=(*w.inbox, ("kill", 0)))
        if w.mind.killed:
            yield left._replace(inbox=(*w.inbox, ("restart", w.mind.number)))


def _turn(w: W, wrong: str) -> list[W]:
    if not w.inbox:
        return []
    for name, number in sorted(w.inbox):
        w = _killed(w) if name == "kill" else _restarts(w, number, wrong)
    return [w._replace(inbox=())]


def _killed(w: W) -> W:
    name, made = _new(w, "k")
    mind = rules.killed_by_signal(w.mind, name)
    return w._replace(mind=mind, rows=(*w.rows, name), told=w.told | {name}, unnamed=w.unnamed | {name}, made=made)


def _restarts(w: W, number: int, wrong: str) -> W:
    m = w.mind
    ready = m.killed and number == m.number and m.latched >= m.number and m.row_written and w.restart is None
    if not ready:
        return w
    name, made = _new(w, "r")
    restart, mind = PersonsRestart(number, m.kill, name, w.unnamed), m._replace(restarts=(*m.restarts, name))
    w = w._replace(restart=restart, mind=mind, made=made)
    return _runs_again(w, name) if wrong == RUNS_FIRST else w


# --- rows -----------------------------------------------------------------------------------------------------------


def _writes_rows(w: W) -> list[W]:
    return [_rows_written(_in_log(w, w.rows))] if w.rows else []


def _in_log(w: W, rows: tuple[str, ...], wrong: str = "") -> W:
    """A row that stands already is left as it is."""
    new = [row for row in rows if row not in w.log or wrong == WRITES_TWICE]
    return w._replace(log=tuple(sorted([*w.log, *new])))


def _rows_written(w: W) -> W:
    written = w.mind.row_written or (w.mind.killed and w.mind.kill in w.rows)
    return w._replace(rows=(), mind=w.mind._replace(row_written=written))


# --- the latch ------------------------------------------------------------------------------------------------------


def _begins_write(w: W) -> list[W]:
    """Not while this very kill is being cleared: it would be told that it is lost."""
    is_clearing = w.restart is not None and w.restart.number == w.mind.number
    if not w.mind.latch_due or w.write or is_clearing:
        return []
    return [w._replace(write=(rules.wanted_by(w.mind), None))]


def _lands(w: W, wrong: str) -> list[W]:
    if w.write is None or w.write[1] is not None:
        return []
    w = _written(w, w.write[0], wrong)
    assert w.write
    return [w._replace(write=(w.write[0], w.row))]


def _written(w: W, wanted: Row, wrong: str) -> W:
    """As `storage.desks.write_desk`. A kill that was not cleared has to stand there afterwards."""
    stored, known = w.row or Row(), dict(w.kills)
    seen = KnownKill.NEW
    if wanted.kill in known:
        seen = KnownKill.CLEARED if known[wanted.kill] else KnownKill.HELD
    after = rules.merged(stored, wanted, seen)
    if wrong == REFUSES_EQUAL and wanted.number <= stored.number and not stored.killed:
        after = stored
    refused = wanted.killed and seen is not KnownKill.CLEARED and not after.killed
    if after.kill and after.kill == wanted.kill:
        known.setdefault(after.kill, "" if after.killed else after.cleared_by)
    elif wanted.killed and wanted.kill and after.killed:
        known.setdefault(wanted.kill, "")
    return w._replace(row=after, kills=tuple(sorted(known.items())), refused=w.refused or refused)


def _hears_write(w: W, wrong: str) -> list[W]:
    if w.write is None or w.write[1] is None:
        return []
    wanted, answer = w.write
    assert answer is not None
    if wrong == BELIEVES:
        mind = w.mind._replace(latched=max(w.mind.latched, wanted.number if wanted.killed else 0), dirty=False)
        after = w._replace(mind=mind, write=None)
    else:
        after = _answered(w, wanted, answer)._replace(write=None)
    became = after.mind.latched >= after.mind.number > w.mind.latched and after.mind.killed
    is_so = answer.killed and answer.kill == after.mind.kill
    return [after._replace(believed=w.believed or (became and not is_so))]


def _answered(w: W, wanted: Row, answer: Row) -> W:
    name, made = _new(w, "k")
    return _own_kill(w, rules.answered(w.mind, wanted, answer, name), name, made)


def _own_kill(w: W, changed: rules.Changed, name: str, made: int) -> W:
    """The coordinator may have killed itself: then that kill is one more to be cleared and written."""
    if not changed.kills:
        return w._replace(mind=changed.mind)
    rows, told, unnamed = (*w.rows, name), w.told | {name}, w.unnamed | {name}
    return w._replace(mind=changed.mind, rows=rows, told=told, unnamed=unnamed, made=made)


def _lands_late(w: W, wrong: str) -> list[W]:
    return [_written(w, w.late, wrong)._replace(late=None)] if w.late else []


# --- the restart ----------------------------------------------------------------------------------------------------


def _begins_clear(w: W) -> list[W]:
    if w.restart is None or w.clear or w.write or w.look:
        return []
    if w.restart.number != w.mind.number:
        return [_fails(w)]
    return [w._replace(clear="asked")]


def _clears(w: W) -> list[W]:
    if w.clear != "asked" or w.restart is None:
        return []
    number, kill, name, names = w.restart
    if name in w.log:
        return [w._replace(clear="refused" if w.row and w.row.killed else "done")]
    if w.row is None or not rules.may_clear(w.row, number, kill):
        return [w._replace(clear="refused")]
    row = Row(False, number, kill or w.row.kill, max(w.row.cleared_number, number), name)
    kills = {kill: "", **dict(w.kills)} if kill else dict(w.kills)
    cleared = tuple(sorted((known, by or name) for known, by in kills.items()))
    after = _in_log(w, (name,))
    return [after._replace(clear="done", row=row, kills=cleared, unnamed=w.unnamed - names)]


def _hears_clear(w: W, wrong: str) -> list[W]:
    if w.clear not in ("done", "refused") or w.restart is None:
        return []
    if w.clear == "refused" or (w.restart.number != w.mind.number and wrong != BEATEN):
        return [_fails(w)]
    return [_runs_again(w, w.restart.row)._replace(restart=None, clear="")]


def _runs_again(w: W, name: str) -> W:
    m = w.mind
    return w._replace(mind=m._replace(killed=False, cleared_by=name, cleared_number=m.number, row_written=False))


def _fails(w: W) -> W:
    """The latch may have been cleared anyway: a new number latches it again."""
    assert w.restart
    name, made = _new(w, "k")
    if w.mind.number > w.restart.number:
        # A kill has come, with an id of its own.
        return w._replace(mind=w.mind._replace(latched=0), restart=None, clear="")
    mind = w.mind._replace(number=w.restart.number + 1, latched=0, kill=name)
    return w._replace(mind=mind, restart=None, clear="", unnamed=w.unnamed | {name}, made=made)


# --- readings -------------------------------------------------------------------------------------------------------


def _begins_look(w: W) -> list[W]:
    if w.look or w.restart:
        return []
    return [w._replace(look=(_known(w), None, False))]


def _known(w: W) -> int:
    return w.mind.latched if w.mind.killed else 0


def _looks(w: W) -> list[W]:
    return [w._replace(look=(w.look[0], w.row, True))] if w.look and not w.look[2] else []


def _compares(w: W) -> list[W]:
    if w.look is None or not w.look[2]:
        return []
    name, made = _new(w, "k")
    known, row, _ = w.look
    return [_own_kill(w, rules.compared(w.mind, row, known, name), name, made)._replace(look=None, looked=True)]


# --- faults ---------------------------------------------------------------------------------------------------------


def _lost(w: W, wrong: str) -> Iterator[W]:
    """An answer does not come although the work is done, or a question comes late or never. All of these are repeated."""
    left = w._replace(losses=w.losses - 1)
    if w.rows:
        yield _rows_written(left) if wrong == DROPS_ROWS else _in_log(left, w.rows)
        # Such rows are written once more, with the next ones.
        yield from [_in_log(_in_log(left, w.rows), w.rows, wrong)] if wrong == WRITES_TWICE else []
    if w.write:
        asked = w.write[1] is None
        yield left._replace(write=None, late=w.write[0] if asked else w.late)
    if w.clear == "asked":
        yield _fails(left)
    if w.clear == "done":
        yield left._replace(clear="asked")
        yield _fails(left)
    if w.look:
        yield left._replace(look=None)


def _dies(w: W) -> list[W]:
    """Another worker repeats what was under way, as it was asked."""
    if not w.crashes:
        return []
    write = (w.write[0], None) if w.write else None
    return [w._replace(crashes=0, write=write, clear="asked" if w.clear else "", look=None)]


def _temporal_comes_back(w: W) -> list[W]:
    """Old, and with nothing under way. Of a kill that had not reached the database nobody knows any more."""
    if not w.crashes:
        return []
    known = {kill for kill, _ in w.kills} | {w.old_mind.kill}
    return [
        w._replace(
            crashes=0, mind=w.old_mind, looked=False, inbox=(), restart=None, rows=(), write=None, clear="", look=None,
            unnamed=w.unnamed & known, told=w.told & {*w.log}, late=w.write[0] if w.write else w.late,
        )
    ]  # fmt: skip


def _database_comes_back(w: W) -> list[W]:
    """Old, or empty; what was under way fails."""
    if not w.crashes:
        return []
    old = STARTS_KILLS.get(w.old_row, ())
    return [w._replace(crashes=0, row=w.old_row, kills=old, log=(), told=frozenset(w.rows))]


STARTS_KILLS: dict[Row | None, tuple[tuple[str, str], ...]] = {AFTER_ROW: (("k0", "r0"),)}
