"""Positions that grew after a kill: through an order on its way, a resting order that filled, or somebody trading by hand.

A kill stops orders whose send has not begun. An order in flight may still arrive, and no cancel undoes a fill. So every
reading after a kill is compared with the positions known before it, and the desk warns of any that is larger.
"""

from decimal import Decimal

from domain.desk.carried import Carried, GrownPosition, KillRecord, PendingOrder
from domain.desk.outbox import queue_row
from domain.desk.recording import Tick, decision_row
from domain.desk.states import Mode
from domain.desk.warnings import Topic, unwarn, warn
from domain.trading.decisions import DecisionType
from domain.trading.instructions import Side
from domain.trading.market import Market, Observation
from domain.trading.orders import OrderReport
from domain.values import ZERO, iso, plain

GREW = "a position grew after the kill"
SHOWN = 3


def note_fill(c: Carried, pending: PendingOrder, report: OrderReport) -> None:
    """Adds a fill since the last reading, so that a later kill counts it as known. The caller leaves out unknown orders,
    since that reading may already contain their fills."""
    if not report.filled_quantity or not pending.adds_risk:
        return
    instruction = pending.order.instruction
    signed = report.filled_quantity if instruction.side is Side.BUY else -report.filled_quantity
    key = _key(Market.FUTURES, instruction.symbol)
    c.filled[key] = c.filled.get(key, ZERO) + signed


def held_now(c: Carried) -> dict[str, Decimal]:
    """Signed futures positions by symbol: the last reading plus fills since. Leaves out zero positions."""
    filled = {key.split(" ", 1)[1]: quantity for key, quantity in c.filled.items()}
    read = (
        {p.symbol: p.quantity for p in c.observation.positions if p.market is Market.FUTURES} if c.observation else {}
    )
    held = {symbol: read.get(symbol, ZERO) + filled.get(symbol, ZERO) for symbol in {**read, **filled}}
    return {symbol: quantity for symbol, quantity in held.items() if quantity}


def note_kill(c: Carried, kill: KillRecord) -> None:
    """Stores the positions known at the moment of the kill: the last reading plus fills since."""
    if c.observation is None:
        return
    read = _held(c.observation)
    kill.held, kill.held_at = {}, c.observation.observed_at
    for key in sorted({*read, *c.filled}):
        before = read.get(key, ZERO)
        kill.held[key] = max(before + c.filled.get(key, ZERO), before, key=abs)


def note_flat(kill: KillRecord, reading: Observation) -> None:
    """Notes that no position is left. Any later position counts as grown."""
    kill.held, kill.held_at = {}, reading.observed_at


def compare(c: Carried, reading: Observation, tick: Tick) -> None:
    """Compares a reading after a kill with the positions before it, and warns of those that grew in either direction."""
    kill = c.kill
    # In shadow the account is somebody else's.
    if kill is None or c.mode is Mode.SHADOW:
        return
    now = _held(reading)
    if kill.held is None:
        # Nothing was read before the kill, so nothing may grow from here on.
        kill.held, kill.held_at = now, reading.observed_at
    known = {_key(grown.market, grown.symbol) for grown in kill.grown}
    kill.grown = _grown(kill.held, now)
    unwarn(c, Topic.POSITION_GREW)
    if kill.grown:
        warn(c, Topic.POSITION_GREW, text(kill))
    if any(_key(grown.market, grown.symbol) not in known for grown in kill.grown):
        summary = f"Kill {c.kill_number}: {text(kill)}"
        queue_row(c, decision_row(c, DecisionType.RISK_ACTION, summary, tick, command_id=kill.command_id))


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


def _grown(held: dict[str, Decimal], now: dict[str, Decimal]) -> list[GrownPosition]:
    """The positions that are larger than before or have changed sign, since a reduction never flips a position."""
    found = []
    for key, quantity in sorted(now.items()):
        before = held.get(key, ZERO)
        if abs(quantity) > abs(before) or quantity * before < 0:
            market, symbol = key.split(" ", 1)
            found.append(GrownPosition(market=Market(market), symbol=symbol, before=before, now=quantity))
    return found
