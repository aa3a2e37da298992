"""Keys of the API: what a key looks like, what its role allows, and what a reading of the database may change about known
keys.

    ais_<id>_<secret><checksum>

The secret is 256 random bits. Nobody can guess it, so storing its SHA-256 is enough. The checksum distinguishes a key that
was copied wrongly from one that nobody knows.

What has ended stays ended: a database that comes back old or empty neither undoes a revocation nor prolongs a key.
"""

import hashlib
import re
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

MAX_NAME_CHARS = 63
NAME = rf"[A-Za-z0-9][A-Za-z0-9_.@-]{{0,{MAX_NAME_CHARS - 1}}}"
ID_CHARS = 10
SECRET_BYTES = 32
# From this long before a key expires, its user is warned.
EXPIRES_SOON = timedelta(days=7)

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# The number of base-62 digits for 256 and for 32 bits.
_SECRET_CHARS = 43
_CHECK_CHARS = 6
_LENGTH = len("ais__") + ID_CHARS + _SECRET_CHARS + _CHECK_CHARS
_FORM = re.compile(
    rb"ais_([0-9A-Za-z]{%d})_([0-9A-Za-z]{%d})([0-9A-Za-z]{%d})" % (ID_CHARS, _SECRET_CHARS, _CHECK_CHARS)
)


class Role(StrEnum):
    """What a key may do. Each role may also do everything that the roles before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether this role may do what needs `needed`."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class AccessKey(NamedTuple):
    """A key as it is stored. `desks`: None for every desk. `digest`: SHA-256 of the secret."""

    key_id: str
    digest: bytes
    name: str
    role: Role
    desks: tuple[str, ...] | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    last_used_at: datetime | None = None

    def opens(self, desk: str) -> bool:
        """Whether it is valid for this desk."""
        return self.desks is None or desk in self.desks

    def has_expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def holds(self, now: datetime) -> bool:
        """Whether it is valid now."""
        return self.revoked_at is None and not self.has_expired(now)


class PresentedKey(NamedTuple):
    """A key as a client presents it."""

    key_id: str
    digest: bytes


class MistypedKey(ValueError):
    """It looks like a key, but its checksum is wrong: it was copied wrongly."""


def write_key(key_id: str, secret: bytes) -> str:
    """The text of the key, which is shown only once."""
    body = f"ais_{key_id}_{_in_base_62(int.from_bytes(secret), _SECRET_CHARS)}"
    return body + _checksum(body.encode())


def read_key(token: bytes) -> PresentedKey | None:
    """The key in a token; None if the token does not look like a key. Raises MistypedKey."""
    if len(token) != _LENGTH:
        return None
    match = _FORM.fullmatch(token)
    if match is None:
        return None
    if _checksum(token[:-_CHECK_CHARS]).encode() != match[3]:
        raise MistypedKey("its checksum is wrong")
    return PresentedKey(match[1].decode(), digest_of(match[2]))


def digest_of(secret: bytes) -> bytes:
    """What is stored of the secret."""
    return hashlib.sha256(secret).digest()


def key_id(chance: bytes) -> str:
    """An id made from these random bytes. It is not secret."""
    return _in_base_62(int.from_bytes(chance), ID_CHARS)


def _checksum(text: bytes) -> str:
    return _in_base_62(zlib.crc32(text), _CHECK_CHARS)


def _in_base_62(number: int, chars: int) -> str:
    """The number's last digits."""
    return "".join([_DIGITS[number // 62**place % 62] for place in range(chars - 1, -1, -1)])


class Merged(NamedTuple):
    """The keys known after a reading. `lost`: keys that the database lacks (`vanished` of them), or whose end it has lost."""

    keys: dict[str, AccessKey]
    lost: list[AccessKey]
    vanished: int


def merge(known: Mapping[str, AccessKey], read: Iterable[AccessKey]) -> Merged:
    """Merges a reading, keeping every end that was known before. A key that the reading lacks stays as it was: absence
    revokes nothing, and forgetting the key would also forget that it was revoked. Such a key counts as lost, since nobody
    could revoke it in that database."""
    found = {key.key_id: key for key in read}
    vanished = [key for key_id, key in known.items() if key_id not in found]
    ended = [_ended_as(known[key_id], key) for key_id, key in found.items() if key_id in known]
    lost = [key for key in ended if key is not found[key.key_id]]
    found |= {key.key_id: key for key in [*vanished, *lost]}
    # Ended keys first: forgetting one of those would do the most harm.
    return Merged(found, lost + sorted(vanished, key=lambda key: key.revoked_at is None), len(vanished))


def _ended_as(before: AccessKey, now: AccessKey) -> AccessKey:
    """The key, with any earlier end restored; `now` itself if there is none to restore."""
    changes: dict[str, datetime | str | None] = {}
    if before.revoked_at is not None and now.revoked_at is None:
        changes |= {"revoked_at": before.revoked_at, "revoked_by": before.revoked_by}
    if before.expires_at is not None and (now.expires_at is None or now.expires_at > before.expires_at):
        changes["expires_at"] = before.expires_at
    return now._replace(**changes) if changes else now  # type: ignore[arg-type]
