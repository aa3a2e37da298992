"""What a coordinator does about its limits: tells each crossing once, reduces past a soft one, kills itself at a hard one.

The rules are those of `domain.assessing`, worked out in an activity; here their result changes the carried state.
"""

from decimal import Decimal

from domain.assessing import comparison, limit_named
from domain.assessment import Assessment, Breach, Crossing, Cut, Level
from domain.carried import Carried, LeftPosition, PendingDeleverage
from domain.commands import Command, Source
from domain.decisions import Decision, DecisionType
from domain.desk import apply
from domain.growth import note_flat
from domain.instructions import Tool
from domain.killing import own_kill
from domain.limits import PortfolioLimit
from domain.market import Market, Observation
from domain.outbox import queue_row
from domain.states import CommandKind, Mode, State
from domain.traces import Tick, unwarn, warn
from domain.values import digits, plain
from domain.versions import leaves_dust

ACTOR = "risk"
UNCONFIRMED = "a hard limit"
_WARNED = {Level.WARN_50: "50 %", Level.WARN_75: "75 %", Level.WARN_90: "90 %"}


def take_assessment(c: Carried, assessment: Assessment, tick: Tick) -> None:
    """Takes a watched reading in: what it leaves to be remembered, and a row for each crossing."""
    c.risk = assessment.memory
    unwarn(c, UNCONFIRMED)
    for crossing in assessment.crossings:
        row = _row(c, crossing, _consequence(c, crossing, assessment), tick)
        if crossing.level is Level.SOFT:
            c.reduction_id = row.decision_id
        queue_row(c, row)
    if c.state is State.KILLED:
        _tell_hard(c, assessment.breaches, "the desk is killed already", tick)


def confirm(c: Carried, first: Assessment, second: Assessment | None, tick: Tick) -> str | None:
    """Kills where a second reading confirms the breaches of the first; else why there is neither a kill nor a new order."""
    again = [breach.limit for breach in second.breaches] if second else []
    confirmed = [breach for breach in first.breaches if breach.limit in again]
    if not confirmed:
        what = "is not confirmed by" if second else "could not be confirmed by"
        text = f"{UNCONFIRMED} ({_told(first.breaches)}) {what} a second reading"
        warn(c, text)
        return text
    _tell_hard(c, confirmed, "killed", tick)
    apply(c, own_kill(ACTOR, "; ".join(breach.reason for breach in confirmed), Source.RISK, tick), tick)
    return None


def reduce(c: Carried, assessment: Assessment, tick: Tick) -> list[str]:
    """Queues what has to be cut, each symbol once at a time; returns the symbols that are being cut now."""
    if not may_reduce(c):
        return []
    cuts = _new_cuts(assessment) if c.mode is Mode.SHADOW else assessment.cuts
    for cut in cuts:
        if not _is_busy(c, cut.symbol):
            told = ", ".join(limit_named(name).told for name in cut.limits)
            c.deleverages.append(_pending(c, cut.symbol, cut.quantity, f"past the soft limit: {told}", tick))
    return [cut.symbol for cut in cuts]


def _new_cuts(assessment: Assessment) -> list[Cut]:
    """What this very reading has come to ask for: in shadow nothing is sent, so that every later reading asks for it again."""
    crossed = {crossing.limit for crossing in assessment.crossings if crossing.level is Level.SOFT}
    return [cut for cut in assessment.cuts if crossed.intersection(cut.limits)]


def may_reduce(c: Carried) -> bool:
    """Not after a kill of an operator's: then nothing goes out but what the kill, or a person, asks for."""
    return c.state is not State.KILLED or (c.kill is not None and c.kill.source is Source.RISK and not c.kill.hands_off)


def reducing(c: Carried) -> bool:
    """Whether an automatic reduction waits, or is on its way."""
    return any(d.automatic for d in c.deleverages)


# --- a kill that flattens -------------------------------------------------------------------------------------------


def flattening(c: Carried) -> bool:
    """Whether the kill that holds has yet to close positions, or to read that none is left."""
    return c.state is State.KILLED and c.kill is not None and c.kill.flattens and c.kill.flat_at is None


def flatten(c: Carried, observation: Observation, tick: Tick) -> bool:
    """Queues the closing of each position whose cancels are confirmed; True where a fresh reading shows none any more.

    A reading that is no fact closes what it shows, and never says that nothing is left.
    """
    assert c.kill is not None
    left = c.kill.left = _left(observation)
    for symbol in (position.symbol for position in left if not (position.is_dust and leaves_dust(c.schema_version))):
        if not _is_busy(c, symbol) and not c.cancels.lane(Tool.CANCEL_ALL_ORDERS, symbol):
            c.deleverages.append(_pending(c, symbol, None, "the kill flattens", tick))
    # What rests may still fill, and a cancel that is open may be for what this reading did not show.
    may_fill = observation.open_orders or c.cancels
    if left or may_fill or c.orders or reducing(c) or observation.doubts:
        return False
    c.kill.flat_at, c.row_dirty = observation.observed_at, True
    note_flat(c.kill, observation)
    queue_row(c, _flat_row(c, tick))
    return True


