"""Which agents are installed: those that come with AIS, and entry points of other packages in the group `ais.agents`.

Reading this runs none of their code. That is done where an agent is called: a package that hangs while it is imported,
or ends the process, must not do it to a worker.
"""

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from activities.agents.port import Agent
from domain.proposals import AGENT_ID

GROUP = "ais.agents"
OURS = "ais"
ALL, NONE = ("all",), ("none",)

# The same as in pyproject.toml, which a test compares. What is installed of ourselves may be older than this file (a
# checkout), so ours are taken from here.
BUILT_IN = {
    "momentum": "activities.agents.momentum:momentum",
    "mean_reversion": "activities.agents.mean_reversion:mean_reversion",
    "volatility_breakout": "activities.agents.volatility_breakout:volatility_breakout",
    "funding_rate": "activities.agents.funding_rate:funding_rate",
}


class InstalledAgent(NamedTuple):
    """An agent's name, and where it is: `package.module:attribute`."""

    name: str
    target: str


class Installed(NamedTuple):
    """Every agent that is installed, and a sentence for each entry point that was refused."""

    agents: dict[str, InstalledAgent]
    warnings: list[str]


class UnknownAgent(Exception):
    """A setting names an agent that is not installed."""

    def __init__(self, name: str, installed: Iterable[str]) -> None:
        super().__init__(f"AIS_AGENTS names {name!r}, which is not installed. Installed: {', '.join(installed)}")


class NotAnAgent(Exception):
    """An entry point leads to something that cannot be called."""


def installed_agents() -> Installed:
    """Ours first, then those of other packages by name."""
    agents = {name: InstalledAgent(name, target) for name, target in BUILT_IN.items()}
    warnings = []
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, _package(p))):
        if _package(point) == OURS:
            continue
        if refusal := _refusal(point, agents):
            warnings.append(f"agent {point.name!r} of package {_package(point)!r} is not used: {refusal}")
        else:
            agents[point.name] = InstalledAgent(point.name, point.value)
    return Installed(agents, warnings)


def select(installed: Installed, names: Sequence[str]) -> list[InstalledAgent]:
    """The agents that AIS_AGENTS names; UnknownAgent where one is not installed."""
    if tuple(names) == ALL:
        return list(installed.agents.values())
    wanted = () if tuple(names) == NONE else names
    for name in wanted:
        if name not in installed.agents:
            raise UnknownAgent(name, installed.agents)
    return [installed.agents[name] for name in wanted]


def load(agent: InstalledAgent) -> Agent:
    """Imports an agent; a class is made an instance of. Whatever its module raises, this raises."""
    found = EntryPoint(agent.name, agent.target, GROUP).load()
    made = found() if isinstance(found, type) else found
    if not callable(made):
        raise NotAnAgent(f"{agent.target} is a {type(made).__name__}, which cannot be called")
    return made  # type: ignore[no-any-return]


def _refusal(point: EntryPoint, taken: dict[str, InstalledAgent]) -> str | None:
    if not re.fullmatch(AGENT_ID, point.name) or (point.name,) in (ALL, NONE):
        return "a name has letters, digits, `_`, `.` and `-`, 64 at most, and is neither `all` nor `none`"
    if point.name in BUILT_IN:
        return "AIS has an agent of this name; choose another"
    return f"{taken[point.name].target} has this name too; choose another" if point.name in taken else None


def _package(point: EntryPoint) -> str:
    return (point.dist.name if point.dist else "") or ""
