"""Checks of `ais doctor`: the database, its schema, the role's rights, the audit chain, the clock."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

import settings
from cli.examine import findings
from cli.examine.findings import Examination, Finding, ask, fail, ok, unknown, warn
from domain.health.clocks import WARN_SECONDS, OtherClock, compared
from storage import migrate, rights
from storage.audit import watching
from storage.audit.chain import waiting
from storage.clock import server_time
from storage.database import DatabaseUnavailable
from storage.installation import read_id
from storage.writable import try_to_grow, try_to_write

# A few cycles. Waiting entries are chained with the next append, so longer than this is a fault.
AUDIT_WAITS_SECONDS = 300.0
# If the last verification is older, a fault in the chain could go unnoticed for long.
AUDIT_AGE_SECONDS = 3600.0
SHOWN_RIGHTS = 6


async def database(seen: Examination) -> Finding:
    """Whether PostgreSQL answers, and is the desk's database. Later checks use its URL."""
    found = seen.loaded.get(settings.DatabaseSettings)
    if found is None:
        return unknown("database", "AIS_DATABASE_URL cannot be read")
    where = place(found.url)
    try:
        version = await ask(found.url, migrate.server_version)
    except DatabaseUnavailable as error:
        return fail("database", f"{where}: {error}", "start PostgreSQL, or correct AIS_DATABASE_URL")
    seen.url = found.url
    database_id, wanted = None, seen.status.database_id if seen.status else None
    with suppress(DatabaseUnavailable):
        # The schema may not exist yet.
        database_id = await ask(found.url, read_id)
    if None not in (wanted, database_id) and wanted != database_id:
        found = f"{where} is database {database_id}, the desk's is {wanted}"
        return fail("database", found, "correct AIS_DATABASE_URL (docs/operations.md, Another database)")
    if version < migrate.OLDEST_SERVER:
        upgrade = f"upgrade the server to PostgreSQL {migrate.OLDEST_SERVER} or newer"
        return warn("database", f"{where}: {migrate.too_old_text(version)}", upgrade)
    return ok("database", f"{where} answers; its id is {database_id or 'not known'}")


def place(url: str) -> str:
    """Where the database is. Only host, port and name are shown, since parameters may contain a password."""
    found = make_url(url)
    host = found.host or found.query.get("host", "the local socket")
    return f"{found.database} at {host if isinstance(host, str) else host[0]}{f':{found.port}' if found.port else ''}"


async def schema(seen: Examination) -> Finding:
    """Whether the schema is up to date."""
    if seen.url is None:
        return unknown("schema", "the database cannot be reached")
    try:
        await asyncio.wait_for(asyncio.to_thread(migrate.check, seen.url), findings.ASK_SECONDS + migrate.CHECK_SECONDS)
    except migrate.SchemaNewer as error:
        return fail("schema", str(error), "install the version of AIS that migrated the database")
    except migrate.SchemaOutOfDate as error:
        return fail("schema", str(error), "ais migrate")
    except (DatabaseUnavailable, TimeoutError) as error:
        return unknown("schema", f"the database does not answer any more: {error}")
    return ok("schema", "up to date and complete")


async def role(seen: Examination) -> Finding:
    """Whether the database's role has the rights that it needs, and no right to change the audit chain."""
    if seen.url is None:
        return unknown("rights", "the database cannot be reached")
    try:
        lacking = await ask(seen.url, rights.missing)
        may_change = await ask(seen.url, rights.may_change_the_chain)
    except DatabaseUnavailable as error:
        return unknown("rights", f"the database does not answer any more: {error}")
    if lacking:
        more = f" and {len(lacking) - SHOWN_RIGHTS} more" if len(lacking) > SHOWN_RIGHTS else ""
        found = f"the role of AIS_DATABASE_URL lacks {', '.join(lacking[:SHOWN_RIGHTS])}{more}"
        return fail("rights", found, "ais migrate --grant ROLE, as the tables' owner (docs/operations.md, Two roles)")
    if may_change:
        more = "and could change the audit chain too (docs/operations.md, Two roles)"
        return ok("rights", f"the role of AIS_DATABASE_URL may do what is needed, {more}")
    return ok("rights", "the role of AIS_DATABASE_URL may do what is needed, and not change the audit chain")


async def writing(seen: Examination) -> Finding:
    """Whether the role of these settings can write. A replica answers like any other server until it is written to."""
    if seen.url is None:
        return unknown("decision log", "the database cannot be reached")
    try:
        await ask(seen.url, try_to_write)
        await ask(seen.url, try_to_grow)
    except (DatabaseUnavailable, DBAPIError) as error:
        why = str(error if isinstance(error, DatabaseUnavailable) else error.orig).strip().splitlines()[0]
        remedy = (
            "give AIS_DATABASE_URL a server that takes writes, and its role the rights (docs/runbook.md, Database down)"
        )
        return fail("decision log", f"no row can be written: {why}", remedy)
    return ok("decision log", "rows can be written")


async def audit(seen: Examination) -> Finding:
    """Whether the audit chain is whole, as far as the workers know, and up to date."""
    if seen.url is None:
        return unknown("audit", "the database cannot be reached")
    try:
        found, broken = await ask(seen.url, waiting), await ask(seen.url, watching.faults)
        age = (await ask(seen.url, lambda c: watching.ages(c, [seen.desk or ""]))).get(seen.desk or "")
    except DatabaseUnavailable as error:
        return fail("audit", f"the chain cannot be read: {error}", "ais migrate")
    if broken:
        faults = "; ".join(f"{each.fault.desk}: {each.fault.kind.value}: {each.fault.what}" for each in broken[:3])
        text = f"BROKEN, as the workers found: {faults}"
        return fail("audit", text, "ais audit verify, and docs/runbook.md, The audit chain")
    if found.seconds > AUDIT_WAITS_SECONDS:
        text = (
            f"{found.entries:,} entries are waiting to be chained, the oldest for {found.seconds:,.0f} s ({found.why})"
        )
        return fail("audit", text, "docs/runbook.md, The audit chain")
    if age is not None and age > AUDIT_AGE_SECONDS:
        text = f"the worker verified this desk's chain {age:,.0f} s ago"
        return warn(
            "audit", text, "start a worker, or see in its log why it does not verify; `ais audit verify` checks now"
        )
    verified = "not verified by a worker yet" if age is None else f"verified {age:.0f} s ago"
    return ok("audit", f"no entry waits to be chained; {verified}; `ais audit verify` checks the whole chain")


async def clock(seen: Examination) -> Finding:
    """How this machine's clock compares with the database's."""
    if seen.url is None:
        return unknown("clock", "the database cannot be reached")
    began = datetime.now(UTC)
    try:
        theirs = await ask(seen.url, server_time)
    except DatabaseUnavailable as error:
        return unknown("clock", f"the database does not answer any more: {error}")
    ahead = compared(OtherClock.DATABASE, began, theirs, datetime.now(UTC)).ahead_seconds
    text = f"this machine is {abs(ahead):.1f} s {'ahead of' if ahead >= 0 else 'behind'} the database"
    if abs(ahead) > WARN_SECONDS:
        return warn("clock", text, "correct whichever is wrong (docs/runbook.md, A clock that is wrong)")
    return ok("clock", text)