def only_dust_is_left(c: Carried) -> bool:
    """Whether a kill that flattens has nothing more to close: what is left is too small for any order."""
    left = c.kill.left if c.kill else None
    return bool(left) and all(position.is_dust for position in left or []) and not reducing(c)


def _left(observation: Observation) -> list[LeftPosition]:
    held = [p for p in observation.positions if p.quantity and p.market is Market.FUTURES]
    rules = observation.rules
    return [
        LeftPosition(
            symbol=p.symbol, quantity=p.quantity, lot_step=rules[p.symbol].lot_step if p.symbol in rules else None
        )
        for p in held
    ]


def _flat_row(c: Carried, tick: Tick) -> Decision:
    return Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=DecisionType.RISK_ACTION,
        summary=f"Kill {c.kill_number} has flattened the desk: no futures position is left at the venue",
        desk=c.desk,
        command_id=c.kill.command_id if c.kill else None,
    )


def _is_busy(c: Carried, symbol: str) -> bool:
    return any(d.symbol == symbol for d in c.deleverages) or any(p.order.instruction.symbol == symbol for p in c.orders)


def _pending(c: Carried, symbol: str, quantity: Decimal | None, reason: str, tick: Tick) -> PendingDeleverage:
    command = Command(
        command_id=c.kill.command_id if quantity is None and c.kill else c.reduction_id or tick.new_id("reduction"),
        kind=CommandKind.DELEVERAGE,
        actor=ACTOR,
        reason=reason,
        source=Source.RISK,
        symbol=symbol,
    )
    return PendingDeleverage(command=command, symbol=symbol, reduce_pct=Decimal(1), quantity=quantity, automatic=True)


# --- rows -----------------------------------------------------------------------------------------------------------


def _tell_hard(c: Carried, breaches: list[Breach], consequence: str, tick: Tick) -> None:
    """A row for each hard limit that was not told yet."""
    new = [breach for breach in breaches if c.risk.levels.get(breach.limit) is not Level.HARD]
    for breach in new:
        crossing = Crossing(limit=breach.limit, level=Level.HARD, value=breach.value, bound=breach.bound)
        queue_row(c, _row(c, crossing, consequence, tick))
    levels = c.risk.levels | {breach.limit: Level.HARD for breach in new}
    c.risk = c.risk.model_copy(update={"levels": levels})


def _row(c: Carried, crossing: Crossing, consequence: str, tick: Tick) -> Decision:
    limit = limit_named(crossing.limit)
    return Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=DecisionType.RISK_ACTION,
        summary=f"{_came(c, limit, crossing)}{': ' if consequence else ''}{consequence}",
        risk_reasons=[comparison(limit, crossing.value, crossing.bound)],
        desk=c.desk,
        source=crossing.level.name.lower(),
    )


def _came(c: Carried, limit: PortfolioLimit, crossing: Crossing) -> str:
    """`Drawdown 8.12 % has reached its soft limit of 8 %`."""
    number = limit.hard if crossing.level is Level.HARD else limit.soft
    which = "hard" if crossing.level is Level.HARD else "soft"
    share = f"{_WARNED[crossing.level]} of its" if crossing.level in _WARNED else "its"
    verb = "has reached" if limit.is_loss or crossing.level in _WARNED else "has passed"
    bound = getattr(c.limits, number)
    return f"{limit.told.capitalize()} {_amount(limit, crossing.value)} {verb} {share} {which} limit of {_amount(limit, bound)}"


def _amount(limit: PortfolioLimit, value: Decimal) -> str:
    return digits(value) if limit.name == "leverage" else f"{plain((value * 100).quantize(Decimal('0.0001')))} %"


def _consequence(c: Carried, crossing: Crossing, assessment: Assessment) -> str:
    if crossing.level is not Level.SOFT:
        return ""
    cuts = [cut for cut in assessment.cuts if crossing.limit in cut.limits]
    if not cuts:
        return "there is nothing to reduce"
    return _reduction(cuts) if may_reduce(c) else "nothing is sent, since the desk is killed"


def _reduction(cuts: list[Cut]) -> str:
    return "reducing " + ", ".join(f"{cut.symbol} by {plain(cut.quantity)}" for cut in cuts)


def _told(breaches: list[Breach]) -> str:
    return ", ".join(breach.reason for breach in breaches)
