"""How the coordinator acts on its limits: it reports each crossing once, reduces past a soft limit, and kills at a hard one.

An activity evaluates the rules (`domain/risk/assessing.py`); here the result changes the carried state.
"""

from decimal import Decimal

from domain.desk.applying import apply
from domain.desk.carried import Carried, LeftPosition, PendingDeleverage
from domain.desk.commands import Deleverage, Source
from domain.desk.growth import note_flat
from domain.desk.killing import own_kill
from domain.desk.outbox import queue_row
from domain.desk.recording import Tick, decision_row
from domain.desk.states import Mode, State
from domain.desk.warnings import Topic, unwarn, warn
from domain.risk.assessing import comparison, limit_named
from domain.risk.limits import PortfolioLimit
from domain.trading.assessment import Assessment, Breach, Crossing, Level
from domain.trading.decisions import Decision, DecisionType
from domain.trading.instructions import Tool
from domain.trading.market import Market, Observation
from domain.values import digits, places, plain

ACTOR = "risk"
_WARNED = {Level.WARN_50: "50 %", Level.WARN_75: "75 %", Level.WARN_90: "90 %"}


def take_assessment(c: Carried, assessment: Assessment, tick: Tick) -> None:
    """Stores what the limits check must remember, and queues a row for each crossing."""
    c.risk = assessment.memory
    unwarn(c, Topic.BREACH_UNCONFIRMED)
    _forget_failures(c, assessment)
    for crossing in assessment.crossings:
        row = _row(c, crossing, _consequence(c, crossing, assessment), tick)
        if crossing.level is Level.SOFT:
            c.reduction_id = row.decision_id
        queue_row(c, row)
    if c.state is State.KILLED:
        _tell_hard(c, assessment.breaches, "the desk is killed already", tick)


def _forget_failures(c: Carried, assessment: Assessment) -> None:
    """Drops the warnings of reductions that failed and that nothing needs any more: prices came back, or a person has closed the
    position. No later reduction would end such a warning."""
    failed = {w.about for w in c.warnings if w.topic == Topic.REDUCTION_FAILED}
    if failed and not flattening(c):
        for symbol in failed - {cut.symbol for cut in assessment.cuts}:
            unwarn(c, Topic.REDUCTION_FAILED, symbol)


def confirm(c: Carried, first: Assessment, second: Assessment | None, tick: Tick) -> str | None:
    """Kills if a second reading confirms the breaches of the first. Otherwise returns why this cycle sends no order."""
    again = [breach.limit for breach in second.breaches] if second else []
    confirmed = [breach for breach in first.breaches if breach.limit in again]
    if not confirmed:
        what = "is not confirmed by" if second else "could not be confirmed by"
        reasons = ", ".join(breach.reason for breach in first.breaches)
        text = f"a hard limit ({reasons}) {what} a second reading"
        warn(c, Topic.BREACH_UNCONFIRMED, text)
        return text
    _tell_hard(c, confirmed, "killed", tick)
    apply(c, own_kill(ACTOR, "; ".join(breach.reason for breach in confirmed), Source.RISK, tick), tick)
    return None


def reduce(c: Carried, assessment: Assessment, tick: Tick) -> list[str]:
    """Queues the reductions, at most one per symbol at a time. Returns the symbols that the desk is reducing."""
    if not may_reduce(c):
        return []
    cuts = assessment.cuts
    if c.mode is Mode.SHADOW:
        # In shadow nothing is sent, so every later reading shows the same cuts again. Only cuts that are new in this
        # reading count.
        crossed = {crossing.limit for crossing in assessment.crossings if crossing.level is Level.SOFT}
        cuts = [cut for cut in cuts if crossed.intersection(cut.limits)]
    busy = _busy_symbols(c)
    for cut in cuts:
        if cut.symbol not in busy:
            busy.add(cut.symbol)
            titles = ", ".join(limit_named(name).title for name in cut.limits)
            c.deleverages.append(_pending(c, cut.symbol, cut.quantity, f"past the soft limit: {titles}", tick))
    return [cut.symbol for cut in cuts]


def may_reduce(c: Carried) -> bool:
    """Whether limits may reduce. Not after an operator's kill: then only that kill, or a person, sends anything."""
    return c.state is not State.KILLED or (c.kill is not None and c.kill.source is Source.RISK and not c.kill.hands_off)


def reducing(c: Carried) -> bool:
    """Whether an automatic reduction is waiting or under way."""
    return any(d.automatic for d in c.deleverages)


# --- a kill that flattens -------------------------------------------------------------------------------------------


def flattening(c: Carried) -> bool:
    """Whether the kill in force still has to close positions, or to see a reading without any."""
    return c.state is State.KILLED and c.kill is not None and c.kill.flattens and c.kill.flat_at is None


