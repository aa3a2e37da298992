"""Checks stretches of chains, each from the last row that was checked: hashes, links, and the tables against the bodies.

Chains with little to check share a statement: with a statement for each, thousands of idle desks would cost more than one that
trades. Everything that a stretch is compared with is read by the same statement, as of one moment, since desks go on writing.
Rows of the tables without any link cannot be found this way; `unproved` finds them.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from domain.audit import AuditFault, AuditKind, ChainHead, ChainWalk, FaultKind, Link, proves_instruction
from storage.audit.verifying import COMPARED_ROWS

ROWS_A_STRETCH = 1_000
# The most instructions under way that are tracked. If there are more, the oldest are left to `ais audit verify`.
MOST_UNSETTLED = 2_000
_LOWEST = -(2**63)
_LATCH = frozenset({AuditKind.LATCH_SET, AuditKind.LATCH_CLEARED})
_FROM = f"({COMPARED_ROWS} WHERE a.desk = due.desk AND a.seq >= due.start ORDER BY a.seq LIMIT :most)"
# Rows of instructions before the stretch whose newest row was still to come.
_UNSETTLED = f"({COMPARED_ROWS} WHERE a.desk = due.desk AND a.seq = ANY(due.unsettled) AND a.seq < due.start)"
_ROWS = """
WITH due AS MATERIALIZED (
    SELECT u.number, u.desk, u.start, CAST(u.unsettled AS bigint[]) AS unsettled,
        h.seq AS head_seq, h.hash AS head_hash, d.killed,
        EXISTS (SELECT FROM audit_waiting AS w WHERE w.desk = u.desk AND w.kind LIKE 'latch%') AS latch_waits
    FROM unnest(CAST(:desks AS text[]), CAST(:starts AS bigint[]), CAST(:unsettled AS text[])) WITH ORDINALITY
        AS u (desk, start, unsettled, number)
    LEFT JOIN audit_heads AS h ON h.desk = u.desk LEFT JOIN desks AS d ON d.desk = u.desk)
SELECT q.seq, q.at, q.kind, q.subject, q.body, q.previous, q.hash, q.state,
    q.state > 0 AND EXISTS (SELECT FROM audit_waiting AS w WHERE w.desk = due.desk AND w.subject = q.subject) AS waits,
    due.number, due.head_seq, due.head_hash, due.killed, due.latch_waits
