"""The markdown that the Temporal web UI shows as the coordinator's current details."""

from itertools import islice

from domain.desk.carried import Carried
from domain.desk.killing import progress, residue
from domain.desk.resting import resting_orders
from domain.desk.states import State
from domain.desk.status import open_instructions
from domain.risk.assessing import limit_named
from domain.trading.assessment import Level
from domain.values import iso, printable

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
    State.PAUSED: "Signals: `resume`, `kill`, `cancel_all`, `deleverage`, `set_limits`, `add_symbols`. "
    "Request Cancellation kills.",
    State.KILLED: "Only `ais restart --reason …` on the command line brings it back. `cancel_all` and `deleverage` still work.",
}


def details(c: Carried) -> str:
    """State, since when and by whom, the next step, and what is still open: readable at a glance by a stranger.

    In plain words: Temporal's own badge above it says RUNNING, and a plain font has no pictures.
    """
    reason = f": {_one_line(c.reason)}" if c.reason else ""
    told_by = f" by {_one_line(c.actor)}{reason}" if c.actor else ""
    lines = [
        f"## {c.state.value.upper()}: desk {c.desk}, {c.mode.value}",
        f"since {iso(c.since)}{told_by}",
        "",
        _NEXT_STEPS[c.state],
        "",
        *_kill_lines(c),
        *_order_lines(c),
        f"- mode `{c.mode.value}`, symbols {', '.join(c.symbols)}, a cycle every {c.cycle_seconds:g} s, cycle {c.cycle_number}",
    ]
    if row := c.last_decision:
        lines.append(f"- last decision {iso(row.timestamp)}: {_one_line(row.summary)}")
    lines += _portfolio_lines(c)
    if c.records:
        lines.append(f"- {len(c.records)} rows wait for the database")
    if c.observation_error:
        lines.append(f"- WARNING: the last observation failed: {_one_line(c.observation_error)}")
    if c.latch_due:
        lines.append("- the latch is not yet written to the database")
    lines += [f"- WARNING: {_one_line(text)}" for text in c.warning_texts]
    return "\n".join(lines)


def _portfolio_lines(c: Carried) -> list[str]:
    assessment = c.observation.assessment if c.observation else None
    if assessment is None:
        return []
    m = assessment.measures
    lines = [
        f"- equity {m.equity:.2f}, drawdown {m.drawdown:.2%}, loss of the day {m.daily_loss:.2%}, leverage {m.leverage:.2f}"
    ]
    return lines + [
        f"  - WARNING: {limit_named(name).title}: {_LEVELS[level]}" for name, level in c.risk.levels.items()
    ]


def _kill_lines(c: Carried) -> list[str]:
    if c.kill is None:
        return []
    left = residue(c)
    more = [f"  - and {len(left) - _MAX_LINES} more"] if len(left) > _MAX_LINES else []
    named = (f"  - {_one_line(text)}" for text in islice(left, _MAX_LINES))
    return [f"- **kill {c.kill_number}: {progress(c, c.kill)}**", *named, *more]


def _order_lines(c: Carried) -> list[str]:
    open_, resting = open_instructions(c), resting_orders(c)
    lines = [f"- **{len(open_)} open instructions**" if open_ else "- no open instruction"]
    for i in islice(open_, _MAX_LINES):
        error = f", {_one_line(i.last_error)}" if i.last_error else ""
        lines.append(f"  - `{i.tool.value}` {i.symbol} {i.outcome.value} since {iso(i.since)}{error}")
    if resting:
        lines.append(f"- **{len(resting)} resting orders**")
    for o in islice(resting, _MAX_LINES):
        lines.append(f"  - {_one_line(o.symbol)} {o.side} {o.quantity} at {o.price}, filled {o.filled}")
    return lines


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))[:200]
