"""Keys of the API in the database. Rows are never deleted, and nothing here takes an end back.

The database hears the digest of a secret, never the secret; the audit chain hears a hash of the digest, which opens nothing. All
keys have one chain, also those of some desks only: that of no desk (`NO_DESK`).
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.sql.dml import ReturningInsert

from domain.audit import NO_DESK, AuditKind
from domain.keys import AccessKey, Role
from storage.audit import chain
from storage.audit.chain import AuditEntry
from storage.cleaning import clean
from storage.clock import server_time
from storage.installation import read_id
from storage.tables import Moment, keys

# Whoever makes, rotates or revokes keys does so alone: a name is one key's.
_WRITERS_LOCK = 0x4149_6B65
_MOMENTS = ARRAY(Moment)

# All that a check of a key depends on, as one short text: comparing it costs the reader nothing, however many keys there are.
_STATE = text(
    """SELECT encode(sha256(convert_to(coalesce(string_agg(
           concat_ws('|', key_id, encode(digest, 'hex'), name, role, array_to_string(desks, ','), expires_at, '-', revoked_at),
           E'\\n' ORDER BY key_id), ''), 'UTF8')), 'hex') FROM keys"""
)


class NameTaken(Exception):
    """There is a key of this name that still works."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is a key {name!r} already, and actions in the log are told by that name: take another name, or replace "
            f"it with `ais keys rotate {name}`"
        )


class NoSuchKey(Exception):
    """No key of this name or id works."""

    def __init__(self, wanted: str) -> None:
        super().__init__(f"no key {wanted!r} works (never made, expired or revoked): `ais keys list` shows all")


class KeyState(NamedTuple):
    """Which keys a database holds: two that are equal hold the same."""

    database_id: str | None
    digest: str


def read_state(connection: Connection) -> KeyState:
    """What a reader compares before it reads all keys."""
    return KeyState(read_id(connection), str(connection.scalar(_STATE)))


def read_all(connection: Connection) -> list[AccessKey]:
    """Every key that was ever made, the oldest first."""
    return [_key(row) for row in connection.execute(_keys().order_by(keys.c.created_at, keys.c.key_id))]


class NewKey(NamedTuple):
    """What somebody asks for; when it is made is the database's to say. `lifetime`: None for one without an end."""

    key_id: str
    digest: bytes
    by: str
    lifetime: timedelta | None = None

    def made(self, now: datetime, name: str, role: Role, desks: tuple[str, ...] | None) -> AccessKey:
        """The key."""
        ends = None if self.lifetime is None else now + self.lifetime
        return AccessKey(self.key_id, self.digest, name, role, desks, now, self.by, ends)


def create(connection: Connection, new: NewKey, name: str, role: Role, desks: tuple[str, ...] | None) -> AccessKey:
    """Writes a new key. Raises NameTaken."""
    now = _alone(connection)
    if any(other.holds(now) for other in _named(connection, name)):
        raise NameTaken(name)
    made = new.made(now, name, role, desks)
    connection.execute(insert(keys).values(_values(made)))
    chain.append(connection, [_entry(AuditKind.KEY_MADE, made)])
    return made


def revoke(connection: Connection, wanted: str, by: str) -> list[AccessKey]:
    """Revokes the keys of a name, or the one of an id; those that it ended. Raises NoSuchKey."""
    now = _alone(connection)
    found = [key for key in _found(connection, wanted) if key.revoked_at is None]
    if not found:
        raise NoSuchKey(wanted)
    ended = [key._replace(revoked_at=now, revoked_by=by) for key in found]
    keep_ends(connection, ended)
    return ended


def rotate(connection: Connection, name: str, new: NewKey, grace: timedelta) -> AccessKey:
    """Another key with name, role and desks of the newest that works, and its lifetime where `new` has none.

    The others are revoked; with `grace` they expire after it. Raises NoSuchKey.
    """
    now = _alone(connection)
    working = [key for key in _named(connection, name) if key.holds(now)]
    if not working:
        raise NoSuchKey(name)
    old = working[-1]
    lifetime = new.lifetime or (old.expires_at - old.created_at if old.expires_at else None)
    made = new._replace(lifetime=lifetime).made(now, name, old.role, old.desks)
    # The sooner end stands: a grace prolongs nothing.
    end = {"expires_at": now + grace} if grace else {"revoked_at": now, "revoked_by": new.by}
    ended = _end(connection, [key._replace(**end) for key in working])
    connection.execute(insert(keys).values(_values(made)))
    chain.append(connection, [*ended, _entry(AuditKind.KEY_MADE, made)])
    return made


