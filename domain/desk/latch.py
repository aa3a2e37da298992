"""The latch in two places: compares the database's row of the desk with what this coordinator remembers.

Every kill has an id beside its number, and so does the restart that cleared it: the id of its row in the decision log.
Either store may be restored from an old backup. If the database is old, the coordinator writes its row again. If the
coordinator is old, the row names kills or restarts that it does not remember, or remembers differently. It then knows that
its own state is outdated, and stays killed until a person has looked.

The incident behind the ids: Temporal's store was restored twice to before a kill and its restart. The new kill had the same
number as the old one, which was cleared. The database refused the write, the coordinator believed it was done, and the desk
traded again.
"""

from domain.desk.carried import Carried
from domain.desk.commands import Source
from domain.desk.killing import kill, own_kill
from domain.desk.outbox import DeskRow, desk_row_written
from domain.desk.recording import Tick, forget_old_commands
from domain.desk.states import State
from domain.desk.warnings import Topic, unwarn, warn
from domain.trading.market import LatchRow

MAX_KNOWN_RESTARTS = 20
UNREAD = "the latch in the database cannot be read"
PAST_IS_OLD = "this coordinator's state is outdated"


def known_latch(c: Carried) -> int:
    """The newest kill that the database certainly holds. A reading that begins now is compared with it."""
    return c.latched_number if c.state is State.KILLED else 0


def compare(c: Carried, latch: LatchRow | None, known: int, tick: Tick) -> None:
    """Compares a reading of the row with our state: killed in either place means killed. `known` is what `known_latch`
    returned before the reading."""
    if latch is None:
        # The row is gone (the database came back empty): write it again, killed or not.
        c.row_dirty, c.latched_number = True, 0
        return
    if why := _foreign(c, latch):
        _stay_closed(c, latch, why, tick)
        return
    if latch.killed and c.state is not State.KILLED:
        _kill(c, latch.actor or "database", f"the database says killed: {latch.reason or 'no reason given'}", tick)
    elif known > (held := latch.kill_number if latch.killed else 0):
        # The row came back old: write the kill again.
        c.latched_number = min(c.latched_number, held)
    elif c.state is not State.KILLED and latch.kill_number < c.kill_number:
        # The row is from before a kill that a restart has cleared since: write the newer state again.
        c.row_dirty = True


def row_answered(c: Carried, row: DeskRow, answer: LatchRow, tick: Tick) -> None:
    """Handles the row that the database returned after a write: a kill is latched only if that row says so."""
    if why := _foreign(c, answer):
        _stay_closed(c, answer, why, tick)
    elif row.latch.killed and not answer.killed:
        _stay_closed(c, answer, f"the database shows kill {row.latch.kill_number} as cleared", tick)
    elif answer.killed and c.state is not State.KILLED:
        compare(c, answer, 0, tick)
    elif not row.latch.killed or answer.kill_id in (None, row.latch.kill_id):
        # A row without an id was edited by hand. Its number was compared above. If the row did not count as written here, it
        # would be written again for ever.
        desk_row_written(c, row)


def unread(c: Carried, error: str | None) -> None:
    """Warns while the latch in the database cannot be read; meanwhile no order goes out (I7)."""
    unwarn(c, Topic.LATCH_UNREAD)
    if error:
        warn(c, Topic.LATCH_UNREAD, f"{UNREAD}: {error}")


def restart_tried(c: Carried, row_id: str) -> None:
    """Remembers a restart before it is sent: the row may name it even if the answer never arrives."""
    c.restarts = [*(known for known in c.restarts if known != row_id), row_id][-MAX_KNOWN_RESTARTS:]


def restart_applied(c: Carried, row_id: str, kill_number: int) -> None:
    """Notes that a person's restart has cleared the latch."""
    c.cleared_by, c.cleared_number = row_id, kill_number
    unwarn(c, Topic.PAST_IS_OLD)


def _foreign(c: Carried, latch: LatchRow) -> str | None:
    """What the row holds that this coordinator does not remember, if anything. A reading that is merely late never counts."""
    if latch.kill_number > c.kill_number:
        return f"the database holds kill {latch.kill_number}, which this coordinator never reached"
    if latch.kill_number == c.kill_number and latch.kill_id and latch.kill_id != c.kill_id:
        return f"kill {latch.kill_number} in the database is not the one that this coordinator remembers"
    if latch.cleared_by and latch.cleared_by not in c.restarts:
        return f"the database holds a restart ({latch.cleared_by}) that this coordinator does not remember"
    return None


def _stay_closed(c: Carried, latch: LatchRow, why: str, tick: Tick) -> None:
    if latch.cleared_by:
        restart_tried(c, latch.cleared_by)
    if c.state is State.KILLED and latch.killed and latch.kill_number >= c.kill_number:
        # Killed in both places: a restart must name the row's number.
        c.kill_number, c.kill_id = latch.kill_number, latch.kill_id or ""
        c.latched_number = latch.kill_number
    else:
        c.kill_number = max(c.kill_number, latch.kill_number)
        row_says = f"the database says killed: {latch.reason or 'no reason given'}; " if latch.killed else ""
        _kill(c, latch.actor or "database", f"{row_says}{why}: Temporal's store was restored to an old state", tick)
    then = "Compare positions and open orders with the venue, then `ais restart`"
    warn(c, Topic.PAST_IS_OLD, f"{PAST_IS_OLD} ({why}): the desk stays killed. {then}")


def _kill(c: Carried, actor: str, reason: str, tick: Tick) -> None:
    kill(c, own_kill(actor, reason, Source.DATABASE, tick), tick)
    forget_old_commands(c, tick)
