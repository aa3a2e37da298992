"""The running verification: checks every chain bit by bit, and stores its progress and findings in `audit_watch`.

Each desk has two rows there. One follows the new rows of the chain. The other goes over all rows, lap after lap, since somebody
may edit an old row at any time. The tables of the log are checked too (`unproved`). One process works at a time, for a moment,
and nobody waits for it, so the cost is the same for one worker as for a thousand.

A fault is reported once two checks in a row have found it: anything that passes by itself is not a fault. It ends when the rows
are whole again, or when a person accepts it (`accept`).
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from domain.audit import AuditFault, AuditKind, FaultKind
from storage.audit import chain, checkpoints, stretches, unproved
from storage.audit.checkpoints import Checkpoint
from storage.audit.stretches import CheckedStretch, DueStretch, Reached, as_array

FOUND_TIMES = 2
"""How often a fault must be found before it is reported."""
_LOCK = text("SELECT pg_try_advisory_xact_lock(1095329132)")
_WAIT_FOR_LOCK = text("SELECT pg_advisory_xact_lock(1095329132)")
# A cheap check, by an index: most processes find that another one has just done the work. Times in the future, from a clock that
# was ahead, do not count: otherwise nothing would be verified until then.
_RESTS = text("""
SELECT greatest((SELECT max(looked_at) FROM audit_watch WHERE looked_at <= clock_timestamp()),
    (SELECT max(looked_at) FROM audit_tables WHERE looked_at <= clock_timestamp()))
    > clock_timestamp() - make_interval(secs => :seconds)
""")
# For a desk that was never checked, new rows are followed from its last one on; the first lap takes the rows before.
_KNOW = text("""
INSERT INTO audit_watch (desk, again, seq, hash, began_at, looked_at)
SELECT h.desk, again, CASE WHEN again THEN 0 ELSE h.seq END, CASE WHEN again THEN NULL ELSE h.hash END,
    clock_timestamp(), 'epoch'
FROM audit_heads AS h CROSS JOIN (VALUES (false), (true)) AS rows (again)
WHERE h.seq > 0 AND NOT EXISTS (SELECT FROM audit_watch AS w WHERE w.desk = h.desk AND w.again = rows.again)
LIMIT 500 ON CONFLICT DO NOTHING
""")
# A chain without new rows is checked now and then too: its last rows may be gone.
_NEWS = text("""
SELECT w.*, h.seq AS head_seq FROM audit_watch AS w LEFT JOIN audit_heads AS h ON h.desk = w.desk
WHERE NOT w.again AND (w.fault_kind IS NOT NULL OR h.seq IS DISTINCT FROM w.seq
    OR w.looked_at NOT BETWEEN clock_timestamp() - interval '10 minutes' AND clock_timestamp())
ORDER BY w.looked_at LIMIT 500
""")
_LAPS = text("""
SELECT w.*, h.seq AS head_seq, w.began_at < clock_timestamp() - interval '1 day' AS was_long
FROM audit_watch AS w LEFT JOIN audit_heads AS h ON h.desk = w.desk
WHERE w.again AND (NOT w.at_end
    OR w.looked_at NOT BETWEEN clock_timestamp() - make_interval(secs => :seconds) AND clock_timestamp())
ORDER BY w.looked_at LIMIT 500
""")
_NOTE = text("""
UPDATE audit_watch AS w SET seq = n.seq, hash = n.hash, unsettled = CAST(n.unsettled AS bigint[]), latched = n.latched,
    at_end = n.at_end, looked_at = clock_timestamp(),
    began_at = CASE WHEN n.begins THEN clock_timestamp() ELSE w.began_at END,
    ended_at = CASE WHEN n.at_end THEN clock_timestamp() ELSE w.ended_at END,
    fault_at = CASE WHEN n.kind IS NULL THEN NULL WHEN w.fault_kind IS NULL THEN clock_timestamp() ELSE w.fault_at END,
    fault_times = CASE WHEN n.kind IS NULL THEN 0 ELSE least(w.fault_times, 1000000) + 1 END,
    fault_kind = n.kind, fault_seq = n.fault_seq, fault_what = n.what
FROM unnest(CAST(:desk AS text[]), CAST(:begins AS boolean[]), CAST(:seq AS bigint[]), CAST(:hash AS bytea[]),
    CAST(:unsettled AS text[]), CAST(:latched AS boolean[]), CAST(:at_end AS boolean[]), CAST(:kind AS text[]),
    CAST(:fault_seq AS bigint[]), CAST(:what AS text[]))
    AS n (desk, begins, seq, hash, unsettled, latched, at_end, kind, fault_seq, what)
WHERE w.desk = n.desk AND w.again = :again RETURNING w.desk, w.fault_times
""")
_FAULTS = text("""
SELECT DISTINCT ON (desk, of_tables) desk, fault_kind, fault_seq, fault_what, fault_at FROM (
    SELECT desk, false AS of_tables, fault_kind, fault_seq, fault_what, fault_at FROM audit_watch
    WHERE fault_kind IS NOT NULL AND fault_times >= :times
    UNION ALL SELECT desk, true, :extra, NULL, source || ': ' || id, at FROM audit_unproved WHERE times >= :times) AS f
