"""Checkpoints: the last row of every chain, signed. Keep them out of reach of anybody who can write to the database.

The failure behind this file: somebody who can write to the database and knows the scheme can recompute a chain from any row on,
and no hash shows it. A signature that was made before and is kept elsewhere does. Signing needs the private key, checking only
the public one.
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import insert

from domain.audit import AuditFault, FaultKind
from domain.values import Moment, Value
from storage.audit.chain import canonical
from storage.clock import server_time
from storage.installation import read_id
from storage.tables import audit_checkpoints

if TYPE_CHECKING:
    # Imported only where it is used: 9 MB that most processes never need.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# The last row of each desk's chain, from the rows themselves: a head could be old or gone. It jumps from desk to desk along the
# key, without reading the rows between, in one statement and so as of one moment.
_HEADS = """
WITH RECURSIVE d AS (
    (SELECT desk FROM audit ORDER BY desk LIMIT 1)
    UNION ALL SELECT (SELECT desk FROM audit WHERE desk > d.desk ORDER BY desk LIMIT 1) FROM d WHERE d.desk IS NOT NULL)
SELECT d.desk, a.seq, encode(a.hash, 'hex') FROM d
CROSS JOIN LATERAL (SELECT seq, hash FROM audit WHERE desk = d.desk ORDER BY seq DESC LIMIT 1) AS a
"""
# None from the future: if a clock was once ahead, a new one would be due every few seconds until that day.
_NEWEST = """
SELECT text FROM audit_checkpoints WHERE public_key = :key AND at <= clock_timestamp() AND octet_length(text) < 20000000
ORDER BY at DESC LIMIT 20
"""
_NEWEST_AT = "SELECT max(at) FROM audit_checkpoints WHERE public_key = :key AND at <= clock_timestamp()"
_LATCHED = (
    "SELECT max(seq), bool_or(kind IN ('latch_set', 'latch_cleared')) FROM audit WHERE desk = :desk AND seq > :seq"
)
# The worker that makes a due checkpoint holds this lock, so that two workers make only one.
_LOCK = text("SELECT pg_try_advisory_xact_lock(1095329131)")
_ROWS = """
SELECT s.desk, a.hash FROM unnest(CAST(:desks AS text[]), CAST(:seqs AS bigint[])) AS s (desk, seq)
LEFT JOIN audit AS a ON a.desk = s.desk AND a.seq = s.seq
"""


class NotSigned(Exception):
    """A key that cannot be used, or a checkpoint that its key did not sign."""


class SignedHead(Value):
    """The last row of a desk's chain, and how many rows a chain without a gap has then."""

    seq: int
    hash: str
    count: int


class Checkpoint(Value):
    """The signed content. `database_id` is the id of its database."""

    at: Moment
    database_id: str | None
    chains: dict[str, SignedHead]


def make_key(path: Path) -> str:
    """Writes a new private key that only its owner may read, and returns the public key. Never replaces a file."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except OSError as error:
        raise NotSigned(f"the key cannot be written: {error}") from None
    return public_key_of(key)


def read_key(path: Path) -> "Ed25519PrivateKey":
    """The private key in the file."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise NotSigned(f"{path} holds no usable key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise NotSigned(f"{path} holds no Ed25519 key; `ais audit key` makes one")
    return key


def public_key_of(key: "Ed25519PrivateKey") -> str:
    """The public key, as 64 hex digits."""
    return key.public_key().public_bytes_raw().hex()


def sign(checkpoint: Checkpoint, key: "Ed25519PrivateKey") -> str:
    """The checkpoint as one line of JSON, with its signature and the public key."""
    body = checkpoint.model_dump()
    signature = key.sign(canonical(body).encode()).hex()
    return canonical({"checkpoint": body, "public_key": public_key_of(key), "signature": signature})


