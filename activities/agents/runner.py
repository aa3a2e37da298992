"""Runs agents: here in our own process, in `pool.py` with one process per agent."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from activities.agents.catalogue import InstalledAgent, load
from activities.agents.port import MAX_BARS, Agent, Arguments, BarArrays, Floats, Suggestion
from activities.agents.reply import ABSTAINED, Reply, failed, reply_of
from domain.trading.proposals import AgentFailure, FailureKind


class AgentAnswer(NamedTuple):
    """One agent's answer, or why there is none, and how long the call took."""

    agent_id: str
    suggestions: Sequence[Suggestion]
    failure: AgentFailure | None
    seconds: float


class AgentRunner(Protocol):
    """The agents of a desk."""

    @property
    def names(self) -> Sequence[str]:
        """All of them, in their order."""

    async def ask(self, names: Iterable[str], arguments: Arguments) -> list[AgentAnswer]:
        """An answer of each agent, whatever it does: one that fails loses its own vote and nothing else."""


def answer_of(agent_id: str, reply: Reply, seconds: float) -> AgentAnswer:
    """A reply with the name of its agent."""
    if reply.failure is None:
        return AgentAnswer(agent_id, reply.suggestions, None, seconds)
    failure = AgentFailure(agent_id=agent_id, error=reply.error, kind=reply.failure)
    return AgentAnswer(agent_id, reply.suggestions, failure, seconds)


class InlineAgents:
    """Calls agents in this process, one after the other: fast, for replays and tests.

    An agent that raises or answers nonsense still loses only its own vote. One that hangs or ends the process stops
    everything; `AgentPool` handles those.
    """

    def __init__(self, agents: Sequence[InstalledAgent]) -> None:
        self._agents = {agent.name: agent for agent in agents}
        self._loaded: dict[str, Agent] = {}
        self.silence: Mapping[str, Reply] = dict.fromkeys(self._agents, ABSTAINED)
        """The replies of a bar at which no agent has anything to say."""

    @property
    def names(self) -> list[str]:
        """All of them, in their order."""
        return list(self._agents)

    async def ask(self, names: Iterable[str], arguments: Arguments) -> list[AgentAnswer]:
        """The same as `answers`; asynchronous, as `AgentRunner` wants it."""
        return self.answers(names, arguments)

    def screened(self, bars: BarArrays, funding: Floats) -> dict[str, NDArray[np.bool_]]:
        """The bars at which each agent may have something to say (`port.Screen`). An agent without a screen may speak at
        any bar."""
        found = {}
        for name in self._agents:
            found[name] = np.ones(len(bars), dtype=np.bool_)
            # An agent that cannot be loaded is asked anyway, and then says why. So is one whose screen fails or lacks an
            # answer for some bar.
            with suppress(Exception, SystemExit):
                if screen := getattr(self._agent(name), "screen", None):
                    flags = np.asarray(screen(bars, funding), dtype=np.bool_)
                    found[name] = flags if flags.shape == (len(bars),) else found[name]
        return found

    def known(self, symbol: str, bars: BarArrays, funding: Floats, newest: int) -> list[Mapping[str, Reply]]:
        """The replies to each of the newest bars that are known before the desk gets there: those of agents that are silent
        for certain, and those of agents that see the market alone."""
        may = self.screened(bars, funding)
        first = len(bars) - newest
        loud: list[int] = np.flatnonzero(np.any([*may.values()], axis=0)).tolist() if may else []
        found = {at: {name: ABSTAINED for name in may if not may[name][at]} for at in loud if at >= first}
        rates: list[float] = funding.tolist()
        seen = {at: _market_alone(symbol, bars, rates[at], at) for at in found}
        # Agent by agent: the same code again and again takes half the time.
        for name in may:
            if getattr(self._loaded.get(name), "sees_market_alone", False):
                for at, replies in found.items():
                    if name not in replies:
                        replies[name] = reply_of(self._agent(name), seen[at])
        return [found.get(at, self.silence) for at in range(first, len(bars))]

    def answers(
        self, names: Iterable[str], arguments: Arguments, known: Mapping[str, Reply] = MappingProxyType({})
    ) -> list[AgentAnswer]:
        """An answer of each agent. Those whose reply is `known` are not called."""
        # One agent must not change what the next one sees.
        bars, book, funding, positions = arguments
        shared = Arguments(
            MappingProxyType(bars), MappingProxyType(book), MappingProxyType(funding), MappingProxyType(positions)
        )
        answers = []
        for name in names:
            if name in known:
                answers.append(answer_of(name, known[name], 0.0))
                continue
            started = time.perf_counter()
            try:
                agent = self._agent(name)
            except (Exception, SystemExit) as error:
                reply = failed(FailureKind.UNLOADABLE, error)  # The next call tries again.
            else:
                reply = reply_of(agent, shared)
            answers.append(answer_of(name, reply, time.perf_counter() - started))
        return answers

    def _agent(self, name: str) -> Agent:
        if name not in self._loaded:
            self._loaded[name] = load(self._agents[name])
        return self._loaded[name]


def _market_alone(symbol: str, bars: BarArrays, rate: float, at: int) -> Arguments:
    """What an agent sees of the market once this bar is the newest. A rate that is NaN is not known."""
    seen = bars.part(slice(max(0, at + 1 - MAX_BARS), at + 1))
    rates = {} if math.isnan(rate) else {symbol: rate}
    return Arguments(MappingProxyType({symbol: seen}), {}, MappingProxyType(rates), MappingProxyType({symbol: 0.0}))
