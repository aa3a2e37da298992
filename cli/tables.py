"""Formats a desk's status and limits as tables for people."""

from datetime import datetime

from domain.desk.status import LimitStatus, Status
from domain.risk.limits import PORTFOLIO_LIMITS
from domain.values import digits, iso, plain, printable

# The wording of each level of the status: in a sentence, and in a narrow column.
LEVELS = {
    "calm": ("is calm", "calm"),
    "warn_50": ("has reached 50 % of its soft limit", "50 % of soft"),
    "warn_75": ("has reached 75 % of its soft limit", "75 % of soft"),
    "warn_90": ("has reached 90 % of its soft limit", "90 % of soft"),
    "soft": ("has reached its soft limit", "soft limit"),
    "hard": ("has reached its hard limit", "hard limit"),
}
# How long past its cycle something that comes once a cycle counts as overdue.
OVERDUE_SECONDS = 3.0
NOT_READ = "not known: the venue has not been read yet"
_TITLES = {limit.name: limit.title for limit in PORTFOLIO_LIMITS}


def limit_table(status: Status) -> str:
    """The portfolio limits with their current measures, then the other limits."""
    numbers = status.limits
    watched = {limit.limit: limit for limit in status.portfolio.limits} if status.portfolio else {}
    rows = [f"{'portfolio limit':<16}{'now':>12}  {'level':<13}{'orders':>9}{'reduces':>9}{'kills':>9}"]
    for limit in PORTFOLIO_LIMITS:
        found = watched.get(limit.name)
        now, level = (digits(found.value), level_words(found)[1]) if found else ("-", "-")
        most = numbers[limit.maximum] if limit.maximum else "-"
        rows.append(f"{limit.name:<16}{now:>12}  {level:<13}{most:>9}{numbers[limit.soft]:>9}{numbers[limit.hard]:>9}")
    shown = {name for limit in PORTFOLIO_LIMITS for name in limit.numbers}
    return "\n".join([*rows, "", *(f"{name:<24}{value:>10}" for name, value in numbers.items() if name not in shown)])


def table(status: Status, now: datetime) -> str:
    """What an operator looks for first: a name and a value on each line. Values that are too old are marked STALE."""
    last = iso(status.last_cycle_at) if status.last_cycle_at else "never"
    account = f", venue account {status.account}" if status.account else ""
    old = "STALE: " if reading_is_old(status, now) else ""
    late = "OVERDUE: " if status.last_cycle_at and is_overdue(status.last_cycle_at, status, now) else ""
    open_instructions = [f"{i.tool.value} {i.symbol} ({i.outcome.value})" for i in status.open_instructions[:5]]
    rows = {
        "desk": f"{status.desk} ({status.mode.value}; {', '.join(status.symbols)})",
        "state": f"{status.state.value.upper()} since {iso(status.since)}",
        "why": why_text(status),
        "kill": kill_text(status),
        **({"clock": behind} if (behind := _behind_text(status, now)) else {}),
        "belongs to": f"database {status.database_id or 'not known yet'}{account}",
        **({"restart": "pending; the desk stays killed until the latch is cleared"} if status.restart_pending else {}),
        "outstanding": "; ".join(status.kill.residue if status.kill else []) or "none",
        "cycle": f"{late}{status.cycle_number}, every {status.cycle_seconds:g} s, last {last}",
        "observed": old + _observed_text(status),
        "positions": old + _positions_text(status),
        "resting orders": old + _resting_text(status),
        "limits": old + _portfolio_text(status),
        "failing agents": _failing_text(status),
        "last decision": status.last_decision.summary if status.last_decision else "-",
        "open instructions": _first_of(status.open_instructions_total, open_instructions, ", "),
        "unknown orders": _first_of(status.unknown_orders_total, status.unknown_orders, ", "),
        "unwritten rows": str(status.records_waiting),
        "warnings": "; ".join(status.warnings) or "none",
    }
    return "\n".join(f"{name:<18} {printable(value)}" for name, value in rows.items())


