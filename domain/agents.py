"""Quarantine: an agent that fails again and again is left alone for a while, then tried once.

The incident that this prevents: an agent that hangs costs every cycle its whole time limit, and an operator who reads the
same failure in every row stops reading rows.
"""

from collections.abc import Iterable, Mapping, Sequence

from domain.values import Value

FAILURES_IN_A_ROW = 3
FIRST_QUARANTINE_CYCLES = 10
LONGEST_QUARANTINE_CYCLES = 320


class AgentHealth(Value):
    """An agent that failed last time. `quarantined_until` is the cycle of its trial; `trials` counts those it failed."""

    failures: int = 0
    quarantined_until: int | None = None
    trials: int = 0


WELL = AgentHealth()

Health = Mapping[str, AgentHealth]
"""By agent id. An agent without an entry is well."""


def quarantined(health: Health, cycle: int) -> dict[str, int]:
    """Agents that are not to be asked in this cycle, each with the cycle of its trial."""
    return {
        agent_id: known.quarantined_until
        for agent_id, known in health.items()
        if known.quarantined_until is not None and cycle < known.quarantined_until
    }


def judged(health: Health, cycle: int, asked: Mapping[str, bool], installed: Iterable[str]) -> dict[str, AgentHealth]:
    """Health after a cycle, in which each agent of `asked` answered (True) or failed (False).

    Agents that are not installed any more are forgotten.
    """
    after = {agent_id: _after(health.get(agent_id, WELL), cycle, asked.get(agent_id)) for agent_id in installed}
    return {agent_id: known for agent_id, known in after.items() if known is not WELL and known != WELL}


def to_ask(installed: Sequence[str], health: Health, cycle: int) -> list[str]:
    """Agents to ask in this cycle, those on trial among them."""
    left_alone = quarantined(health, cycle)
    return [agent_id for agent_id in installed if agent_id not in left_alone]


def _after(known: AgentHealth, cycle: int, answered: bool | None) -> AgentHealth:
    if answered is None:
        return known
    if answered:
        return WELL
    failures = known.failures + 1
    if known.quarantined_until is not None:
        return _sent_away(failures, known.trials + 1, cycle)
    return _sent_away(failures, 0, cycle) if failures >= FAILURES_IN_A_ROW else AgentHealth(failures=failures)


def _sent_away(failures: int, trials: int, cycle: int) -> AgentHealth:
    """Left out of the next cycles, twice as many after each trial that it failed."""
    cycles = min(FIRST_QUARANTINE_CYCLES * 2 ** min(trials, 16), LONGEST_QUARANTINE_CYCLES)
    return AgentHealth(failures=failures, quarantined_until=cycle + 1 + cycles, trials=trials)
