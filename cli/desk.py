"""Carries out `ais start`, `restart`, `release`, `status` and `limits`: reads the settings, acts, and returns text for people."""

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

from pydantic import ValidationError
from temporalio.client import Client

import settings
from cli import moving
from cli.actor import actor
from cli.lifecycle import Lifecycle
from cli.moving import NewMode
from cli.opening import DeskTerms
from cli.refusals import Refused
from cli.tables import limit_table, table
from domain.desk.carried import Outcome
from domain.desk.commands import NewTerms
from domain.desk.facts import read_terms
from domain.desk.identity import fingerprint
from domain.desk.states import CommandKind, Mode
from domain.desk.status import Status
from domain.desk.terms import changes, difference_text, shown_terms, warn_if_different
from domain.values import printable
from settings.modes import VenueConfig, missing_for
from startup import NotUp, Say, once_known, patiently
from storage.database import Database
from workflows.gateway import DeskGateway, GatewayError, NoCoordinator, TemporalUnreachable, connect, unreachable_text

CONNECT_SECONDS = 15.0
STATUS_SECONDS = 5.0
EXPECTED = (Refused, NotUp, GatewayError)


async def start(say: Say, compares: bool = True) -> str:
    """Starts the desk and returns what happened. Raises Refused with the reason."""
    return await _with_lifecycle(lambda lifecycle: lifecycle.start(compares), say)


async def compare(say: Say) -> None:
    """Says where the settings differ from the desk's terms, as soon as the desk answers."""
    mine = plan(settings.DeskSettings.load(), settings.LimitSettings.load()).terms()
    gateway = _gateway(await connect_lazily())

    async def ask() -> Status | None:
        try:
            return await gateway.status()
        except GatewayError:
            return None

    await once_known(ask, partial(warn_if_different, lambda told: say(f"warning: {told}"), mine))


async def restart(reason: str, asked_at: datetime, terms: NewTerms, new_mode: NewMode | None, say: Say) -> str:
    """Restarts the desk and returns what happened; a kill after `asked_at` wins. Raises Refused with the reason."""
    return await _with_lifecycle(lambda lifecycle: lifecycle.restart(reason, actor(), asked_at, terms, new_mode), say)


def named_mode(mode: str | None, with_positions: bool) -> NewMode | None:
    """The mode that a person named, with its account. Raises Refused if settings are missing for it."""
    if mode is None:
        return None
    desk = settings.DeskSettings.load().model_copy(update={"mode": mode})
    needed = VenueConfig(
        desk, settings.WorkerSettings.load(), settings.PaperVenueSettings.load(), settings.AsterSettings.load()
    )
    if missing := missing_for(needed):
        raise Refused(f"--mode {mode} needs {'; '.join(missing)}, here and for the worker. Nothing was restarted")
    return NewMode(Mode(mode), account_of(desk) or "", with_positions)


def asked_terms(
    symbols: str | None, cycle_seconds: float | None, kill_flattens: bool | None, settings_too: bool
) -> NewTerms:
    """The terms that a person named, on top of those in the settings if `settings_too`. Raises Refused."""
    given = {"symbols": None if symbols is None else symbols.split(","), "cycle_seconds": cycle_seconds}
    base = plan(settings.DeskSettings.load(), settings.LimitSettings.load()).terms() if settings_too else NewTerms()
    try:
        asked = read_terms({**given, "kill_flattens": kill_flattens}) or NewTerms()
    except ValueError as error:
        raise Refused(str(error)) from None
    return base.model_copy(update=asked.model_dump(exclude_none=True))


async def preview(terms: NewTerms, new_mode: NewMode | None) -> str:
    """What these terms would change in the desk. Raises Refused if its mode cannot change now."""
    client = await connect_lazily()
    try:
        status = await _gateway(client).status()
    except NoCoordinator:
        return "no coordinator is open: a new one starts with the settings, and with the terms that you gave"
    except GatewayError as error:
        return f"cannot tell what would change: {error}"
    moving.check_named(status, terms, new_mode)
    if new_mode is None or not new_mode.moves(status):
        others = terms.model_copy(update={"mode": None})
        return "\n".join(changes(shown_terms(status), others)) or "the desk has these terms already"
    moving.check_state(status, new_mode)
    await moving.check_worker(client, status.desk, new_mode.mode)
    asked = terms.model_copy(update={"mode": new_mode.mode, "account": new_mode.account})
    return "\n".join([*changes(shown_terms(status), asked), moving.told(status, new_mode)])


def desk_name() -> str:
    """The desk that the settings name."""
    return settings.DeskName.load().desk


async def release(reason: str, say: Say) -> str:
    """Gives back the desk's account and returns what happened. Raises Refused with the reason."""
    return await _with_lifecycle(lambda lifecycle: lifecycle.release(reason, actor()), say)


