"""What `ais start`, `ais restart` and `ais status` do: they put a lifecycle together from the settings and tell its outcome."""

import getpass
import socket
from collections.abc import Awaitable, Callable
from datetime import datetime

from temporalio.client import Client

import settings
from domain.states import Mode
from domain.status import Status
from domain.values import iso
from lifecycle import Lifecycle, Plan, Refused
from startup import NotUp, Say, patiently
from storage.database import Database
from workflows.gateway import DeskGateway, GatewayError, connect

CONNECT_SECONDS = 15.0
STATUS_SECONDS = 5.0
EXPECTED = (Refused, NotUp, GatewayError)


async def start(say: Say) -> str:
    """What became of a start; Refused with the reason."""
    return await _with_lifecycle(Lifecycle.start, say)


async def restart(reason: str, asked_at: datetime, say: Say) -> str:
    """What became of a restart that was asked for at `asked_at`; Refused with the reason."""
    actor = f"cli:{getpass.getuser()}@{socket.gethostname()}"
    return await _with_lifecycle(lambda lifecycle: lifecycle.restart(reason, actor, asked_at), say)


async def status(as_json: bool, say: Say) -> str:
    """The status, as a table or as JSON."""
    client = await _connect(say)
    found = await DeskGateway(client, settings.DeskSettings.load().desk, patience=STATUS_SECONDS).status()
    return found.model_dump_json(indent=2) if as_json else table(found)


def plan(desk: settings.DeskSettings, limits: settings.LimitSettings) -> Plan:
    """What a start fixes, by the settings."""
    return Plan(
        desk=desk.desk,
        mode=Mode(desk.mode),
        symbols=desk.symbols,
        cycle_seconds=desk.cycle_seconds,
        limits=limits.limits(desk.cycle),
        kill_flattens=limits.kill_flattens,
    )


def table(status: Status) -> str:
    """Name and value of what an operator asks for first, one a line."""
    rows = {
        "desk": f"{status.desk} ({status.mode.value}; {', '.join(status.symbols)})",
        "state": f"{status.state.value.upper()} since {iso(status.since)}",
        "why": f"{status.reason} (by {status.actor})" if status.actor else "-",
        "kill": _kill_text(status),
        "cycle": f"{status.cycle_number}, every {status.cycle_seconds:g} s, last {_moment(status.last_cycle_at)}",
        "observed": _observed_text(status),
        "positions": _positions_text(status),
        "last decision": status.last_decision.summary if status.last_decision else "-",
        "open instructions": _open_text(status),
        "unknown orders": ", ".join(status.unknown_orders) or "none",
        "rows waiting": str(status.records_waiting),
        "warnings": "; ".join(status.warnings) or "none",
    }
    return "\n".join(f"{name:<18} {value}" for name, value in rows.items())


def _kill_text(status: Status) -> str:
    kill = status.kill
    if kill is None:
        return f"none holds (number {status.kill_number})"
    quiet = f"every cancel confirmed {iso(kill.quiet_at)}" if kill.quiet_at else "cancels still unconfirmed"
    where = "workflow and database" if kill.latched else "workflow; the database not yet"
    return f"number {status.kill_number}, latched in {where}; {quiet}"


def _observed_text(status: Status) -> str:
    if status.observation is None:
        return f"never; {status.observation_error or 'no cycle yet'}"
    error = f"; since then: {status.observation_error}" if status.observation_error else ""
    return f"{iso(status.observation.observed_at)}, nav {status.observation.nav}{error}"


def _positions_text(status: Status) -> str:
    held = status.observation.positions if status.observation else []
    return ", ".join(f"{p.symbol} {p.quantity} at {p.entry_price}" for p in held if p.quantity) or "none"


def _open_text(status: Status) -> str:
    shown = [f"{i.tool.value} {i.symbol} ({i.outcome.value})" for i in status.open_instructions[:5]]
    more = status.open_instructions_total - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "none"


def _moment(moment: object) -> str:
    return str(moment) if moment else "never"


async def _with_lifecycle(action: Callable[[Lifecycle], Awaitable[str]], say: Say) -> str:
    desk, limits = settings.DeskSettings.load(), settings.LimitSettings.load()
    database = Database(settings.DatabaseSettings.load().url, threads=1, application_name="ais-cli")
    try:
        return await action(Lifecycle(await _connect(say), database, plan(desk, limits), say))
    finally:
        database.close()


async def _connect(say: Say) -> Client:
    config = settings.temporal_connect_config()
    what = f"Temporal at {config.get('target_host')}"
    return await patiently(what, lambda: connect(config), CONNECT_SECONDS, say, RuntimeError)
