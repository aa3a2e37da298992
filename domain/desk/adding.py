"""Adds symbols to the whitelist of a paused desk, once a reading of the venue has shown that it knows them.

Only a restart removes a symbol (`domain/desk/terms.py`), since the desk may have orders and positions in it.
"""

from domain.desk.carried import Carried, Outcome, PendingAddition, Refusal, RefusalCode
from domain.desk.commands import AddSymbols
from domain.desk.facts import MAX_SYMBOLS
from domain.desk.outbox import queue_row
from domain.desk.recording import Tick, control_row, remember
from domain.desk.states import State
from domain.trading.market import Observation
from domain.trading.symbols import few


def ask(c: Carried, command: AddSymbols, tick: Tick) -> Refusal | None:
    """Accepts symbols, which a reading must confirm next. Symbols that the desk already has change nothing."""
    if c.addition is not None:
        return Refusal("other symbols are being added; try again in a moment", RefusalCode.BUSY)
    # A set: 10,000 of these may wait, and a new worker has to read all of them again within one workflow task.
    known = set(c.symbols)
    new = [symbol for symbol in command.symbols if symbol not in known]
    if len(c.symbols) + len(new) > MAX_SYMBOLS:
        return Refusal(
            f"that would be {len(c.symbols) + len(new)} symbols; a desk has {MAX_SYMBOLS} at most", RefusalCode.INVALID
        )
    if new:
        remember(c, command, Outcome.PENDING, tick)
        c.addition = PendingAddition(command=command, symbols=new, since_kill=c.kill_number)
        return None
    record = remember(c, command, Outcome.APPLIED, tick, repeated=True)
    record.symbols, record.detail = c.symbols, "no change"
    queue_row(c, control_row(c, command, "repeated", tick, shown=_reason("no change", command)))
    return None


def finish(c: Carried, addition: PendingAddition, reading: Observation | str, tick: Tick) -> Refusal | None:
    """Adds the symbols if the desk is still paused and the venue has rules for them. `reading` may instead be the reason
    why there is none."""
    if c.state is not State.PAUSED or c.kill_number != addition.since_kill:
        return Refusal(f"the coordinator is no longer paused: it is {c.state.value}", RefusalCode.CONFLICT)
    if isinstance(reading, str):
        return Refusal(f"the venue could not be read: {reading}", RefusalCode.CONFLICT)
    if strange := [symbol for symbol in addition.symbols if symbol not in reading.rules]:
        how = "on paper its worker needs it in AIS_SYMBOLS first" if c.mode == "paper" else "look for its name there"
        return Refusal(f"the venue has no rules for {few(strange)}; {how}", RefusalCode.INVALID)
    command, before = addition.command, ",".join(c.symbols)
    c.symbols = [*c.symbols, *addition.symbols]
    c.seen_symbols = [symbol for symbol in c.seen_symbols if symbol not in addition.symbols]
    c.row_dirty = True
    record = remember(c, command, Outcome.APPLIED, tick)
    record.symbols, record.detail = c.symbols, f"symbols {before} -> {','.join(c.symbols)}"
    queue_row(c, control_row(c, command, "applied", tick, shown=_reason(record.detail, command)))
    return None


def _reason(change: str, command: AddSymbols) -> str:
    return f"{change} ({command.reason})" if command.reason else change
