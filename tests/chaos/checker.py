"""Compares what every client was told with history, database and venue: one or more functions an invariant, all of them pure."""

from collections.abc import Callable, Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.invariants import (
    i1_nothing_lost,
    i2_killed_is_final,
    i3_silence,
    i4_exactly_once,
    i5_written_before_done,
    i6_nothing_guessed,
    i7_closed_when_in_doubt,
    i8_right_of_way,
)
from tests.chaos.reading import Reading, Violation

Rule = Callable[[Reading], Iterator[tuple[float, str]]]
RULES: dict[str, tuple[Rule, ...]] = {
    "I1": i1_nothing_lost.RULES,
    "I2": i2_killed_is_final.RULES,
    "I3": i3_silence.RULES,
    "I4": i4_exactly_once.RULES,
    "I5": i5_written_before_done.RULES,
    "I6": i6_nothing_guessed.RULES,
    "I7": i7_closed_when_in_doubt.RULES,
    "I8": i8_right_of_way.RULES,
}


def check(evidence: Evidence) -> list[Violation]:
    """Everything that did not hold, in the order of time."""
    reading = Reading(evidence)
    found = [
        Violation(invariant, rule.__name__, text, at)
        for invariant, rules in RULES.items()
        for rule in rules
        for at, text in rule(reading)
    ]
    return sorted(found, key=lambda violation: violation.at)
