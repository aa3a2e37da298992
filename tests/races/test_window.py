"""The moments of a race's trials."""

from itertools import pairwise

import pytest

from tests.races.window import TOGETHER, Window, measured, moments


def test_the_window_leaves_the_slowest_out() -> None:
    assert measured([0.1, 0.2, 9.0], [0.3, 7.0, 0.4]) == Window(0.2, TOGETHER * 0.4)
    assert measured([0.1], [0.2]) == Window(0.1, TOGETHER * 0.2)


@pytest.mark.parametrize("trials", [1, 2, 3, 4, 6, 20, 500])
def test_each_part_of_the_window_has_one_moment(trials: int) -> None:
    found = moments(Window(0.1, 0.4), trials)
    parts = [int((moment + 0.1) / (0.5 / trials)) for moment in found]
    assert sorted(parts) == list(range(trials))


def test_a_part_of_the_trials_is_spread_over_all_of_the_window() -> None:
    first = sorted(moments(Window(0.1, 0.4), 500)[:50])
    gaps = [later - earlier for earlier, later in pairwise(first)]
    assert max(gaps) < 3 * 0.5 / 50
