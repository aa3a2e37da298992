"""Claims: which desk an account belongs to. One at a time, since two desks on one account cannot tell their orders apart.

The failure behind this file: two desks traded on one account, and the kill of one was "verified: no open order" while the other
went on trading.
"""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from storage.cleaning import clean
from storage.tables import claims


class AccountKey(NamedTuple):
    """An account at an exchange; `account` is its fingerprint."""

    exchange: str
    account: str


class Claim(NamedTuple):
    """The desk that holds an account, and since when."""

    desk: str
    claimed_at: datetime


def take(connection: Connection, key: AccountKey, desk: str) -> Claim:
    """Claims an account if no desk holds it. Returns who holds it now: this desk, or another one."""
    values = {"exchange": key.exchange, "account": clean(key.account), "desk": clean(desk)}
    fresh = insert(claims).values(values | {"claimed_at": func.clock_timestamp()})
    connection.execute(fresh.on_conflict_do_nothing())
    found = holder(connection, key)
    if found is None:
        raise LookupError("a claim vanished while it was made")
    return found


def holder(connection: Connection, key: AccountKey) -> Claim | None:
    """Who holds an account; None if no desk does."""
    statement = select(claims.c.desk, claims.c.claimed_at)
    mine = (claims.c.exchange == key.exchange, claims.c.account == clean(key.account))
    found = connection.execute(statement.where(*mine)).one_or_none()
    return Claim(*found) if found else None


def release(connection: Connection, desk: str) -> int:
    """Gives back all accounts that a desk holds. Returns how many they were."""
    return connection.execute(delete(claims).where(claims.c.desk == clean(desk))).rowcount


def held_text(desk: str, claim: Claim) -> str:
    """Why a second desk is refused, and what to do."""
    return (
        f"the account belongs to desk {claim.desk!r} (claimed {claim.claimed_at:%Y-%m-%d %H:%M} UTC), and only one desk may have "
        f"it: give desk {desk!r} one of its own (AIS_ASTER_ACCOUNT_ID), or, once {claim.desk!r} is killed and verified, "
        f'release it: AIS_DESK={claim.desk} ais release --reason "…"; see docs/venue.md, One account, one desk'
    )
