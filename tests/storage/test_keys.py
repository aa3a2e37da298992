"""Keys in the database, on a real PostgreSQL."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, text

from domain.audit import NO_DESK, FaultKind
from domain.keys import AccessKey, Role
from storage import keys
from storage.audit import verifying
from storage.audit.verifying import Verification
from storage.keys import NameTaken, NewKey, NoSuchKey


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as found:
        yield found
        found.rollback()


def new(lifetime: timedelta | None = None) -> NewKey:
    return NewKey(os.urandom(5).hex(), os.urandom(32), "cli:test", lifetime)


def made(connection: Connection, name: str = "alice", lifetime: timedelta | None = None) -> AccessKey:
    return keys.create(connection, new(lifetime), name, Role.OPERATOR, ("main", "second"))


def test_a_key_comes_back_as_it_was_made(connection: Connection) -> None:
    key = made(connection, lifetime=timedelta(days=90))
    assert keys.read_all(connection) == [key]
    assert key.expires_at == key.created_at + timedelta(days=90)


def test_a_name_is_one_keys_for_as_long_as_it_works(connection: Connection) -> None:
    made(connection)
    with pytest.raises(NameTaken, match="ais keys rotate alice"):
        made(connection)
    keys.revoke(connection, "alice", "cli:test")
    made(connection)
    assert [key.revoked_at is None for key in keys.read_all(connection)] == [False, True]


def test_a_key_is_revoked_by_its_name_or_its_id_and_once(connection: Connection) -> None:
    for wanted in ("alice", made(connection, "bob").key_id):
        made(connection) if wanted == "alice" else None
        (ended,) = keys.revoke(connection, wanted, "cli:me")
        assert (ended.revoked_by, ended.revoked_at is None) == ("cli:me", False)
        with pytest.raises(NoSuchKey):
            keys.revoke(connection, wanted, "cli:me")


def test_a_rotation_keeps_what_the_key_may_do_and_how_long_and_ends_the_old_one(connection: Connection) -> None:
    old = made(connection, lifetime=timedelta(days=30))
    after = keys.rotate(connection, "alice", new(), timedelta())
    assert (after.name, after.role, after.desks) == (old.name, old.role, old.desks)
    assert after.expires_at == after.created_at + timedelta(days=30)
    assert [key.revoked_at is None for key in keys.read_all(connection)] == [False, True]


def test_a_grace_lets_the_old_key_work_on_and_prolongs_nothing(connection: Connection) -> None:
    made(connection)
    second = keys.rotate(connection, "alice", new(timedelta(hours=1)), timedelta(hours=2))
    keys.rotate(connection, "alice", new(), timedelta(hours=2))
    first, again, last = keys.read_all(connection)
    assert first.expires_at is not None
    assert first.expires_at - first.created_at >= timedelta(hours=2)
    assert again.expires_at == second.expires_at
    assert (first.revoked_at, again.revoked_at, last.expires_at) == (None, None, last.created_at + timedelta(hours=1))


def test_a_key_that_somebody_prolonged_for_ever_by_hand_locks_nobody_out_and_can_be_revoked(
    connection: Connection,
) -> None:
    """Found to be false: no key could be read any more, so a new API process knew none, and nothing could be revoked."""
    key, other = made(connection, lifetime=timedelta(days=1)), made(connection, "bob", timedelta(days=1))
    connection.execute(text("UPDATE keys SET expires_at = 'infinity'"))
    read = keys.read_all(connection)
    assert all(each.holds(key.created_at + timedelta(days=9_999)) for each in read)
    assert keys.rotate(connection, "bob", new(), timedelta(hours=1)).key_id != other.key_id
    (ended,) = keys.revoke(connection, "alice", "cli:test")
    assert ended.revoked_at is not None


def test_the_state_tells_each_change_but_a_use(connection: Connection) -> None:
    states = [keys.read_state(connection)]
    key = made(connection)
    states.append(keys.read_state(connection))
    keys.note_uses(connection, {key.key_id: datetime(2026, 3, 12, 14, 30, tzinfo=UTC)})
    assert keys.read_state(connection) == states[-1]
    keys.revoke(connection, "alice", "cli:test")
    states.append(keys.read_state(connection))
    assert len(set(states)) == 3


def test_uses_only_go_forward_and_unknown_keys_are_no_failure(connection: Connection) -> None:
    one, two = made(connection, "one"), made(connection, "two")
    early, late = (datetime(2026, 3, 12, 14, minute, tzinfo=UTC) for minute in (30, 31))
    keys.note_uses(connection, {one.key_id: late, two.key_id: early, "gone": late})
    keys.note_uses(connection, {one.key_id: early, two.key_id: late})
    assert [key.last_used_at for key in keys.read_all(connection)] == [late, late]


def test_an_end_comes_back_to_a_database_that_has_lost_it_or_the_whole_key(connection: Connection) -> None:
    key = made(connection)
    (ended,) = keys.revoke(connection, "alice", "cli:test")
    connection.execute(text("UPDATE keys SET revoked_at = NULL, revoked_by = NULL"))
    keys.keep_ends(connection, [ended])
    assert keys.read_all(connection) == [ended]
    connection.execute(text("DELETE FROM keys"))
    keys.keep_ends(connection, [ended, ended])
    assert keys.read_all(connection) == [ended]
    # And nothing takes it back.
    keys.keep_ends(connection, [key])
    assert keys.read_all(connection) == [ended]


# --- the audit chain -------------------------------------------------------------------------------------------------------


def chained(connection: Connection) -> list[tuple[str, str]]:
    """What the chain of no desk says: kind, and whose name stands in the body."""
    rows = connection.execute(text("SELECT kind, body FROM audit WHERE desk = '-' ORDER BY seq")).all()
    return [(row.kind, json.loads(row.body)["key_id"]) for row in rows]


def test_each_key_that_is_made_changed_and_revoked_has_its_row(connection: Connection) -> None:
    first = made(connection)
    second = keys.rotate(connection, "alice", new(), timedelta(hours=2))
    third = keys.rotate(connection, "alice", new(), timedelta())
    keys.revoke(connection, "alice", "cli:test")
    assert chained(connection) == [
        ("key_made", first.key_id),
        ("key_changed", first.key_id),
        ("key_made", second.key_id),
        ("key_revoked", first.key_id),
        ("key_revoked", second.key_id),
        ("key_made", third.key_id),
        ("key_revoked", third.key_id),
    ]


def test_the_chain_has_neither_a_secret_nor_its_digest(connection: Connection) -> None:
    key = made(connection)
    body = connection.scalar(text("SELECT body FROM audit WHERE subject = :id"), {"id": key.key_id})
    told = json.loads(body or "{}")
    assert {"key_id", "name", "role", "desks", "created_at", "created_by", "digest_sha256"} == told.keys()
    assert key.digest.hex() not in (body or "")


def test_an_end_that_is_written_back_has_a_row_once(connection: Connection) -> None:
    """By every API process that remembers it."""
    key = made(connection)
    lost = key._replace(key_id="nowhere", revoked_at=key.created_at, revoked_by="cli:me")
    ended = [key._replace(expires_at=key.created_at + timedelta(hours=1)), lost]
    for _ in range(3):
        keys.keep_ends(connection, ended)
    assert chained(connection)[1:] == [("key_changed", key.key_id), ("key_revoked", "nowhere")]


def test_a_chain_that_is_gone_keeps_no_stolen_key_alive(connection: Connection) -> None:
    made(connection)
    connection.execute(text("DROP FUNCTION audit_append"))
    keys.revoke(connection, "alice", "cli:test")
    assert [found.revoked_at is None for found in keys.read_all(connection)] == [False]


def test_the_chain_of_keys_is_verified_like_any_other(connection: Connection) -> None:
    made(connection)
    keys.revoke(connection, "alice", "cli:test")
    found = Verification()
    assert NO_DESK in verifying.desks_of(connection)
    verifying.verify_desk(connection, NO_DESK, None, found, lambda rows: None)
    assert (found.faults, found.rows) == ([], 2)


FORGED = """
INSERT INTO keys (key_id, digest, name, role, created_at, created_by) VALUES ('forged', '\\x00', 'eve', 'admin', now(), 'cli:me')
"""


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        ("UPDATE keys SET role = 'admin' WHERE name = 'bob'", (FaultKind.CHANGED, 3, "(bob): role")),
        ("UPDATE keys SET desks = NULL WHERE name = 'bob'", (FaultKind.CHANGED, 3, "(bob): desks")),
        ("UPDATE keys SET expires_at = NULL WHERE name = 'bob'", (FaultKind.CHANGED, 3, "(bob): expires_at")),
        ("UPDATE keys SET digest = 'x' WHERE name = 'bob'", (FaultKind.CHANGED, 3, "(bob): digest_sha256")),
        ("UPDATE keys SET revoked_at = NULL WHERE name = 'alice'", (FaultKind.CHANGED, 2, "(alice): revoked_at")),
        ("DELETE FROM keys WHERE name = 'bob'", (FaultKind.MISSING, 3, "")),
        (FORGED, (FaultKind.EXTRA, None, "key forged (eve), role admin")),
        ("UPDATE keys SET last_used_at = now()", None),
    ],
)
def test_a_key_that_was_tampered_with_is_named(connection: Connection, tamper: str, expected: Any) -> None:
    made(connection)
    keys.revoke(connection, "alice", "cli:test")
    made(connection, "bob", timedelta(days=9))
    connection.execute(text(tamper))
    found = Verification()
    verifying.verify_desk(connection, NO_DESK, None, found, lambda rows: None)
    if expected is None:
        assert found.faults == []
        return
    ((fault, times),) = found.faults
    assert (fault.kind, fault.seq, times) == (*expected[:2], 1)
    assert fault.what.endswith(expected[2])


def test_keys_without_a_chain_are_found(connection: Connection) -> None:
    made(connection)
    connection.execute(text("DELETE FROM audit"))
    connection.execute(text("DELETE FROM audit_heads"))
    found = Verification()
    assert verifying.desks_of(connection) == [NO_DESK]
    verifying.verify_desk(connection, NO_DESK, None, found, lambda rows: None)
    assert [each.first.kind for each in found.faults] == [FaultKind.EXTRA]
