"""The keys that one API process knows: held in memory, so that a check waits for nothing, and re-read in the background.

    database ── every 5 s ──▶ KeyRing ◀── check ── each request
             ◀── last used ──

A kill must not wait for the database, so no check does. While the database is down, the last reading applies, and revoked keys
stay revoked. Before the first reading, only AIS_API_KEY works.

When a key expires is written by the database's clock, so that clock decides, carried on since the last reading. By this machine's
own, a wrong one would refuse keys that are still valid, and a kill with them.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import structlog
from sqlalchemy import Connection

from domain.health.troubles import KnownTroubles
from domain.keys import EXPIRES_SOON, AccessKey, Merged, MistypedKey, PresentedKey, Role, merge, read_key
from domain.values import iso
from storage import installation
from storage import keys as stored
from storage.clock import server_time
from storage.database import Database, DatabaseUnavailable, WrongDatabase
from storage.keys import KeyState

# The time between the starts of two readings, and the longest reading: a revocation takes effect within 10 s.
READ_SECONDS = 5.0
CALL_SECONDS = 2.5
FIRST_READ_SECONDS = 1.0
WRITE_SECONDS = 15.0
FRESH_SECONDS = 10.0
SHORTEST_PAUSE_SECONDS = 0.1
MOST_NAMED = 10
# At most this many lost keys are written after a reading, so that the next reading is not late for a revocation.
MOST_WRITTEN = 200

OWN_ACTOR = "http"
# Compared with tokens of an unknown id, so that they take as long as any other.
_NOBODYS = bytes(32)

log: Any = structlog.get_logger("api")


class KeyRefusal(StrEnum):
    """Why a request was not let in."""

    MISSING = "missing"
    MISTYPED = "mistyped"
    UNKNOWN = "unknown"
    NOT_READ = "not_read"
    EXPIRED = "expired"
    REVOKED = "revoked"
    OTHER_DESK = "other_desk"


class RefusedKey(NamedTuple):
    """A refusal. `key` is set only if its whole secret was presented."""

    why: KeyRefusal
    key: AccessKey | None = None

    @property
    def hint(self) -> str:
        """What the sender may know about the refusal; may be empty."""
        match self.why, self.key:
            case KeyRefusal.MISTYPED, _:
                return "this key is mistyped: its checksum is wrong; copy it again, to its last character"
            case KeyRefusal.NOT_READ, _:
                return (
                    "this process has not read the keys from the database yet; until then it accepts only AIS_API_KEY"
                )
            case KeyRefusal.EXPIRED, AccessKey(name=name, expires_at=at) if at:
                return f"key {name} expired at {iso(at)}; ask an administrator for a new one: ais keys rotate {name}"
            case KeyRefusal.REVOKED, AccessKey(name=name, revoked_at=at) if at:
                return f"key {name} was revoked at {iso(at)}"
        return ""


class Holder(NamedTuple):
    """Who sent a request. `key` is None for AIS_API_KEY."""

    actor: str
    role: Role
    key: AccessKey | None = None

    def warning(self, now: datetime) -> str:
        """A warning that the key expires soon, or an empty text."""
        if self.key is None or self.key.expires_at is None or self.key.expires_at - now > EXPIRES_SOON:
            return ""
        name, left = self.key.name, self.key.expires_at - now
        when = _time_left(left)
        then = f"after that even a kill with it is refused. Ask an administrator for a new one: ais keys rotate {name}"
        return f"key {name} expires at {iso(self.key.expires_at)}, in {when}; {then}"


class KeyRing:
    """All keys of a process. Checking one costs the same however many there are."""

    def __init__(self, own_key: str, desk: str) -> None:
        self._own = _digest(own_key.encode())
        self._desk = desk
        self._administrator = Holder(OWN_ACTOR, Role.ADMIN)
        self._keys: Mapping[str, AccessKey] = {}
        self._read_at: float | None = None
        # The database's time at the last reading, and how long this machine had been up then, its sleep included.
        self._clock: tuple[datetime, float] | None = None
        # When each key was last used, to the minute: all that is known, and what is still to be written.
        self._noted: dict[str, datetime] = {}
        self._unwritten: dict[str, datetime] = {}

    def check(self, token: bytes) -> Holder | RefusedKey:
        """The holder of this token, without asking anybody."""
        if not token:
            return RefusedKey(KeyRefusal.MISSING)
        # Digests have the same length, so the comparison reveals neither the key's length nor how much of it was right.
        if hmac.compare_digest(_digest(token), self._own):
            return self._administrator
        try:
            shown = read_key(token)
        except MistypedKey:
            return RefusedKey(KeyRefusal.MISTYPED)
        return RefusedKey(KeyRefusal.UNKNOWN) if shown is None else self._named(shown)

    def _named(self, shown: PresentedKey) -> Holder | RefusedKey:
        key = self._keys.get(shown.key_id)
        is_its = hmac.compare_digest(shown.digest, _NOBODYS if key is None else key.digest)
        if key is None or not is_its:
            return RefusedKey(KeyRefusal.UNKNOWN if self.has_read else KeyRefusal.NOT_READ)
        now = self.now()
        if key.revoked_at is not None:
            return RefusedKey(KeyRefusal.REVOKED, key)
        if key.has_expired(now):
            return RefusedKey(KeyRefusal.EXPIRED, key)
        minute = now.replace(second=0, microsecond=0)
        if self._noted.get(key.key_id) != minute:
            self._noted[key.key_id] = self._unwritten[key.key_id] = minute
        if not key.opens(self._desk):
            return RefusedKey(KeyRefusal.OTHER_DESK, key)
        return Holder(f"{OWN_ACTOR}:{key.name}", key.role, key)

    def still_opens(self, holder: Holder) -> bool:
        """Whether a key that was accepted before would be accepted now."""
        if holder.key is None:
            return True
        key = self._keys.get(holder.key.key_id)
        return key is not None and key.holds(self.now()) and key.opens(self._desk)

    def now(self) -> datetime:
        """The time by which keys expire."""
        if self._clock is None:
            return datetime.now(UTC)
        then, up = self._clock
        return then + timedelta(seconds=_seconds_up() - up)

    @property
    def has_read(self) -> bool:
        """Whether the database's keys are known at all."""
        return self._read_at is not None

    @property
    def known(self) -> Mapping[str, AccessKey]:
        """Every key by its id."""
        return self._keys

    @property
    def age_seconds(self) -> float | None:
        """Seconds since the last reading; None before the first."""
        return None if self._read_at is None else time.monotonic() - self._read_at

    @property
    def freshness(self) -> str:
        """How current the keys are, in words."""
        age = self.age_seconds
        if age is None:
            return "AIS_API_KEY alone; this process has not been able to read the named keys since it started"
        return "current" if age < FRESH_SECONDS else f"as read {age:.0f} s ago; later changes are not known"

    def take(self, keys: Mapping[str, AccessKey] | None, at: datetime | None = None) -> None:
        """Takes the keys that a reading found; None if nothing has changed. `at`: the database's time then."""
        self._read_at = time.monotonic()
        if at is not None:
            self._clock = at, _seconds_up()
        if keys is not None:
            self._keys = keys

    def take_uses(self) -> dict[str, datetime]:
        """The uses that are still to be written. The caller now has to write them, or give them back."""
        uses, self._unwritten = self._unwritten, {}
        return uses

    def give_back(self, uses: Mapping[str, datetime]) -> None:
        """Takes back uses that could not be written."""
        self._unwritten = {**uses, **self._unwritten}


