"""Arbitration: chooses one of the agents' proposals by weight, confidence, expected return and liquidity.

docs/agents.md explains the rule, with a worked example.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import fsum, isfinite
from typing import NamedTuple

from domain.trading.instructions import Side
from domain.trading.market import TopOfBook
from domain.trading.proposals import Proposal

THRESHOLD = 0.05
"""Below this net confidence nothing is chosen for a symbol."""

DEFAULT_EDGE = 0.001
"""The expected return of a proposal that states none, as a fraction of the price."""

HIGHEST_EDGE = 0.05
"""A stated expected return counts up to this much: one agent's fantasy must not outrank everything."""

DEFAULT_WEIGHT = 1.0


class Standing(NamedTuple):
    """The standing of one symbol. A positive `net` buys, a negative one sells; `score` ranks it among the others.

    `proposal` is the strongest one on the winning side; None if nothing is chosen for the symbol.
    """

    symbol: str
    net: float
    edge: float
    liquidity: float
    score: float
    proposal: Proposal | None
    contested: bool


class Arbitration(NamedTuple):
    """The chosen proposal, if any, every symbol's standing, best first, and notes for the summary."""

    chosen: Proposal | None = None
    standings: Sequence[Standing] = ()
    notes: Sequence[str] = ()

    @property
    def wishes(self) -> list[Proposal]:
        """What would be chosen, best first. If one asks for nothing new, the next has its turn."""
        return [standing.proposal for standing in self.standings if standing.proposal]


def arbitrate(
    proposals: Sequence[Proposal], weights: Mapping[str, float], liquidity: Mapping[str, float]
) -> Arbitration:
    """Chooses a proposal. The order of the proposals makes no difference."""
    voices = _voices(proposals, weights)
    if not voices:
        return Arbitration(notes=["none of the proposals has a weight"]) if proposals else Arbitration()
    found = [_standing(symbol, heard, liquidity.get(symbol, 1.0)) for symbol, heard in voices.items()]
    # Most often there is one symbol.
    standings = sorted(found, key=lambda s: (s.proposal is None, -s.score, s.symbol)) if len(found) > 1 else found
    notes = _undecided([s for s in standings if s.proposal is None])
    return Arbitration(standings[0].proposal, standings, notes)


def _undecided(standings: Sequence[Standing]) -> list[str]:
    """Notes on the symbols for which nothing is chosen."""
    contested = sorted([s.symbol for s in standings if s.contested])
    weak = sorted([s.symbol for s in standings if not s.contested])
    notes = [f"opposite proposals cancel out on {', '.join(contested)}"] if contested else []
    return notes + ([f"the proposals on {', '.join(weak)} are too weak"] if weak else [])


def liquidity_of(book: TopOfBook | None, notional: Decimal) -> float:
    """The fraction of an order that the thinner side of the book fills at its best price, 0 to 1; 1 without a book."""
    if book is None or notional <= 0:
        return 1.0
    depth = min(book.bid * book.bid_quantity, book.ask * book.ask_quantity)
    return min(1.0, max(0.0, float(depth / notional)))


class _Voice(NamedTuple):
    """One agent's strongest proposal for a symbol, the agent's weight, and 1 for a purchase, -1 for a sale."""

    proposal: Proposal
    weight: float
    sign: int

    @property
    def pull(self) -> float:
        """Weight times confidence."""
        return self.weight * self.proposal.confidence


def _voices(proposals: Sequence[Proposal], weights: Mapping[str, float]) -> dict[str, list[_Voice]]:
    """The proposals that count, by symbol. One without weight, or with a confidence outside 0 to 1, is ignored."""
    strongest: dict[tuple[str, str], Proposal] = {}
    if len(proposals) > 1:
        proposals = sorted(proposals, key=lambda p: (-p.confidence, -_edge(p), p.side.value, p.proposal_id))
    for proposal in proposals:
        if weights.get(proposal.agent_id, DEFAULT_WEIGHT) > 0 and 0 < proposal.confidence <= 1:
            strongest.setdefault((proposal.symbol, proposal.agent_id), proposal)
    by_symbol: dict[str, list[_Voice]] = {}
    for (symbol, agent_id), proposal in strongest.items():
        sign = 1 if proposal.side is Side.BUY else -1
        voice = _Voice(proposal, weights.get(agent_id, DEFAULT_WEIGHT), sign)
        by_symbol.setdefault(symbol, []).append(voice)
    return by_symbol


def _standing(symbol: str, voices: Sequence[_Voice], liquidity: float) -> Standing:
    # fsum is exact in any order: opposite proposals cancel out to 0, and the sequence makes no difference.
    weight = fsum([voice.weight for voice in voices])
    net = max(-1.0, min(1.0, fsum([voice.sign * voice.pull for voice in voices]) / weight))
    # The strongest first: the choice carries its name.
    winners = [voice for voice in voices if voice.sign * net > 0]
    if len(winners) > 1:
        winners.sort(key=lambda v: (-v.pull, v.proposal.agent_id))
    edge = 0.0
    if winners:
        # The weighted mean. The quotient of two rounded sums may exceed all of its terms by a hair.
        mean = fsum([v.weight * _edge(v.proposal) for v in winners]) / fsum([v.weight for v in winners])
        edge = min(mean, HIGHEST_EDGE)
    return Standing(
        symbol=symbol,
        net=net,
        edge=edge,
        liquidity=liquidity,
        score=abs(net) * edge * liquidity,
        proposal=winners[0].proposal if abs(net) >= THRESHOLD else None,
        contested=len({voice.sign for voice in voices}) == 2,
    )


def _edge(proposal: Proposal) -> float:
    stated = proposal.expected_return
    return DEFAULT_EDGE if stated is None or not isfinite(stated) else min(max(stated, 0.0), HIGHEST_EDGE)
