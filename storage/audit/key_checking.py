"""Compares the table of keys with the chain `-`: a key that somebody inserts, changes or deletes by hand opens the API, or locks
somebody out.

There are few keys, however long the log, so the newest row of each is kept in memory.
"""

import json
from collections.abc import Iterator

from sqlalchemy import Connection, text

from domain.audit import NO_DESK, AuditFault, AuditKind, FaultKind, Link
from storage.keys import proven_body, read_all

KEY_KINDS = frozenset({AuditKind.KEY_MADE, AuditKind.KEY_CHANGED, AuditKind.KEY_REVOKED})
_WAITING = text("SELECT subject, body FROM audit_waiting WHERE desk = :desk AND kind LIKE 'key%' ORDER BY number")


class KeyComparison:
    """The newest row of each key. `whole`: whether all rows were read, so that a key without a row must have been inserted by
    hand."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._newest: dict[str, tuple[int | None, str]] = {}

    def take(self, link: Link) -> None:
        """Takes a row whose hash matches its content."""
        if link.kind in KEY_KINDS:
            self._newest[link.subject] = (link.seq, link.body)

    def end(self, connection: Connection) -> Iterator[AuditFault]:
        """The faults of the table, in the order of the chain."""
        for subject, body in connection.execute(_WAITING, {"desk": NO_DESK}):
            self._newest[subject] = (None, body)
        stored = {key.key_id: key for key in read_all(connection)}
        for key_id, (seq, body) in self._newest.items():
            if (key := stored.pop(key_id, None)) is None:
                yield AuditFault(FaultKind.MISSING, NO_DESK, seq, f"key {key_id}")
            elif differing := _differing(body, proven_body(key)):
                what = f"key {key_id} ({key.name}): {', '.join(differing)}"
                yield AuditFault(FaultKind.CHANGED, NO_DESK, seq, what)
        for key in stored.values() if self._whole else ():
            yield AuditFault(FaultKind.EXTRA, NO_DESK, None, f"key {key.key_id} ({key.name}), role {key.role}")


def _differing(chained: str, held: str) -> list[str]:
    """The names of the fields that differ."""
    if chained == held:
        return []
    try:
        mine = dict(json.loads(chained))
    except (ValueError, TypeError, RecursionError):
        # Its hash is right, but AIS never wrote it.
        return ["everything"]
    theirs = json.loads(held)
    if "digest_sha256" not in mine:
        # Written by an older version, without this field.
        del theirs["digest_sha256"]
    return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
