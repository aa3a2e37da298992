"""What `ais start`, `restart`, `release` and `status` do: a lifecycle put together from the settings, and its outcome told."""

import getpass
import json
import socket
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from temporalio.client import Client

import settings
from domain.carried import Outcome
from domain.identity import fingerprint
from domain.limits import PORTFOLIO_LIMITS
from domain.states import CommandKind, Mode
from domain.status import Status
from domain.values import digits, iso, printable
from lifecycle import Lifecycle, Plan, Refused
from startup import NotUp, Say, patiently
from storage.database import Database
from workflows.gateway import CoordinatorSilent, DeskGateway, GatewayError, connect

CONNECT_SECONDS = 15.0
STATUS_SECONDS = 5.0
EXPECTED = (Refused, NotUp, GatewayError)


async def start(say: Say) -> str:
    """What became of a start; Refused with the reason."""
    return await _with_lifecycle(Lifecycle.start, say)


async def restart(reason: str, asked_at: datetime, say: Say) -> str:
    """What became of a restart that was asked for at `asked_at`; Refused with the reason."""
    return await _with_lifecycle(lambda lifecycle: lifecycle.restart(reason, actor(), asked_at), say)


async def release(reason: str, say: Say) -> str:
    """What became of giving a desk's account back; Refused with the reason."""
    return await _with_lifecycle(lambda lifecycle: lifecycle.release(reason, actor()), say)


async def status(as_json: bool, say: Say) -> str:
    """The status, as a table or as JSON."""
    found = await _gateway(await _connect(say)).status()
    # In ASCII: what a terminal would obey stands there as it was given, escaped.
    return json.dumps(found.model_dump(mode="json"), indent=2) if as_json else table(found)


async def limits(say: Say) -> str:
    """Every limit, and how near the portfolio limits are."""
    found = await _gateway(await _connect(say)).status()
    return limit_table(found)


async def set_limits(asked: dict[str, str], reason: str, say: Say) -> str:
    """Changes limits; Refused with the reason, or where nobody carried it out in time."""
    gateway = _gateway(await _connect(say))
    command_id = f"limits-{uuid.uuid4().hex}"
    sent = {"command_id": command_id, "actor": actor(), "sent_at": datetime.now(UTC).isoformat()}
    await gateway.signal(CommandKind.SET_LIMITS.value, {**sent, "limits": asked, "reason": reason})
    try:
        outcome = (await gateway.outcomes([command_id])).outcomes.get(command_id)
    except CoordinatorSilent:
        outcome = None
    if outcome is None or outcome.outcome is Outcome.PENDING:
        raise Refused(
            "the change is recorded and not yet carried out: no worker answered; `ais limits` shows what holds"
        )
    if outcome.outcome is Outcome.REFUSED:
        raise Refused(outcome.detail or "the change was refused")
    return f"limits of desk {gateway.desk!r}: {printable(outcome.detail or '')}"


def actor() -> str:
    """Who types this."""
    return f"cli:{getpass.getuser()}@{socket.gethostname()}"


def limit_table(status: Status) -> str:
    """The portfolio limits with what they measure, then the other limits."""
    numbers = status.limits
    watched = {limit.limit: limit for limit in status.portfolio.limits} if status.portfolio else {}
    rows = [f"{'portfolio limit':<16}{'now':>12}  {'level':<8}{'orders':>9}{'reduces':>9}{'kills':>9}"]
    for limit in PORTFOLIO_LIMITS:
        found = watched.get(limit.name)
        now, level = (digits(found.value), found.level) if found else ("-", "-")
        most = numbers[limit.maximum] if limit.maximum else "-"
        rows.append(f"{limit.name:<16}{now:>12}  {level:<8}{most:>9}{numbers[limit.soft]:>9}{numbers[limit.hard]:>9}")
    shown = {name for limit in PORTFOLIO_LIMITS for name in limit.numbers}
    return "\n".join([*rows, "", *(f"{name:<24}{value:>10}" for name, value in numbers.items() if name not in shown)])


