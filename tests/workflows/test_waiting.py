"""How long a failed attempt at the venue waits for the next."""

from workflows.lanes import spaced_seconds


def test_an_attempt_that_failed_waits_longer_each_time_and_never_long() -> None:
    assert [spaced_seconds(failures, 0) for failures in (1, 2, 3, 4, 9, 10**6)] == [0.5, 1, 2, 4, 4, 4]


def test_what_the_attempt_took_counts() -> None:
    assert [spaced_seconds(9, spent) for spent in (1.0, 3.8, 60.0)] == [3.0, 0.5, 0.5]


def test_a_clock_that_was_set_back_during_an_attempt_delays_the_next_one_by_nothing() -> None:
    """Temporal's clock went back by an hour while a cancel was under way: a kill waited an hour for its next try."""
    assert spaced_seconds(1, -3_600.0) == 0.5
