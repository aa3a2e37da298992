"""Arbitration: chooses one of the agents' proposals by weight, confidence, expected return and liquidity.

docs/agents.md has the rule in words, with a worked example.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from math import fsum, isfinite
from typing import NamedTuple

from pydantic import Field

from domain.trading.instructions import Side
from domain.trading.market import TopOfBook
from domain.trading.proposals import Proposal
from domain.values import Value, assembled

THRESHOLD = 0.05
"""Below this net confidence nothing is chosen for a symbol."""

DEFAULT_EDGE = 0.001
"""What a proposal counts as expecting that does not say it: a fraction of the price."""

HIGHEST_EDGE = 0.05
"""The most that a stated expected return counts: one agent's phantasy must not outrank everything."""

DEFAULT_WEIGHT = 1.0


class Standing(Value):
    """Where one symbol stands: `net` positive buys, negative sells, and `score` ranks it among the others.

    `proposal` is the strongest of the winning side; None where nothing is chosen for the symbol.
    """

    symbol: str
    net: float
    edge: float
    liquidity: float
    score: float
    proposal: Proposal | None
    contested: bool


class Arbitration(Value):
    """The proposal that was chosen, if any, every symbol's standing, best first, and what the summary says of it."""

    chosen: Proposal | None = None
    standings: list[Standing] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def wishes(self) -> list[Proposal]:
        """What would be chosen, best first: the next one has its turn where the one before asks for nothing new."""
        return [standing.proposal for standing in self.standings if standing.proposal]


def arbitrate(
    proposals: Sequence[Proposal], weights: Mapping[str, float], liquidity: Mapping[str, float]
) -> Arbitration:
    """The same proposals give the same choice, in whatever order they come."""
    voices = _voices(proposals, weights)
    if not voices:
        return Arbitration(notes=["none of the proposals has a weight"] if proposals else [])
    found = [_standing(symbol, heard, liquidity.get(symbol, 1.0)) for symbol, heard in voices.items()]
    standings = sorted(found, key=lambda s: (s.proposal is None, -s.score, s.symbol))
    undecided = sorted((s for s in standings if s.proposal is None), key=lambda s: s.symbol)
    contested = [s.symbol for s in undecided if s.contested]
    weak = [s.symbol for s in undecided if not s.contested]
    notes = [f"opposite proposals cancel out on {', '.join(contested)}"] if contested else []
    notes += [f"the proposals on {', '.join(weak)} are too weak"] if weak else []
    return assembled(Arbitration, {"chosen": standings[0].proposal, "standings": standings, "notes": notes})


def liquidity_of(book: TopOfBook | None, notional: Decimal) -> float:
    """How much of an order the thinner side of the book fills at its best price, 0 to 1; 1 where there is no book."""
    if book is None or notional <= 0:
        return 1.0
    depth = min(book.bid * book.bid_quantity, book.ask * book.ask_quantity)
    return min(1.0, max(0.0, float(depth / notional)))


class _Voice(NamedTuple):
    """One agent's strongest proposal for a symbol, and the weight of that agent."""

    proposal: Proposal
    weight: float

    @property
    def pull(self) -> float:
        """Weight times confidence."""
        return self.weight * self.proposal.confidence

    @property
    def sign(self) -> int:
        return 1 if self.proposal.side is Side.BUY else -1


def _voices(proposals: Iterable[Proposal], weights: Mapping[str, float]) -> dict[str, list[_Voice]]:
    """By symbol. Whatever has no weight, or no confidence between 0 and 1, is not heard."""
    strongest: dict[tuple[str, str], Proposal] = {}
    for proposal in sorted(proposals, key=lambda p: (-p.confidence, -_edge(p), p.side.value, p.proposal_id)):
        if weights.get(proposal.agent_id, DEFAULT_WEIGHT) > 0 and 0 < proposal.confidence <= 1:
            strongest.setdefault((proposal.symbol, proposal.agent_id), proposal)
    by_symbol: dict[str, list[_Voice]] = {}
    for (symbol, agent_id), proposal in strongest.items():
        voice = _Voice(proposal=proposal, weight=weights.get(agent_id, DEFAULT_WEIGHT))
        by_symbol.setdefault(symbol, []).append(voice)
    return by_symbol


def _standing(symbol: str, voices: Sequence[_Voice], liquidity: float) -> Standing:
    # fsum is exact whatever the order: opposite proposals cancel out to 0, and a permutation changes nothing.
    weight = fsum(voice.weight for voice in voices)
    net = max(-1.0, min(1.0, fsum(voice.sign * voice.pull for voice in voices) / weight))
    # The strongest first: the choice is named after it.
    winners = sorted((v for v in voices if v.sign * net > 0), key=lambda v: (-v.pull, v.proposal.agent_id))
    edge = 0.0
    if winners:
        # By weight. The quotient of two rounded sums may lie a hair above what they are made of.
        mean = fsum(v.weight * _edge(v.proposal) for v in winners) / fsum(v.weight for v in winners)
        edge = min(mean, HIGHEST_EDGE)
    return assembled(
        Standing,
        {
            "symbol": symbol,
            "net": net,
            "edge": edge,
            "liquidity": liquidity,
            "score": abs(net) * edge * liquidity,
            "proposal": winners[0].proposal if abs(net) >= THRESHOLD else None,
            "contested": len({voice.sign for voice in voices}) == 2,
        },
    )


def _edge(proposal: Proposal) -> float:
    stated = proposal.expected_return
    return DEFAULT_EDGE if stated is None or not isfinite(stated) else min(max(stated, 0.0), HIGHEST_EDGE)