ORDER BY desk, of_tables, fault_at
""")
_AGES = text("""
SELECT desk, extract(epoch FROM clock_timestamp() - coalesce(max(ended_at) FILTER (WHERE ended_at <= clock_timestamp()),
    min(began_at))) FROM audit_watch
WHERE desk = ANY(:desks) AND began_at <= clock_timestamp() GROUP BY desk
""")
_ACCEPT = text("""
UPDATE audit_watch SET seq = :seq, hash = :hash, unsettled = '{}', at_end = NOT again,
    latched = (SELECT killed FROM desks WHERE desk = :desk), accepted_seq = :seq, accepted_at = clock_timestamp(),
    fault_kind = NULL, fault_seq = NULL, fault_what = NULL, fault_at = NULL, fault_times = 0
WHERE desk = :desk
""")


class Pace(NamedTuple):
    """How much work is done: the seconds per round for new rows, for laps, and for the tables of the log (each); the seconds
    between two rounds of any process, and between two laps of a desk; the rows per statement."""

    work: float = 0.15
    tables: float = 0.05
    between_rounds: float = 4.0
    between_laps: float = 20.0
    rows: int = stretches.ROWS_A_STRETCH


# Rows that may be added between choosing a chain and running the statement.
_SPARE_ROWS = 6
_MOST_CHAINS = 100


class StandingFault(NamedTuple):
    """A fault that was found again. It counts as the same one as long as the chain was not whole in between."""

    fault: AuditFault
    at: datetime


class WatchRound(NamedTuple):
    """What a process has done in a round: the rows that it checked, and the desks whose fault it confirmed."""

    rows: int = 0
    found: frozenset[str] = frozenset()


def watch(connection: Connection, signed: Checkpoint | None, pace: Pace) -> WatchRound:
    """Does a round of work; nothing if another process is working, or has just done so. `signed`: the newest trusted
    checkpoint."""
    if connection.scalar(_RESTS, {"seconds": pace.between_rounds}) or not connection.scalar(_LOCK):
        return WatchRound()
    # Compiling a comparison takes longer than a stretch, and a plan for many rows would read a table as a whole.
    connection.execute(text("SET LOCAL jit = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"))
    connection.execute(_KNOW)
    news = connection.execute(_NEWS).all()
    laps = connection.execute(_LAPS, {"seconds": pace.between_laps}).all()
    rows, found = 0, set()
    for each in (*_work(connection, map(_due, news), pace), *_work(connection, _begun(connection, laps, signed), pace)):
        rows += each.rows
        if each.fault and each.times == FOUND_TIMES:
            found.add(each.fault.desk)
    found |= {desk for desk, times in unproved.found_so_far(connection).items() if times == FOUND_TIMES}
    for _ in unproved.continue_laps(connection, pace.tables, pace.between_laps, pace.rows):
        pass
    return WatchRound(rows, frozenset(found))


class _DueChain(NamedTuple):
    """A chain, and where to continue checking it: the expected number of rows, whether a lap begins here, and a fault that its
    beginning has shown."""

    desk: str
    again: bool
    reached: Reached
    rows: float
    begins: bool = False
    fault: AuditFault | None = None

    def share(self, pace: Pace) -> int:
        """How many rows of a statement this chain takes."""
        return int(min(pace.rows, self.rows + _SPARE_ROWS)) + len(self.reached.unsettled)


class _Noted(NamedTuple):
    """A checked stretch, and how often its fault has been found so far."""

    rows: int
    fault: AuditFault | None
    times: int


def _due(row: Row[Any]) -> _DueChain:
    reached = Reached(row.seq, bytes(row.hash) if row.hash else None, tuple(row.unsettled), row.latched)
    return _DueChain(row.desk, row.again, reached, _rows_left(row, reached))


def _rows_left(row: Row[Any], reached: Reached) -> float:
    """Taken from the chain's head, which proves nothing: rows that the head does not know of only cost one more statement."""
    return float("inf") if row.head_seq is None else max(0, row.head_seq - reached.seq)


def _begun(connection: Connection, laps: Sequence[Row[Any]], signed: Checkpoint | None) -> list[_DueChain]:
    """Begins a new lap where one has ended: at the first row or, if the last lap took longer than a day, at the checkpoint."""
    # A signature from before a person accepted a fault says nothing about the rows since.
    heads = {
        row.desk: head
        for row in laps
        if row.at_end and signed and (head := signed.chains.get(row.desk))
        and not (row.accepted_at and signed.at < row.accepted_at)
    }  # fmt: skip
    wrong = checkpoints.compare_all(connection, heads, signed) if signed and heads else {}
    due = []
    for row in laps:
        if not row.at_end:
            due.append(_due(row))
            continue
        begin, head = Reached(row.accepted_seq, None, (), row.latched), heads.get(row.desk)
        if head and row.was_long and head.seq > row.accepted_seq:
            begin = begin._replace(seq=head.seq, hash=bytes.fromhex(head.hash))
        due.append(_DueChain(row.desk, True, begin, _rows_left(row, begin), True, wrong.get(row.desk)))
    return due


