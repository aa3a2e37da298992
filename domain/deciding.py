"""One cycle's decision: choose a proposal, size it from net asset value, weigh it against the guards."""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

from pydantic import Field

from domain.agents import AgentHealth
from domain.arbitration import arbitrate
from domain.decisions import DecisionType
from domain.instructions import OrderInstruction, OrderType, Side
from domain.limits import Limits
from domain.market import Observation
from domain.proposals import AgentFailure, Analysis, Proposal
from domain.risk import Candidate, Circumstances, refusals
from domain.values import ZERO, Value, floor_to_step

APPROVED = "approved"


class Choice(Value):
    """What a cycle came to. `instruction` is set only where every guard approved.

    `agents` is the agents' health after this cycle, for the coordinator to carry to the next; `not_taken` says of proposals
    from outside, by id, why they were not heard.
    """

    decision_type: DecisionType
    summary: str
    votes: dict[str, float] = Field(default_factory=dict)
    proposal: Proposal | None = None
    instruction: OrderInstruction | None = None
    risk_passed: bool | None = None
    risk_reasons: list[str] = Field(default_factory=list)
    agents: dict[str, AgentHealth] = Field(default_factory=dict)
    not_taken: dict[str, str] = Field(default_factory=dict)


def decide(
    analysis: Analysis,
    given: Circumstances,
    *,
    weights: Mapping[str, float] = MappingProxyType({}),
    liquidity: Mapping[str, float] = MappingProxyType({}),
) -> Choice:
    """The choice among `analysis` in the given circumstances.

    `weights` are by agent id, `liquidity` from 0 to 1 by symbol; both are 1 where they are not given.
    """
    observation = given.observation
    if observation.latch_error:
        return nothing(f"No new order: {observation.latch_error}", analysis)
    arbitration = arbitrate(analysis.proposals, weights, liquidity)
    if arbitration.notes:
        analysis = analysis.model_copy(update={"notes": [*analysis.notes, *arbitration.notes]})
    proposal = arbitration.chosen
    if proposal is None:
        return nothing(observation.note or _why_nothing(analysis), analysis)
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
    return Choice(decision_type=DecisionType.NO_ACTION, summary=_summary(summary, analysis), votes=analysis.votes)


def _weigh(proposal: Proposal, instruction: OrderInstruction, analysis: Analysis, given: Circumstances) -> Choice:
    reasons = refusals(Candidate(instruction, given))
    if reasons:
        return _refused(proposal, analysis, reasons)
    return Choice(
        decision_type=DecisionType.ORDER_INTENT,
        summary=_summary(_selected(proposal), analysis),
        votes=analysis.votes,
        proposal=proposal,
        instruction=instruction,
        risk_passed=True,
        risk_reasons=[APPROVED],
    )


def _refused(proposal: Proposal, analysis: Analysis, reasons: list[str]) -> Choice:
    return Choice(
        decision_type=DecisionType.ORDER_INTENT,
        summary=_summary(_selected(proposal), analysis),
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


def _selected(proposal: Proposal) -> str:
    return f"Selected {proposal.symbol} from {proposal.agent_id}"


def _why_nothing(analysis: Analysis) -> str:
    return "Nothing was chosen" if analysis.proposals else "No agent proposed an order"


def _summary(outcome: str, analysis: Analysis) -> str:
    away = (f"agent {agent_id} is quarantined until cycle {until}" for agent_id, until in analysis.quarantined.items())
    return "; ".join([outcome, *analysis.notes, *map(_failure_text, analysis.failures), *away])


def _failure_text(failure: AgentFailure) -> str:
    return f"agent {failure.agent_id} failed: {failure.error}"