def flatten(c: Carried, observation: Observation, tick: Tick) -> bool:
    """Queues an order to close each position whose cancels are confirmed. True once a fresh reading shows no position.

    A doubtful reading may close the positions it shows, but never proves that none is left.
    """
    assert c.kill is not None
    left = c.kill.left = _positions_left(observation)
    busy = _busy_symbols(c)
    for symbol in (position.symbol for position in left if not position.is_dust):
        if symbol not in busy and (Tool.CANCEL_ALL_ORDERS, symbol) not in c.cancels.lanes:
            busy.add(symbol)
            c.deleverages.append(_pending(c, symbol, None, "closing positions after the kill", tick))
    # A resting order may still fill, and an open cancel may be for an order that this reading did not show.
    may_fill = observation.open_orders or c.cancels
    if left or may_fill or c.orders or reducing(c) or observation.doubts:
        return False
    c.kill.flat_at, c.row_dirty = observation.observed_at, True
    note_flat(c.kill, observation)
    text = f"Kill {c.kill_number} has flattened the desk: no futures position is left at the venue"
    queue_row(c, decision_row(c, DecisionType.RISK_ACTION, text, tick, command_id=c.kill.command_id))
    return True


def only_dust_is_left(c: Carried) -> bool:
    """Whether a kill that flattens can close nothing more: the rest is too small for any order."""
    left = c.kill.left if c.kill else None
    return bool(left) and all(position.is_dust for position in left or []) and not reducing(c)


def _positions_left(observation: Observation) -> list[LeftPosition]:
    held = [p for p in observation.positions if p.quantity and p.market is Market.FUTURES]
    rules = observation.rules
    return [
        LeftPosition(
            symbol=p.symbol, quantity=p.quantity, lot_step=rules[p.symbol].lot_step if p.symbol in rules else None
        )
        for p in held
    ]


def _busy_symbols(c: Carried) -> set[str]:
    """Symbols with a deleverage or an order. Collected once for all: each position used to be compared with each deleverage."""
    return {d.symbol for d in c.deleverages} | {p.order.instruction.symbol for p in c.orders}


def _pending(c: Carried, symbol: str, quantity: Decimal | None, reason: str, tick: Tick) -> PendingDeleverage:
    command = Deleverage(
        command_id=c.kill.command_id if quantity is None and c.kill else c.reduction_id or tick.new_id("reduction"),
        actor=ACTOR,
        reason=reason,
        source=Source.RISK,
        symbol=symbol,
        reduce_pct=Decimal(1),
    )
    return PendingDeleverage(command=command, symbol=symbol, reduce_pct=Decimal(1), quantity=quantity, automatic=True)


# --- rows -----------------------------------------------------------------------------------------------------------


def _tell_hard(c: Carried, breaches: list[Breach], consequence: str, tick: Tick) -> None:
    """Queues a row for each hard limit that was not reported yet."""
    new = [breach for breach in breaches if c.risk.levels.get(breach.limit) is not Level.HARD]
    for breach in new:
        crossing = Crossing(limit=breach.limit, level=Level.HARD, value=breach.value, bound=breach.bound)
        queue_row(c, _row(c, crossing, consequence, tick))
    levels = c.risk.levels | {breach.limit: Level.HARD for breach in new}
    c.risk = c.risk.model_copy(update={"levels": levels})


def _row(c: Carried, crossing: Crossing, consequence: str, tick: Tick) -> Decision:
    """`Drawdown 8.12 % has reached its soft limit of 8 %`, and what follows."""
    limit, level = limit_named(crossing.limit), crossing.level
    which, number = ("hard", limit.hard) if level is Level.HARD else ("soft", limit.soft)
    share = f"{_WARNED[level]} of its" if level in _WARNED else "its"
    verb = "has reached" if limit.is_loss or level in _WARNED else "has passed"
    came = f"{limit.title.capitalize()} {_amount(limit, crossing.value)} {verb} {share} {which} limit of"
    came = f"{came} {_amount(limit, getattr(c.limits, number, crossing.bound))}"
    summary = f"{came}: {consequence}" if consequence else came
    reason = comparison(limit, crossing.value, crossing.bound)
    return decision_row(c, DecisionType.RISK_ACTION, summary, tick, reasons=[reason], source=level.name.lower())


def _amount(limit: PortfolioLimit, value: Decimal) -> str:
    return digits(value) if limit.name == "leverage" else f"{plain(places(value * 100, Decimal('0.0001')))} %"


def _consequence(c: Carried, crossing: Crossing, assessment: Assessment) -> str:
    if crossing.level is not Level.SOFT:
        return ""
    cuts = [cut for cut in assessment.cuts if crossing.limit in cut.limits]
    if not cuts:
        return "nothing to reduce"
    if not may_reduce(c):
        return "nothing is sent, since the desk is killed"
    return "reducing " + ", ".join(f"{cut.symbol} by {plain(cut.quantity)}" for cut in cuts)
