"""Each thing is counted once, and what nobody reads any more is not shown."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from temporalio.exceptions import ApplicationError

from activities.agents.port import Suggestion
from activities.agents.runner import AgentAnswer
from activities.calls import CycleSummary, ObserveCall, Scope
from activities.fresh_gauge import FreshGauge
from activities.metrics import WorkerMetrics
from activities.observe import ObserveActivities
from activities.venues.port import VenueUnavailable
from domain.desk.states import Mode
from domain.trading.instructions import Side
from storage.database import DatabaseUnavailable

NOW = datetime(2026, 3, 12, 14, 30, tzinfo=UTC)


def test_a_value_that_is_not_read_again_vanishes() -> None:
    now, registry = [100.0], CollectorRegistry()
    gauge = FreshGauge("ais_open", "Open", ["desk"], registry, 60.0, lambda: now[0])
    gauge.set(3, "a")
    now[0] += 50
    gauge.set(4, "b")
    shown = [registry.get_sample_value("ais_open", {"desk": desk}) for desk in "ab"]
    now[0] += 15
    later = [registry.get_sample_value("ais_open", {"desk": desk}) for desk in "ab"]
    assert (shown, later) == ([3, 4], [None, 4])


def test_what_a_cycle_reads_is_shown_for_three_cycles_and_a_minute_at_least() -> None:
    assert [WorkerMetrics("main", seconds)._fresh_seconds for seconds in (1, 60)] == [60, 180]


@pytest.mark.parametrize(("books_seconds", "seconds"), [(60, 900), (3600, 10_800)])
def test_what_the_books_say_is_shown_for_three_of_their_readings_and_a_quarter_of_an_hour_at_least(
    books_seconds: float, seconds: float
) -> None:
    metrics = WorkerMetrics("main", 60, books_seconds=books_seconds)
    assert [gauge._seconds for gauge in (metrics.books_facts, metrics.foreign_orders)] == [seconds, seconds]


def a_cycle(number: int, minutes: int) -> CycleSummary:
    return CycleSummary(number=number, ended_at=NOW + timedelta(minutes=minutes), seconds=1, open_instructions=2)


def test_a_cycle_counts_once_even_where_numbers_begin_anew() -> None:
    metrics = WorkerMetrics("main")
    for cycle in (a_cycle(7, 0), a_cycle(7, 0), a_cycle(8, 1), a_cycle(1, 2), a_cycle(1, 2)):
        metrics.cycle_completed(cycle)
    assert metrics.registry.get_sample_value("ais_cycle_seconds_count", {"desk": "main"}) == 3


class Away:
    """Neither a venue nor a database."""

    counts_its_calls = False

    async def observe(self, *_: Any) -> None:
        raise VenueUnavailable("gone")

    async def run(self, *_: Any) -> None:
        raise DatabaseUnavailable("gone")


async def test_a_venue_that_is_away_does_not_hide_the_cycle_before() -> None:
    scope, metrics, away = Scope(desk="main", mode=Mode.LIVE), WorkerMetrics("main"), cast(Any, Away())
    activities = ObserveActivities(scope, away, away, away, metrics, lambda prefix: prefix)
    with pytest.raises(ApplicationError):
        await activities.observe(ObserveCall(scope=scope, symbols=[], cycle_id=None, previous=a_cycle(1, 0)))
    read = metrics.registry.get_sample_value
    assert read("ais_instructions_open", {"desk": "main"}) == 2
    assert read("ais_cycle_seconds_count", {"desk": "main"}) == 1


def test_proposals_count_once_a_decision_and_calls_each_time() -> None:
    metrics = WorkerMetrics("main")
    answer = AgentAnswer("buyer", [Suggestion(symbol="BTCUSDT", side=Side.BUY, confidence=1.0)], None, 0.1)
    for cycle in (1, 1, 2):
        metrics.agents_answered([answer], (cycle, NOW))
    read = metrics.registry.get_sample_value
    assert read("ais_signals_total", {"agent_id": "buyer", "direction": "BUY"}) == 2
    assert read("ais_agent_latency_seconds_count", {"agent_id": "buyer"}) == 3
