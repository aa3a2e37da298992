"""Keys of the API in the database. Rows are never deleted, and a revoked or expired key never works again.

The database gets the digest of a secret, never the secret. The audit chain gets a hash of the digest, which opens nothing. All
keys share one chain, `NO_DESK`, even those that are valid for some desks only.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Row,
    Select,
    case,
    func,
    literal,
    literal_column,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from domain.audit import NO_DESK, AuditKind
from domain.keys import AccessKey, Role
from storage.audit import chain
from storage.audit.chain import AuditEntry
from storage.cleaning import clean
from storage.clock import server_time
from storage.installation import read_id
from storage.tables import Moment, keys

# Keys are made, rotated and revoked by one transaction at a time, so that a name belongs to one working key.
_WRITERS_LOCK = 0x4149_6B65
_MOMENTS = ARRAY(Moment)

# All that a check of a key depends on, as one short text: comparing it is cheap, however many keys there are.
_STATE = text(
    """SELECT encode(sha256(convert_to(coalesce(string_agg(
           concat_ws('|', key_id, encode(digest, 'hex'), name, role, array_to_string(desks, ','), expires_at, '-', revoked_at),
           E'\\n' ORDER BY key_id), ''), 'UTF8')), 'hex') FROM keys"""
)


# Who prolongs a key by hand writes `infinity`, and Python has no such time: no key could be read any more, nor revoked.
_FIRST: ColumnElement[Any] = literal_column("'0001-01-02'::timestamptz")
_LAST: ColumnElement[Any] = literal_column("'9000-01-01'::timestamptz")


def _readable(column: Column[Any]) -> ColumnElement[Any]:
    if not isinstance(column.type, DateTime):
        return column
    bounded = case((column.is_not(None), func.least(func.greatest(column, _FIRST), _LAST)))
    return type_coerce(bounded, column.type).label(column.name)


_READ = [_readable(keys.c[name]) for name in AccessKey._fields]
_INSERT = insert(keys)
_WRITE_END = _INSERT.on_conflict_do_update(
    index_elements=[keys.c.key_id],
    set_={
        "expires_at": func.least(keys.c.expires_at, _INSERT.excluded.expires_at),
        "revoked_by": func.coalesce(keys.c.revoked_by, _INSERT.excluded.revoked_by),
        "revoked_at": func.coalesce(keys.c.revoked_at, _INSERT.excluded.revoked_at),
    },
).returning(*_READ)


class NameTaken(Exception):
    """A key of this name still works."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a key named {name!r} exists already, and the log names its actions by that name: choose another name, or "
            f"replace the key with `ais keys rotate {name}`"
        )


class NoSuchKey(Exception):
    """No key of this name or id works."""

    def __init__(self, wanted: str) -> None:
        super().__init__(
            f"no key {wanted!r} works: it was never made, has expired or was revoked; `ais keys list` shows all keys"
        )


class KeyState(NamedTuple):
    """What identifies the keys of a database: two equal states hold the same keys."""

    database_id: str | None
    digest: str


def read_state(connection: Connection) -> KeyState:
    """The state to compare before reading all keys."""
    return KeyState(read_id(connection), str(connection.scalar(_STATE)))


def read_all(connection: Connection) -> list[AccessKey]:
    """Every key that was ever made, the oldest first."""
    return [_key(row) for row in connection.execute(_keys().order_by(keys.c.created_at, keys.c.key_id))]


class NewKey(NamedTuple):
    """A key that somebody asks for; the database's clock sets when it is made. `lifetime` is None if it never expires."""

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
    now = _lock_writers(connection)
    if any(other.holds(now) for other in _named(connection, name)):
        raise NameTaken(name)
    made = new.made(now, name, role, desks)
    connection.execute(insert(keys).values(_values(made)))
    chain.append(connection, [_entry(AuditKind.KEY_MADE, made)])
    return made


def revoke(connection: Connection, wanted: str, by: str) -> list[AccessKey]:
    """Revokes the key with this id, or all keys of this name, and returns them. Raises NoSuchKey."""
    now = _lock_writers(connection)
    by_id = [_key(row) for row in connection.execute(_keys().where(keys.c.key_id == wanted))]
    found = [key for key in by_id or _named(connection, wanted) if key.revoked_at is None]
    if not found:
        raise NoSuchKey(wanted)
    ended = [key._replace(revoked_at=now, revoked_by=by) for key in found]
    keep_ends(connection, ended)
    return ended


