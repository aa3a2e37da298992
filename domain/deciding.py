"""One cycle's decision: choose a proposal, size it from net asset value, weigh it against the guards."""

from decimal import Decimal

from pydantic import Field

from domain.decisions import DecisionType
from domain.instructions import OrderInstruction, OrderType, Side
from domain.limits import Limits
from domain.market import Observation
from domain.proposals import AgentFailure, Analysis, Proposal, best_proposal
from domain.risk import Candidate, Circumstances, refusals
from domain.values import ZERO, Value, floor_to_step

APPROVED = "approved"


class Choice(Value):
    """What a cycle came to. `instruction` is set only where every guard approved."""

    decision_type: DecisionType
    summary: str
    votes: dict[str, float] = Field(default_factory=dict)
    proposal: Proposal | None = None
    instruction: OrderInstruction | None = None
    risk_passed: bool | None = None
    risk_reasons: list[str] = Field(default_factory=list)


def decide(analysis: Analysis, given: Circumstances) -> Choice:
    """The choice among `analysis` in the given circumstances."""
    observation = given.observation
    if observation.latch_error:
        return nothing(f"No new order: {observation.latch_error}", analysis)
    proposal = best_proposal(analysis.proposals)
    if proposal is None:
        return nothing(observation.note or "No agent proposed an order", analysis)
    if proposal.symbol in given.blocked:
        return _refused(proposal, analysis, [given.blocked[proposal.symbol]])
    instruction = size(proposal, observation, given.limits)
    if instruction is None:
        return _refused(proposal, analysis, [_why_unsized(proposal, observation)])
    return _weigh(proposal, instruction, analysis, given)


def size(proposal: Proposal, observation: Observation, limits: Limits) -> OrderInstruction | None:
    """A market order worth `order_fraction` of net asset value, rounded down to the lot step; None below a minimum."""
    mark, rules = observation.marks.get(proposal.symbol, ZERO), observation.rules.get(proposal.symbol)
    if rules is None or mark <= 0:
        return None
    quantity = floor_to_step(max(ZERO, limits.order_fraction * observation.account.nav) / mark, rules.lot_step)
    if quantity < rules.min_quantity or quantity * mark < rules.min_notional:
        return None
    return _order(proposal, quantity)


def nothing(summary: str, analysis: Analysis | None = None) -> Choice:
    """A cycle that chose nothing, and why; agents that failed are named."""
    analysis = analysis or Analysis()
    text = "; ".join([summary, *map(_failure_text, analysis.failures)])
    return Choice(decision_type=DecisionType.NO_ACTION, summary=text, votes=analysis.votes)


def _weigh(proposal: Proposal, instruction: OrderInstruction, analysis: Analysis, given: Circumstances) -> Choice:
    reasons = refusals(Candidate(instruction, given))
    if reasons:
        return _refused(proposal, analysis, reasons)
    return Choice(
        decision_type=DecisionType.ORDER_INTENT,
        summary=_summary(proposal, analysis),
        votes=analysis.votes,
        proposal=proposal,
        instruction=instruction,
        risk_passed=True,
        risk_reasons=[APPROVED],
    )


def _refused(proposal: Proposal, analysis: Analysis, reasons: list[str]) -> Choice:
    return Choice(
        decision_type=DecisionType.ORDER_INTENT,
        summary=_summary(proposal, analysis),
        votes=analysis.votes,
        proposal=proposal,
        risk_passed=False,
        risk_reasons=reasons,
    )


def _order(proposal: Proposal, quantity: Decimal) -> OrderInstruction:
    return OrderInstruction(
        symbol=proposal.symbol,
        side=Side(proposal.side),
        order_type=OrderType.MARKET,
        quantity=quantity,
        reduce_only=False,
    )


def _why_unsized(proposal: Proposal, observation: Observation) -> str:
    priced = observation.marks.get(proposal.symbol, ZERO) > 0 and proposal.symbol in observation.rules
    return "quantity_too_small" if priced else f"symbol_unknown: {proposal.symbol}"


def _summary(proposal: Proposal, analysis: Analysis) -> str:
    chosen = f"Selected {proposal.symbol} from {proposal.agent_id}"
    return "; ".join([chosen, *map(_failure_text, analysis.failures)])


def _failure_text(failure: AgentFailure) -> str:
    return f"agent {failure.agent_id} failed: {failure.error}"
