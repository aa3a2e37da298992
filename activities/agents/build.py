"""The agents that come with AIS."""

from activities.agents.momentum import Momentum
from activities.agents.port import Agent


def built_in_agents() -> list[Agent]:
    """A fresh set. To add one: a module beside `momentum.py`, and its class here."""
    return [Momentum()]
