"""Carries out `ais doctor`: checks everything that a desk needs, one by one, and says what to do about each fault.

A check that cannot be made is never reported as passed.
"""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

import settings
from cli.desk import connect_lazily, plan
from domain.desk.status import Status
from domain.desk.terms import changes, how_to_adopt, shown_terms
from domain.health.clocks import WARN_SECONDS, OtherClock, compared
from domain.values import iso, printable
from settings.modes import VenueConfig, missing_for
from startup import NotUp
from storage import migrate, rights
from storage.audit import watching
from storage.audit.chain import waiting
from storage.audit.checkpoints import NotSigned, read_key
from storage.clock import server_time
from storage.database import Database, DatabaseUnavailable
from storage.disks import DiskWatch
from storage.installation import read_id
from storage.writable import try_to_grow, try_to_write
from workflows import names
from workflows.gateway import (
    DeskGateway,
    GatewayError,
    NoCoordinator,
    TemporalUnreachable,
    registered_attributes,
    unreachable_text,
)
from workflows.serving import serving, shown

ASK_SECONDS = 3.0
API_SECONDS = 2.0
# A few cycles. Waiting entries are chained with the next append, so longer than this is a fault.
AUDIT_WAITS_SECONDS = 300.0
# If the last verification is older, a fault in the chain could go unnoticed for long.
AUDIT_AGE_SECONDS = 3600.0
SHOWN_RIGHTS = 6
OPEN = "RUNNING"


