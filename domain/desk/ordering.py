"""Orders, from a cycle's choice to their fate, and reductions, which follow the same path."""

from collections.abc import Iterator
from datetime import timedelta

from domain.deciding import Choice
from domain.desk import growth
from domain.desk.carried import (
    Carried,
    OrderEvent,
    OrderPhase,
    Outcome,
    PendingDeleverage,
    PendingOrder,
    RefusalCode,
)
from domain.desk.killing import issue_cancels
from domain.desk.outbox import note_quiet, order_prepared, order_reported, queue_row
from domain.desk.recording import Tick, control_row
from domain.desk.states import CommandKind, State
from domain.desk.warnings import Topic, unwarn, warn
from domain.risk.guards import RATE_WINDOW
from domain.risk.reducing import Reduction
from domain.trading.decisions import Decision
from domain.trading.instructions import Tool
from domain.trading.orders import Fate, Order, OrderReport
from domain.trading.quotes import AgentQuote
from domain.values import ZERO, assembled, without

# An order is valid for one cycle. In replays with cycles of a second or less, just committing its decision would use that
# up.
SHORTEST_ORDER_SECONDS = 2.0
REDUCTION_SECONDS = 15.0
# It names agents that failed and symbols without a majority. Fifty rows are written by one call, whose payload Temporal limits
# to 2 MB: a longer one fails each workflow task, a kill's too.
MAX_SUMMARY_CHARS = 4_000


def blocked(c: Carried) -> dict[str, str]:
    """Symbols that take no new order, and why: an earlier order is on its way, or its fate is unknown."""
    return {p.order.instruction.symbol: f"order_unknown: {p.order.order_id}" for p in c.orders}


def decision_of(c: Carried, choice: Choice, tick: Tick) -> Decision:
    """The decision row of a cycle's choice. If the choice is an order, the row already names the order's id."""
    proposal = choice.proposal
    return assembled(
        Decision,
        {
            "decision_id": tick.new_id("decision"),
            "timestamp": tick.now,
            "decision_type": choice.decision_type,
            "summary": choice.summary[:MAX_SUMMARY_CHARS],
            "agent_votes": choice.votes,
            "selected_signal_id": proposal.proposal_id if proposal else None,
            "selected_order_id": tick.new_id("ord") if choice.instruction else None,
            "risk_passed": choice.risk_passed,
            "risk_reasons": choice.risk_reasons,
            "desk": c.desk,
            "symbol": proposal.symbol if proposal else None,
            "command_id": None,
            "cycles": 1,
            "source": None,
            "command": None,
            "result": None,
            "agent_id": proposal.agent_id if proposal else None,
        },
    )


def order_of(c: Carried, choice: Choice, row: Decision, tick: Tick) -> Order:
    """Builds the order of a decision, and counts it towards the order rate."""
    assert choice.instruction is not None
    assert row.selected_order_id is not None
    if c.observation:
        now = c.observation.market_time
        c.recent_orders = [*(sent for sent in c.recent_orders if abs(now - sent) < RATE_WINDOW), now]
    return assembled(
        Order,
        {
            "order_id": row.selected_order_id,
            "command_id": row.decision_id,
            "desk": c.desk,
            "instruction": choice.instruction,
            "not_after": tick.now + timedelta(seconds=max(c.cycle_seconds, SHORTEST_ORDER_SECONDS)),
            "prepared_at": tick.now,
            "position_before": c.observation.held(choice.instruction.symbol) if c.observation else None,
            "others": [quote.venue_order_id for quote in _quotes_on(c, choice.instruction.symbol)],
            "agent_id": choice.proposal.agent_id if choice.proposal else None,
        },
    )


def _quotes_on(c: Carried, symbol: str) -> Iterator[AgentQuote]:
    return (quote for quote in c.quotes.values() if quote.symbol == symbol)


def due_deleverages(c: Carried) -> list[str]:
    """Symbols with a next deleverage. Asked after every event of a run: its cost grows with the deleverages, not their square."""
    busy, has_next = set[str](), dict[str, bool]()
    for each in c.deleverages:
        if each.order_id:
            busy.add(each.symbol)
        has_next[each.symbol] = has_next.get(each.symbol, False) or _may_start(c, each)
    return [symbol for symbol, may_start in has_next.items() if may_start and symbol not in busy]


def next_deleverage(c: Carried, symbol: str) -> PendingDeleverage | None:
    """The symbol's next deleverage, one at a time: none while an order of an earlier one is under way. One that a kill or a
    limit needs waits until the symbol's cancels are confirmed."""
    mine = [d for d in c.deleverages if d.symbol == symbol]
    if any(d.order_id for d in mine):
        return None
    return next((d for d in mine if _may_start(c, d)), None)