def _behind_text(status: Status, now: datetime) -> str:
    """Says if this machine's clock is behind the desk's: nothing would be marked as old then, however old it is."""
    last = status.last_decision.timestamp if status.last_decision else status.since
    seen = status.observation.observed_at if status.observation else status.since
    behind = (max(status.since, status.last_cycle_at or status.since, seen, last) - now).total_seconds()
    if behind <= OVERDUE_SECONDS:
        return ""
    return f"this machine is {behind:.0f} s or more behind the desk's clock: old values may not be marked as old"


def why_text(status: Status) -> str:
    """Why the desk is in its state, and by whom; nobody has to give a reason for a resume."""
    return f"{status.reason or 'no reason given'} (by {status.actor})" if status.actor else "-"


def kill_text(status: Status) -> str:
    """Where the kill is latched, and how far it has got."""
    kill = status.kill
    if kill is None:
        return f"none (last number {status.kill_number})"
    where = "workflow and database" if kill.latched else "workflow, not yet in database"
    flat = "" if not kill.flattens else f"; flat {iso(kill.flat_at)}" if kill.flat_at else "; closing positions"
    return f"number {status.kill_number}, latched in {where}; {kill.progress}{flat}"


def _observed_text(status: Status) -> str:
    if status.observation is None:
        return f"never; {status.observation_error or 'no cycle yet'}"
    error = f"; since then: {status.observation_error}" if status.observation_error else ""
    return f"{iso(status.observation.observed_at)}, nav {status.observation.nav}{error}"


def is_overdue(moment: datetime, status: Status, now: datetime) -> bool:
    """Whether something that comes once a cycle should have come again by now."""
    return (now - moment).total_seconds() > status.cycle_seconds + OVERDUE_SECONDS


def reading_is_old(status: Status, now: datetime) -> bool:
    """Whether positions and limits may be outdated, because the venue was not read when it should have been."""
    seen = status.observation
    return seen is not None and (status.observation_error is not None or is_overdue(seen.observed_at, status, now))


def _positions_text(status: Status) -> str:
    """The positions; an account that nobody has read is not shown as empty."""
    if status.observation is None:
        return NOT_READ
    held = [f"{p.symbol} {p.quantity} at {p.entry_price}" for p in status.observation.positions if p.quantity]
    return ", ".join(held) or "none"


def _resting_text(status: Status) -> str:
    if status.observation is None and not status.resting_orders_total:
        return NOT_READ
    shown = [
        f"{o.symbol} {o.side} {plain(o.quantity)}{f' at {plain(o.price)}' if o.price else ''}, filled {plain(o.filled)}"
        f" ({o.agent_id or 'no known agent'}, {o.order_id})"
        for o in status.resting_orders[:5]
    ]
    return _first_of(status.resting_orders_total, shown, "; ")


def _failing_text(status: Status) -> str:
    failing = [
        f"{name} quarantined until cycle {agent.quarantined_until}" if agent.quarantined_until else f"{name} failed"
        for name, agent in status.failing_agents.items()
    ]
    return ", ".join(failing) or "none"


def _first_of(total: int, shown: list[str], separator: str) -> str:
    # A coordinator of an earlier version tells no total of some.
    more = max(total - len(shown), 0)
    return separator.join(shown) + (f" and {more} more" if more else "") if shown else "none"


def _portfolio_text(status: Status) -> str:
    if status.portfolio is None:
        return "-"
    now = {limit.limit: limit.value for limit in status.portfolio.limits}
    near = [limit_text(limit) for limit in status.portfolio.limits if limit.level != "calm"]
    facts = f"drawdown {now['drawdown']:.2%}, loss of the day {now['daily_loss']:.2%}, leverage {now['leverage']:.2f}"
    return "; ".join([facts, *near])


def limit_text(limit: LimitStatus) -> str:
    """`largest position has reached 50 % of its soft limit`."""
    return f"{_TITLES.get(limit.limit, limit.limit)} {level_words(limit)[0]}"


def level_words(limit: LimitStatus) -> tuple[str, str]:
    """A level in a sentence and in a column; a newer coordinator may know others."""
    return LEVELS.get(limit.level, (f"is at {limit.level}", limit.level))