class Verdict(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """One check: what was found, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    do: str = ""


def ok(check: str, found: str) -> Finding:
    """Everything is as it should be."""
    return Finding(check, Verdict.OK, found)


def warn(check: str, found: str, do: str) -> Finding:
    """It works, but a person should look; or it could not be checked."""
    return Finding(check, Verdict.WARN, found, do)


def fail(check: str, found: str, do: str) -> Finding:
    """Something that the desk needs is missing."""
    return Finding(check, Verdict.FAIL, found, do)


def unknown(check: str, needs: str) -> Finding:
    """Not checked, because an earlier check failed."""
    return warn(check, f"not known: {needs}", "first correct what failed above")


@dataclass
class Doctor:
    """One examination. Later checks use what earlier ones found."""

    client: Client | None = None
    status: Status | None = None
    # The database's URL, once it has answered.
    url: str | None = None
    loaded: dict[type[settings.Settings], Any] = field(default_factory=dict)

    async def examine(self) -> AsyncIterator[Finding]:
        """Yields each finding as soon as it is known."""
        for finding in [*self._settings(), *await self._audit_key()]:
            yield finding
        for check in (
            self._temporal, self._attributes, self._coordinator, self._worker, self._terms, self._warnings, self._database,
            self._schema, self._rights, self._writing, self._audit, self._clock, self._api, self._disks,
        ):  # fmt: skip
            yield await check()

    @property
    def desk(self) -> str | None:
        """The desk that the settings name; None if they cannot be read."""
        found: settings.DeskSettings | None = self.loaded.get(settings.DeskSettings)
        return found.desk if found else None

    # --- settings ------------------------------------------------------------------------------------------------------

    def _settings(self) -> list[Finding]:
        strange = settings.unknown_variables()
        found = [
            warn("settings", f"{name} is not a setting of AIS", "correct its name: docs/settings.md lists them all")
            for name in strange
        ] or [ok("settings", "every AIS_ variable is a setting")]
        found += [self._load(model) for model in _MODELS]
        return [*found, self._mode()]

    def _load(self, model: type[settings.Settings]) -> Finding:
        check = f"settings of {_MODELS[model]}"
        try:
            self.loaded[model] = model.load()
        except ValidationError as error:
            missing = all(detail["type"] == "missing" for detail in error.errors(include_url=False))
            text = settings.explain(error).replace("\n", "; ")
            if missing and model is settings.ApiSettings:
                return warn(check, text, "set it where the API runs; `ais` itself does not need it")
            return fail(check, text, "correct it: docs/settings.md says what is allowed")
        except settings.NotConfigured as error:
            return fail(check, str(error), "start `ais dev` there, or correct AIS_DATA_DIR")
        return ok(check, "can be read")

    def _mode(self) -> Finding:
        models = (
            settings.DeskSettings, settings.WorkerSettings, settings.PaperVenueSettings, settings.AsterSettings,
        )  # fmt: skip
        if any(model not in self.loaded for model in models):
            return unknown("mode", "settings cannot be read")
        desk, worker, paper, aster = (self.loaded[model] for model in models)
        if missing := missing_for(VenueConfig(desk, worker, paper, aster)):
            return warn("mode", f"AIS_MODE={desk.mode} needs {'; '.join(missing)}", "set them where the worker runs")
        return ok("mode", f"{desk.mode}; nothing is missing for it")

    # --- Temporal ------------------------------------------------------------------------------------------------------

    async def _temporal(self) -> Finding:
        try:
            address, client = settings.temporal_connect_config().get("target_host"), await connect_lazily()
            version = await asyncio.wait_for(_version(client), ASK_SECONDS)
            retention = await asyncio.wait_for(_retention(client), ASK_SECONDS)
        except (settings.NotConfigured, NotUp) as error:
            return fail("temporal", str(error), "correct the TEMPORAL_ variables")
        except TimeoutError:
            return fail("temporal", f"no answer within {ASK_SECONDS:g} s", _UNREACHABLE)
        except (RPCError, RuntimeError) as error:
            if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                return fail("temporal", error.message, "correct TEMPORAL_NAMESPACE, or create the namespace")
            return fail("temporal", unreachable_text(error), _UNREACHABLE)
        self.client = client
        return ok("temporal", f"{version} at {address}, namespace {client.namespace}, keeps closed runs {retention}")

    async def _attributes(self) -> Finding:
        check, wanted = "search attributes", [key.name for key in names.SEARCH_ATTRIBUTES]
        if self.client is None:
            return unknown(check, "Temporal cannot be reached")
        try:
            registered = await asyncio.wait_for(registered_attributes(self.client), ASK_SECONDS)
        except (RPCError, RuntimeError, TimeoutError) as error:
            return warn(check, f"not known: {error}", "ask who administers Temporal whether they are registered")
        if missing := [name for name in wanted if name not in registered]:
            options = " ".join(f"--name {name} --type Keyword" for name in missing)
            told = f"not registered: {', '.join(missing)}; desks cannot be found by their state"
            return warn(check, told, f"temporal operator search-attribute create {options}")
        return ok(check, f"{', '.join(wanted)} are registered")

    async def _coordinator(self) -> Finding:
        if self.client is None or self.desk is None:
            return unknown("coordinator", "Temporal or the desk is not known")
        try:
            opened = await DeskGateway(self.client, self.desk, patience=ASK_SECONDS).open_status()
        except TemporalUnreachable as error:
            return fail("coordinator", str(error), _UNREACHABLE)
        if opened != OPEN:
            what, _, remedy = str(NoCoordinator(self.desk, opened)).partition("; ")
            return fail("coordinator", what, remedy)
        return ok("coordinator", f"{names.workflow_id(self.desk)} is open")

    async def _worker(self) -> Finding:
        if self.client is None or self.desk is None:
            return unknown("worker", "Temporal or the desk is not known")
        try:
            self.status = await DeskGateway(self.client, self.desk, patience=ASK_SECONDS).status()
        except NoCoordinator:
            return unknown("worker", "there is no open coordinator to answer for")
        except GatewayError as error:
            return await self._silent(self.client, self.desk, str(error))
        since = iso(self.status.since)
        return ok("worker", f"answers: desk {self.desk!r} is {self.status.state.value} since {since}")

    async def _silent(self, client: Client, desk: str, why: str) -> Finding:
        """No worker answers. If workers have versions, those that are up may not be the ones that this desk needs."""
        with suppress(RPCError, RuntimeError):
            found = await serving(client, desk)
            if found.is_versioned:
                how = ", or: ".join((f"start a worker {shown(found.needed)}", *found.remedies))
                return fail("worker", f"{why}; {found.text}", f"{how} (docs/operations.md, Upgrading workers)")
        return fail("worker", why, "start a worker of this desk and mode (docs/runbook.md, Worker down)")

    async def _terms(self) -> Finding:
        models = (settings.DeskSettings, settings.LimitSettings)
        if self.status is None or any(model not in self.loaded for model in models):
            return unknown("desk and settings", "the coordinator or the settings cannot be read")
        wanted = plan(*(self.loaded[model] for model in models)).terms()
        if differ := changes(shown_terms(self.status), wanted):
            adopt = f"correct the settings; or have the desk adopt them: {how_to_adopt(self.status, wanted)}"
            return warn("desk and settings", f"the settings would change: {'; '.join(differ)}", adopt)
        return ok("desk and settings", "symbols, mode, cycle and AIS_KILL_FLATTENS are those of the desk")

    async def _warnings(self) -> Finding:
        if self.status is None:
            return unknown("warnings", "the coordinator does not answer")
        if told := self.status.warnings:
            return warn("warnings", "; ".join(told), "look them up in docs/runbook.md")
        return ok("warnings", "the desk has none")

    # --- database, and this machine --------------------------------------------------------------------------------------

    async def _database(self) -> Finding:
        found = self.loaded.get(settings.DatabaseSettings)
        if found is None:
            return unknown("database", "AIS_DATABASE_URL cannot be read")
        where = _place(found.url)
        try:
            await _ask(found.url, server_time)
        except DatabaseUnavailable as error:
            return fail("database", f"{where}: {error}", "start PostgreSQL, or correct AIS_DATABASE_URL")
        self.url = found.url
        database_id, wanted = None, self.status.database_id if self.status else None
        with suppress(DatabaseUnavailable):
            # The schema may not exist yet.
            database_id = await _ask(found.url, read_id)
        if None not in (wanted, database_id) and wanted != database_id:
            told = f"{where} is database {database_id}, the desk's is {wanted}"
            return fail("database", told, "correct AIS_DATABASE_URL (docs/operations.md, Another database)")
        return ok("database", f"{where} answers; its id is {database_id or 'not known'}")

    async def _schema(self) -> Finding:
        if self.url is None:
            return unknown("schema", "the database cannot be reached")
        try:
            await asyncio.wait_for(asyncio.to_thread(migrate.check, self.url), ASK_SECONDS + migrate.CHECK_SECONDS)
        except migrate.SchemaOutOfDate as error:
            return fail("schema", str(error), "ais migrate")
        except (DatabaseUnavailable, TimeoutError) as error:
            return unknown("schema", f"the database does not answer any more: {error}")
        return ok("schema", "up to date and complete")

    async def _rights(self) -> Finding:
        if self.url is None:
            return unknown("rights", "the database cannot be reached")
        try:
            lacking = await _ask(self.url, rights.missing)
            may_change = await _ask(self.url, rights.may_change_the_chain)
        except DatabaseUnavailable as error:
            return unknown("rights", f"the database does not answer any more: {error}")
        if lacking:
            more = f" and {len(lacking) - SHOWN_RIGHTS} more" if len(lacking) > SHOWN_RIGHTS else ""
            told = f"the role of AIS_DATABASE_URL lacks {', '.join(lacking[:SHOWN_RIGHTS])}{more}"
            return fail(
                "rights", told, "ais migrate --grant ROLE, as the tables' owner (docs/operations.md, Two roles)"
            )
        if may_change:
            more = "and could change the audit chain too (docs/operations.md, Two roles)"
            return ok("rights", f"the role of AIS_DATABASE_URL may do what is needed, {more}")
        return ok("rights", "the role of AIS_DATABASE_URL may do what is needed, and not change the audit chain")

    async def _audit_key(self) -> list[Finding]:
        """Checked only if a key is configured; in a thread, because a file system may hang."""
        found: settings.AuditSettings | None = self.loaded.get(settings.AuditSettings)
        if found is None or not found.audit_key:
            return []
        try:
            await asyncio.wait_for(asyncio.to_thread(read_key, Path(found.audit_key)), ASK_SECONDS)
        except (NotSigned, TimeoutError) as error:
            told = f"AIS_AUDIT_KEY: {str(error) or 'the file does not answer'}"
            return [warn("audit key", told, "`ais audit key` makes one; until then the worker signs no checkpoint")]
        return [ok("audit key", "AIS_AUDIT_KEY can sign checkpoints")]

    async def _audit(self) -> Finding:
        if self.url is None:
            return unknown("audit", "the database cannot be reached")
        try:
            found, broken = await _ask(self.url, waiting), await _ask(self.url, watching.faults)
            age = (await _ask(self.url, lambda c: watching.ages(c, [self.desk or ""]))).get(self.desk or "")
        except DatabaseUnavailable as error:
            return fail("audit", f"the chain cannot be read: {error}", "ais migrate")
        if broken:
            faults = "; ".join(f"{each.fault.desk}: {each.fault.kind.value}: {each.fault.what}" for each in broken[:3])
            told = f"BROKEN, as the workers found: {faults}"
            return fail("audit", told, "ais audit verify, and docs/runbook.md, The audit chain")
        if found.seconds > AUDIT_WAITS_SECONDS:
            told = f"{found.entries:,} entries wait to be chained, the oldest for {found.seconds:,.0f} s ({found.why})"
            return fail("audit", told, "docs/runbook.md, The audit chain")
        if age is not None and age > AUDIT_AGE_SECONDS:
            told = f"the worker verified this desk's chain {age:,.0f} s ago"
            return warn(
                "audit", told, "start a worker, or see in its log why it does not verify; `ais audit verify` checks now"
            )
        seen = "not verified by a worker yet" if age is None else f"verified {age:.0f} s ago"
        return ok("audit", f"no entry waits to be chained; {seen}; `ais audit verify` checks the whole chain")

    async def _writing(self) -> Finding:
        """Whether the role of these settings can write. A replica answers like any other server until it is written to."""
        if self.url is None:
            return unknown("decision log", "the database cannot be reached")
        try:
            await _ask(self.url, try_to_write)
            await _ask(self.url, try_to_grow)
        except (DatabaseUnavailable, DBAPIError) as error:
            why = str(error if isinstance(error, DatabaseUnavailable) else error.orig).strip().splitlines()[0]
            remedy = "give AIS_DATABASE_URL a server that takes writes, and its role the rights (docs/runbook.md, Database down)"
            return fail("decision log", f"no row can be written: {why}", remedy)
        return ok("decision log", "rows can be written")

    async def _clock(self) -> Finding:
        if self.url is None:
            return unknown("clock", "the database cannot be reached")
        began = datetime.now(UTC)
        try:
            told = await _ask(self.url, server_time)
        except DatabaseUnavailable as error:
            return unknown("clock", f"the database does not answer any more: {error}")
        ahead = compared(OtherClock.DATABASE, began, told, datetime.now(UTC)).ahead_seconds
        text = f"this machine is {abs(ahead):.1f} s {'ahead of' if ahead >= 0 else 'behind'} the database"
        if abs(ahead) > WARN_SECONDS:
            return warn("clock", text, "correct whichever is wrong (docs/runbook.md, A clock that is wrong)")
        return ok("clock", text)

    async def _api(self) -> Finding:
        found = self.loaded.get(settings.ApiSettings)
        port = found.api_port if found else settings.ApiSettings.model_fields["api_port"].default
        url = f"http://127.0.0.1:{port}/health/live"
        try:
            answer = await asyncio.wait_for(asyncio.to_thread(_get, url), API_SECONDS + 1)
        except (OSError, TimeoutError, ValueError) as error:
            told = str(getattr(error, "reason", error)).strip() or type(error).__name__
            why = told.splitlines()[0][:200]
            return warn("api", f"{url} does not answer: {why}", "if it should run here: ais api")
        if answer != 200:
            return warn("api", f"{url} answers {answer}", "something else may listen on this port: check AIS_API_PORT")
        return ok("api", f"{url} answers")

    async def _disks(self) -> Finding:
        found = self.loaded.get(settings.DiskSettings)
        if found is None:
            return unknown("disk space", "AIS_DISK_FOLDERS cannot be read")
        try:
            seen = await DiskWatch(found.disk_folders).look()
        except TimeoutError:
            return warn("disk space", "a file system does not answer", "check what is mounted in AIS_DISK_FOLDERS")
        if not seen:
            return warn("disk space", "none of AIS_DISK_FOLDERS can be seen here", "name folders of this machine")
        little = [disk.text for disk in seen if disk.is_low]
        if little:
            return warn("disk space", "; ".join(little), "make room (docs/operations.md, Disk space)")
        return ok("disk space", ", ".join(f"{disk.folder}: {disk.free_bytes / 1e9:.1f} GB free" for disk in seen))


_UNREACHABLE = "start Temporal, or correct TEMPORAL_ADDRESS (docs/runbook.md, Temporal down)"
_MODELS: dict[type[settings.Settings], str] = {
    settings.DeskSettings: "the desk",
    settings.DatabaseSettings: "the database",
    settings.ApiSettings: "the API",
    settings.WorkerSettings: "the worker",
    settings.AgentSettings: "the agents",
    settings.PaperVenueSettings: "the paper venue",
    settings.AsterSettings: "the exchange",
    settings.LimitSettings: "the limits",
    settings.AuditSettings: "the audit chain",
    settings.DiskSettings: "disk space",
    settings.NotifySettings: "notifications",
    settings.RedisSettings: "Redis",
    settings.TraceSettings: "traces",
    settings.LogSettings: "logging",
}


def text_of(finding: Finding) -> str:
    """A finding as text: what was found, and below it what to do."""
    line = f"{finding.verdict.value.upper():<5} {finding.check:<28} {printable(finding.found)}"
    return f"{line}\n{'':<5} do: {printable(finding.do)}" if finding.do else line


def as_json(findings: list[Finding]) -> str:
    """All findings as JSON; `ok` says whether none failed."""
    checks = [finding._asdict() for finding in findings]
    return json.dumps({"ok": passed(findings), "checks": checks}, indent=2)


def passed(findings: list[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.verdict is not Verdict.FAIL for finding in findings)


async def run(show: Callable[[Finding], None]) -> list[Finding]:
    """Makes all checks; `show` gets each finding as soon as it is known."""
    found = []
    async for finding in Doctor().examine():
        show(finding)
        found.append(finding)
    return found


async def _version(client: Client) -> str:
    request, limit = GetSystemInfoRequest(), timedelta(seconds=ASK_SECONDS)
    answer = await client.workflow_service.get_system_info(request, retry=False, timeout=limit)
    return f"server {answer.server_version}"


async def _retention(client: Client) -> str:
    request, limit = DescribeNamespaceRequest(namespace=client.namespace), timedelta(seconds=ASK_SECONDS)
    answer = await client.workflow_service.describe_namespace(request, retry=False, timeout=limit)
    kept = answer.config.workflow_execution_retention_ttl.ToTimedelta()
    days = kept.total_seconds() / 86_400
    return f"for {days:g} {'day' if days == 1 else 'days'}"


async def _ask(url: str, work: Callable[[Any], Any]) -> Any:
    database = Database(url, threads=1, timeout_seconds=ASK_SECONDS, application_name="ais-cli")
    try:
        return await database.run(work)
    finally:
        database.close()


def _get(url: str) -> int:
    """The HTTP status of the answer, also of an error."""
    # Bypass any proxy of the environment: the address is on this machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=API_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _place(url: str) -> str:
    """Where the database is. Only host, port and name are shown, since parameters may contain a password."""
    found = make_url(url)
    host = found.host or found.query.get("host", "the local socket")
    return f"{found.database} at {host if isinstance(host, str) else host[0]}{f':{found.port}' if found.port else ''}"
