"""What the world may answer: a few words for each call, and what each of them means here and now."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from domain.deciding import Choice
from domain.desk.ahead import DecisionFacts, may_choose
from domain.desk.carried import Carried, PendingDeleverage
from domain.desk.cycle import NotDone
from domain.health.clocks import ClockReading, OtherClock
from domain.risk.assessing import assess
from domain.risk.limits import Limits
from domain.risk.reducing import Reduction, plan
from domain.trading.decisions import DecisionType
from domain.trading.instructions import OrderInstruction, OrderType, Side
from domain.trading.market import DatabaseSeen, LatchRow, Observation
from domain.trading.orders import Fate, Order, OrderReport
from domain.trading.proposals import Proposal
from tests.domain.builders import BTC, ETH, a_position, an_observation, an_open_order, some_rules

AWAY = NotDone("nobody answered")
OTHER_DATABASE = "db-other"

READINGS: dict[str, dict[str, Any]] = {
    "flat": {},
    "long": {"positions": [a_position(20)]},
    "short": {"positions": [a_position(-3), a_position(5, ETH)]},
    "resting": {"open_orders": [an_open_order(BTC)]},
    "strange": {"positions": [a_position(1, "XRPUSDT")], "open_orders": [an_open_order("SOLUSDT")]},
    "too large": {"positions": [a_position(40)]},
    "far too large": {"positions": [a_position(70)]},
    "doubtful": {"positions": [a_position(2)], "doubts": ["two sources differ"]},
    "latch away": {"latch": None, "latch_error": "it hangs"},
    "clock off": {},
    "old latch": {},
    "other database": {"database": DatabaseSeen(database_id=OTHER_DATABASE, knows_desk=False)},
}
READINGS = {
    word: {"marks": {BTC: Decimal(100), ETH: Decimal(100)}, "rules": {s: some_rules(s) for s in (BTC, ETH)}} | changes
    for word, changes in READINGS.items()
}
CHOICES = ("nothing", "buy BTC", "sell ETH", "quote at 99", "quote at 98", "as proposed", "away")
# Readings that a choice may come with: the first two leave it to be used, the others change what it was made from, or forbid it.
WITH = ("flat", "long", "resting", "short", "clock off", "too large")
AHEAD = [f"{seen} with {made}" for seen in WITH for made in CHOICES if made != "away"]
FATES = ("filled", "half", "open", "rejected", "not sent", "unknown", "empty")
SETTLED = ("filled", "open", "not sent", "unknown", "away")
WRITES = ("done", "lost", "away")
_FATES = {
    "filled": Fate.FILLED,
    "half": Fate.CANCELED,
    "open": Fate.OPEN,
    "rejected": Fate.REJECTED,
    "not sent": Fate.NOT_SENT,
    "unknown": Fate.UNKNOWN,
    "empty": Fate.CANCELED,
}


def reading(
    word: str, c: Carried, now: datetime, latches: tuple[LatchRow | None, LatchRow | None]
) -> Observation | NotDone:
    """A reading of this kind; `latches`: the row now, and the row when the reading began."""
    if word == "away":
        return AWAY
    facts: dict[str, Any] = {"observed_at": now, "data_time": now, "latch": latches[word == "old latch"]}
    facts["database"] = DatabaseSeen(database_id=c.database_id or "db", knows_desk=True)
    if word == "clock off":
        facts["clocks"] = [ClockReading(clock=OtherClock.DATABASE, ahead_seconds=99.0)]
    seen = an_observation(**facts | READINGS[word])
    return seen.model_copy(update={"assessment": assess(seen.reading, c.limits, c.risk)})


def choice(word: str, limits: Limits, facts: DecisionFacts) -> Choice | NotDone:
    """What agents and guards make of it: a blocked symbol is refused, and so are too many orders a minute."""
    return AWAY if word == "away" else _chosen(word, limits, facts)


def choice_ahead(word: str, seen: Observation, limits: Limits, facts: DecisionFacts) -> Choice | None:
    """The choice that comes with the reading: none where the reading has to be acted on first."""
    return _chosen(word, limits, facts) if word and may_choose(seen) else None


def _chosen(word: str, limits: Limits, facts: DecisionFacts) -> Choice:
    proposal = _proposal(word, facts.proposals)
    if proposal is None:
        return Choice(decision_type=DecisionType.NO_ACTION, summary="No agent proposed an order")
    others = {other.proposal_id: "not chosen" for other in facts.proposals if other is not proposal}
    told: dict[str, Any] = {"proposal": proposal, "decision_type": DecisionType.ORDER_INTENT, "not_taken": others}
    too_many = "too many orders" if len(facts.sent) >= limits.max_orders_per_minute else None
    if why := [text for text in (facts.blocked.get(proposal.symbol), too_many) if text]:
        return Choice(summary="refused", risk_passed=False, risk_reasons=why, **told)
    return Choice(summary="an order", risk_passed=True, instruction=_instruction(proposal), **told)


def _proposal(word: str, waiting: Sequence[Proposal]) -> Proposal | None:
    facts: dict[str, Any] = {
        "proposal_id": "sig",
        "agent_id": "maker",
        "symbol": BTC,
        "side": Side.BUY,
        "confidence": 0.5,
    }
    match word.split():
        case ["as", "proposed"]:
            return waiting[0] if waiting else None
        case ["sell", symbol]:
            return Proposal(**facts | {"symbol": f"{symbol}USDT", "side": Side.SELL})
        case ["buy", _]:
            return Proposal(**facts)
        case ["quote", "at", price]:
            return Proposal(**facts | {"price": Decimal(price)})
    return None


def _instruction(proposal: Proposal) -> OrderInstruction:
    kind = OrderType.MARKET if proposal.price is None else OrderType.LIMIT
    return OrderInstruction(
        symbol=proposal.symbol,
        side=proposal.side,
        order_type=kind,
        quantity=Decimal(2),
        reduce_only=False,
        price=proposal.price,
        time_in_force=proposal.sent_as,
    )


def report(word: str, order: Order) -> OrderReport | NotDone:
    """What became of an order. `empty`: the venue had it, and nothing of it was filled."""
    if word == "away":
        return AWAY
    quantity = order.instruction.quantity
    filled = {"filled": quantity, "half": quantity / 2}.get(word, Decimal(0))
    venue_id = f"venue-{order.order_id}" if word in ("filled", "open", "half", "empty") else None
    return OrderReport(
        order_id=order.order_id, fate=_FATES[word], filled_quantity=filled, detail=word, venue_order_id=venue_id
    )


def reduction(word: str, pending: PendingDeleverage, seen: Observation | None) -> Reduction:
    """What a deleverage comes to, by the last reading; `away`: the position cannot be read."""
    if word == "away" or seen is None:
        return Reduction(refusal="the position cannot be read")
    if word == "closed":
        return Reduction(refusal="There is no open position.", closed=True)
    return plan(seen, pending.symbol, pending.reduce_pct, pending.quantity, automatic=pending.automatic)
