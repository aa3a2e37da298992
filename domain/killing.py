"""The kill as a saga: cancels for every symbol and market, confirmed one by one, until the venue itself shows no open order.

Each step is part of the carried state, so that whatever dies, the next process goes on where the last one stood.
"""

from collections import Counter
from collections.abc import Iterable

from domain import growth, inbox
from domain.carried import Carried, CommandRecord, GrownPosition, KillRecord, LeftPosition, Outcome
from domain.commands import Command, Source
from domain.instructions import CANCEL_TOOLS, OpenCancel, Tool, instruction_id
from domain.market import Observation
from domain.outbox import MAX_OPEN_CANCELS_PER_LANE, NOT_SENT_IN_SHADOW, prepared_row, queue_instruction, queue_row
from domain.states import CommandKind, Mode, State
from domain.symbols import covered_symbols
from domain.traces import Tick, control_row, enter, remember
from domain.values import ZERO, iso, plain

MAX_SEEN_SYMBOLS = 200


def kill(c: Carried, command: Command, tick: Tick) -> None:
    """Kills, whatever the command holds; while killed, raises the number and issues the cancels again."""
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
        # What is left of an older kill is none of what this one counts.
        for cancel in c.cancels:
            cancel.of_kill = False
        enter(c, State.KILLED, command, tick)
    _stand_down(c, command, tick)
    record = remember(c, command, Outcome.APPLIED, tick, repeated=repeated)
    record.symbols = covered_symbols(c.symbols, c.seen_symbols)
    issue_cancels(c, record, record.symbols, tick)
    queue_row(c, row, first=not repeated)


def _stand_down(c: Carried, command: Command, tick: Tick) -> None:
    """What a kill ends: proposals that wait, and reductions that have not begun, unless a limit itself kills."""
    if command.source is not Source.RISK:
        if c.kill:
            c.kill.hands_off = True
        c.deleverages = [d for d in c.deleverages if d.order_id or not d.automatic]
    for waiting in c.proposals:
        inbox.settle(c, waiting, "the desk was killed before a cycle took it up", tick)
    c.proposals = []


def issue_cancels(c: Carried, record: CommandRecord, symbols: list[str], tick: Tick) -> None:
    """A new round of cancels under a command's id; futures then spot for each symbol.

    A flood of kills must not grow the state without end: past the bound, a cancel of the same symbol and market that is
    prepared and has not begun stands for it. One that has begun never does: it may have missed what this one is for. Of
    very many commands that arrive together, the first ones' cancels stand for all.
    """
    record.rounds += 1
    # Cancels that a person asks for after a kill do not open it again: it would cancel more than they asked for.
    if c.kill and record.kind is CommandKind.KILL:
        c.kill.quiet_at = c.kill.verified_at = None
    if tick.issued is not None:
        symbols = tick.issued.left(symbols)
    for symbol in symbols:
        for tool in CANCEL_TOOLS:
            if c.cancels.has_room(tool, symbol, MAX_OPEN_CANCELS_PER_LANE):
                _prepare_cancel(c, record, tool, symbol, tick)


def _prepare_cancel(c: Carried, record: CommandRecord, tool: Tool, symbol: str, tick: Tick) -> None:
    cancel = OpenCancel(
        instruction_id=instruction_id(record.command_id, record.rounds, tool, symbol),
        command_id=record.command_id,
        round=record.rounds,
        tool=tool,
        symbol=symbol,
        prepared_at=tick.now,
        of_kill=record.kind is CommandKind.KILL,
    )
    if cancel.of_kill and c.kill:
        c.kill.cancels += 1
    if c.mode is Mode.SHADOW:
        cancel.last_error = NOT_SENT_IN_SHADOW
    else:
        c.cancels.add(cancel)
    queue_instruction(c, prepared_row(c.desk, cancel))


def own_kill(actor: str, reason: str, source: Source, tick: Tick) -> Command:
    """A kill that no operator asked for."""
    return Command(command_id=tick.new_id("command"), kind=CommandKind.KILL, actor=actor, reason=reason, source=source)


def note_symbols(c: Carried, observation: Observation) -> list[str]:
    """Keeps symbols beside the whitelist that are held or have an open order; returns those that are new."""
    found = [p.symbol for p in observation.positions if p.quantity] + [o.symbol for o in observation.open_orders]
    new = sorted({symbol for symbol in found if symbol not in c.symbols and symbol not in c.seen_symbols})
    kept = new[: max(0, MAX_SEEN_SYMBOLS - len(c.seen_symbols))]
    c.seen_symbols = sorted([*c.seen_symbols, *kept])
    return kept