def _may_start(c: Carried, d: PendingDeleverage) -> bool:
    return not (d.automatic and (Tool.CANCEL_ALL_ORDERS, d.symbol) in c.cancels.lanes)


def reduction_prepared(c: Carried, pending: PendingDeleverage, plan: Reduction, tick: Tick) -> PendingOrder:
    """Prepares the order of a deleverage. It only reduces risk, so it is sent without waiting for its record."""
    assert plan.instruction is not None
    order = Order(
        order_id=tick.new_id("ord"),
        command_id=pending.command.command_id,
        desk=c.desk,
        instruction=plan.instruction,
        not_after=tick.now + timedelta(seconds=REDUCTION_SECONDS),
        prepared_at=tick.now,
        position_before=plan.position,
        # Leave out canceled orders, which fill no more. None of the rest is reduce-only, so a kill's closing orders stay
        # beyond doubt.
        others=[quote.venue_order_id for quote in _quotes_on(c, plan.instruction.symbol) if not quote.canceled],
    )
    placed = order_prepared(c, order)
    placed.move(OrderEvent.SENT)
    pending.order_id = order.order_id
    record = c.commands.get(pending.command.command_id)
    # A kill may have used the id of an operator's deleverage meanwhile; the record then holds the kill's outcome.
    if record and (pending.automatic or record.kind is CommandKind.DELEVERAGE):
        record.instruction = plan.instruction
    return placed


def take_report(c: Carried, pending: PendingOrder, report: OrderReport, tick: Tick) -> None:
    """Handles an order's report. Repeats the cancels if a kill came after the send, and settles the order's deleverage."""
    record = c.commands.get(c.kill.command_id) if c.kill else None
    if pending.phase is not OrderPhase.UNKNOWN:
        growth.note_fill(c, pending, report)
    if order_reported(c, pending, report, tick.now) and record:
        issue_cancels(c, record, [pending.order.instruction.symbol], tick)
    mine = (d for d in c.deleverages if d.order_id == report.order_id)
    if report.fate.is_known and (deleverage := next(mine, None)):
        done = report.fate.reached_venue or report.fate is Fate.PREPARED
        refusal = None if done else f"the order did not reach the book: {report.detail}"
        shortfall = None
        if report.fate is Fate.CANCELED:
            # A partial deleverage is never reported as complete (I6).
            shortfall = f"{report.filled_quantity} of {pending.order.instruction.quantity} was filled: {report.detail}"
        if shortfall and not report.filled_quantity:
            refusal, shortfall = shortfall, None
        finish_deleverage(c, deleverage, refusal, tick, shortfall)
        if _goes_on(c, deleverage, pending.order, report):
            c.deleverages.append(deleverage.model_copy(update={"order_id": None}))
    if report.fate.is_known:
        unwarn(c, Topic.ORDER_UNKNOWN, report.order_id)
    note_quiet(c, tick.now)


def _goes_on(c: Carried, deleverage: PendingDeleverage, order: Order, report: OrderReport) -> bool:
    """Whether a kill that flattens has closed only part of a position. The next order then follows at once."""
    flattens = c.state is State.KILLED and c.kill is not None and c.kill.flattens and c.kill.flat_at is None
    if not (flattens and deleverage.automatic and deleverage.quantity is None):
        return False
    return ZERO < report.filled_quantity < abs(order.position_before or ZERO)


def finish_deleverage(
    c: Carried, pending: PendingDeleverage, refusal: str | None, tick: Tick, shortfall: str | None = None
) -> None:
    """Settles a deleverage: refused with `refusal`, applied in part with `shortfall`, otherwise applied."""
    c.deleverages = without(c.deleverages, pending)
    if pending.automatic:
        # No row: the row of the crossing names the reduction, and the next reading asks again for whatever is still too
        # much.
        unwarn(c, Topic.REDUCTION_FAILED, pending.symbol)
        if refusal:
            warn(c, Topic.REDUCTION_FAILED, f"reducing {pending.symbol} failed: {refusal}", pending.symbol)
        return
    record = c.commands.get(pending.command.command_id)
    # A kill may have used the same id meanwhile; the record then holds the kill's outcome.
    if record and record.kind is CommandKind.DELEVERAGE:
        record.outcome = Outcome.REFUSED if refusal else Outcome.APPLIED
        record.detail, record.code = refusal or shortfall, RefusalCode.CONFLICT if refusal else None
    word = "refused" if refusal else "applied in part" if shortfall else "applied"
    queue_row(c, control_row(c, pending.command, word, tick, refusal or shortfall))


def nothing_to_send(c: Carried, pending: PendingDeleverage, reduction: Reduction, tick: Tick) -> None:
    """Settles a deleverage that needs no order. If a limit or a kill wants a position closed and it is, that is success."""
    reached = pending.automatic and reduction.closed
    finish_deleverage(c, pending, None if reached else reduction.refusal or "nothing to reduce", tick)
