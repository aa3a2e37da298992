"""One cycle's choice, once the agents have answered: the same for a desk's worker and for a replay.

who is asked ─► (agents) ─► analysis ─► arbitration ─► size ─► guards ─► choice, and the agents' health after it
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from activities.agents.room import Answer
from activities.agents.round import analyse
from activities.tape import correlations_of, tape_of
from domain.agents import Health, judged, quarantined, to_ask
from domain.arbitration import liquidity_of
from domain.deciding import Choice, decide
from domain.limits import Limits
from domain.market import Bar, Observation, TopOfBook
from domain.proposals import Analysis, Proposal
from domain.risk import Circumstances


@dataclass(frozen=True)
class Round:
    """One cycle's question to the agents `names`, of which those in quarantine are left alone."""

    names: Sequence[str]
    health: Health
    cycle: int

    @property
    def asked(self) -> list[str]:
        """Who is asked."""
        return to_ask(self.names, self.health, self.cycle)

    @property
    def away(self) -> dict[str, int]:
        """Who is in quarantine, and until which cycle."""
        found = quarantined(self.health, self.cycle)
        return {name: until for name, until in found.items() if name in self.names}


@dataclass(frozen=True)
class Situation:
    """What a choice is made in. `bars` and `books` are by symbol, `blocked` says why a symbol takes no new order."""

    observation: Observation
    limits: Limits
    symbols: Sequence[str]
    bars: Mapping[str, Sequence[Bar]]
    books: Mapping[str, TopOfBook | None]
    blocked: Mapping[str, str]
    sent: Sequence[datetime]
    weights: Mapping[str, float]
    now: datetime


def choose(
    round_: Round,
    answers: Sequence[Answer],
    situation: Situation,
    outside: Sequence[Proposal],
    new_id: Callable[[str], str],
) -> Choice:
    """The choice among what the agents answered and what was proposed from `outside`."""
    analysis = analyse(answers, new_id, round_.away, outside)
    # What is worked out of bars and books is asked for of symbols on which something is proposed: mostly of none.
    proposed = list(dict.fromkeys(proposal.symbol for proposal in analysis.proposals))
    choice = decide(
        analysis,
        _circumstances(situation, proposed),
        weights=situation.weights,
        liquidity=_liquidity(situation, proposed),
    )
    health = _health_after(round_, analysis)
    return choice.model_copy(update={"agents": health, "not_taken": analysis.not_taken})


def _liquidity(situation: Situation, proposed: Sequence[str]) -> dict[str, float]:
    value = situation.limits.order_fraction * situation.observation.account.nav
    return {symbol: liquidity_of(situation.books.get(symbol), value) for symbol in proposed}


def _circumstances(situation: Situation, proposed: Sequence[str]) -> Circumstances:
    bars = situation.bars
    return Circumstances(
        observation=situation.observation,
        limits=situation.limits,
        symbols=situation.symbols,
        now=situation.now,
        blocked=situation.blocked,
        tapes={symbol: tape_of(bars[symbol]) for symbol in proposed if symbol in bars},
        correlations=correlations_of(bars) if proposed and len(bars) > 1 else {},
        sent=situation.sent,
        barless=[symbol for symbol, listed in bars.items() if not listed],
    )


def _health_after(round_: Round, analysis: Analysis) -> Health:
    if not round_.health and not analysis.failures:
        return {}
    asked = dict.fromkeys(analysis.votes, True) | {failure.agent_id: False for failure in analysis.failures}
    return judged(round_.health, round_.cycle, asked, round_.names)
