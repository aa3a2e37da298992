"""The equity curve: few points, every extreme, on a real PostgreSQL."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any, cast

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from activities.calls import ObserveCall, Scope
from activities.metrics import WorkerMetrics
from activities.observe import ObserveActivities
from domain.desk.states import Mode
from domain.risk.limits import Limits
from storage import equity
from storage.database import Database
from storage.equity import CurveFilter, EquityPoint, read_curve, write_point
from tests.domain.builders import an_observation
from tests.postgres import plain_url
from tests.storage.builders import NOW
from tests.venues.test_activities import Told

D = Decimal
DAY = timedelta(days=1)


def a_point(seconds: float, worth: object, **changes: object) -> EquityPoint:
    facts = {
        "time": NOW + timedelta(seconds=seconds),
        "equity": D(str(worth)),
        "balance": D("10000.5"),
        "drawdown": D("0.01"),
        "gross_exposure": D("0.5"),
        "net_exposure": D("-0.5"),
        "leverage": D("0.5"),
        "prices": {"BTCUSDT": D("64000.10")},
    }
    return EquityPoint.model_validate(facts | changes)


def write(connection: Connection, desk: str, points: Sequence[EquityPoint]) -> None:
    for point in points:
        write_point(connection, desk, point)


def test_what_was_written_is_read_to_the_last_digit_and_once(migrated: Connection, desk: str) -> None:
    points = [a_point(0, "10000.123456789012345678"), a_point(60, "9999.5")]
    write(migrated, desk, [*points, points[0].model_copy(update={"equity": D(1)})])
    assert read_curve(migrated, desk, CurveFilter()) == points
    assert read_curve(migrated, desk, CurveFilter(since=points[1].time)) == points[1:]
    assert read_curve(migrated, desk, CurveFilter(until=points[1].time)) == points[:1]
    assert read_curve(migrated, f"{desk}-other", CurveFilter()) == []


@given(
    worths=st.lists(st.integers(0, 50), min_size=1, max_size=60),
    seconds=st.sampled_from([1, 60, 1_800, 20_000]),
    points=st.integers(equity.MIN_POINTS, 40),
    begin=st.none() | st.integers(0, 60),
)
@settings(max_examples=40, deadline=None)
def test_a_curve_keeps_its_ends_and_the_extremes_of_every_stretch(
    migrated: Connection, worths: list[int], seconds: int, points: int, begin: int | None
) -> None:
    """Over seconds as over months: there the stretches are cut along whole hours, so that of an hour nothing is lost."""
    transaction = migrated.begin_nested()
    written = [a_point(seconds * number, worth) for number, worth in enumerate(worths)]
    write(migrated, "property", written)
    since = None if begin is None else NOW + timedelta(seconds=seconds * begin)
    curve = read_curve(migrated, "property", CurveFilter(since=since, points=points))
    transaction.rollback()

    asked = [point for point in written if since is None or point.time >= since]
    assert len(curve) <= points
    assert [point.time for point in curve] == sorted({point.time for point in curve})
    if not asked:
        assert curve == []
        return
    assert curve[-1] == asked[-1]
    assert curve[0].time <= asked[0].time
    # Between two neighbours of the curve lies nothing that both of them hide.
    for left, right in pairwise(curve):
        hidden = [p.equity for p in written if left.time < p.time < right.time]
        seen = [point.equity for point in curve]
        assert all(min(seen) <= worth <= max(seen) for worth in hidden)


def test_over_months_an_hour_of_each_spike_is_kept(migrated: Connection, desk: str) -> None:
    minutes = [a_point(60 * number, 10_000) for number in range(0, 60 * 24 * 60, 240)]
    spikes = {3_001: 9_000, 50_003: 12_000, 70_007: 8_500}
    write(migrated, desk, [*minutes, *(a_point(60 * minute + 7, worth) for minute, worth in spikes.items())])
    curve = read_curve(migrated, desk, CurveFilter(points=100))
    assert len(curve) <= 100
    assert {point.equity for point in curve} == {D(10_000), *map(D, spikes.values())}


def test_a_symbol_that_postgresql_cannot_hold_is_a_point_all_the_same(migrated: Connection, desk: str) -> None:
    write(migrated, desk, [a_point(0, 1, prices={"BTC\x00": D(1), "ETH\ud800": D(2)})])
    (point,) = read_curve(migrated, desk, CurveFilter())
    assert point.prices == {"BTC\ufffd": D(1), "ETH?": D(2)}


@pytest.mark.parametrize("order", [1, -1])
def test_the_extremes_of_an_hour_are_those_of_its_points_in_whatever_order(
    migrated: Connection, desk: str, order: int
) -> None:
    points = [a_point(0, 5), a_point(600, 1), a_point(1_200, 9), a_point(1_700, 4), a_point(200 * 86_400, 4)]
    write(migrated, desk, points[::order])
    curve = read_curve(migrated, desk, CurveFilter(points=equity.MIN_POINTS))
    assert [point.equity for point in curve] == [D(5), D(1), D(9), D(4)]


async def test_a_standby_that_is_away_holds_back_no_point(postgres_url: str, database: Database, desk: str) -> None:
    """Found to be false: each cycle's commit waited on a connection of its own, until the server had none left."""
    with psycopg.connect(plain_url(postgres_url), autocommit=True) as server:
        server.execute("ALTER SYSTEM SET synchronous_standby_names = 'away'")
        try:
            await _reloaded(server, "away")
            await database.run(partial(write_point, desk=desk, point=a_point(0, 1)), 20)
        finally:
            server.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await _reloaded(server, "")
    assert len(await database.run(partial(read_curve, desk=desk, wanted=CurveFilter()))) == 1


async def _reloaded(server: psycopg.Connection[Any], names: str) -> None:
    server.execute("SELECT pg_reload_conf()")
    async with asyncio.timeout(180):
        while server.execute("SHOW synchronous_standby_names").fetchone() != (names,):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("cycle_id", "doubts", "points"), [("c1", [], 1), (None, [], 0), ("c1", ["two sources contradict each other"], 0)]
)
async def test_a_cycle_s_reading_is_a_point_and_a_kill_s_or_a_doubtful_one_is_none(
    database: Database, desk: str, cycle_id: str | None, doubts: list[str], points: int
) -> None:
    scope, instruments = Scope(desk=desk, mode=Mode.PAPER), WorkerMetrics(desk)
    observed = an_observation(doubts=doubts)
    venue, nothing = cast(Any, Told(observed)), cast(Any, None)
    activities = ObserveActivities(scope, venue, database, nothing, instruments, lambda prefix: prefix)
    before = asyncio.all_tasks()
    await activities.observe(ObserveCall(scope=scope, symbols=["BTCUSDT"], cycle_id=cycle_id, limits=Limits()))
    # Nothing waits for the point but this test.
    await asyncio.gather(*(asyncio.all_tasks() - before))
    curve = await database.run(partial(read_curve, desk=desk, wanted=CurveFilter()))
    assert [(p.time, p.equity, p.prices) for p in curve] == points * [
        (observed.observed_at, observed.account.nav, observed.marks)
    ]
