"""Makes one cycle's choice once the agents have answered; worker and replay run the same code.

who is asked ─► (agents) ─► analysis ─► arbitration ─► size ─► guards ─► choice, and the agents' health after it
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from activities.agents.round import analyse
from activities.agents.runner import AgentAnswer
from activities.bar_summaries import correlations_of, tape_of
from domain.deciding import Choice, abstained, decide
from domain.risk.guards import MarketContext
from domain.risk.limits import Limits
from domain.trading.agents import Health, judged, quarantined, to_ask
from domain.trading.arbitration import liquidity_of
from domain.trading.instructions import OrderInstruction
from domain.trading.market import Bar, Observation, TopOfBook
from domain.trading.proposals import Analysis, Proposal
from domain.trading.quotes import AgentQuote


class Round(NamedTuple):
    """One cycle's call of the agents `names`, except those in quarantine."""

    names: Sequence[str]
    health: Health
    cycle: int

    @property
    def asked(self) -> list[str]:
        """The agents that are asked."""
        return to_ask(self.names, self.health, self.cycle)

    @property
    def away(self) -> dict[str, int]:
        """The agents in quarantine, and until which cycle."""
        if not self.health:
            return {}
        found = quarantined(self.health, self.cycle)
        return {name: until for name, until in found.items() if name in self.names}


class CycleContext(NamedTuple):
    """The facts behind a choice. `bars` and `books` are by symbol, `blocked` says why a symbol takes no new order, `quotes` are
    the agents' resting orders, `unsettled` orders of unknown fate."""

    observation: Observation
    limits: Limits
    symbols: Sequence[str]
    bars: Mapping[str, Sequence[Bar]]
    books: Mapping[str, TopOfBook | None]
    blocked: Mapping[str, str]
    sent: Sequence[datetime]
    weights: Mapping[str, float]
    now: datetime
    quotes: Sequence[AgentQuote] = ()
    unsettled: Sequence[OrderInstruction] = ()


def choose(
    round_: Round,
    answers: Sequence[AgentAnswer],
    context: CycleContext,
    outside: Sequence[Proposal],
    new_id: Callable[[str], str],
) -> Choice:
    """Chooses among the agents' answers and the proposals from `outside`."""
    return chosen(round_, analyse(answers, new_id, round_.away, outside), context)


def chosen(round_: Round, analysis: Analysis, context: CycleContext) -> Choice:
    """The same once the answers are collected."""
    choice = _chosen(analysis, context) if analysis.proposals else abstained(analysis, context.observation)
    health: Health = {}
    if round_.health or analysis.failures:
        asked = dict.fromkeys(analysis.votes, True) | {failure.agent_id: False for failure in analysis.failures}
        health = judged(round_.health, round_.cycle, asked, round_.names)
    if not health and not analysis.not_taken:
        return choice
    return choice.model_copy(update={"agents": health, "not_taken": analysis.not_taken})


def _chosen(analysis: Analysis, context: CycleContext) -> Choice:
    # Figures from bars and books are needed only for symbols that somebody has proposed.
    proposed = list(dict.fromkeys(proposal.symbol for proposal in analysis.proposals))
    bars, seen = context.bars, context.observation
    # A symbol that the desk does not trade, but a person holds: nobody has read its bars.
    elsewhere = [*(p.symbol for p in seen.positions), *(o.symbol for o in seen.open_orders)]
    market = MarketContext(
        observation=seen,
        limits=context.limits,
        symbols=context.symbols,
        now=context.now,
        blocked=context.blocked,
        tapes={symbol: tape_of(bars[symbol]) for symbol in proposed if symbol in bars},
        correlations=correlations_of(bars) if proposed and len(bars) > 1 else {},
        sent=context.sent,
        barless=[symbol for symbol in dict.fromkeys([*bars, *elsewhere]) if not bars.get(symbol)],
        quotes=context.quotes,
        unsettled=context.unsettled,
    )
    liquidity = {}
    if len(proposed) > 1:
        # It ranks symbols among each other, and one alone has nobody to be ranked against.
        value = context.limits.order_fraction * context.observation.account.nav
        liquidity = {symbol: liquidity_of(context.books.get(symbol), value) for symbol in proposed}
    return decide(analysis, market, weights=context.weights, liquidity=liquidity)