def keep_ends(connection: Connection, ended: Iterable[AccessKey]) -> None:
    """Writes when keys end, and whole keys of which the database knows nothing any more. The sooner end stands.

    A stolen key must end whatever becomes of the chain.
    """
    _alone(connection)
    chain.append_if_possible(connection, _end(connection, ended))


def _end(connection: Connection, ended: Iterable[AccessKey]) -> list[AuditEntry]:
    """Writes the ends; what that changed, for the chain. What stood there already has its row, or is not ours to tell."""
    by_id = {key.key_id: key for key in ended}
    if not by_id:
        return []
    known = {key.key_id: key for key in map(_key, connection.execute(_keys().where(keys.c.key_id.in_(by_id))))}
    after = {key.key_id: key for key in map(_key, connection.execute(_ending(), [*map(_values, by_id.values())]))}
    return [_entry(kind, after[id_]) for id_ in by_id if (kind := _changed(known.get(id_), after[id_]))]


def _changed(before: AccessKey | None, after: AccessKey) -> AuditKind | None:
    if before is None or before.revoked_at != after.revoked_at:
        return AuditKind.KEY_REVOKED if after.revoked_at else AuditKind.KEY_CHANGED
    return AuditKind.KEY_CHANGED if before.expires_at != after.expires_at else None


def _ending() -> ReturningInsert[Any]:
    statement = insert(keys)
    given = statement.excluded
    merged = {
        "expires_at": func.least(keys.c.expires_at, given.expires_at),
        "revoked_by": func.coalesce(keys.c.revoked_by, given.revoked_by),
        "revoked_at": func.coalesce(keys.c.revoked_at, given.revoked_at),
    }
    written = statement.on_conflict_do_update(index_elements=[keys.c.key_id], set_=merged)
    return written.returning(*(keys.c[name] for name in AccessKey._fields))


def proven_body(key: AccessKey) -> str:
    """What the chain says of a key: all but its last use, and of the digest only a hash."""
    values = {name: value for name, value in _values(key).items() if name not in ("digest", "last_used_at")}
    values["digest_sha256"] = hashlib.sha256(key.digest).hexdigest()
    return chain.canonical(values)


def _entry(kind: AuditKind, key: AccessKey) -> AuditEntry:
    return AuditEntry(NO_DESK, kind, clean(key.key_id), proven_body(key))


def note_uses(connection: Connection, uses: Mapping[str, datetime]) -> None:
    """When keys were last used, all in one statement."""
    used = select(
        func.unnest(literal(list(uses), keys.c.desks.type)).label("key_id"),
        func.unnest(literal(list(uses.values()), _MOMENTS)).label("at"),
    ).subquery()
    newest = func.greatest(keys.c.last_used_at, used.c.at)
    connection.execute(update(keys).where(keys.c.key_id == used.c.key_id).values(last_used_at=newest))


def _alone(connection: Connection) -> datetime:
    """Waits until nobody else writes keys; the time then."""
    connection.execute(select(func.pg_advisory_xact_lock(_WRITERS_LOCK)))
    return server_time(connection)


def _named(connection: Connection, name: str) -> list[AccessKey]:
    found = connection.execute(_keys().where(keys.c.name == name).order_by(keys.c.created_at, keys.c.key_id))
    return [_key(row) for row in found]


def _found(connection: Connection, wanted: str) -> list[AccessKey]:
    by_id = connection.execute(_keys().where(keys.c.key_id == wanted))
    return [_key(row) for row in by_id] or _named(connection, wanted)


def _keys() -> Select[Any]:
    return select(*(keys.c[name] for name in AccessKey._fields))


def _key(row: Row[Any]) -> AccessKey:
    key = AccessKey._make(row)
    return key._replace(role=Role(key.role), desks=None if key.desks is None else tuple(key.desks))


def _values(key: AccessKey) -> dict[str, Any]:
    return key._asdict() | {"role": key.role.value, "desks": None if key.desks is None else list(key.desks)}
