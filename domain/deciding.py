"""One cycle's decision: choose a proposal, size it from net asset value, check it against the guards."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType

from pydantic import Field

from domain.risk.guards import Candidate, MarketContext, refusals
from domain.risk.limits import Limits
from domain.trading.agents import AgentHealth
from domain.trading.arbitration import arbitrate
from domain.trading.decisions import DecisionType
from domain.trading.instructions import OrderInstruction, OrderType, Side, Tool
from domain.trading.market import Observation, SymbolRules
from domain.trading.proposals import Analysis, Proposal
from domain.trading.quotes import order_text, passive_price, stands
from domain.values import ZERO, Value, assembled, floor_to_step

APPROVED = "approved"
UNCHANGED = "quote_unchanged"
NOTHING_CHOSEN = "Nothing was chosen"


class Choice(Value):
    """The result of a cycle. `instruction` is set only if every guard approved.

    `agents` is the agents' health after this cycle, which the coordinator carries to the next one. `not_taken` says, by id,
    why proposals from outside were ignored.
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
    given: MarketContext,
    *,
    weights: Mapping[str, float] = MappingProxyType({}),
    liquidity: Mapping[str, float] = MappingProxyType({}),
) -> Choice:
    """Chooses among the proposals of `analysis`, given the market context.

    `weights` are by agent id, `liquidity` (0 to 1) by symbol. Both default to 1.
    """
    observation = given.observation
    if observation.latch_error or not analysis.proposals:
        return abstained(analysis, observation)
    analysis, wishes = weighed(analysis, weights, liquidity)
    standing: Choice | None = None
    for proposal in wishes:
        choice = _follow(proposal, analysis, given)
        if choice.decision_type is DecisionType.ORDER_INTENT:
            return choice
        standing = standing or choice
    return standing or nothing(observation.note or NOTHING_CHOSEN, analysis)


def weighed(
    analysis: Analysis, weights: Mapping[str, float], liquidity: Mapping[str, float]
) -> tuple[Analysis, list[Proposal]]:
    """The analysis with the notes of arbitration, and the proposals that it would follow, best first."""
    arbitration = arbitrate(analysis.proposals, weights, liquidity)
    if arbitration.notes:
        analysis = analysis.model_copy(update={"notes": [*analysis.notes, *arbitration.notes]})
    return analysis, arbitration.wishes


def abstained(analysis: Analysis, observation: Observation) -> Choice:
    """The choice if nothing was proposed, or if no proposal may be followed because the latch could not be read."""
    if observation.latch_error:
        return nothing(f"No new order: {observation.latch_error}", analysis)
    return nothing(observation.note or "No agent proposed an order", analysis)


def _follow(proposal: Proposal, analysis: Analysis, given: MarketContext) -> Choice:
    """What a proposal leads to: an order, a refusal, or nothing if the agent's quote already stands as proposed."""
    if proposal.symbol in given.blocked:
        return intent(proposal, analysis, [given.blocked[proposal.symbol]])
    instruction = size(proposal, given.observation, given.limits)
    if instruction is None:
        priced = given.observation.marks.get(proposal.symbol, ZERO) > 0 and proposal.symbol in given.observation.rules
        return intent(proposal, analysis, ["quantity_too_small" if priced else f"symbol_unknown: {proposal.symbol}"])
    if stands(given.quotes, proposal.agent_id, instruction):
        text = f"The quote of {proposal.agent_id} on {proposal.symbol} stands: {order_text(instruction)}"
        return nothing(text, analysis).model_copy(update={"proposal": proposal, "risk_reasons": [UNCHANGED]})
    return intent(proposal, analysis, refusals(Candidate(instruction, given)), instruction)


