"""How large each collection of the carried state may become. A new one without a line here fails a test."""

from collections.abc import Callable

from domain.desk.applying import MAX_DELEVERAGES
from domain.desk.carried import MAX_WARNINGS, Carried
from domain.desk.facts import MAX_SYMBOLS
from domain.desk.inbox import MAX_PROPOSALS
from domain.desk.killing import MAX_SEEN_SYMBOLS
from domain.desk.latch import MAX_KNOWN_RESTARTS
from domain.desk.outbox import MAX_OPEN_CANCELS_PER_LANE
from domain.desk.recording import KEPT_UNNAMED, MAX_KEPT_COMMANDS
from domain.desk.resting import MAX_QUOTES
from domain.trading.instructions import CANCEL_TOOLS

# A lane that is full takes one more once the calls of all its cancels have begun: while one call is under way, and while the
# ones that it covers wait to be given up.
PER_LANE = MAX_OPEN_CANCELS_PER_LANE + 2


def _symbols(c: Carried) -> int:
    return len(c.symbols) + len(c.seen_symbols)


# What is waiting to be written has no bound of its own: see UNWRITTEN.
BOUNDS: dict[str, Callable[[Carried], int]] = {
    "symbols": lambda c: MAX_SYMBOLS,
    "restarts": lambda c: MAX_KNOWN_RESTARTS,
    "filled": _symbols,
    "seen_symbols": lambda c: MAX_SEEN_SYMBOLS,
    "recent_orders": lambda c: c.limits.max_orders_per_minute,
    "agents": lambda c: 100,
    "proposals": lambda c: MAX_PROPOSALS,
    "quotes": lambda c: MAX_QUOTES,
    "warnings": lambda c: MAX_WARNINGS,
    "commands": lambda c: MAX_KEPT_COMMANDS,
    "unnamed": lambda c: KEPT_UNNAMED,
    "cancels": lambda c: PER_LANE * len(CANCEL_TOOLS) * _symbols(c) + MAX_QUOTES,
    "orders": lambda c: 2 * _symbols(c),
    "deleverages": lambda c: MAX_DELEVERAGES + _symbols(c),
}
# Every row of these has a cause of its own, a command, an order or a cancel; quiet cycles share one. While the database is
# away the API refuses commands from 2,000 on, and a hand-over cuts what is too large (`domain/desk/handover.py`).
UNWRITTEN = {"records", "instruction_rows"}
# Compressed copies of the others, bounded in characters.
COPIES = {"packed"}


def too_many(c: Carried) -> list[str]:
    """The collections that are larger than they may be."""
    found = [f"{name}: {len(getattr(c, name))}" for name, most in BOUNDS.items() if len(getattr(c, name)) > most(c)]
    return found + [f"{lane}: too many" for lane in c.cancels.lanes if len(c.cancels.lane(*lane)) > PER_LANE]
