"""The markdown that the Temporal web UI shows as the coordinator's current details."""

from domain.assessing import limit_named
from domain.assessment import Level
from domain.carried import Carried
from domain.killing import progress, residue
from domain.states import State
from domain.status import OpenInstruction, open_instructions
from domain.values import iso, printable

_MARKS = {State.RUNNING: "🟢", State.PAUSED: "🟡", State.KILLED: "🔴"}
_MAX_LINES = 10
_LEVELS = {
    Level.CALM: "calm",
    Level.WARN_50: "50 % of its soft limit",
    Level.WARN_75: "75 % of its soft limit",
    Level.WARN_90: "90 % of its soft limit",
    Level.SOFT: "**past its soft limit**",
    Level.HARD: "**past its hard limit**",
}
_NEXT_STEPS = {
    State.RUNNING: "Signals: `pause`, `kill`, `cancel_all`, `deleverage`, `set_limits`, `propose`. Request Cancellation kills.",
    State.PAUSED: "Signals: `resume`, `kill`, `cancel_all`, `deleverage`, `set_limits`. Request Cancellation kills.",
    State.KILLED: "Only `ais restart --reason …` on the command line brings it back. `cancel_all` and `deleverage` still work.",
}


def details(c: Carried) -> str:
    """State, reason, since when, last decision, and what is still open: for a stranger, at a glance."""
    lines = [
        f"## {_MARKS[c.state]} {c.desk}: {c.state.value}",
        f"since {iso(c.since)}{_told_by(c)}",
        "",
        f"- mode `{c.mode.value}`, symbols {', '.join(c.symbols)}, a cycle every {c.cycle_seconds:g} s, cycle {c.cycle_number}",
        *_decision_lines(c),
        *_portfolio_lines(c),
        *_kill_lines(c),
        *_open_lines(c),
        *_waiting_lines(c),
        *(f"- ⚠️ {_one_line(text)}" for text in c.warnings),
        "",
        _NEXT_STEPS[c.state],
    ]
    return "\n".join(lines)


def _told_by(c: Carried) -> str:
    reason = f": {_one_line(c.reason)}" if c.reason else ""
    return f" by {_one_line(c.actor)}{reason}" if c.actor else ""


def _decision_lines(c: Carried) -> list[str]:
    row = c.last_decision
    return [f"- last decision {iso(row.timestamp)}: {_one_line(row.summary)}"] if row else []


def _portfolio_lines(c: Carried) -> list[str]:
    assessment = c.observation.assessment if c.observation else None
    if assessment is None:
        return []
    m = assessment.measures
    lines = [
        f"- equity {m.equity:.2f}, drawdown {m.drawdown:.2%}, loss of the day {m.daily_loss:.2%}, leverage {m.leverage:.2f}"
    ]
    return lines + [f"  - ⚠️ {limit_named(name).told}: {_LEVELS[level]}" for name, level in c.risk.levels.items()]


def _kill_lines(c: Carried) -> list[str]:
    if c.kill is None:
        return []
    left = residue(c)
    more = [f"  - and {len(left) - _MAX_LINES} more"] if len(left) > _MAX_LINES else []
    named = (f"  - {_one_line(text)}" for text in left[:_MAX_LINES])
    return [f"- **kill {c.kill_number}: {progress(c, c.kill)}**", *named, *more]


def _open_lines(c: Carried) -> list[str]:
    open_, count = open_instructions(c), len(c.cancels) + len(c.orders)
    if not open_:
        return ["- no open instruction"]
    lines = [
        f"  - `{i.tool.value}` {i.symbol} {i.outcome.value} since {iso(i.since)}{_error_of(i)}"
        for i in open_[:_MAX_LINES]
    ]
    return [f"- **{count} open instructions**", *lines]


def _error_of(instruction: OpenInstruction) -> str:
    return f", {_one_line(instruction.last_error)}" if instruction.last_error else ""


def _waiting_lines(c: Carried) -> list[str]:
    lines = []
    if c.records:
        lines.append(f"- {len(c.records)} rows wait for the database")
    if c.observation_error:
        lines.append(f"- ⚠️ the last observation failed: {_one_line(c.observation_error)}")
    if c.latch_due:
        lines.append("- the latch is not yet written to the database")
    return lines


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))[:200]
