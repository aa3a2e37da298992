"""The latch in two places: what the database's row of the desk says, against what this coordinator remembers.

Every kill has an id beside its number, and so has the restart that cleared it: the row of the decision log that tells of it.
Either store may come back old, from a backup. A database that is old is written again. A coordinator that is old finds kills or
restarts in the row which it does not remember, or remembers otherwise: then it knows that its own past is not what happened,
and stays killed until a person has looked.

The incident behind the ids: Temporal's store was put back twice from before a kill and its restart. The kill of the second past
had the number of the first one, which was cleared; its write was refused and taken for done, and the desk traded again.
"""

from domain.carried import Carried
from domain.commands import Source
from domain.killing import kill, own_kill
from domain.market import LatchRow
from domain.outbox import DeskRow, desk_row_written
from domain.states import State
from domain.traces import Tick, forget_old_commands, unwarn, warn
from domain.versions import knows_generations

MAX_KNOWN_RESTARTS = 20
UNREAD = "the latch in the database cannot be read"
PAST_IS_OLD = "this coordinator's state is outdated"


def known_latch(c: Carried) -> int:
    """The newest kill that the database is known to hold: what a reading that begins now is compared with."""
    return c.latched_number if c.state is State.KILLED else 0


def compare(c: Carried, latch: LatchRow | None, known: int, tick: Tick) -> None:
    """Takes a reading of the row in; killed in either place means killed. `known` is `known_latch` from before it began."""
    if latch is None:
        # The row is gone (a database that came back empty): write it again, killed or not.
        c.row_dirty, c.latched_number = True, 0
        return
    if not knows_generations(c.schema_version):
        _catch_up(c, latch)
    elif why := _foreign(c, latch):
        _stay_closed(c, latch, why, tick)
        return
    if latch.killed and c.state is not State.KILLED:
        _kill(c, latch.actor or "database", f"the database says killed: {latch.reason or 'no reason given'}", tick)
    elif known > (held := latch.kill_number if latch.killed else 0):
        # It came back old: write the kill again.
        c.latched_number = min(c.latched_number, held)
    elif c.state is not State.KILLED and latch.kill_number < c.kill_number and knows_generations(c.schema_version):
        # It came back old from before a kill that a restart has cleared: that has to stand there, too.
        c.row_dirty = True


def row_answered(c: Carried, row: DeskRow, answer: LatchRow | None, tick: Tick) -> None:
    """Takes in what the row held after it was written: a kill is latched where the row says so, not because it was sent."""
    if answer is None or not knows_generations(c.schema_version):
        desk_row_written(c, row)
    elif why := _foreign(c, answer) or _lost(row, answer):
        _stay_closed(c, answer, why, tick)
    elif answer.killed and c.state is not State.KILLED:
        compare(c, answer, 0, tick)
    elif not row.latch.killed or answer.kill_id == row.latch.kill_id:
        desk_row_written(c, row)


def unread(c: Carried, error: str | None) -> None:
    """Tells for as long as it lasts that nobody knows what the database says; no order goes out until then (I7)."""
    unwarn(c, UNREAD)
    if error:
        warn(c, f"{UNREAD}: {error}")


def restart_tried(c: Carried, row_id: str) -> None:
    """From now on the row may name this restart, whether or not its answer arrives."""
    c.restarts = [*(known for known in c.restarts if known != row_id), row_id][-MAX_KNOWN_RESTARTS:]


def restart_applied(c: Carried, row_id: str, kill_number: int) -> None:
    """The latch is cleared: a person has looked."""
    c.cleared_by, c.cleared_number = row_id, kill_number
    unwarn(c, PAST_IS_OLD)


def _foreign(c: Carried, latch: LatchRow) -> str | None:
    """What the row holds that never happened in this coordinator's past. A reading that is merely late holds no such thing."""
    if latch.kill_number > c.kill_number:
        return f"the database holds kill {latch.kill_number}, which this coordinator never reached"
    if latch.kill_number == c.kill_number and latch.kill_id and latch.kill_id != c.kill_id:
        return f"kill {latch.kill_number} in the database is not the one that this coordinator remembers"
    if latch.cleared_by and latch.cleared_by not in c.restarts:
        return f"the database holds a restart ({latch.cleared_by}) that this coordinator does not remember"
    return None


def _lost(row: DeskRow, answer: LatchRow) -> str | None:
    if row.latch.killed and not answer.killed:
        return f"the database holds kill {row.latch.kill_number} as cleared"
    return None


def _stay_closed(c: Carried, latch: LatchRow, why: str, tick: Tick) -> None:
    if latch.cleared_by:
        restart_tried(c, latch.cleared_by)
    if c.state is State.KILLED and latch.killed and latch.kill_number >= c.kill_number:
        # Killed in both places: the row's number is the one that a restart has to name.
        c.kill_number, c.kill_id = latch.kill_number, latch.kill_id or ""
        c.latched_number = latch.kill_number
    else:
        c.kill_number = max(c.kill_number, latch.kill_number)
        told = f"the database says killed: {latch.reason or 'no reason given'}; " if latch.killed else ""
        _kill(c, latch.actor or "database", f"{told}{why}: Temporal's store was restored to an old state", tick)
    warn(
        c,
        f"{PAST_IS_OLD} ({why}): it stays killed. Compare positions and open orders with the venue, then `ais restart`",
    )


def _kill(c: Carried, actor: str, reason: str, tick: Tick) -> None:
    kill(c, own_kill(actor, reason, Source.DATABASE, tick), tick)
    forget_old_commands(c, tick)


def _catch_up(c: Carried, latch: LatchRow) -> None:
    """As runs of schema 3 do it: by numbers alone."""
    if latch.kill_number > c.kill_number:
        unlatched = c.state is State.KILLED and not latch.killed
        c.kill_number = latch.kill_number + unlatched
        c.latched_number = latch.kill_number
