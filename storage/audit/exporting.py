"""Exports the chain: the rows of one snapshot, a part without gaps of each desk's chain, and the row that records the export.

It works row by row, so that memory does not grow with the log.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from domain.audit import AuditKind, Link
from storage.audit import chain
from storage.audit.verifying import LINK_AT, fetched

# Times need not increase with `seq`: an entry that had to wait is older than the row before it. The part has no gaps even so.
_FIRST = "SELECT min(seq) FROM audit WHERE desk = :desk AND at >= :since"
_LAST = "SELECT max(seq) FROM audit WHERE desk = :desk AND at < :until"
_ROWS = f"""
SELECT desk, seq, {LINK_AT}, kind, subject, body, previous, hash FROM audit AS a
WHERE desk = %(desk)s AND seq BETWEEN %(first)s AND %(last)s ORDER BY seq
"""  # noqa: S608 - our own text of a moment
# None from the future: if a clock was once ahead, every export until that day would have the one that was signed then.
_CHECKPOINT = """
SELECT text FROM audit_checkpoints
WHERE at <= clock_timestamp() AND at < coalesce(CAST(:until AS timestamptz), 'infinity') ORDER BY at DESC LIMIT 1
"""
_HIGHEST = 2**63 - 1


class ExportWindow(NamedTuple):
    """What to export: the desk, the first time, and the time to stop before. None means no bound."""

    desk: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def rows_of(connection: Connection, desk: str, window: ExportWindow) -> Iterator[Link]:
    """From the first row that is not older than the window to the last one that is not newer, without gaps."""
    first, last = (
        _bound(connection, _FIRST, desk, since=window.since),
        _bound(connection, _LAST, desk, until=window.until),
    )
    if first is None or last is None:
        return
    for rows in fetched(connection, _ROWS, {"desk": desk, "first": first, "last": last}):
        yield from map(Link._make, rows)


def newest_checkpoint(connection: Connection, until: datetime | None) -> str | None:
    """The newest checkpoint from before `until`, as signed: the rows that a later one signs are not in the export."""
    found = connection.scalar(text(_CHECKPOINT), {"until": until})
    return None if found is None else str(found)


def record(connection: Connection, subject: str, bodies: Mapping[str, Mapping[str, Any]]) -> None:
    """Appends a row to the chain of each of these desks, which records that a copy was made."""
    chain.append(connection, [chain.entry(desk, AuditKind.EXPORT, subject, body) for desk, body in bodies.items()])


def _bound(connection: Connection, query: str, desk: str, **moment: datetime | None) -> int | None:
    (given,) = moment.values()
    if given is None:
        return 0 if query is _FIRST else _HIGHEST
    found = connection.scalar(text(query), {"desk": desk, **moment})
    return None if found is None else int(found)