async def status(as_json: bool, say: Say) -> str:
    """The status, as a table or as JSON. Says where the settings differ from the desk's terms."""
    found = await _gateway(await connect_lazily()).status()
    if told := difference_text(found, _set_terms()):
        say(f"warning: {told}")
    # json.dumps escapes control and non-ASCII characters, so a reason cannot control the terminal.
    return json.dumps(found.model_dump(mode="json"), indent=2) if as_json else table(found, datetime.now(UTC))


async def limits() -> str:
    """Every limit, and how near the portfolio limits are."""
    found = await _gateway(await connect_lazily()).status()
    return limit_table(found)


async def set_limits(asked: dict[str, str], reason: str) -> str:
    """Changes limits. Raises Refused with the reason, or if no worker applied the change in time."""
    gateway = _gateway(await connect_lazily())
    command_id = f"limits-{uuid.uuid4().hex}"
    sent = {"command_id": command_id, "actor": actor(), "sent_at": datetime.now(UTC).isoformat()}
    await gateway.signal(CommandKind.SET_LIMITS.value, {**sent, "limits": asked, "reason": reason})
    found = await gateway.settled(command_id, STATUS_SECONDS)
    outcome = found.outcomes.get(command_id) if found else None
    if outcome is None or outcome.outcome is Outcome.PENDING:
        raise Refused("recorded, not applied yet: no worker answered. `ais limits` shows the limits in force")
    if outcome.outcome is Outcome.REFUSED:
        raise Refused(outcome.detail or "the change was refused")
    return f"limits of desk {gateway.desk!r}: {printable(outcome.detail or '')}"


def _set_terms() -> NewTerms:
    """The terms that somebody has set here: a default says nothing about a desk. Empty if the settings are wrong."""
    try:
        desk, limits = settings.DeskSettings.load(), settings.LimitSettings.load()
    except ValidationError:
        return NewTerms()
    named = desk.model_fields_set | limits.model_fields_set
    return (
        plan(desk, limits)
        .terms()
        .model_copy(update={name: None for name in NewTerms.model_fields if name not in named})
    )


def plan(desk: settings.DeskSettings, limits: settings.LimitSettings, account: str | None = None) -> DeskTerms:
    """What a start fixes, taken from the settings."""
    return DeskTerms(
        desk=desk.desk,
        mode=Mode(desk.mode),
        symbols=desk.symbols,
        cycle_seconds=desk.cycle_seconds,
        limits=limits.limits(desk.cycle),
        kill_flattens=limits.kill_flattens,
        account=account,
    )


def account_of(desk: settings.DeskSettings) -> str | None:
    """The fingerprint of the venue account; None if these settings do not name it."""
    if desk.mode == "paper":
        return fingerprint("")
    account_id = settings.AsterSettings.load().aster_account_id
    return fingerprint(account_id.get_secret_value()) if account_id else None


def _gateway(client: Client) -> DeskGateway:
    return DeskGateway(client, settings.DeskSettings.load().desk, patience=STATUS_SECONDS)


async def _with_lifecycle(action: Callable[[Lifecycle], Awaitable[str]], say: Say) -> str:
    desk, limits = settings.DeskSettings.load(), settings.LimitSettings.load()
    database = Database(settings.DatabaseSettings.load().url, threads=1, application_name="ais-cli")
    try:
        planned = plan(desk, limits, account_of(desk))
        return await action(Lifecycle(await _connect(say), database, planned, say))
    finally:
        database.close()


async def connect_lazily() -> Client:
    """A client that connects with its first call, so that an unreachable Temporal is reported at once."""
    config = settings.temporal_connect_config()
    try:
        return await connect(config, lazy=True)
    except (ValueError, RuntimeError) as error:
        raise NotUp(
            f"Temporal at {config.get('target_host')} cannot be called: {error}; check TEMPORAL_ADDRESS"
        ) from error


async def _connect(say: Say) -> Client:
    config = settings.temporal_connect_config()
    what, began = f"Temporal at {config.get('target_host')}", time.monotonic()

    async def attempt() -> Client:
        # A server that accepts connections but says nothing would hold one attempt for longer than all attempts may take.
        left = max(0.1, CONNECT_SECONDS - (time.monotonic() - began))
        try:
            async with asyncio.timeout(left):
                return await connect(config)
        except RuntimeError as error:
            raise TemporalUnreachable(unreachable_text(error)) from error
        except TimeoutError as error:
            raise TemporalUnreachable(unreachable_text(f"no connection within {left:.1f} s")) from error

    try:
        return await patiently(what, attempt, CONNECT_SECONDS, say, TemporalUnreachable)
    except ValueError as error:
        # A malformed address or certificate: waiting would not help.
        raise NotUp(f"{what} cannot be called: {error}; check TEMPORAL_ADDRESS") from error
