"""Checks of `ais doctor`: Temporal, the coordinator, and the worker that answers for it."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio.api.enums.v1 import NamespaceState
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

import settings
from cli.connecting import connect_lazily
from cli.examine import findings
from cli.examine.findings import Examination, Finding, fail, ok, unknown, warn
from cli.terms import plan
from domain.desk.states import Mode
from domain.desk.terms import changes, how_to_adopt, shown_terms
from domain.values import iso
from startup import NotUp
from workflows import names
from workflows.failing import failing
from workflows.gateway import (
    PAUSED,
    RUNNING,
    CoordinatorPaused,
    DeskGateway,
    GatewayError,
    NoCoordinator,
    TemporalUnreachable,
    paused_text,
    registered_attributes,
    unreachable_text,
)
from workflows.queue_limits import limits_of, taking_off
from workflows.serving import serving, shown

_DEPRECATED = "the namespace is deprecated: an open desk goes on, but no coordinator can be started there"
_ANOTHER_NAMESPACE = "create another namespace; Temporal never takes this back"
_UNREACHABLE = "start Temporal, or correct TEMPORAL_ADDRESS (docs/runbook.md, Temporal down)"


async def temporal(seen: Examination) -> Finding:
    """Whether Temporal answers, and its namespace exists. Later checks use this connection."""
    try:
        address, client = settings.temporal_connect_config().get("target_host"), await connect_lazily()
        version, kept, is_deprecated = await asyncio.wait_for(_server_facts(client), findings.ASK_SECONDS)
    except (settings.WrongTemporalSettings, NotUp) as error:
        return fail("temporal", str(error), "correct the TEMPORAL_ variables")
    except settings.NotConfigured as error:
        return fail("temporal", str(error), findings.CORRECT_FOLDER)
    except TimeoutError:
        return fail("temporal", f"no answer within {findings.ASK_SECONDS:g} s", _UNREACHABLE)
    except (RPCError, RuntimeError) as error:
        if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
            return fail("temporal", error.message, "correct TEMPORAL_NAMESPACE, or create the namespace")
        return fail("temporal", unreachable_text(error), _UNREACHABLE)
    seen.client = client
    days = f"{kept:g} {'day' if kept == 1 else 'days'}"
    found = f"server {version} at {address}, namespace {client.namespace}, keeps closed runs for {days}"
    return (
        ok("temporal", found) if not is_deprecated else warn("temporal", f"{found}; {_DEPRECATED}", _ANOTHER_NAMESPACE)
    )


async def _server_facts(client: Client) -> tuple[str, float, bool]:
    """The server's version, for how many days it keeps closed runs, and whether the namespace is deprecated."""
    limit, service = timedelta(seconds=findings.ASK_SECONDS), client.workflow_service
    system = await service.get_system_info(GetSystemInfoRequest(), retry=False, timeout=limit)
    request = DescribeNamespaceRequest(namespace=client.namespace)
    namespace = await service.describe_namespace(request, retry=False, timeout=limit)
    kept = namespace.config.workflow_execution_retention_ttl.ToTimedelta()
    is_deprecated = namespace.namespace_info.state == NamespaceState.NAMESPACE_STATE_DEPRECATED
    return system.server_version, kept.total_seconds() / 86_400, is_deprecated


async def attributes(seen: Examination) -> Finding:
    """Whether the search attributes are registered, by which desks are found."""
    check, wanted = "search attributes", [key.name for key in names.SEARCH_ATTRIBUTES]
    if seen.client is None:
        return unknown(check, "Temporal cannot be reached")
    try:
        registered = await asyncio.wait_for(registered_attributes(seen.client), findings.ASK_SECONDS)
    except (RPCError, RuntimeError, TimeoutError) as error:
        return warn(check, f"not known: {error}", "ask Temporal's administrator whether they are registered")
    if missing := [name for name in wanted if name not in registered]:
        options = " ".join(f"--name {name} --type Keyword" for name in missing)
        found = f"not registered as Keyword: {', '.join(missing)}; desks cannot be found by their state"
        how = f"temporal operator search-attribute create {options} (first `remove` one that has another type)"
        return warn(check, found, how)
    return ok(check, f"{', '.join(wanted)} are registered")