# --- verified at the venue ------------------------------------------------------------------------------------------


def verifying(c: Carried) -> bool:
    """Whether every cancel of a kill is confirmed, and the whole account has yet to be read."""
    kill = c.kill
    return kill is not None and kill.cancels > 0 and kill.quiet_at is not None and kill.verified_at is None


def verify(c: Carried, reading: Observation, tick: Tick) -> bool:
    """True where a fresh reading of the account shows no open order, and is a fact; else cancels go out for what it shows.

    What grew since the kill is told, and closed where the kill flattens. A symbol that appears only now, whitelisted or not,
    gets cancels of its own. An order that somebody puts there after a verified kill is left alone: a person may be closing by
    hand.
    """
    assert c.kill is not None
    if not reading.doubts:
        growth.compare(c, reading, tick)
    if c.kill.grown and c.kill.flat_at is not None:
        # It was flat before that: what arrived since is closed as well.
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
    """How far a kill has come, in words."""
    if c.mode is Mode.SHADOW:
        return f"shadow: {kill.cancels} cancels prepared, none is sent"
    if kill.quiet_at is None:
        return f"{kill.confirmed} of {kill.cancels} cancels confirmed"
    if kill.verified_at is None:
        return f"every cancel confirmed {iso(kill.quiet_at)}, not yet verified"
    return f"every cancel confirmed {iso(kill.quiet_at)}; verified {iso(kill.verified_at)}: no open order at the venue"


def residue(c: Carried) -> list[str]:
    """What is not known to be over after a kill, by name; nothing where no kill holds."""
    if c.kill is None:
        return []
    cancels = {f"{tool} {symbol}": c.cancels.newest(tool, symbol).last_error for tool, symbol in c.cancels.lanes}
    return [
        *(_named(call, error) for call, error in cancels.items()),
        *_orders_left(c, c.kill),
        *_positions_left(c, c.kill),
        *_unconfirmed(c, c.kill),
        *_unwritten(c, c.kill),
    ]


def _named(call: str, error: str | None) -> str:
    # The venue's own errors begin with the call.
    return f"{call}{f': {error}' if error else ''}" if not error or not error.startswith(call) else error


def _orders_left(c: Carried, kill: KillRecord) -> Iterable[str]:
    for pending in c.orders:
        yield f"order {pending.order.order_id} of {pending.order.instruction.symbol}: {pending.phase}"
    # What an older reading showed is what the kill was for.
    since = kill.verified_at or c.last_kill_at
    if c.observation and since and c.observation.observed_at > since:
        count = Counter((order.market, order.symbol) for order in c.observation.open_orders)
        for (market, symbol), number in sorted(count.items()):
            yield f"{number} open {market} {'order' if number == 1 else 'orders'} of {symbol}"


def _positions_left(c: Carried, kill: KillRecord) -> Iterable[str]:
    closing = kill.flattens and kill.flat_at is None
    left = _known_left(c, kill) if closing else []
    yield from (_left_text(position) for position in left)
    named = {position.symbol for position in left}
    yield from (_grown_text(grown) for grown in kill.grown if grown.symbol not in named)
    reductions = {d.symbol for d in c.deleverages if d.automatic}
    yield from (f"reduction of {symbol}" for symbol in sorted(reductions - named))


def _known_left(c: Carried, kill: KillRecord) -> list[LeftPosition]:
    """By the newest reading of the kill's own; before that, by what was held as it came."""
    if kill.left is not None:
        return kill.left
    return [LeftPosition(symbol=symbol, quantity=quantity) for symbol, quantity in sorted(growth.held_now(c).items())]


def _left_text(left: LeftPosition) -> str:
    if left.is_dust:
        return f"dust of {left.symbol}: {plain(left.quantity)} is below the lot step {plain(left.lot_step or ZERO)}"
    return f"position of {plain(left.quantity)} {left.symbol}, not closed yet"


def _grown_text(grown: GrownPosition) -> str:
    return f"position of {grown.symbol} ({grown.market}) grew from {plain(grown.before)} to {plain(grown.now)}"


def _unconfirmed(c: Carried, kill: KillRecord) -> Iterable[str]:
    """What only a reading of the account can end. In shadow nothing was sent that it could confirm."""
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
