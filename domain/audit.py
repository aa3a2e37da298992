"""The audit chain: each row holds the hash of the row before it, so whoever changes one row must change all that follow.

Pure: this file does not know whether rows come from a database or from an exported file.
"""

import hashlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

FIRST = bytes(32)
"""The previous hash of a chain's first row."""
NO_DESK = "-"
"""The chain for what belongs to no desk: the keys. No desk can have this name."""
# How far from its own place a row is searched for, and how many bytes may be hashed for all searches. A row that is farther
# away counts as edited.
FAR = 64
MOST_SEARCHED_BYTES = 64_000_000
_OVERHEAD_BYTES = 500


class AuditKind(StrEnum):
    """What a row of the chain proves."""

    CHAIN_BEGUN = "chain_begun"
    DECISION = "decision"
    LIMITS_CHANGED = "limits_changed"
    INSTRUCTION_PREPARED = "instruction_prepared"
    INSTRUCTION_SETTLED = "instruction_settled"
    ORDER_FATE = "order_fate"
    LATCH_SET = "latch_set"
    LATCH_CLEARED = "latch_cleared"
    KEY_MADE = "key_made"
    KEY_CHANGED = "key_changed"
    KEY_REVOKED = "key_revoked"
    EXPORT = "export"
    FAULT_ACCEPTED = "fault_accepted"
    REBUILT = "rebuilt"


DECISIONS = frozenset({AuditKind.DECISION, AuditKind.LIMITS_CHANGED})
"""Each decision's row is the body of a chain row of one of these kinds."""
INSTRUCTIONS = frozenset({AuditKind.INSTRUCTION_PREPARED, AuditKind.INSTRUCTION_SETTLED, AuditKind.ORDER_FATE})
"""Each instruction's row is the newest body of a chain row of one of these kinds."""
REBUILT_DECISION, REBUILT_INSTRUCTION = '{"decision":', '{"instruction":'
"""How the body begins if a row was put back into its table: first the row itself, then its source."""


class FaultKind(StrEnum):
    """What somebody did to a chain, or to a table that it proves."""

    EDITED = "edited"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    CUT_OFF = "cut off at the end"
    REWRITTEN = "rewritten"
    MISSING = "missing from its table"
    EXTRA = "in its table, but not in the chain"
    CHANGED = "changed in its table"


class AuditFault(NamedTuple):
    """One row that is not as it was written. `seq` is None for a row that no link names."""

    kind: FaultKind
    desk: str
    seq: int | None
    what: str


class Link(NamedTuple):
    """One row of the chain. `at` is the text that was hashed."""

    desk: str
    seq: int
    at: str
    kind: str
    subject: str
    body: str
    previous: bytes
    hash: bytes


def proves_instruction(link: Link) -> bool:
    """Whether the link proves what an instruction's row must be."""
    return link.kind in INSTRUCTIONS or (link.kind == AuditKind.REBUILT and link.body.startswith(REBUILT_INSTRUCTION))


class ChainHead(NamedTuple):
    """The last row of a chain, as recorded outside the chain."""

    seq: int
    hash: bytes


def link_hash(link: Link) -> bytes:
    """SHA-256 over all other fields, each preceded by its length."""
    desk, seq, at, kind, subject, body, previous, _ = link
    number, last = str(seq), previous.hex()
    whole = (
        f"{_part(desk)}{len(number)}:{number}{len(at)}:{at}{_part(kind)}{len(subject)}:{subject}"
        f"{len(body)}:{body}{len(last)}:{last}"
    )
    if whole.isascii():
        # Nearly every row: characters are then bytes, and one string is built instead of seven.
        return hashlib.sha256(whole.encode()).digest()
    parts = (desk, number, at, kind, subject, body, last)
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in map(str.encode, parts))).digest()


@lru_cache(maxsize=64)
def _part(value: str) -> str:
    """Cached, since nearly every row has the same text here."""
    return f"{len(value)}:{value}"


class _PlacedLink(NamedTuple):
    """A link, and how far its number is from the one that its hash was made with; None if no nearby number gives that hash."""

    link: Link
    moved: int | None


