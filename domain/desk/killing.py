"""The kill as a saga: cancels for every symbol and market, confirmed one by one, until the venue itself shows no open
order.

The kill is *quiet* once every cancel is confirmed and no order is on its way (`outbox.note_quiet`). It is *verified* once a
later reading of the whole account shows no open order (`verify`). Each step is part of the carried state: whatever dies,
the next process continues where the last one stopped.
"""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import product

from domain.desk import growth, inbox
from domain.desk.carried import Carried, CommandRecord, GrownPosition, KillRecord, LeftPosition, Outcome, PendingOrder
from domain.desk.commands import Command, Source
from domain.desk.listed import Listed
from domain.desk.open_cancels import Lane
from domain.desk.outbox import MAX_OPEN_CANCELS_PER_LANE, NOT_SENT_IN_SHADOW, prepared_row, queue_instruction, queue_row
from domain.desk.recording import Tick, control_row, enter, remember
from domain.desk.states import CommandKind, Mode, State
from domain.desk.versions import a_kill_never_rests
from domain.trading.instructions import CANCEL_TOOLS, OpenCancel, Tool
from domain.trading.market import Observation
from domain.trading.symbols import covered_symbols
from domain.values import ZERO, assembled, iso, plain

MAX_SEEN_SYMBOLS = 200


def kill(c: Carried, command: Command, tick: Tick) -> None:
    """Kills, whatever else the command contains. On a killed desk it raises the kill number and issues the cancels again."""
    c.kill_number += 1
    c.last_kill_at = tick.now
    repeated = c.state is State.KILLED
    row = control_row(c, command, "repeated" if repeated else "applied", tick)
    c.kill_id = row.decision_id
    if not repeated:
        c.kill = KillRecord(
            command_id=command.command_id,
            reason=command.reason,
            actor=command.actor,
            source=command.source,
            at=tick.now,
            row_id=row.decision_id,
            flattens=c.kill_flattens and c.mode is not Mode.SHADOW,
        )
        growth.note_kill(c, c.kill)
        # Cancels still open from an earlier kill do not count towards this one.
        for cancel in c.cancels:
            cancel.of_kill = False
        enter(c, State.KILLED, command, tick)
    _stand_down(c, command, tick)
    record = remember(c, command, Outcome.APPLIED, tick, repeated=repeated)
    record.symbols = covered_symbols(c.symbols, c.seen_symbols)
    issue_cancels(c, record, record.symbols, tick)
    queue_row(c, row, first=not repeated)


def _stand_down(c: Carried, command: Command, tick: Tick) -> None:
    """Drops waiting proposals. Also drops reductions that have not begun, unless a limit caused this kill."""
    if command.source is not Source.RISK:
        if c.kill:
            c.kill.hands_off = True
        c.deleverages = [d for d in c.deleverages if d.order_id or not d.automatic]
    for waiting in c.proposals:
        inbox.settle(c, waiting, "the desk was killed before a cycle took it up", tick)
    c.proposals = []


def issue_cancels(c: Carried, record: CommandRecord, symbols: list[str], tick: Tick) -> None:
    """Issues a new round of cancels under a command's id: futures, then spot, for each symbol.

    A flood of kills must not grow the state without end. Past the bound no new cancel is added if one for the same symbol
    and market still waits: that one serves both. A cancel whose call has already begun does not count, since it may have
    missed the orders that this one is for. If very many commands arrive together, the cancels of the first ones serve all.

    A kill gets a new cancel even past the bound, unless one was never tried: only such a cancel starts at once, while failed
    ones wait seconds for their next attempt. The next failure removes the extra cancel again.
    """
    record.rounds += 1
    # Cancels that a person requests after a kill do not reopen the kill: it would cancel more than requested.
    if c.kill and record.kind is CommandKind.KILL:
        c.kill.quiet_at = c.kill.verified_at = None
    for symbol, tool in product(tick.issued.left(symbols) if tick.issued else symbols, CANCEL_TOOLS):
        if c.cancels.has_room(tool, symbol, MAX_OPEN_CANCELS_PER_LANE) or (
            record.kind is CommandKind.KILL
            and a_kill_never_rests(c.schema_version)
            and not c.cancels.has_fresh(tool, symbol)
        ):
            _prepare_cancel(c, record, tool, symbol, tick)


def _prepare_cancel(c: Carried, record: CommandRecord, tool: Tool, symbol: str, tick: Tick) -> None:
    cancel = OpenCancel.prepared(record.command_id, record.rounds, tool, symbol, tick.now)
    cancel.of_kill = record.kind is CommandKind.KILL
    if cancel.of_kill and c.kill:
        c.kill.cancels += 1
    if c.mode is Mode.SHADOW:
        cancel.last_error = NOT_SENT_IN_SHADOW
    else:
        c.cancels.add(cancel)
    queue_instruction(c, prepared_row(c.desk, cancel))


def own_kill(actor: str, reason: str, source: Source, tick: Tick) -> Command:
    """A kill that AIS starts by itself, not on an operator's command."""
    return Command(command_id=tick.new_id("command"), kind=CommandKind.KILL, actor=actor, reason=reason, source=source)


def note_symbols(c: Carried, observation: Observation) -> list[str]:
    """Remembers symbols outside the whitelist that have a position or an open order. Returns the new ones."""
    # A reading may show thousands of orders.
    found = {p.symbol for p in observation.positions if p.quantity} | {o.symbol for o in observation.open_orders}
    new = sorted(found.difference(c.symbols, c.seen_symbols))
    kept = new[: max(0, MAX_SEEN_SYMBOLS - len(c.seen_symbols))]
    if kept:
        c.seen_symbols = sorted([*c.seen_symbols, *kept])
    return kept


# --- verified at the venue ------------------------------------------------------------------------------------------