def _work(connection: Connection, chains: Iterable[_DueChain], pace: Pace) -> Iterator[_Noted]:
    """Checks chains in batches until the time is up, at least one stretch."""
    until = time.monotonic() + pace.work
    due = deque(chains)
    while due:
        together = _batch(due, pace)
        checked = _checked(connection, together, pace)
        times = _note(connection, together, checked)
        for each, stretch in zip(together, checked, strict=True):
            yield _Noted(stretch.rows, stretch.fault, times.get(each.desk, 0))
            if not stretch.fault and not stretch.at_end:
                left = max(0, each.rows - stretch.rows)
                due.append(each._replace(reached=stretch.reached, rows=left, begins=False))
        if time.monotonic() > until:
            return


def _batch(due: deque[_DueChain], pace: Pace) -> list[_DueChain]:
    """Takes as many chains as fit into one statement. The statement reads as many rows of each chain as the longest one needs."""
    together = [due.popleft()]
    most = together[0].share(pace)
    while due and len(together) < _MOST_CHAINS:
        most = max(most, due[0].share(pace))
        if most * (len(together) + 1) > pace.rows:
            break
        together.append(due.popleft())
    return together


def _checked(connection: Connection, together: Sequence[_DueChain], pace: Pace) -> list[CheckedStretch]:
    # If the checkpoint disagrees, the next check starts again there, and compares once more.
    asked = [DueStretch(each.desk, each.reached) for each in together if not each.fault]
    most = min(pace.rows, max(each.share(pace) for each in together))
    found = iter(stretches.check(connection, asked, most) if asked else ())
    return [CheckedStretch(each.reached, 0, True, each.fault) if each.fault else next(found) for each in together]


def _note(connection: Connection, together: Sequence[_DueChain], checked: Sequence[CheckedStretch]) -> dict[str, int]:
    """How often the fault of each desk has been found so far."""
    notes = [_note_of(each, stretch) for each, stretch in zip(together, checked, strict=True)]
    columns = {name: [note[name] for note in notes] for name in notes[0]}
    found = connection.execute(_NOTE, columns | {"again": together[0].again})
    return {row.desk: row.fault_times for row in found}


def _note_of(due: _DueChain, checked: CheckedStretch) -> dict[str, Any]:
    fault, reached = checked.fault, checked.reached
    note = {"desk": due.desk, "begins": due.begins, "seq": reached.seq, "hash": reached.hash}
    # After a fault the same stretch is due again, unless the beginning of the lap showed the fault.
    at_end = checked.at_end and (fault is None or due.fault is not None)
    note |= {"unsettled": as_array(reached.unsettled), "latched": reached.latched, "at_end": at_end}
    return note | {"kind": fault and fault.kind.value, "fault_seq": fault and fault.seq, "what": fault and fault.what}


def faults(connection: Connection) -> list[StandingFault]:
    """The known faults: for each desk one fault of its chain, and one row of the tables that is in no chain. Neither hides the
    other."""
    rows = connection.execute(_FAULTS, {"times": FOUND_TIMES, "extra": FaultKind.EXTRA.value})
    return [StandingFault(AuditFault(FaultKind(kind), desk, seq, what), at) for desk, kind, seq, what, at in rows]


def ages(connection: Connection, desks: Iterable[str]) -> dict[str, float]:
    """The seconds since each chain was last checked to its end. A desk that was never checked is missing."""
    return {desk: float(age) for desk, age in connection.execute(_AGES, {"desks": list(desks)})}


def accept(connection: Connection, desk: str, by: str, reason: str) -> int | None:
    """Accepts a desk's faults on behalf of a person. From now on the chain is checked from the row that records this; returns the
    row's number, or None if the row cannot be appended now. `ais audit verify` still reports the faults.
    """
    # A running round holds some rows of `audit_watch` already, and would wait for the others.
    connection.execute(_WAIT_FOR_LOCK)
    wrong = [each.fault for each in faults(connection) if each.fault.desk == desk]
    accepted = [{"fault": each.kind.value, "seq": each.seq, "what": each.what} for each in wrong]
    body = {"by": by, "reason": reason, "faults": accepted}
    if not chain.append(connection, [chain.entry(desk, AuditKind.FAULT_ACCEPTED, desk, body)]):
        return None
    last = "SELECT seq, hash FROM audit WHERE desk = :desk ORDER BY seq DESC LIMIT 1"
    row = connection.execute(text(last), {"desk": desk}).one()
    connection.execute(_ACCEPT, {"desk": desk, "seq": row.seq, "hash": row.hash})
    connection.execute(text("DELETE FROM audit_unproved WHERE desk = :desk"), {"desk": desk})
    return int(row.seq)