def read(document: str, public_key: str) -> Checkpoint:
    """The checkpoint, if the owner of this public key signed it. Raises NotSigned otherwise."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        found = json.loads(document)
        checkpoint = Checkpoint.model_validate(found["checkpoint"])
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(found["signature"]), canonical(checkpoint.model_dump()).encode())
    except InvalidSignature:
        raise NotSigned("this key did not sign the checkpoint, or somebody changed it") from None
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise NotSigned(f"no checkpoint or no public key: {str(error).splitlines()[0]}") from None
    return checkpoint


def take(connection: Connection) -> Checkpoint:
    """The ends of all chains, as this transaction sees them."""
    # The number of rows equals the last one's number: `verify` finds gaps.
    heads = connection.execute(text(_HEADS)).all()
    chains = {desk: SignedHead(seq=seq, hash=hash_, count=seq) for desk, seq, hash_ in heads}
    return Checkpoint(at=server_time(connection), database_id=read_id(connection), chains=chains)


def keep(connection: Connection, at: datetime, public_key: str, document: str) -> None:
    """Stores a checkpoint in the database too, to find the newest one; there it proves nothing."""
    values = {"at": at, "public_key": public_key, "text": document}
    connection.execute(insert(audit_checkpoints).values(values).on_conflict_do_nothing())


class MadeCheckpoint(NamedTuple):
    """A new checkpoint, and its signed line."""

    checkpoint: Checkpoint
    document: str


def make(connection: Connection, key: "Ed25519PrivateKey") -> MadeCheckpoint:
    """Makes, signs and stores a checkpoint. The caller prints the document or sends it elsewhere."""
    checkpoint = take(connection)
    document = sign(checkpoint, key)
    keep(connection, checkpoint.at, public_key_of(key), document)
    return MadeCheckpoint(checkpoint, document)


class CheckpointLookout:
    """What a process knows about the checkpoints that its key has signed. It makes the check whether one is due cheap: a
    checkpoint of thousands of desks is long, and every worker checks every few seconds."""

    def __init__(self, desk: str) -> None:
        self.newest: Checkpoint | None = None
        self._desk = desk
        self._read_at: datetime | None = None
        # The desk's last row that is known not to be about the latch.
        self._seen = 0

    def is_due(self, connection: Connection, public_key: str) -> bool:
        """Whether one is due: the first of a UTC day, one after each kill or restart of the desk, one after its chain became
        shorter."""
        now = server_time(connection)
        if self.newest is not None and self.newest.at > now:
            # A clock was ahead.
            self.newest, self._read_at = None, None
        at = connection.scalar(text(_NEWEST_AT), {"key": public_key})
        if at != self._read_at:
            self.newest, self._read_at = _newest(connection, public_key, self.newest), at
        if self.newest is None or self.newest.at.astimezone(UTC).date() != now.astimezone(UTC).date():
            return True
        return self._went_back(connection, self.newest) or self._has_news_of_a_latch(connection, self.newest)

    def made(self, checkpoint: Checkpoint) -> None:
        """Remembers the newest checkpoint, which nobody else can remove from this process."""
        self.newest = checkpoint
        self._read_at = checkpoint.at

    def _went_back(self, connection: Connection, newest: Checkpoint) -> bool:
        """Whether the desk's chain is shorter than before: a database that came back older continues with a different chain,
        which nothing proves until a new checkpoint is signed.
        """
        last = connection.scalar(text("SELECT max(seq) FROM audit WHERE desk = :desk"), {"desk": self._desk}) or 0
        self._seen = min(self._seen, last)
        signed = newest.chains.get(self._desk)
        return signed is not None and last < signed.seq

    def _has_news_of_a_latch(self, connection: Connection, newest: Checkpoint) -> bool:
        signed = newest.chains[self._desk].seq if self._desk in newest.chains else 0
        values = {"desk": self._desk, "seq": max(signed, self._seen)}
        last, latched = connection.execute(text(_LATCHED), values).one()
        if not latched and last:
            self._seen = last
        return bool(latched)


def make_if_due(connection: Connection, key: "Ed25519PrivateKey", lookout: CheckpointLookout) -> MadeCheckpoint | None:
    """Makes a checkpoint. None if none is due, or another worker makes it."""
    public_key = public_key_of(key)
    if not lookout.is_due(connection, public_key) or not connection.scalar(_LOCK):
        return None
    # Another worker may have made it meanwhile.
    return make(connection, key) if lookout.is_due(connection, public_key) else None


def _newest(connection: Connection, public_key: str, last: Checkpoint | None) -> Checkpoint | None:
    """The newest checkpoint that this key has signed. Somebody who can write to the database could insert others, so that no more
    are made. `last` is the newest one that this process knows, which nobody else can change.
    """
    database_id = read_id(connection)
    for document in connection.scalars(text(_NEWEST), {"key": public_key}):
        with suppress(NotSigned):
            found = read(document, public_key)
            if found.database_id == database_id:
                return found if last is None or found.at > last.at else last
    return last


def compare(connection: Connection, desk: str, signed: Checkpoint) -> list[AuditFault]:
    """Where a chain differs from what was signed. The hashes of the chain itself prove everything before the signed row."""
    return list(compare_all(connection, [desk], signed).values())


def compare_all(connection: Connection, desks: Iterable[str], signed: Checkpoint) -> dict[str, AuditFault]:
    """`compare` for several desks in one statement: the fault of each desk that has one."""
    heads = {desk: head for desk in desks if (head := signed.chains.get(desk))}
    values = {"desks": list(heads), "seqs": [head.seq for head in heads.values()]}
    found = connection.execute(text(_ROWS), values) if heads else ()
    faults = {desk: _signed_otherwise(desk, heads[desk], hash_, signed.at) for desk, hash_ in found}
    return {desk: fault for desk, fault in faults.items() if fault}


def _signed_otherwise(desk: str, head: SignedHead, found: bytes | None, at: datetime) -> AuditFault | None:
    if found is None:
        return AuditFault(FaultKind.CUT_OFF, desk, head.seq, f"row {head.seq} was signed at {at.isoformat()}")
    if bytes(found).hex() == head.hash:
        return None
    what = f"it is not the row that was signed at {at.isoformat()}"
    return AuditFault(FaultKind.REWRITTEN, desk, head.seq, what)
