"""A worker's clock against others: what is a difference, what it stops, and when it is over."""

from datetime import timedelta

import pytest

from domain.desk.observing import take_observation
from domain.health.clocks import ClockReading, OtherClock, compared, too_far
from tests.domain.builders import NOW, a_desk, a_tick, an_observation

DATABASE, EXCHANGE = OtherClock.DATABASE, OtherClock.EXCHANGE


def ahead(seconds: float, clock: OtherClock = DATABASE) -> ClockReading:
    return ClockReading(clock=clock, ahead_seconds=seconds)


@pytest.mark.parametrize(
    ("told", "seconds"), [(0, 0), (4, 0), (5, 0), (-3600, 3600), (-0.5, 0.5), (5.5, -0.5), (3605, -3600)]
)
def test_how_long_an_answer_took_is_no_difference(told: float, seconds: float) -> None:
    """Asked at 0, answered at 5 by our clock: whatever was told in between agrees."""
    reading = compared(DATABASE, NOW, NOW + timedelta(seconds=told), NOW + timedelta(seconds=5))
    assert reading == ahead(seconds)


@pytest.mark.parametrize(
    ("seconds", "differs", "stops"),
    [
        (1, False, False),
        (-1, False, False),
        (1.1, True, False),
        (-5, True, False),
        (5.1, True, True),
        (-5.1, True, True),
    ],
)
def test_more_than_a_second_warns_and_more_than_a_cycle_takes_no_new_risk(
    seconds: float, differs: bool, stops: bool
) -> None:
    reading = ahead(seconds)
    assert (reading.differs, bool(too_far([ahead(0, EXCHANGE), reading], 5.0))) == (differs, stops)


def test_a_second_is_never_too_far_however_short_the_cycle() -> None:
    assert too_far([ahead(0.9)], 0.2) is None


def test_the_warning_says_whose_clock_and_which_way_and_lasts_until_a_reading_of_it_agrees() -> None:
    desk = a_desk()
    for reading, text in (
        (ahead(3600), "the worker's clock differs from the database's: 3600.0 s ahead; correct whichever is wrong"),
        (ahead(-7.25), "the worker's clock differs from the database's: 7.2 s behind; correct whichever is wrong"),
    ):
        take_observation(desk, an_observation(clocks=[reading]), 0, a_tick())
        assert desk.warning_texts == [text]
    # A clock that was not read says nothing of the difference, nor does another one.
    take_observation(desk, an_observation(), 0, a_tick())
    take_observation(desk, an_observation(clocks=[ahead(0, EXCHANGE)]), 0, a_tick())
    assert desk.warning_texts == [text]
    assert desk.observation
    assert desk.observation.clocks == [ahead(-7.25), ahead(0, EXCHANGE)]
    take_observation(desk, an_observation(clocks=[ahead(0.4)]), 0, a_tick())
    assert (desk.warning_texts, desk.observation.clocks) == ([], [ahead(0.4), ahead(0, EXCHANGE)])