class KeyReading(NamedTuple):
    """What a reading found, and the database's time. `merged` is None if nothing has changed."""

    state: KeyState
    at: datetime
    merged: Merged | None


class KeySource(Protocol):
    """Where the keys are stored. Each call raises DatabaseUnavailable, and ends within CALL_SECONDS."""

    async def read(self, before: KeyState | None, known: Mapping[str, AccessKey]) -> KeyReading:
        """The keys, if anything has changed since `before`."""

    async def keep_ends(self, ended: Sequence[AccessKey]) -> None:
        """Writes keys and ends that the database has lost."""

    async def note_uses(self, uses: Mapping[str, datetime]) -> None:
        """Writes when keys were last used."""

    def close(self) -> None:
        """Ends what is running."""


class PostgresKeys:
    """Keys in PostgreSQL, with their own threads and connections: two, so that a write never delays a reading."""

    def __init__(self, url: str) -> None:
        self._database = Database(url, threads=2, timeout_seconds=CALL_SECONDS, application_name="ais-api-keys")
        # The last id read: if somebody empties the table, this process must not accept any database as its own.
        self._database_id: str | None = None

    async def read(self, before: KeyState | None, known: Mapping[str, AccessKey]) -> KeyReading:
        def work(connection: Connection) -> KeyReading:
            # Read the state first: a change in between is then read twice instead of overlooked.
            state, at = stored.read_state(connection), server_time(connection)
            # The keys of another database count for nothing until somebody restarts the process with it.
            if None not in (self._database_id, state.database_id) and self._database_id != state.database_id:
                raise WrongDatabase(installation.wrong_database_text(state.database_id, self._database_id))
            # Merged here, off the event loop, which serves kills.
            return KeyReading(state, at, None if state == before else merge(known, stored.read_all(connection)))

        found = await self._database.run(work)
        self._database_id = found.state.database_id or self._database_id
        return found

    async def keep_ends(self, ended: Sequence[AccessKey]) -> None:
        await self._database.run(lambda connection: stored.keep_ends(connection, ended))

    async def note_uses(self, uses: Mapping[str, datetime]) -> None:
        await self._database.run(lambda connection: stored.note_uses(connection, uses))

    def close(self) -> None:
        self._database.close()


