"""Quarantine: three failures in a row, ten cycles away, one trial, and twice as long after each that fails."""

from hypothesis import given
from hypothesis import strategies as st

from domain.trading.agents import LONGEST_QUARANTINE_CYCLES, AgentHealth, judged, quarantined, to_ask

NAMES = ["momentum", "x"]


def fail(health: dict[str, AgentHealth], cycle: int) -> dict[str, AgentHealth]:
    return judged(health, cycle, {"x": False, "momentum": True}, NAMES)


def until_trial(health: dict[str, AgentHealth], cycle: int) -> int:
    """How many cycles after this one leave `x` alone."""
    skipped = 0
    while "x" not in to_ask(NAMES, health, cycle + 1 + skipped):
        skipped += 1
    return skipped


def after_three_failures() -> dict[str, AgentHealth]:
    health: dict[str, AgentHealth] = {}
    for cycle in (1, 2, 3):
        assert to_ask(NAMES, health, cycle) == NAMES
        health = fail(health, cycle)
    return health


def test_an_agent_without_failures_has_no_entry() -> None:
    assert judged({}, 1, {"momentum": True, "x": True}, NAMES) == {}


def test_two_failures_are_forgiven_by_one_answer() -> None:
    twice = fail(fail({}, 1), 2)
    assert twice == {"x": AgentHealth(failures=2)}
    assert judged(twice, 3, {"x": True}, NAMES) == {}


def test_after_three_in_a_row_it_is_left_alone_for_ten_cycles_and_then_tried() -> None:
    health = after_three_failures()
    assert until_trial(health, 3) == 10
    assert quarantined(health, 4) == quarantined(health, 13) == {"x": 14}
    assert quarantined(health, 14) == {}


def test_a_trial_that_succeeds_returns_it_to_service() -> None:
    assert judged(after_three_failures(), 14, {"x": True, "momentum": True}, NAMES) == {}


def test_a_trial_that_fails_sends_it_away_for_twice_as_long_and_320_cycles_at_most() -> None:
    health, cycle, lengths = after_three_failures(), 3, []
    for _ in range(8):
        lengths.append(until_trial(health, cycle))
        cycle += lengths[-1] + 1
        health = fail(health, cycle)
    assert lengths == [10, 20, 40, 80, 160, 320, 320, 320]


def test_cycles_in_which_it_was_not_asked_change_nothing() -> None:
    health = after_three_failures()
    assert judged(health, 4, {"momentum": True}, NAMES) == health


def test_an_agent_that_is_not_installed_any_more_is_forgotten() -> None:
    assert judged(after_three_failures(), 4, {"momentum": True}, ["momentum"]) == {}


@given(st.lists(st.booleans(), max_size=200))
def test_it_is_always_tried_again_within_the_longest_quarantine(answers: list[bool]) -> None:
    health: dict[str, AgentHealth] = {}
    for cycle, answered in enumerate(answers, 1):
        if "x" in to_ask(["x"], health, cycle):
            health = judged(health, cycle, {"x": answered}, ["x"])
        assert all(until - cycle <= LONGEST_QUARANTINE_CYCLES + 1 for until in quarantined(health, cycle).values())