def plan(desk: settings.DeskSettings, limits: settings.LimitSettings, account: str | None = None) -> Plan:
    """What a start fixes, by the settings."""
    return Plan(
        desk=desk.desk,
        mode=Mode(desk.mode),
        symbols=desk.symbols,
        cycle_seconds=desk.cycle_seconds,
        limits=limits.limits(desk.cycle),
        kill_flattens=limits.kill_flattens,
        account=account,
    )


def account_of(desk: settings.DeskSettings) -> str | None:
    """The fingerprint of the venue account; None where these settings do not name it."""
    if desk.mode == "paper":
        return fingerprint("")
    account_id = settings.AsterSettings.load().aster_account_id
    return fingerprint(account_id.get_secret_value()) if account_id else None


def table(status: Status) -> str:
    """Name and value of what an operator asks for first, one a line."""
    last = iso(status.last_cycle_at) if status.last_cycle_at else "never"
    rows = {
        "desk": f"{status.desk} ({status.mode.value}; {', '.join(status.symbols)})",
        "state": f"{status.state.value.upper()} since {iso(status.since)}",
        "why": f"{status.reason} (by {status.actor})" if status.actor else "-",
        "kill": _kill_text(status),
        "belongs to": _identity_text(status),
        "not over yet": _residue_text(status),
        "cycle": f"{status.cycle_number}, every {status.cycle_seconds:g} s, last {last}",
        "observed": _observed_text(status),
        "positions": _positions_text(status),
        "limits": _portfolio_text(status),
        "failing agents": _agents_text(status),
        "last decision": status.last_decision.summary if status.last_decision else "-",
        "open instructions": _open_text(status),
        "unknown orders": ", ".join(status.unknown_orders) or "none",
        "rows waiting": str(status.records_waiting),
        "warnings": "; ".join(status.warnings) or "none",
    }
    return "\n".join(f"{name:<18} {printable(value)}" for name, value in rows.items())


def _kill_text(status: Status) -> str:
    kill = status.kill
    if kill is None:
        return f"none in force (last number {status.kill_number})"
    where = "workflow and database" if kill.latched else "workflow, not yet in database"
    flat = "" if not kill.flattens else f"; flat {iso(kill.flat_at)}" if kill.flat_at else "; closing positions"
    return f"number {status.kill_number}, latched in {where}; {kill.progress}{flat}"


def _identity_text(status: Status) -> str:
    account = f", venue account {status.account}" if status.account else ""
    return f"database {status.database_id or 'not known yet'}{account}"


def _residue_text(status: Status) -> str:
    left = status.kill.residue if status.kill else []
    return "; ".join(left) or "nothing"


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


def _portfolio_text(status: Status) -> str:
    if status.portfolio is None:
        return "-"
    now = {limit.limit: limit.value for limit in status.portfolio.limits}
    near = [f"{limit.limit} is {limit.level}" for limit in status.portfolio.limits if limit.level != "calm"]
    facts = f"drawdown {now['drawdown']:.2%}, loss of the day {now['daily_loss']:.2%}, leverage {now['leverage']:.2f}"
    return "; ".join([facts, *near])


def _agents_text(status: Status) -> str:
    shown = [
        f"{name} quarantined until cycle {agent.quarantined_until}" if agent.quarantined_until else f"{name} failed"
        for name, agent in status.failing_agents.items()
    ]
    return ", ".join(shown) or "none"


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


async def _connect(say: Say) -> Client:
    config = settings.temporal_connect_config()
    what = f"Temporal at {config.get('target_host')}"
    try:
        return await patiently(what, lambda: connect(config), CONNECT_SECONDS, say, RuntimeError)
    except ValueError as error:
        # No address at all, or a certificate that is none: to wait for it is no use.
        raise NotUp(f"{what} cannot be called: {error}; check TEMPORAL_ADDRESS") from error
