"""Quarantine: an agent that fails repeatedly is left out for a while, then tried once.

Without it, an agent that hangs would cost every cycle the full time limit, and an operator who sees the same failure in every
row stops reading rows.
"""

from collections.abc import Iterable, Mapping, Sequence

from domain.values import Value

FAILURES_IN_A_ROW = 3
FIRST_QUARANTINE_CYCLES = 10
LONGEST_QUARANTINE_CYCLES = 320


class AgentHealth(Value):
    """An agent whose last call failed. `quarantined_until` is the cycle of its next trial; `trials` counts failed trials."""

    failures: int = 0
    quarantined_until: int | None = None
    trials: int = 0


WELL = AgentHealth()

Health = Mapping[str, AgentHealth]
"""By agent id. An agent without an entry is healthy."""


def quarantined(health: Health, cycle: int) -> dict[str, int]:
    """Agents to leave out of this cycle, each with the cycle of its next trial."""
    return {
        agent_id: known.quarantined_until
        for agent_id, known in health.items()
        if known.quarantined_until is not None and cycle < known.quarantined_until
    }


def judged(health: Health, cycle: int, asked: Mapping[str, bool], installed: Iterable[str]) -> dict[str, AgentHealth]:
    """The agents' health after a cycle in which each agent of `asked` answered (True) or failed (False).

    Agents that are no longer installed are forgotten.
    """
    after = {}
    for agent_id in installed:
        known, answered = health.get(agent_id, WELL), asked.get(agent_id)
        if answered is not None:
            known = WELL if answered else _failed(known, cycle)
        if known != WELL:
            after[agent_id] = known
    return after


def to_ask(installed: Sequence[str], health: Health, cycle: int) -> list[str]:
    """Agents to ask in this cycle, including those on trial."""
    if not health:
        return list(installed)
    left_alone = quarantined(health, cycle)
    return [agent_id for agent_id in installed if agent_id not in left_alone]


def _failed(known: AgentHealth, cycle: int) -> AgentHealth:
    """Health after one more failure: the agent sits out the next cycles, twice as many after each failed trial."""
    failures, on_trial = known.failures + 1, known.quarantined_until is not None
    if failures < FAILURES_IN_A_ROW and not on_trial:
        return AgentHealth(failures=failures)
    trials = known.trials + 1 if on_trial else 0
    cycles = min(FIRST_QUARANTINE_CYCLES * 2 ** min(trials, 16), LONGEST_QUARANTINE_CYCLES)
    return AgentHealth(failures=failures, quarantined_until=cycle + 1 + cycles, trials=trials)