def size(proposal: Proposal, observation: Observation, limits: Limits) -> OrderInstruction | None:
    """An order worth `order_fraction` of net asset value, rounded down to the lot step and no larger than the venue takes; None
    if it is below a minimum.

    A proposal with a price becomes a limit order, priced on a tick and never worse than asked. Its worth is what it costs
    at that price; a sale below the mark price counts at the mark.
    """
    mark, rules = observation.marks.get(proposal.symbol, ZERO), observation.rules.get(proposal.symbol)
    if rules is None or mark <= 0:
        return None
    limit = None if proposal.price is None else passive_price(proposal.side, proposal.price, rules.tick_size)
    price = mark if limit is None else limit
    if price <= 0:
        return None
    # A sale below the mark price fills at the market. A purchase below it rests, and a size that moved with the mark would
    # replace it every cycle. The guards weigh both at the mark price.
    worth = price if proposal.side is Side.BUY else max(price, mark)
    wanted = max(ZERO, limits.order_fraction * observation.account.nav) / worth
    quantity = taken(wanted, price, rules, at_market=limit is None)
    return None if quantity is None else _order(proposal, quantity, limit)


def taken(wanted: Decimal, price: Decimal, rules: SymbolRules, *, at_market: bool) -> Decimal | None:
    """As much of a wanted quantity as the venue takes in one order: whole lots, and no more than its maximum; None if that is
    below a minimum."""
    # The venue refuses a larger one, whenever it is proposed.
    largest = rules.max_quantity, rules.market_max_quantity if at_market else None
    quantity = floor_to_step(min([wanted, *(bound for bound in largest if bound is not None)]), rules.lot_step)
    return None if quantity < rules.min_quantity or quantity * price < rules.min_notional else quantity


def nothing(summary: str, analysis: Analysis | None = None) -> Choice:
    """The choice of a cycle that does nothing, and why. Names the agents that failed."""
    analysis = analysis or Analysis()
    return _choice(DecisionType.NO_ACTION, summary, analysis)


def intent(
    proposal: Proposal, analysis: Analysis, reasons: list[str], instruction: OrderInstruction | None = None
) -> Choice:
    """The order that a proposal leads to: refused if there are reasons against it, otherwise approved."""
    assert reasons or instruction, "approved, and no order"
    selected = f"Selected {proposal.symbol} from {proposal.agent_id}"
    if instruction and instruction.price is not None:
        selected = f"{selected}; {order_text(instruction)}"
    return _choice(
        DecisionType.ORDER_INTENT,
        selected,
        analysis,
        proposal=proposal,
        instruction=None if reasons else instruction,
        risk_passed=not reasons,
        risk_reasons=reasons or [APPROVED],
    )


def _choice(
    kind: DecisionType,
    outcome: str,
    analysis: Analysis,
    *,
    proposal: Proposal | None = None,
    instruction: OrderInstruction | None = None,
    risk_passed: bool | None = None,
    risk_reasons: Sequence[str] = (),
) -> Choice:
    return assembled(
        Choice,
        {
            "decision_type": kind,
            "summary": _summary(outcome, analysis),
            "votes": analysis.votes,
            "proposal": proposal,
            "instruction": instruction,
            "risk_passed": risk_passed,
            "risk_reasons": [*risk_reasons],
            "agents": {},
            "not_taken": {},
        },
    )


def _order(proposal: Proposal, quantity: Decimal, limit: Decimal | None) -> OrderInstruction:
    return assembled(
        OrderInstruction,
        {
            "tool": Tool.CREATE_ORDER,
            "symbol": proposal.symbol,
            "side": proposal.side,
            "order_type": OrderType.MARKET if limit is None else OrderType.LIMIT,
            "quantity": quantity,
            "price": limit,
            "reduce_only": False,
            "time_in_force": proposal.sent_as,
        },
    )


def _summary(outcome: str, analysis: Analysis) -> str:
    if not (analysis.notes or analysis.failures or analysis.quarantined):
        return outcome
    away = (f"agent {agent_id} is quarantined until cycle {until}" for agent_id, until in analysis.quarantined.items())
    failed = (f"agent {failure.agent_id} failed: {failure.error}" for failure in analysis.failures)
    return "; ".join([outcome, *analysis.notes, *failed, *away])