def rotate(connection: Connection, name: str, new: NewKey, grace: timedelta) -> AccessKey:
    """Makes a key with the name, role and desks of the newest working one, and with its lifetime if `new` has none.

    The old ones are revoked, or expire after `grace`. Raises NoSuchKey.
    """
    now = _lock_writers(connection)
    working = [key for key in _named(connection, name) if key.holds(now)]
    if not working:
        raise NoSuchKey(name)
    old = working[-1]
    lifetime = new.lifetime or (old.expires_at - old.created_at if old.expires_at else None)
    made = new._replace(lifetime=lifetime).made(now, name, old.role, old.desks)
    # The sooner end counts: a grace never extends a key.
    end = {"expires_at": now + grace} if grace else {"revoked_at": now, "revoked_by": new.by}
    ended = _write_ends(connection, [key._replace(**end) for key in working])
    connection.execute(insert(keys).values(_values(made)))
    chain.append(connection, [*ended, _entry(AuditKind.KEY_MADE, made)])
    return made


def keep_ends(connection: Connection, ended: Iterable[AccessKey]) -> None:
    """Writes when keys end, and inserts keys that the database has lost. The sooner end counts.

    A stolen key must end even if the audit chain cannot be written.
    """
    _lock_writers(connection)
    chain.append_if_possible(connection, _write_ends(connection, ended))


def _write_ends(connection: Connection, ended: Iterable[AccessKey]) -> list[AuditEntry]:
    """Writes the ends. Returns audit entries for what that changed; what was there before has its entry already."""
    by_id = {key.key_id: key for key in ended}
    if not by_id:
        return []
    known = {key.key_id: key for key in map(_key, connection.execute(_keys().where(keys.c.key_id.in_(by_id))))}
    after = {key.key_id: key for key in map(_key, connection.execute(_WRITE_END, [*map(_values, by_id.values())]))}
    return [_entry(kind, after[id_]) for id_ in by_id if (kind := _changed(known.get(id_), after[id_]))]


def _changed(before: AccessKey | None, after: AccessKey) -> AuditKind | None:
    if before is None or before.revoked_at != after.revoked_at:
        return AuditKind.KEY_REVOKED if after.revoked_at else AuditKind.KEY_CHANGED
    return AuditKind.KEY_CHANGED if before.expires_at != after.expires_at else None


def proven_body(key: AccessKey) -> str:
    """What the audit chain holds of a key: all but its last use, and a hash instead of the digest."""
    values = {name: value for name, value in _values(key).items() if name not in ("digest", "last_used_at")}
    values["digest_sha256"] = hashlib.sha256(key.digest).hexdigest()
    return chain.canonical(values)


def _entry(kind: AuditKind, key: AccessKey) -> AuditEntry:
    return AuditEntry(NO_DESK, kind, clean(key.key_id), proven_body(key))


def note_uses(connection: Connection, uses: Mapping[str, datetime]) -> None:
    """Writes when keys were last used, all in one statement."""
    used = select(
        func.unnest(literal(list(uses), keys.c.desks.type)).label("key_id"),
        func.unnest(literal(list(uses.values()), _MOMENTS)).label("at"),
    ).subquery()
    newest = func.greatest(keys.c.last_used_at, used.c.at)
    connection.execute(update(keys).where(keys.c.key_id == used.c.key_id).values(last_used_at=newest))


def _lock_writers(connection: Connection) -> datetime:
    """Waits until no other transaction writes keys, and returns the time then."""
    connection.execute(select(func.pg_advisory_xact_lock(_WRITERS_LOCK)))
    return server_time(connection)


def _named(connection: Connection, name: str) -> list[AccessKey]:
    found = connection.execute(_keys().where(keys.c.name == name).order_by(keys.c.created_at, keys.c.key_id))
    return [_key(row) for row in found]


def _keys() -> Select[Any]:
    return select(*_READ)


def _key(row: Row[Any]) -> AccessKey:
    key = AccessKey._make(row)
    return key._replace(role=Role(key.role), desks=None if key.desks is None else tuple(key.desks))


def _values(key: AccessKey) -> dict[str, Any]:
    return key._asdict() | {"role": key.role.value, "desks": None if key.desks is None else list(key.desks)}
