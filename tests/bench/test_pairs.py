"""The bench's statistics, and the shape of its subjects. Nothing here is timed."""

import json
import random

import numpy as np
import pytest

from activities.agents.momentum import momentum
from activities.agents.port import BarArrays
from bench import machine, report
from bench.catalogue import SUBJECTS
from bench.pairs import interval, measured, orders, percentile, ratio_of, taken
from bench.peers import momentum as peers_rule
from bench.subject import Pair, Remark, Row, Steps, Subject


def a_subject(*steps: Pair | Remark, floor: str = "nothing") -> Subject:
    def pairs(_size: int) -> Steps:
        yield from steps

    return Subject("made", "something", floor, pairs)


def counted(calls: list[str], name: str, value: float = 1.0) -> "object":
    def sample() -> float:
        calls.append(name)
        return value

    return sample


def a_pair(calls: list[str], samples: int = 20, ours: float = 2.0, floor: float = 1.0) -> Pair:
    return Pair("it", counted(calls, "ours", ours), counted(calls, "floor", floor), samples, warm_up=0)  # type: ignore[arg-type]


def test_every_sample_of_ours_is_next_to_one_of_its_floor() -> None:
    calls: list[str] = []
    taken(a_pair(calls), a_subject(), seed=1)

    assert [set(pair) for pair in zip(calls[::2], calls[1::2], strict=True)] == 20 * [{"ours", "floor"}]


def test_the_same_seed_makes_the_same_order_and_another_seed_another() -> None:
    def order(seed: int) -> list[str]:
        calls: list[str] = []
        taken(a_pair(calls), a_subject(), seed)
        return calls

    assert order(1) == order(1) != order(2)


def test_either_side_comes_first_about_half_of_the_time() -> None:
    assert 450 < sum(orders("1 keys a named key", 1_000)) < 550


def test_what_warms_up_is_not_counted() -> None:
    calls: list[str] = []
    pair = Pair("it", counted(calls, "ours"), counted(calls, "floor"), 3, warm_up=2)  # type: ignore[arg-type]
    row = taken(pair, a_subject(), seed=1)

    assert (len(calls), len(row.ours), len(row.floor)) == (10, 3, 3)


def test_a_number_of_samples_on_the_command_line_takes_the_place_of_the_pairs_own() -> None:
    assert len(taken(a_pair([]), a_subject(), 1, samples=4).ours) == 4


def test_the_ratio_is_of_the_medians_so_that_one_slow_sample_does_not_move_it() -> None:
    assert ratio_of([2.0, 2.0, 200.0], [1.0, 1.0, 1.0]) == 2.0


def test_the_interval_holds_the_ratio_and_is_narrow_where_samples_agree() -> None:
    assert interval([3.0] * 10, [2.0] * 10) == (1.5, 1.5)


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(3)
    held = 0
    for _ in range(20):
        low, high = interval(list(chance.lognormal(0.5, 0.4, 40)), list(chance.lognormal(0.0, 0.4, 40)))
        held += low <= np.exp(0.5) <= high

    assert held >= 17


def test_the_interval_grows_with_the_noise() -> None:
    chance = np.random.default_rng(4)

    def width(noise: float) -> float:
        low, high = interval(list(chance.normal(10, noise, 50)), list(chance.normal(10, noise, 50)))
        return high - low

    assert width(0.1) < width(2.0)


def test_samples_that_a_busy_moment_slowed_alike_leave_the_interval_narrow() -> None:
    """Pairs are drawn, so what both sides of a pair saw cancels out."""
    slow = [1.0 + 9.0 * (number % 2) for number in range(41)]

    assert interval([2 * each for each in slow], slow) == (2.0, 2.0)


@pytest.mark.parametrize(("percent", "found"), [(0, 1), (50, 51), (99, 100), (100, 100)])
def test_a_percentile_is_one_of_the_values(percent: int, found: int) -> None:
    values = [float(number) for number in range(1, 101)]
    random.Random(1).shuffle(values)

    assert percentile(values, percent) == found


