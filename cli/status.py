"""Carries out `ais status` and `ais limits`: asks the coordinator, and returns text for people or programs."""

import json
import uuid
from contextlib import suppress
from datetime import UTC, datetime

from cli.actor import actor
from cli.connecting import STATUS_SECONDS, connect_lazily, desk_gateway
from cli.refusals import Refused
from cli.tables import limit_table, table
from cli.terms import set_terms
from domain.desk.carried import Outcome
from domain.desk.states import CommandKind
from domain.desk.terms import difference_text
from domain.values import printable
from startup import Say
from workflows.gateway import PAUSED, DeskGateway, GatewayError, SignalUnanswered, paused_text

NOT_KNOWN = "it is not known whether the change was recorded; `ais limits` shows the limits in force"


async def status(as_json: bool, say: Say) -> str:
    """The status, as a table or as JSON. Says where the settings differ from the desk's terms."""
    found = await desk_gateway(await connect_lazily()).status()
    if difference := difference_text(found, set_terms()):
        say(f"warning: {difference}")
    # json.dumps escapes control and non-ASCII characters, so a reason cannot control the terminal.
    return json.dumps(found.model_dump(mode="json"), indent=2) if as_json else table(found, datetime.now(UTC))


async def limits() -> str:
    """Every limit, and how near the portfolio limits are."""
    found = await desk_gateway(await connect_lazily()).status()
    return limit_table(found)


async def set_limits(asked: dict[str, str], reason: str) -> str:
    """Changes limits. Raises Refused with the reason, or if no worker applied the change in time."""
    gateway = desk_gateway(await connect_lazily())
    command_id = f"limits-{uuid.uuid4().hex}"
    sent = {"command_id": command_id, "actor": actor(), "sent_at": datetime.now(UTC).isoformat()}
    try:
        await gateway.signal(CommandKind.SET_LIMITS.value, {**sent, "limits": asked, "reason": reason})
    except SignalUnanswered as error:
        raise Refused(f"{NOT_KNOWN} ({error})") from error
    except GatewayError as error:
        raise Refused(f"nothing was changed: {error}") from error
    found = await gateway.settled(command_id, STATUS_SECONDS)
    outcome = found.outcomes.get(command_id) if found else None
    if outcome is None or outcome.outcome is Outcome.PENDING:
        raise Refused(f"recorded, not applied yet: {await _why_not(gateway)}. `ais limits` shows the limits in force")
    if outcome.outcome is Outcome.REFUSED:
        raise Refused(outcome.detail or "the change was refused")
    return f"limits of desk {gateway.desk!r}: {printable(outcome.detail or '')}"


async def _why_not(gateway: DeskGateway) -> str:
    """Why nobody has carried the change out so far."""
    with suppress(GatewayError):
        if await gateway.open_status() == PAUSED:
            return paused_text(gateway.desk)
    return "no worker answered"