async def coordinator(seen: Examination) -> Finding:
    """Whether the desk's coordinator is open, and nobody has paused one of its activities."""
    if seen.client is None or seen.desk is None:
        return unknown("coordinator", "Temporal cannot be reached, or the settings do not name the desk")
    gateway = DeskGateway(seen.client, seen.desk, patience=findings.ASK_SECONDS)
    try:
        opened, held = await gateway.open_status(), await gateway.paused_activities()
    except TemporalUnreachable as error:
        return fail("coordinator", str(error), _UNREACHABLE)
    if opened == PAUSED:
        return fail("coordinator", paused_text(seen.desk), "unpause it")
    if opened != RUNNING:
        what, _, remedy = str(NoCoordinator(seen.desk, opened)).partition("; ")
        return fail("coordinator", what, remedy)
    if held:
        unpause = f"temporal activity unpause -w {names.workflow_id(seen.desk)} --activity-id"
        return warn("coordinator", f"paused activities: {', '.join(held.values())}", f"{unpause} {next(iter(held))}")
    return ok("coordinator", f"{names.workflow_id(seen.desk)} is open")


async def worker(seen: Examination) -> Finding:
    """Whether a worker answers for the coordinator. Later checks use the status."""
    if seen.client is None or seen.desk is None:
        return unknown("worker", "Temporal cannot be reached, or the settings do not name the desk")
    try:
        seen.status = await DeskGateway(seen.client, seen.desk, patience=findings.ASK_SECONDS).status()
    except NoCoordinator:
        return unknown("worker", "the desk has no open coordinator")
    except CoordinatorPaused:
        return unknown("worker", "the coordinator is paused in Temporal")
    except GatewayError as error:
        return await _silent(seen.client, seen.desk, str(error))
    since = iso(seen.status.since)
    return ok("worker", f"answers: desk {seen.desk!r} is {seen.status.state.value} since {since}")


async def _silent(client: Client, desk: str, why: str) -> Finding:
    """No worker answers. If workers have versions, those that are up may not be the ones that this desk needs."""
    # ValueError: the SDK (temporalio 1.35) knows no status for a workflow that somebody has paused.
    with suppress(RPCError, RuntimeError, ValueError):
        if (failure := await failing(client, desk)) is not None:
            return fail("worker", f"{why.partition(';')[0]}; {failure}", "docs/runbook.md, Workflow tasks fail")
        found = await serving(client, desk)
        if found.is_versioned:
            how = ", or: ".join((f"start a worker {shown(found.needed)}", *found.remedies))
            return fail("worker", f"{why}; {found.text}", f"{how} (docs/operations.md, Upgrading workers)")
    return fail("worker", why, "start a worker of this desk and mode (docs/runbook.md, Worker down)")


async def queue(seen: Examination) -> Finding:
    """Whether nobody has limited a queue of the desk's activities. In which mode the desk runs, a stopped one may not say."""
    check = "task queue"
    if seen.client is None or seen.desk is None:
        return unknown(check, "Temporal cannot be reached, or the settings do not name the desk")
    for name in (names.activity_queue(seen.desk, mode.value) for mode in Mode):
        try:
            limits = await limits_of(seen.client, name)
        except (RPCError, RuntimeError) as error:
            return warn(check, f"not known: {error}", f"temporal task-queue config get --task-queue {name}")
        if limits is not None:
            found = f"activities of {name} are limited, and a kill's cancels with them: {limits}"
            return fail(
                check, found, f"a worker takes that off within seconds if it may; otherwise: {taking_off(name)}"
            )
    return ok(check, "the desk's activities have no rate limit")


async def terms(seen: Examination) -> Finding:
    """Whether the settings match the desk's terms."""
    models = (settings.DeskSettings, settings.LimitSettings)
    if seen.status is None or any(model not in seen.loaded for model in models):
        return unknown("desk and settings", "the coordinator or the settings cannot be read")
    wanted = plan(*(seen.loaded[model] for model in models)).terms()
    if differ := changes(shown_terms(seen.status), wanted):
        adopt = f"correct the settings; or have the desk adopt them: {how_to_adopt(seen.status, wanted)}"
        return warn("desk and settings", f"the settings would change: {'; '.join(differ)}", adopt)
    return ok("desk and settings", "symbols, mode, cycle and AIS_KILL_FLATTENS are those of the desk")


async def warnings(seen: Examination) -> Finding:
    """The desk's own warnings."""
    if seen.status is None:
        return unknown("warnings", "the coordinator did not answer")
    if warnings := seen.status.warnings:
        return warn("warnings", "; ".join(warnings), "look them up in docs/runbook.md")
    return ok("warnings", "the desk has none")