class ChainWalk:
    """Walks along one desk's chain in the order of `seq`, and reports what does not fit.

    It holds one row back, because often only the next row shows what happened to a row. `start` is the number of the first
    row. If that is not 1, the walk trusts the previous hash that this row names.
    """

    def __init__(self, desk: str, start: int = 1) -> None:
        self.desk = desk
        self.count = 0
        # The row before the one held back: its number, and its hash if rows may be compared with it.
        self.seq = start - 1
        self.hash: bytes | None = FIRST if start == 1 else None
        self._held: Link | None = None
        self._held_moved: int | None = None
        # By how much all rows from here on were renumbered.
        self._shift = 0
        self._bytes_left = MOST_SEARCHED_BYTES

    def take(self, link: Link) -> Iterable[AuditFault]:
        """The faults that this row shows, in itself or in the row before it."""
        moved = 0 if self._shift == 0 and link_hash(link) == link.hash else self._moved(link)
        before, before_moved = self._held, self._held_moved
        self._held, self._held_moved = link, moved
        self.count += 1
        if before is None:
            return ()
        if moved == 0 and before_moved == 0 and before.previous == self.hash and before.seq == self.seq + 1:
            self.seq, self.hash = before.seq, before.hash
            return ()
        return self._judge(_PlacedLink(before, before_moved), _PlacedLink(link, moved))

    def end(self, head: ChainHead | None) -> Iterator[AuditFault]:
        """The faults that the end of the chain shows, on its own and compared with `head`."""
        if self._held:
            yield from self._judge(_PlacedLink(self._held, self._held_moved), None)
        if head is None:
            return
        if head.seq > self.seq:
            yield self._fault(FaultKind.CUT_OFF, self.seq + 1, _missing(self.seq + 1, head.seq))
        elif head.seq < self.seq:
            yield self._fault(FaultKind.INSERTED, head.seq + 1, f"row {head.seq} is the last that AIS appended")
        elif self.hash and head.hash != self.hash:
            yield self._fault(FaultKind.EDITED, self.seq, "its hash is not the one that AIS appended")

    @property
    def trusted(self) -> bool:
        """Whether the last row matches its own hash, so that a table may be compared with it."""
        return self._held_moved is not None

    def _moved(self, link: Link) -> int | None:
        """How far the row is from its own place, beyond the known shift. Bounded: each search costs many hashes, and a body
        may be long."""
        if link_hash(link._replace(seq=link.seq + self._shift)) == link.hash:
            return 0
        if self._bytes_left <= 0:
            return None
        self._bytes_left -= 2 * FAR * (len(link.body) + _OVERHEAD_BYTES)
        for distance in range(1, FAR + 1):
            for moved in (distance, -distance):
                if link_hash(link._replace(seq=link.seq + self._shift + moved)) == link.hash:
                    return moved
        return None

    def _judge(self, row: _PlacedLink, following: _PlacedLink | None) -> Iterator[AuditFault]:
        link, expected, known = row.link, self.seq + 1, self.hash
        self.seq, self.hash = max(self.seq, link.seq), link.hash
        if link.seq > expected:
            yield self._fault(FaultKind.REMOVED, expected, _missing(expected, link.seq - 1))
            known = None
        elif link.seq < expected:
            yield self._fault(FaultKind.INSERTED, link.seq, f"a second row {link.seq}")
        place = self._misplaced(row, following)
        if place:
            self.hash = None
            yield self._fault(place, link.seq, f"{link.kind} {link.subject}")
        elif row.moved is None:
            yield self._fault(FaultKind.EDITED, link.seq, f"{link.kind} {link.subject}")
        elif known and link.previous != known:
            yield self._fault(FaultKind.EDITED, max(1, expected - 1), f"row {link.seq} was chained to another one")

    def _misplaced(self, row: _PlacedLink, following: _PlacedLink | None) -> FaultKind | None:
        """What happened, judging by how far this row and the next are from their own places."""
        next_moved = following.moved if following else row.moved
        if not row.moved:
            if not next_moved or next_moved > 0:
                return None
            # The next row used to stand here: this row has pushed back all rows from there on.
            self._shift_by(next_moved, following)
            return FaultKind.INSERTED
        if next_moved != row.moved:
            return FaultKind.REORDERED
        self._shift_by(row.moved, following)
        return FaultKind.REMOVED if row.moved > 0 else FaultKind.INSERTED

    def _shift_by(self, moved: int, following: _PlacedLink | None) -> None:
        self._shift += moved
        if following:
            self._held_moved = 0

    def _fault(self, kind: FaultKind, seq: int, what: str) -> AuditFault:
        return AuditFault(kind, self.desk, seq, what)


def _missing(first: int, last: int) -> str:
    return f"row {first} is missing" if first == last else f"rows {first} to {last} are missing"