FROM due CROSS JOIN LATERAL ({rows}) AS q (seq, at, kind, subject, body, previous, hash, state) ORDER BY due.number, q.seq
"""
_NEW = text(_ROWS.format(rows=_FROM))
_NEW_AND_UNSETTLED = text(_ROWS.format(rows=f"{_FROM} UNION ALL {_UNSETTLED}"))


class Reached(NamedTuple):
    """How far a chain is checked. `hash`: that of row `seq`, None if the row is taken as it is; `unsettled`: rows of instructions
    whose newest row is still to come; `latched`: what the last row about the latch said, None if there was none."""

    seq: int = 0
    hash: bytes | None = None
    unsettled: tuple[int, ...] = ()
    latched: bool | None = None


class CheckedStretch(NamedTuple):
    """The result of a check. If there is a fault, `reached` is where the stretch began."""

    reached: Reached
    rows: int
    at_end: bool
    fault: AuditFault | None


class DueStretch(NamedTuple):
    """A chain, and where to continue checking it."""

    desk: str
    begin: Reached


def check(connection: Connection, due: Sequence[DueStretch], most: int = ROWS_A_STRETCH) -> list[CheckedStretch]:
    """Checks the next rows of each chain, `most` of each. Each stretch includes the last checked row again, so it needs two rows
    to make progress."""
    values = {"desks": [each.desk for each in due], "starts": [each.begin.seq or _LOWEST for each in due]}
    unsettled = [each.begin.unsettled for each in due]
    statement = _NEW_AND_UNSETTLED if any(unsettled) else _NEW
    values |= {"unsettled": [as_array(rows) for rows in unsettled], "most": most}
    found = connection.execute(statement, values).all()
    rows = {number: list(group) for number, group in groupby(found, key=lambda row: row.number)}
    return [_checked(each, rows.get(number, []), most) for number, each in enumerate(due, 1)]


def as_array(rows: Iterable[int]) -> str:
    """A list of numbers as a PostgreSQL array literal: lists of different lengths cannot be an array of arrays."""
    return f"{{{','.join(map(str, rows))}}}"


def _checked(due: DueStretch, rows: Sequence[Row[Any]], most: int) -> CheckedStretch:
    reading = _StretchWalk(due.desk, due.begin)
    for row in rows:
        reading.take(row)
    at_end = reading.chain.count < most
    reading.end(rows[-1] if rows else None, at_end=at_end)
    fault = next(iter(reading.faults), None)
    return CheckedStretch(due.begin if fault else reading.reached(), reading.chain.count, at_end, fault)


class _StretchWalk:
    """Checks the rows of one stretch, one after the other."""

    def __init__(self, desk: str, begin: Reached) -> None:
        self.chain = ChainWalk(desk, max(1, begin.seq))
        self.faults: list[AuditFault] = []
        self._desk, self._begin = desk, begin
        self._last, self._latched = begin, begin.latched
        self._unsettled: dict[str, AuditFault] = {}

    def take(self, row: Row[Any]) -> None:
        link = Link._make((self._desk, *row[:7]))
        if 0 < link.seq < self._begin.seq:
            self._compare(link, row)
            return
        if link.seq == self._begin.seq and self._begin.hash not in (None, link.hash):
            self._fault(FaultKind.REWRITTEN, link.seq, "it is not the row that was checked before")
        self.faults += self.chain.take(link)
        self._last = Reached(link.seq, link.hash)
        if self.chain.trusted:
            self._follow_latch(link)
            self._compare(link, row)

    def _follow_latch(self, link: Link) -> None:
        if link.kind in _LATCH:
            self._latched = link.kind == AuditKind.LATCH_SET
        elif link.seq == 1 and link.kind != AuditKind.CHAIN_BEGUN:
            # Everything that the desk's row says about a kill is in the chain.
            self._latched = False

    def _compare(self, link: Link, row: Row[Any]) -> None:
        """Compares with the tables. A decision is written once; for an instruction, the newest row must match its table."""
        self._unsettled.pop(link.subject, None)
        if not row.state or row.waits:
            return
        kind = FaultKind.MISSING if row.state == 1 else FaultKind.CHANGED
        fault = AuditFault(kind, self._desk, link.seq, f"{link.kind} {link.subject}")
        if proves_instruction(link):
            self._unsettled[link.subject] = fault
        else:
            self.faults.append(fault)

    def end(self, row: Row[Any] | None, *, at_end: bool) -> None:
        """The faults that only the end of the chain, or of this stretch, shows."""
        if row is None:
            self._fault(
                FaultKind.CUT_OFF,
                max(1, self._begin.seq),
                "the last row that was checked is gone, and all rows after it",
            )
            return
        head = ChainHead(row.head_seq, bytes(row.head_hash)) if at_end and row.head_hash else None
        self.faults += self.chain.end(head)
        if not at_end:
            return
        if head is None:
            self._fault(FaultKind.CUT_OFF, self.chain.seq, "the chain's head is gone, so rows after it may be gone too")
        self.faults += self._unsettled.values()
        self._compare_latch(row)

    def _compare_latch(self, row: Row[Any]) -> None:
        if self._latched is None or row.latch_waits:
            return
        if self._latched and not row.killed:
            self._fault(FaultKind.CHANGED, None, "the desk's row does not say killed, and no restart cleared the kill")
        elif row.killed and not self._latched:
            self._fault(FaultKind.EXTRA, None, "the desk's row says killed, but the chain does not")

    def reached(self) -> Reached:
        """How far the chain is checked, if there is no fault."""
        open_rows = sorted(fault.seq for fault in self._unsettled.values() if fault.seq is not None)
        unsettled = tuple(open_rows[-MOST_UNSETTLED:])
        return Reached(self._last.seq, bytes(self._last.hash or b"") or None, unsettled, self._latched)

    def _fault(self, kind: FaultKind, seq: int | None, what: str) -> None:
        self.faults.append(AuditFault(kind, self._desk, seq, what))
