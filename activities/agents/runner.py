"""Runs agents: here in our own process, in `pool.py` with one process per agent."""

import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from activities.agents.catalogue import InstalledAgent, load
from activities.agents.port import Agent, Arguments, BarArrays, Floats, Suggestion
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

    def answers(self, names: Iterable[str], arguments: Arguments, silent: Collection[str] = ()) -> list[AgentAnswer]:
        """An answer of each agent. Those that are known to be `silent` are not called."""
        # One agent must not change what the next one sees.
        bars, book, funding, positions = arguments
        shared = Arguments(
            MappingProxyType(bars), MappingProxyType(book), MappingProxyType(funding), MappingProxyType(positions)
        )
        answers = []
        for name in names:
            if name in silent:
                answers.append(answer_of(name, ABSTAINED, 0.0))
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
