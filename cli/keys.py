"""Carries out `ais keys`: makes, lists, revokes and replaces keys of the HTTP API in the database."""

import json
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

import typer
from sqlalchemy import Connection

import settings
from cli.actor import actor
from domain.keys import EXPIRES_SOON, NAME, SECRET_BYTES, AccessKey, Role, key_id, read_key, write_key
from domain.values import iso, printable
from storage import keys
from storage.clock import server_time
from storage.database import Database, DatabaseUnavailable
from storage.keys import NameTaken, NewKey, NoSuchKey

T = TypeVar("T")

CALL_SECONDS = 10.0
LONGEST = timedelta(days=3650)
EXPECTED = (DatabaseUnavailable, NameTaken, NoSuchKey)

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_STATES = ("works", "expires soon", "expired", "revoked")


class MadeKey(NamedTuple):
    """A new key: its text, which is shown only once, and what a person has to know about it."""

    text: str
    explanation: str


class KeyList(NamedTuple):
    """All keys, and the time by the database's clock."""

    keys: list[AccessKey]
    now: datetime


def span(text: str) -> timedelta:
    """`12h`, `90d` or `52w`; raises ValueError."""
    match = re.fullmatch(r"([1-9]\d{0,5})([hdw])", text.strip())
    found = int(match[1]) * _UNITS[match[2]] if match else None
    if found is None or found > LONGEST:
        raise ValueError(f"{text!r} is not a length of time: give 12h, 90d or 52w, at most ten years")
    return found


def checked_name(name: str) -> str:
    """The name, if a log line can contain it; otherwise raises BadParameter."""
    if not re.fullmatch(NAME, name):
        allowed = "letters, digits, `_`, `.`, `@` and `-`, 63 at most, a letter or digit first"
        raise typer.BadParameter(f"{printable(name)!r} cannot name a key: a name has {allowed}.", param_hint="NAME")
    return name


def checked_desks(desks: list[str] | None) -> tuple[str, ...] | None:
    """The desks without repetitions; None for every desk. Raises BadParameter for an impossible name: it would open nothing."""
    for desk in desks or []:
        if not re.fullmatch(settings.DESK_NAME, desk):
            raise typer.BadParameter(f"{printable(desk)!r} cannot name a desk.", param_hint="--desk")
    return tuple(dict.fromkeys(desks)) if desks else None


async def create(name: str, role: Role, desks: tuple[str, ...] | None, lifetime: timedelta | None) -> MadeKey:
    """Makes a key. Raises NameTaken and DatabaseUnavailable."""
    text, new = _new(lifetime)
    unknown = (
        f"It is not known whether the key {name} ({new.key_id}) was made; its text is not shown, so nobody can use it. Once the "
        f"database answers: `ais keys revoke {new.key_id}` (no such key: it was not made), then create it again"
    )
    made = await _run(lambda connection: keys.create(connection, new, name, role, desks), unknown)
    return MadeKey(text, f"{_described(made)} This is the only time that it is shown:")


async def rotate(name: str, lifetime: timedelta | None, grace: timedelta) -> MadeKey:
    """Replaces a key. Raises NoSuchKey and DatabaseUnavailable."""
    text, new = _new(lifetime)
    ends = "expires after --grace" if grace else "is revoked"
    unknown = (
        f"It is not known whether the key {name} was replaced. If it was, the old one {ends}, and nobody knows the text of the "
        f"new one ({new.key_id}). Once the database answers, run this again: it replaces whichever key works. "
        "`ais keys list` shows both"
    )
    made = await _run(lambda connection: keys.rotate(connection, name, new, grace), unknown)
    old = f"expires at {iso(made.created_at + grace)} at the latest" if grace else "is revoked, everywhere within 10 s"
    return MadeKey(text, f"{_described(made)} The old key {old}. This is the only time that the new one is shown:")


