"""Carries out `ais start`, `restart` and `release`: reads the settings, acts, and returns text for people."""

from collections.abc import Awaitable, Callable
from functools import partial

import settings
from cli import moving
from cli.actor import actor
from cli.connecting import connect_lazily, connect_patiently, desk_gateway
from cli.lifecycle import Lifecycle, RestartAsked
from cli.moving import NewMode
from cli.refusals import Refused
from cli.terms import account_of, plan
from domain.desk.commands import NewTerms
from domain.desk.facts import read_terms
from domain.desk.states import Mode
from domain.desk.status import Status
from domain.desk.terms import changes, shown_terms, warn_if_different
from settings.modes import VenueConfig, missing_for
from startup import NotUp, Say, once_known
from storage.database import Database
from workflows.gateway import GatewayError, NoCoordinator


async def start(say: Say, compares: bool = True) -> str:
    """Starts the desk and returns what happened. Raises Refused with the reason."""
    return await _with_lifecycle(lambda lifecycle: lifecycle.start(compares), say)


async def compare(say: Say) -> None:
    """Says where the settings differ from the desk's terms, as soon as the desk answers."""
    mine = plan(settings.DeskSettings.load(), settings.LimitSettings.load()).terms()
    gateway = desk_gateway(await connect_lazily())

    async def ask() -> Status | None:
        try:
            return await gateway.status()
        except GatewayError:
            return None

    await once_known(ask, partial(warn_if_different, lambda difference: say(f"warning: {difference}"), mine))


async def restart(reason: str, asked: RestartAsked, terms: NewTerms, new_mode: NewMode | None, say: Say) -> str:
    """Restarts the desk and returns what happened; a later kill wins. Raises Refused with the reason."""
    return await _with_lifecycle(lambda lifecycle: lifecycle.restart(reason, actor(), asked, terms, new_mode), say)


async def newest_kill() -> int | None:
    """The number of the desk's newest kill; None if nobody answers."""
    try:
        return (await desk_gateway(await connect_lazily()).status()).kill_number
    except GatewayError:
        return None


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
        status = await desk_gateway(client).status()
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
    return "\n".join([*changes(shown_terms(status), asked), moving.explain(status, new_mode)])


def desk_name() -> str:
    """The desk that the settings name."""
    return settings.DeskName.load().desk


async def release(reason: str, say: Say) -> str:
    """Gives back the desk's account and returns what happened. Raises Refused with the reason."""
    return await _with_lifecycle(lambda lifecycle: lifecycle.release(reason, actor()), say)


async def _with_lifecycle(action: Callable[[Lifecycle], Awaitable[str]], say: Say) -> str:
    desk, limits = settings.DeskSettings.load(), settings.LimitSettings.load()
    database = Database(settings.DatabaseSettings.load().url, threads=1, application_name="ais-cli")
    try:
        planned = plan(desk, limits, account_of(desk))
        try:
            client = await connect_patiently(say)
        except NotUp as error:
            raise NotUp(f"nothing was changed: {error}") from error
        return await action(Lifecycle(client, database, planned, say))
    finally:
        database.close()
