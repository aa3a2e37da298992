"""Chains kills that were latched while the chain could not be written.

The latch in the desk's row never waits for the chain, so its entry may be missing: neither chained nor waiting. Such a kill is
chained later, from what the tables say about it, and `found_at` says when. The chain's lock is held from before the tables are
read until the commit. So whatever a restart or another kill chains meanwhile comes after it, and neither of them waits.
"""

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Connection, Row, text

from domain.audit import AuditKind
from storage.audit.chain import AuditEntry, append, entry
from storage.clock import server_time

# The same lock as in `audit_append` (migration 0016): taken twice in one transaction, it is held already.
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('audit:' || :desk, 0))")
# Kills by their subject in the chain. A cleared kill waits while another one is in force: the last row about the latch must show
# its present state. A time that Python does not have is left out.
_KILLS = """
SELECT k.subject, k.number AS kill_number, k.kill_id, k.cleared_by, k.held, d.reason, d.actor,
    CASE WHEN d.killed_at BETWEEN '0001-01-02' AND '9000-01-01' THEN d.killed_at END AS killed_at FROM desks AS d
JOIN (SELECT desk, kill_id AS subject, kill_number AS number, kill_id, cleared_by, false AS held FROM kills
    WHERE (desk, kill_id) NOT IN (SELECT desk, kill_id FROM desks WHERE killed AND kill_id IS NOT NULL)
    UNION ALL SELECT desk, coalesce(kill_id, 'kill ' || kill_number), kill_number, kill_id, NULL, true FROM desks WHERE killed
) AS k ON k.desk = d.desk
WHERE d.desk = :desk AND k.subject <> ALL(CAST(:known AS text[])) AND (k.cleared_by IS NULL OR NOT d.killed)
ORDER BY k.number, k.subject
"""
_CHAINED = """
SELECT subject FROM audit WHERE desk = :desk AND kind = 'latch_set' AND subject = ANY(CAST(:subjects AS text[]))
UNION SELECT subject FROM audit_waiting WHERE desk = :desk AND kind = 'latch_set'
"""
# Kills from before the chain are counted with the log, but not proved: they need no row. Somebody may have edited the first row:
# if it says no time, no kill is older.
_UNTIL = """
CASE WHEN length(a.body) < 1000 AND pg_input_is_valid(a.body, 'jsonb')
    AND pg_input_is_valid(a.body::jsonb ->> 'until', 'timestamptz') THEN (a.body::jsonb ->> 'until')::timestamptz END
"""
_BEFORE = f"""
SELECT k.subject FROM unnest(CAST(:subjects AS text[])) AS k (subject)
JOIN audit AS a ON a.desk = :desk AND a.seq = 1 AND a.kind = 'chain_begun'
LEFT JOIN decisions AS d ON d.decision_id = k.subject
LEFT JOIN desks AS held ON held.desk = :desk AND held.killed AND k.subject IN (held.kill_id, 'kill ' || held.kill_number)
WHERE coalesce(held.killed_at, d.timestamp, '-infinity') < {_UNTIL}
"""  # noqa: S608 - our own condition


def chain_late_kills(connection: Connection, desk: str, known: Collection[str]) -> set[str]:
    """Chains the kills of a desk that are missing from the chain, and returns those that need no further check.

    `known`: the kills that an earlier call returned. For any other kill, the whole chain is read.
    """
    if not connection.scalar(_LOCK, {"desk": desk}):
        return set()
    kills = connection.execute(text(_KILLS), {"desk": desk, "known": list(known)}).all()
    if not kills:
        return set()
    values = {"desk": desk, "subjects": [kill.subject for kill in kills]}
    chained = {*connection.scalars(text(_CHAINED), values)} | {*connection.scalars(text(_BEFORE), values)}
    late = [kill for kill in kills if kill.subject not in chained]
    if late:
        append(connection, [each for kill in late for each in _entries(connection, desk, kill)])
    return {kill.subject for kill in kills}


def _entries(connection: Connection, desk: str, kill: Row[Any]) -> Iterator[AuditEntry]:
    """The reason and the actor are known only for the kill in force."""
    names = ("kill_number", "kill_id", *(("reason", "actor", "killed_at") if kill.held else ()))
    body = {name: getattr(kill, name) for name in names} | {"found_at": server_time(connection)}
    yield entry(desk, AuditKind.LATCH_SET, kill.subject, body)
    if kill.cleared_by:
        yield entry(desk, AuditKind.LATCH_CLEARED, kill.cleared_by, body | {"cleared_by": kill.cleared_by})