async def revoke(wanted: str) -> str:
    """Revokes keys by name or id, and says which. Raises NoSuchKey and DatabaseUnavailable."""
    unknown = (
        "It is not known whether the key is revoked: run this again once the database answers. If that cannot wait, "
        "restart the API while the database is down: it then accepts only AIS_API_KEY (docs/runbook.md, A key was stolen)"
    )
    ended = await _run(lambda connection: keys.revoke(connection, wanted, actor()), unknown)
    which = "; ".join(f"{key.name} ({key.key_id}, {key.role})" for key in ended)
    return f"revoked: {which}. Every API process that reaches the database refuses it within 10 s"


async def all_keys() -> KeyList:
    """All keys: working ones first, then by name and age. Raises DatabaseUnavailable."""
    found, now = await _run(lambda connection: (keys.read_all(connection), server_time(connection)))
    return KeyList(sorted(found, key=lambda key: (not key.holds(now), key.name, key.created_at)), now)


def table(found: KeyList) -> str:
    """One line for each key."""
    if not found.keys:
        return "There is no key besides AIS_API_KEY. Make one: ais keys create NAME --role viewer"
    width = max(4, *(len(key.name) for key in found.keys))
    rows = [f"{'name':<{width}}  {'id':<10}  {'role':<8}  {'state':<12}  {'expires':<25}  {'last used':<25}  desks"]
    for key in found.keys:
        expires, used = (iso(at) if at else "never" for at in (key.expires_at, key.last_used_at))
        cells = f"{key.name:<{width}}  {key.key_id:<10}  {key.role.value:<8}  {state_of(key, found.now):<12}"
        rows.append(f"{cells}  {expires:<25}  {used:<25}  {', '.join(key.desks) if key.desks else 'every desk'}")
    return printable_rows(rows)


def printable_rows(rows: list[str]) -> str:
    """Makes the rows safe to print: others may have written what is in the database."""
    return "\n".join(printable(row) for row in rows)


def as_json(found: KeyList) -> str:
    """The keys as a JSON list, without their digests."""
    rows = []
    for key in found.keys:
        fields = {name: value for name, value in key._asdict().items() if name != "digest"}
        moments = {name: it.astimezone(UTC).isoformat() for name, it in fields.items() if isinstance(it, datetime)}
        rows.append({**fields, **moments, "state": state_of(key, found.now)})
    return json.dumps(rows, indent=2)


def state_of(key: AccessKey, now: datetime) -> str:
    """One of _STATES."""
    if key.revoked_at is not None:
        return _STATES[3]
    if key.has_expired(now):
        return _STATES[2]
    return _STATES[1] if key.expires_at and key.expires_at - now <= EXPIRES_SOON else _STATES[0]


def _new(lifetime: timedelta | None) -> tuple[str, NewKey]:
    """The text of a new key, and the part that the database gets."""
    text = write_key(key_id(secrets.token_bytes(8)), secrets.token_bytes(SECRET_BYTES))
    shown = read_key(text.encode())
    assert shown is not None
    return text, NewKey(shown.key_id, shown.digest, actor(), lifetime)


def _described(key: AccessKey) -> str:
    until = f"until {iso(key.expires_at)}" if key.expires_at else "without expiry"
    desks = f"desk {', '.join(key.desks)}" if key.desks else "every desk"
    return f"Key {key.name} ({key.key_id}): role {key.role}, {desks}, {until}."


async def _run(work: Callable[[Connection], T], unknown: str = "") -> T:
    """Runs `work`. `unknown` tells a person what to do if a write got no answer: it may have been stored all the same."""
    database = Database(
        settings.DatabaseSettings.load().url, threads=1, timeout_seconds=CALL_SECONDS, application_name="ais-keys"
    )
    try:
        return await database.run(work)
    except DatabaseUnavailable as error:
        raise DatabaseUnavailable(f"{error}. {unknown}" if unknown else str(error)) from error
    finally:
        database.close()