class KeyWatch:
    """Keeps a ring up to date while it runs. A failure is logged once, and tried again."""

    def __init__(self, ring: KeyRing, source: KeySource) -> None:
        self._ring = ring
        self._source = source
        self._state: KeyState | None = None
        self._troubles = KnownTroubles()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        await asyncio.gather(
            self._repeat("read", self._read_once, READ_SECONDS),
            self._repeat("marked as used", self._write_uses, WRITE_SECONDS),
        )

    async def _repeat(self, what: str, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            began = time.monotonic()
            try:
                await work()
            except Exception as error:
                # Neither a missing right nor a bug of ours may end the search for revocations.
                if self._troubles.begin(what):
                    text = str(error) if isinstance(error, DatabaseUnavailable) else repr(error)
                    log.warning(f"keys cannot be {what}", error=text[:300], keys=self._ring.freshness)
            else:
                if self._troubles.end(what):
                    log.info(f"keys are {what} again")
            pause = seconds if self._ring.has_read else FIRST_READ_SECONDS
            await asyncio.sleep(max(began + pause - time.monotonic(), SHORTEST_PAUSE_SECONDS))

    async def _read_once(self) -> None:
        found = await self._source.read(self._state, self._ring.known)
        merged = found.merged
        self._ring.take(None if merged is None else merged.keys, found.at)
        if merged is None:
            return
        log.info("keys read", keys=len(merged.keys))
        if not merged.lost:
            self._state = found.state
            return
        # Until the database has them again, every reading is a complete one.
        names = [key.name for key in merged.lost]
        log.warning(
            "the database has lost keys, revocations or expiry times; writing them again",
            count=len(names), gone=merged.vanished, names=names[:MOST_NAMED],
        )  # fmt: skip
        await self._source.keep_ends(merged.lost[:MOST_WRITTEN])

    async def _write_uses(self) -> None:
        uses = self._ring.take_uses()
        if not uses:
            return
        try:
            await self._source.note_uses(uses)
        except BaseException:
            self._ring.give_back(uses)
            raise


def _time_left(left: timedelta) -> str:
    """A time in words, rounded down."""
    for unit, word in ((timedelta(days=1), "days"), (timedelta(hours=1), "hours")):
        if left >= 2 * unit:
            return f"{left // unit} {word}"
    return f"{left // timedelta(minutes=1)} minutes"


def _seconds_up() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
