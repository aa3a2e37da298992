"""Positions that grew after a kill: an order that was on its way, one that rested and filled, or somebody who trades by hand.

A kill stops what has not begun to be sent. What was in flight may still arrive, and no cancel undoes it: so every reading after a
kill is compared with what was known before it, and what is larger now is told.
"""

from decimal import Decimal

from domain.carried import Carried, GrownPosition, KillRecord, PendingOrder
from domain.decisions import Decision, DecisionType
from domain.instructions import Side
from domain.market import Market, Observation
from domain.orders import OrderReport
from domain.outbox import queue_row
from domain.states import Mode
from domain.traces import Tick, unwarn, warn
from domain.values import ZERO, iso, plain
from domain.versions import knows_growth

GREW = "a position grew after the kill"
SHOWN = 3


def note_fill(c: Carried, pending: PendingOrder, report: OrderReport) -> None:
    """What was filled since the last reading was known before a kill, too. An order that was unknown may be in that reading."""
    if not report.filled_quantity or not pending.adds_risk:
        return
    instruction = pending.order.instruction
    signed = report.filled_quantity if instruction.side is Side.BUY else -report.filled_quantity
    key = _key(Market.FUTURES, instruction.symbol)
    c.filled[key] = c.filled.get(key, ZERO) + signed


def held_now(c: Carried) -> dict[str, Decimal]:
    """Signed futures positions by symbol, as last read and with what was filled since; none that is zero."""
    filled = {key.split(" ", 1)[1]: quantity for key, quantity in c.filled.items()}
    read = (
        {p.symbol: p.quantity for p in c.observation.positions if p.market is Market.FUTURES} if c.observation else {}
    )
    held = {symbol: read.get(symbol, ZERO) + filled.get(symbol, ZERO) for symbol in {**read, **filled}}
    return {symbol: quantity for symbol, quantity in held.items() if quantity}


def note_kill(c: Carried, kill: KillRecord) -> None:
    """Keeps what is known to be held as the kill comes: by the last reading, and with what was filled since."""
    if c.observation is None:
        return
    read = _held(c.observation)
    kill.held = {key: _larger(read.get(key, ZERO), c.filled.get(key, ZERO)) for key in sorted({*read, *c.filled})}
    kill.held_at = c.observation.observed_at


def note_flat(kill: KillRecord, reading: Observation) -> None:
    """Nothing is held any more: from here on whatever is held has grown."""
    kill.held, kill.held_at = {}, reading.observed_at


def compare(c: Carried, reading: Observation, tick: Tick) -> None:
    """Takes a reading after a kill in: what is held more of than before it, in either direction."""
    kill = c.kill
    # In shadow the account is somebody else's.
    if kill is None or c.mode is Mode.SHADOW or not knows_growth(c.schema_version):
        return
    now = _held(reading)
    if kill.held is None:
        # Nothing was read before the kill: from here on nothing may grow.
        kill.held, kill.held_at = {key: abs(quantity) for key, quantity in now.items()}, reading.observed_at
    known = {_key(grown.market, grown.symbol) for grown in kill.grown}
    kill.grown = [_grown(key, kill.held.get(key, ZERO), now[key]) for key in sorted(now) if _grew(kill.held, key, now)]
    unwarn(c, GREW)
    if kill.grown:
        warn(c, text(kill))
    if any(_key(grown.market, grown.symbol) not in known for grown in kill.grown):
        queue_row(c, _row(c, kill, tick))


def text(kill: KillRecord) -> str:
    """The warning."""
    shown = [f"{g.symbol} ({g.market}) from {plain(g.before)} to {plain(g.now)}" for g in kill.grown[:SHOWN]]
    more = [f"and {len(kill.grown) - SHOWN} more"] if len(kill.grown) > SHOWN else []
    since = iso(kill.held_at) if kill.held_at else "the kill"
    return f"{GREW}, since the reading of {since}: {', '.join([*shown, *more])}; look at the venue"


def _held(reading: Observation) -> dict[str, Decimal]:
    return {_key(p.market, p.symbol): p.quantity for p in reading.positions if p.quantity}


def _key(market: Market, symbol: str) -> str:
    return f"{market.value} {symbol}"


def _larger(read: Decimal, filled: Decimal) -> Decimal:
    return max(abs(read), abs(read + filled))


def _grew(held: dict[str, Decimal], key: str, now: dict[str, Decimal]) -> bool:
    return abs(now[key]) > held.get(key, ZERO)


def _grown(key: str, before: Decimal, now: Decimal) -> GrownPosition:
    market, symbol = key.split(" ", 1)
    return GrownPosition(market=Market(market), symbol=symbol, before=before, now=now)


def _row(c: Carried, kill: KillRecord, tick: Tick) -> Decision:
    return Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=DecisionType.RISK_ACTION,
        summary=f"Kill {c.kill_number}: {text(kill)}",
        desk=c.desk,
        command_id=kill.command_id,
    )