def under_way(c: Carried) -> bool:
    """Whether the kill in force still waits for a cancel, for an order's fate, for its verification, its row or the latch."""
    unwritten = c.latch_due or (c.kill is not None and not c.kill.row_written)
    return c.state is State.KILLED and bool(c.cancels or c.orders or unwritten or verifying(c))


def verifying(c: Carried) -> bool:
    """Whether every cancel of a kill is confirmed, but no reading of the whole account has verified it yet."""
    kill = c.kill
    if kill is None or kill.quiet_at is None or kill.verified_at is not None:
        return False
    # Cancels that were already open may serve the kill, which then has none of its own.
    return kill.cancels > 0 or c.mode is not Mode.SHADOW


def verify(c: Carried, reading: Observation, tick: Tick) -> bool:
    """Verifies a kill: True if a fresh reading without doubts shows no open order. Otherwise cancels the orders it shows.

    The desk warns of positions that grew since the kill, and closes them if the kill flattens. A symbol that appears only
    now, whitelisted or not, gets its own cancels. After a verified kill new orders are left alone: a person may be closing
    positions by hand.
    """
    assert c.kill is not None
    if not reading.doubts:
        growth.compare(c, reading, tick)
    if c.kill.grown and c.kill.flat_at is not None:
        # The desk was flat already: now close what has arrived since.
        c.kill.flat_at = None
    new = note_symbols(c, reading)
    left = sorted({*new, *(order.symbol for order in reading.open_orders)})
    if not left and not reading.doubts:
        c.kill.verified_at = reading.observed_at
    elif left and (record := c.commands.get(c.kill.command_id)):
        record.symbols = [*(record.symbols or []), *new]
        issue_cancels(c, record, left, tick)
    return c.kill.verified_at is not None


def progress(c: Carried, kill: KillRecord) -> str:
    """The progress of a kill, as text."""
    if c.mode is Mode.SHADOW:
        return f"shadow: {kill.cancels} cancels prepared, none is sent"
    if kill.quiet_at is None:
        return f"{kill.confirmed} of {kill.cancels} cancels confirmed"
    if kill.verified_at is None:
        return f"every cancel confirmed {iso(kill.quiet_at)}, not yet verified"
    return f"every cancel confirmed {iso(kill.quiet_at)}; verified {iso(kill.verified_at)}: no open order at the venue"


def residue(c: Carried) -> Listed[str]:
    """Names everything that may still be outstanding after a kill. Empty if no kill is in force."""
    if (kill := c.kill) is None:
        return Listed()
    left = _positions_left(c, kill)
    named = {position.symbol for position in left}
    return Listed(
        (c.cancels.lanes, partial(_cancel_left, c)),
        (c.orders, _order_left),
        (_open_orders_left(c, kill), _open_order_left),
        (left, _position_left),
        ([grown for grown in kill.grown if grown.symbol not in named], _grown_left),
        (sorted({d.symbol for d in c.deleverages if d.automatic} - named), "reduction of {}".format),
        ([*_unconfirmed(c, kill), *_unwritten(c, kill)], str),
    )


def _cancel_left(c: Carried, lane: Lane) -> str:
    call, error = f"{lane[0]} {lane[1]}", c.cancels.newest(*lane).last_error or ""
    # The venue's own errors begin with the call.
    return error if error.startswith(call) else f"{call}: {error}" if error else call


def _order_left(pending: PendingOrder) -> str:
    return f"order {pending.order.order_id} of {pending.order.instruction.symbol}: {pending.phase}"


def _open_orders_left(c: Carried, kill: KillRecord) -> list[tuple[tuple[str, str], int]]:
    # Ignore an older reading: it shows the orders that the kill has canceled.
    since = kill.verified_at or c.last_kill_at
    if not (c.observation and since and c.observation.observed_at > since):
        return []
    return sorted(Counter((order.market, order.symbol) for order in c.observation.open_orders).items())


def _open_order_left(counted: tuple[tuple[str, str], int]) -> str:
    (market, symbol), number = counted
    return f"{number} open {market} {'order' if number == 1 else 'orders'} of {symbol}"


def _positions_left(c: Carried, kill: KillRecord) -> list[LeftPosition]:
    left = kill.left if kill.flattens and kill.flat_at is None else []
    if left is None:
        # Nothing was read since the kill, so list what was held when it came.
        held = sorted(growth.held_now(c).items())
        left = [assembled(LeftPosition, {"symbol": name, "quantity": now, "lot_step": None}) for name, now in held]
    return left


def _position_left(p: LeftPosition) -> str:
    if p.is_dust:
        return f"dust of {p.symbol}: {plain(p.quantity)} is below the lot step {plain(p.lot_step or ZERO)}"
    return f"position of {plain(p.quantity)} {p.symbol}, not closed yet"


def _grown_left(g: GrownPosition) -> str:
    return f"position of {g.symbol} ({g.market}) grew from {plain(g.before)} to {plain(g.now)}"


def _unconfirmed(c: Carried, kill: KillRecord) -> Iterable[str]:
    """What only a reading of the account can settle. Empty in shadow, where nothing was sent."""
    if c.mode is Mode.SHADOW:
        return
    closing = kill.flattens and kill.flat_at is None
    if c.observation_error and (closing or kill.verified_at is None):
        yield f"the account cannot be read: {c.observation_error}"
    if verifying(c):
        yield "not verified yet: no confirmed reading of the account has shown that no order is open"
    if closing and kill.left in (None, []):
        yield "not flat yet: no confirmed reading of the account has shown that no position is left"


def _unwritten(c: Carried, kill: KillRecord) -> Iterable[str]:
    if not c.latched:
        yield "the latch is not written to the database yet"
    if not kill.row_written:
        yield "the kill's row is not in the decision log yet"
