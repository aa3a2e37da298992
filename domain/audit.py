"""The audit chain: each row holds the hash of the one before it, so that whoever changes one has to change all that follow.

Pure: where rows come from, a database or an exported file, is not known here.
"""

import hashlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

FIRST = bytes(32)
"""What the first row of a chain has as its previous hash."""
NO_DESK = "-"
"""Whose chain has what belongs to no desk: the keys. No desk can have this name."""
# How far a row is looked for from its own place, and how much may be hashed for it: what is further away counts as edited.
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
"""A decision's row is the body of one of these."""
INSTRUCTIONS = frozenset({AuditKind.INSTRUCTION_PREPARED, AuditKind.INSTRUCTION_SETTLED, AuditKind.ORDER_FATE})
"""An instruction's row is the newest body of these."""
REBUILT_DECISION, REBUILT_INSTRUCTION = '{"decision":', '{"instruction":'
"""How the body of a row that was put back begins: the row itself comes first, then its source."""


class FaultKind(StrEnum):
    """What was done to a chain, or to a table that it proves."""

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
    """One row of the chain. `at` is the text that is hashed."""

    desk: str
    seq: int
    at: str
    kind: str
    subject: str
    body: str
    previous: bytes
    hash: bytes


def proves_instruction(link: Link) -> bool:
    """Whether the row says how an instruction's row is to be."""
    return link.kind in INSTRUCTIONS or (link.kind == AuditKind.REBUILT and link.body.startswith(REBUILT_INSTRUCTION))


class ChainHead(NamedTuple):
    """The last row of a chain, as something outside of the chain remembers it."""

    seq: int
    hash: bytes


def link_hash(link: Link) -> bytes:
    """SHA-256 over all the others, each with its length before it."""
    desk, seq, at, kind, subject, body, previous, _ = link
    number, last = str(seq), previous.hex()
    whole = (
        f"{_part(desk)}{len(number)}:{number}{len(at)}:{at}{_part(kind)}{len(subject)}:{subject}"
        f"{len(body)}:{body}{len(last)}:{last}"
    )
    if whole.isascii():
        # Nearly always: then characters are bytes, and one text is made instead of seven.
        return hashlib.sha256(whole.encode()).digest()
    parts = (desk, number, at, kind, subject, body, last)
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in map(str.encode, parts))).digest()


@lru_cache(maxsize=64)
def _part(value: str) -> str:
    """Of a text that nearly every row has, made once."""
    return f"{len(value)}:{value}"


class _PlacedLink(NamedTuple):
    """A link, and by how much its number differs from the one that its hash is of; None where no number near gives that hash."""

    link: Link
    moved: int | None


class ChainWalk:
    """Goes along one desk's chain, in the order of `seq`, and tells what does not fit.

    It holds one row back: what happened to a row is often told by the next one alone. `start` is the number of the first row;
    where that is not 1, the hash that the row names is believed.
    """

    def __init__(self, desk: str, start: int = 1) -> None:
        self.desk = desk
        self.count = 0
        # The row before the one that is held back: its number, and its hash where rows may be compared with it.
        self.seq = start - 1
        self.hash: bytes | None = FIRST if start == 1 else None
        self._held: Link | None = None
        self._held_moved: int | None = None
        # By how much all rows from here on are renumbered.
        self._shift = 0
        self._bytes_left = MOST_SEARCHED_BYTES

    def take(self, link: Link) -> Iterable[AuditFault]:
        """The faults that this row shows, of itself or of the row before it."""
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
        """What the end of the chain shows, and its head besides."""
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
        """Whether the row that was taken last has the hash of what it says, so that a table may be compared with it."""
        return self._held_moved is not None

    def _moved(self, link: Link) -> int | None:
        """How far the row is from its own place, beyond the shift that is known. Not without an end: each search costs many
        hashes, and a body may be long.
        """
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
        """By how the row and the next one differ from their own places."""
        next_moved = following.moved if following else row.moved
        if not row.moved:
            if not next_moved or next_moved > 0:
                return None
            # The next one stood here before: all from it on are pushed back by this one.
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