def test_a_subject_gets_each_row_back_and_is_closed_when_measuring_breaks_off() -> None:
    closed: list[bool] = []

    def pairs(size: int) -> Steps:
        try:
            row = yield a_pair([], ours=float(size))
            assert row is not None
            yield Remark(f"{row.ratio:.0f} times")
            yield a_pair([])
        finally:
            closed.append(True)

    steps = measured(Subject("made", "something", "nothing", pairs, 7), 1, None, None)

    assert [type(next(steps)), next(steps)] == [Row, Remark("7 times")]
    assert not closed
    steps.close()  # type: ignore[attr-defined]
    assert closed


def test_every_subject_has_a_floor_and_says_what_it_is() -> None:
    silent = [name for name, subject in SUBJECTS.items() if not (subject.floor and subject.what)]

    assert not silent


def test_only_what_has_to_be_installed_is_left_out_of_a_run_of_all() -> None:
    assert [name for name, subject in SUBJECTS.items() if subject.extra] == ["peers"]


def test_the_processes_own_time_is_reported_to_the_nanosecond() -> None:
    import os
    import time

    before = time.process_time()
    found = machine.cpu_seconds(os.getpid())

    assert before <= found <= time.process_time()


def a_document(*rows: Row, date: str = "2026-11-29 08:00") -> report.Result:
    return {"machine": machine.facts() | {"date": date}, "subjects": [report.result(a_subject(), 1, rows)]}


def a_row(what: str, ratio: float) -> Row:
    return Row(what, "the floor", "s", [ratio], [1.0], ratio, ratio, ratio, 0.5)


def test_the_table_shows_the_first_row_and_the_dearest() -> None:
    rows = [a_row("plain", 1.0), *(a_row(f"row {number}", float(number)) for number in range(2, 9))]
    table = report.table([a_document(*rows)])

    assert [what in table for what in ("plain", "row 8", "row 7", "row 6", "row 5")] == [True, True, True, True, False]
    assert "4 more" in table


def test_a_later_document_replaces_an_earlier_one() -> None:
    table = report.table([a_document(a_row("old", 1.0)), a_document(a_row("new", 1.0), date="2026-12-01 08:00")])

    assert "new" in table
    assert "old" not in table


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [(1.5, "s", "1.5 s"), (0.0123, "s", "12.3 ms"), (4.2e-6, "s", "4.2 µs"), (1234.0, "bytes", "1,234 bytes")],
)
def test_a_figure_has_the_unit_that_makes_it_readable(value: float, unit: str, told: str) -> None:
    assert report.figure(value, unit) == told


def test_the_peers_follow_the_rule_of_our_agent() -> None:
    chance, threshold = np.random.default_rng(5), 0
    for _ in range(200):
        closes = 40_000 * np.exp(np.cumsum(chance.normal(0, 0.002, 30)))
        found = peers_rule.score(closes)
        bars = BarArrays(np.arange(30), closes, closes, closes, closes, closes)
        asked = momentum({"BTCUSDT": bars}, {}, {}, {})
        assert bool(found) == bool(asked)
        threshold += bool(found)
        if asked:
            assert (found > 0) == (asked[0].side.value == "BUY")
            assert asked[0].confidence == round(min(abs(found) / peers_rule.FULL_CONFIDENCE, 1.0), 4)

    assert 0 < threshold < 200


def test_the_page_of_performance_has_the_table_that_the_results_make() -> None:
    results = sorted((machine.ROOT / "bench" / "results").glob("*.json"))
    page = (machine.ROOT / "docs" / "performance.md").read_text()

    assert results
    assert report.table(json.loads(path.read_text()) for path in results) in page, (
        "Put what `python -m bench --table bench/results/*.json` prints into docs/performance.md."
    )
