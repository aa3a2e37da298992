"""Finds rows of the log's tables that have no link in any chain: somebody inserted them without AIS.

No chain mentions them. So this goes through the tables too, in the order of their keys, lap after lap, and looks up the link of
each row in an index. It goes through whole tables, not desk by desk, since a row may name a desk that never existed. Findings are
kept in `audit_unproved`, one row per desk, and checked again until they are resolved.

Rows from before their desk's chain have no link. Finding an inserted one among them means counting the whole log, which only
`ais audit verify` does.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, text

from storage.audit.verifying import OF_DECISIONS, OF_INSTRUCTIONS

# Enough for a report; further ones are found once these are gone.
MOST_FOUND = 200
# While so many entries wait to be chained, a row without a link proves nothing.
_MOST_WAITING = 10_000


class _ProvenTable(NamedTuple):
    name: str
    id: str
    moment: str
    proving: str


_TABLES = (
    _ProvenTable("decisions", "decision_id", "timestamp", OF_DECISIONS),
    _ProvenTable("instructions", "instruction_id", "prepared_at", OF_INSTRUCTIONS),
)
# Not a join, which might be one with the whole chain. A row from before a person accepted a fault is not reported again.
_UNPROVED = """
(SELECT true FROM audit AS a WHERE a.subject = t.{id} AND a.desk = t.desk AND a.seq > 0 AND {proving} LIMIT 1) IS NULL
AND (t.desk, t.{id}) NOT IN (SELECT a.desk, a.subject FROM audit_waiting AS a WHERE {proving})
AND t.{moment} >= coalesce((SELECT coalesce(
    (SELECT at FROM audit WHERE desk = t.desk AND seq > 1 ORDER BY seq LIMIT 1), 'infinity')
    FROM audit AS b WHERE b.desk = t.desk AND b.seq = 1 AND b.kind = 'chain_begun'), '-infinity')
AND (SELECT true FROM audit AS a
    WHERE a.subject = t.desk AND a.desk = t.desk AND a.kind = 'fault_accepted' AND a.at > t.{moment} LIMIT 1) IS NULL
"""
_LOOK = """
WITH looked AS MATERIALIZED (
    SELECT {id}, desk, {moment} FROM {name} WHERE {id} > :after OR :after = ''
    ORDER BY {id} LIMIT :most),
found AS (
    INSERT INTO audit_unproved (desk, source, id, at, times)
    SELECT DISTINCT ON (t.desk) t.desk, '{name}', t.{id}, clock_timestamp(), 1 FROM looked AS t WHERE {unproved}
    ORDER BY t.desk, t.{id} LIMIT :room ON CONFLICT DO NOTHING)
SELECT count(*), max({id}) FROM looked
"""
_OVER = """
DELETE FROM audit_unproved AS u WHERE u.source = '{name}'
AND NOT EXISTS (SELECT FROM {name} AS t WHERE t.{id} = u.id AND t.desk = u.desk AND {unproved})
"""
_TOO_MANY_WAIT = text("SELECT EXISTS (SELECT FROM audit_waiting OFFSET :most)")
_AGAIN = text("UPDATE audit_unproved SET times = least(times, 1000000) + 1 RETURNING desk, times")
_KNOW = text("INSERT INTO audit_tables (source) SELECT unnest(CAST(:names AS text[])) ON CONFLICT DO NOTHING")
_DUE = text("""
SELECT source, after FROM audit_tables
WHERE after <> '' OR ended_at IS NULL
    OR ended_at NOT BETWEEN clock_timestamp() - make_interval(secs => :seconds) AND clock_timestamp()
ORDER BY looked_at NULLS FIRST, source
""")
_NOTE = text("""
UPDATE audit_tables SET after = :after, looked_at = clock_timestamp(),
    ended_at = CASE WHEN :after = '' THEN clock_timestamp() ELSE ended_at END
WHERE source = :source
""")


def _query_for(query: str, table: _ProvenTable) -> str:
    unproved = _UNPROVED.format_map(table._asdict())
    return query.format_map(table._asdict() | {"unproved": unproved})


_LOOKS = {table.name: text(_query_for(_LOOK, table)) for table in _TABLES}
_OVERS = [text(_query_for(_OVER, table)) for table in _TABLES]


def found_so_far(connection: Connection) -> dict[str, int]:
    """How often each desk's row has been found so far. A row that is gone, or has its link by now, is dropped."""
    if not connection.scalar(text("SELECT EXISTS (SELECT FROM audit_unproved)")):
        return {}
    for over in _OVERS:
        connection.execute(over)
    return {row.desk: row.times for row in connection.execute(_AGAIN)}


def continue_laps(connection: Connection, seconds: float, between_laps: float, most: int) -> Iterator[int]:
    """Continues the laps for so many seconds, at least for one statement, and yields the number of rows that each statement
    checked."""
    until = time.monotonic() + seconds
    if connection.scalar(_TOO_MANY_WAIT, {"most": _MOST_WAITING}):
        return
    connection.execute(_KNOW, {"names": [table.name for table in _TABLES]})
    for source, after in connection.execute(_DUE, {"seconds": between_laps}).all():
        for rows in _check_table(connection, source, after, most):
            yield rows
            if time.monotonic() > until:
                return


def _check_table(connection: Connection, source: str, after: str, most: int) -> Iterator[int]:
    """Continues to the end of a table."""
    rows = most
    while rows == most:
        room = MOST_FOUND - int(connection.scalar(text("SELECT count(*) FROM audit_unproved")) or 0)
        values = {"after": after, "most": most, "room": max(0, room)}
        rows, last = connection.execute(_LOOKS[source], values).one()
        after = last if rows == most else ""
        connection.execute(_NOTE, {"source": source, "after": after})
        yield rows
