"""Keys of the API: what one looks like, what its role allows, and what a reading of the database may change of those known.

    ais_<id>_<secret><checksum>

The secret is 256 random bits, so its SHA-256 is all that has to be stored: nobody can guess it. The checksum tells a key that
was copied wrongly from one that nobody knows.

What has ended stays ended: a database that comes back old or empty neither takes back a revocation nor prolongs a key.
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
# From then on it is told that a key ends.
EXPIRES_SOON = timedelta(days=7)

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# As many digits of base 62 as 256 and 32 bits take.
_SECRET_CHARS = 43
_CHECK_CHARS = 6
_LENGTH = len("ais__") + ID_CHARS + _SECRET_CHARS + _CHECK_CHARS
_FORM = re.compile(
    rb"ais_([0-9A-Za-z]{%d})_([0-9A-Za-z]{%d})([0-9A-Za-z]{%d})" % (ID_CHARS, _SECRET_CHARS, _CHECK_CHARS)
)


class Role(StrEnum):
    """What a key may do; each may do all that those before it may."""

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
        """Whether it is for this desk."""
        return self.desks is None or desk in self.desks

    def has_expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def holds(self, now: datetime) -> bool:
        """Whether it opens anything now."""
        return self.revoked_at is None and not self.has_expired(now)


class PresentedKey(NamedTuple):
    """A key as somebody shows it."""

    key_id: str
    digest: bytes


class MistypedKey(ValueError):
    """It has the form of a key, and its checksum is wrong: it was not copied as it was made."""


def write_key(key_id: str, secret: bytes) -> str:
    """The text that is shown once."""
    body = f"ais_{key_id}_{_in_base_62(int.from_bytes(secret), _SECRET_CHARS)}"
    return body + _checksum(body.encode())


def read_key(token: bytes) -> PresentedKey | None:
    """The key that a token is; None where it has another form. Raises MistypedKey."""
    if len(token) != _LENGTH:
        return None
    match = _FORM.fullmatch(token)
    if match is None:
        return None
    if _checksum(token[:-_CHECK_CHARS]).encode() != match[3]:
        raise MistypedKey("its checksum is wrong")
    return PresentedKey(match[1].decode(), digest_of(match[2]))


def digest_of(secret: bytes) -> bytes:
    """What is stored of the secret's text."""
    return hashlib.sha256(secret).digest()


def key_id(chance: bytes) -> str:
    """An id of so many random bytes; it is no secret."""
    return _in_base_62(int.from_bytes(chance), ID_CHARS)


def _checksum(text: bytes) -> str:
    return _in_base_62(zlib.crc32(text), _CHECK_CHARS)


def _in_base_62(number: int, chars: int) -> str:
    """Its last digits."""
    return "".join([_DIGITS[number // 62**place % 62] for place in range(chars - 1, -1, -1)])


class Merged(NamedTuple):
    """What is known after a reading. `lost`: keys that the database lacks, `vanished` of them, or whose end it has lost."""

    keys: dict[str, AccessKey]
    lost: list[AccessKey]
    vanished: int


def merge(known: Mapping[str, AccessKey], read: Iterable[AccessKey]) -> Merged:
    """The reading, with every end that was known before. A key that it lacks stays as it was: an absence revokes nothing,
    and forgetting the key would forget that it was revoked. It is lost to the database, and nobody could revoke it there.
    """
    found = {key.key_id: key for key in read}
    vanished = [key for key_id, key in known.items() if key_id not in found]
    ended = [_ended_as(known[key_id], key) for key_id, key in found.items() if key_id in known]
    lost = [key for key in ended if key is not found[key.key_id]]
    found |= {key.key_id: key for key in [*vanished, *lost]}
    # What has ended first: it is the most that a database could do harm without.
    return Merged(found, lost + sorted(vanished, key=lambda key: key.revoked_at is None), len(vanished))


def _ended_as(before: AccessKey, now: AccessKey) -> AccessKey:
    """`now` itself where it ends no later than it did."""
    changes: dict[str, datetime | str | None] = {}
    if before.revoked_at is not None and now.revoked_at is None:
        changes |= {"revoked_at": before.revoked_at, "revoked_by": before.revoked_by}
    if before.expires_at is not None and (now.expires_at is None or now.expires_at > before.expires_at):
        changes["expires_at"] = before.expires_at
    return now._replace(**changes) if changes else now  # type: ignore[arg-type]
