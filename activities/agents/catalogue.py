"""Which agents are installed: those that come with AIS, and entry points of other packages in the group `ais.agents`.

Building the catalogue runs none of their code; only an agent's own process does. A package that hangs when it is imported,
or ends the process, must not harm the worker.
"""

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from activities.agents.port import Agent
from domain.trading.proposals import AGENT_ID

GROUP = "ais.agents"
OURS = "ais"
ALL, NONE = ("all",), ("none",)
# The quoter has a resting order out whenever no other agent proposes. So `all` leaves it out; `all,quoter` includes it.
ONLY_BY_NAME = ("quoter",)

# The same as in pyproject.toml (a test compares them). In a checkout the installed metadata may be older than this file, so
# our own agents are taken from here.
BUILT_IN = {
    "momentum": "activities.agents.momentum:momentum",
    "mean_reversion": "activities.agents.mean_reversion:mean_reversion",
    "volatility_breakout": "activities.agents.volatility_breakout:volatility_breakout",
    "funding_rate": "activities.agents.funding_rate:funding_rate",
    "quoter": "activities.agents.quoter:quoter",
}


class InstalledAgent(NamedTuple):
    """An agent's name, and where its code is: `package.module:attribute`."""

    name: str
    target: str


class Installed(NamedTuple):
    """Every installed agent, and a warning for each refused entry point."""

    agents: dict[str, InstalledAgent]
    warnings: list[str]


class UnknownAgent(Exception):
    """A setting names an agent that is not installed."""

    def __init__(self, name: str, installed: Iterable[str]) -> None:
        super().__init__(f"AIS_AGENTS names {name!r}, which is not installed. Installed: {', '.join(installed)}")


class NotAnAgent(Exception):
    """An entry point names something that cannot be called."""


def installed_agents() -> Installed:
    """Our own agents first, then those of other packages by name."""
    agents = {name: InstalledAgent(name, target) for name, target in BUILT_IN.items()}
    warnings = []
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, _package(p))):
        if _package(point) == OURS:
            continue
        if not re.fullmatch(AGENT_ID, point.name) or (point.name,) in (ALL, NONE):
            refusal = "a name has letters, digits, `_`, `.` and `-`, 64 at most, and is neither `all` nor `none`"
        elif point.name in BUILT_IN:
            refusal = "AIS has an agent of this name; choose another"
        elif point.name in agents:
            refusal = f"{agents[point.name].target} has this name too; choose another"
        else:
            agents[point.name] = InstalledAgent(point.name, point.value)
            continue
        warnings.append(f"agent {point.name!r} of package {_package(point)!r} is not used: {refusal}")
    return Installed(agents, warnings)


def select(installed: Installed, names: Sequence[str]) -> list[InstalledAgent]:
    """The agents that AIS_AGENTS names. Raises UnknownAgent if one is not installed. `all` leaves out ONLY_BY_NAME."""
    wanted: Iterable[str] = () if tuple(names) == NONE else names
    if tuple(names[:1]) == ALL:
        wanted = dict.fromkeys([*(name for name in installed.agents if name not in ONLY_BY_NAME), *names[1:]])
    for name in wanted:
        if name not in installed.agents:
            raise UnknownAgent(name, installed.agents)
    return [installed.agents[name] for name in wanted]


def load(agent: InstalledAgent) -> Agent:
    """Imports an agent; a class is instantiated. Raises whatever its module raises."""
    found = EntryPoint(agent.name, agent.target, GROUP).load()
    made = found() if isinstance(found, type) else found
    if not callable(made):
        raise NotAnAgent(f"{agent.target} is a {type(made).__name__}, which cannot be called")
    return made  # type: ignore[no-any-return]


def _package(point: EntryPoint) -> str:
    return (point.dist.name if point.dist else "") or ""
