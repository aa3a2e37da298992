"""Where agents are asked. Two rooms: this one in our own process, and `processes.py` with a process for each agent."""

import time
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from activities.agents.catalogue import InstalledAgent, load
from activities.agents.port import Agent, Arguments, Suggestion
from activities.agents.reply import Reply, failed, reply_of
from domain.proposals import AgentFailure, FailureKind


class Answer(NamedTuple):
    """What one agent said, or why it said nothing, and how long that took."""

    agent_id: str
    suggestions: Sequence[Suggestion]
    failure: AgentFailure | None
    seconds: float


class AgentRoom(Protocol):
    """The agents of a desk."""

    @property
    def names(self) -> Sequence[str]:
        """All of them, in their order."""

    async def ask(self, names: Iterable[str], arguments: Arguments) -> list[Answer]:
        """An answer of each, whatever it does: one that fails costs its own vote and nothing else."""


def answer_of(agent_id: str, reply: Reply, seconds: float) -> Answer:
    """A reply with the name of who gave it."""
    if reply.failure is None:
        return Answer(agent_id, reply.suggestions, None, seconds)
    failure = AgentFailure(agent_id=agent_id, error=reply.error, kind=reply.failure)
    return Answer(agent_id, reply.suggestions, failure, seconds)


class LocalRoom:
    """Asks agents in this process, one after the other: fast, for replays and tests.

    One that raises or talks nonsense still costs its own vote alone; one that hangs or ends the process does not. For
    those there is `ProcessRoom`.
    """

    def __init__(self, agents: Sequence[InstalledAgent]) -> None:
        self._agents = {agent.name: agent for agent in agents}
        self._loaded: dict[str, Agent] = {}

    @property
    def names(self) -> list[str]:
        """All of them, in their order."""
        return list(self._agents)

    async def ask(self, names: Iterable[str], arguments: Arguments) -> list[Answer]:
        """`answers`, as a room for processes has it."""
        return self.answers(names, arguments)

    def answers(self, names: Iterable[str], arguments: Arguments) -> list[Answer]:
        """An answer of each."""
        # One agent must not change what the next one sees.
        bars, book, funding, positions = arguments
        shared = Arguments(
            MappingProxyType(bars), MappingProxyType(book), MappingProxyType(funding), MappingProxyType(positions)
        )
        return [self._answer(name, shared) for name in names]

    def _answer(self, name: str, arguments: Arguments) -> Answer:
        started = time.perf_counter()
        agent = self._loaded.get(name) or self._load(name)
        reply = agent if isinstance(agent, Reply) else reply_of(agent, arguments)
        return answer_of(name, reply, time.perf_counter() - started)

    def _load(self, name: str) -> Agent | Reply:
        """The agent, or the reply that it cannot be loaded; the next call tries again."""
        try:
            agent = self._loaded[name] = load(self._agents[name])
        except (Exception, SystemExit) as error:
            return failed(FailureKind.UNLOADABLE, error)
        return agent
