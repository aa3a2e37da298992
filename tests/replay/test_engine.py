"""A replay by itself: the arrays agents see, limits that act where one computes it by hand, and nothing that grows."""

from collections import Counter
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.agents.catalogue import InstalledAgent
from activities.agents.port import MAX_BARS, arrays_of
from activities.agents.runner import InlineAgents
from activities.market.replay import read_bars, rules_of
from domain.accounting import Portfolio
from domain.desk.states import State
from domain.risk.limits import Limits
from domain.trading.market import Bar
from domain.values import ZERO
from replay.curve import MAX_POINTS, Curve
from replay.cycle import Cycle
from replay.window import BLOCK, Window
from tests.replay.builders import CRASH, SHARED, START, liquid, made_bars, replayed

D = Decimal
TIGHT = Limits(
    soft_drawdown="0.002", hard_drawdown="0.004", soft_daily_loss="0.002", hard_daily_loss="0.004", order_fraction="0.2"
)


def buyers() -> InlineAgents:
    """One agent, which always buys."""
    return InlineAgents([InstalledAgent("buy", "tests.replay.buyer:buy_and_hold")])


# --- the window ------------------------------------------------------------------------------------------------------


def test_agents_see_the_same_arrays_as_in_a_worker() -> None:
    window, bars = Window(), made_bars(3 * BLOCK + 200)
    for number, _ in enumerate(bars, 1):
        if number == 8 or not (number - 1) % BLOCK:
            # Two short blocks, then whole ones.
            end = 7 if number == 1 else BLOCK if number == 8 else number - 1 + BLOCK
            window.take(bars[number - 1 : end])
        window.show()
        if number % 97 == 0 or number in (1, 7, 8, MAX_BARS, BLOCK, BLOCK + 1):
            seen, wanted = window.arrays(), arrays_of(bars[max(0, number - MAX_BARS) : number])
            for name in ("time", "open", "high", "low", "close", "volume"):
                assert np.array_equal(getattr(seen, name), getattr(wanted, name)), (number, name)
    assert window.bars() == bars[-MAX_BARS:]


def test_an_agent_can_neither_change_nor_outlive_the_arrays() -> None:
    window, bars = Window(), made_bars(2 * BLOCK)
    for block in (bars[:BLOCK], bars[BLOCK:]):
        window.take(block)
        for _ in block:
            window.show()
        if block[0] is bars[0]:
            kept = window.arrays()
            before = kept.close.copy()
    assert np.array_equal(kept.close, before)
    with pytest.raises(ValueError, match="read-only"):
        kept.close[0] = 1.0


# --- limits ---------------------------------------------------------------------------------------------------------


def by_hand(cycles: list[Cycle], limits: Limits) -> int | None:
    """The first bar whose equity has lost a hard limit's share, from the peak or since the day began."""
    peak = opening = last = None
    day = None
    for number, cycle in enumerate(cycles):
        equity = cycle.observation.account.nav
        if cycle.bar.open_time.date() != day:
            day, opening = cycle.bar.open_time.date(), equity if last is None else last
        peak = equity if peak is None else max(peak, equity)
        assert opening is not None
        if (peak - equity) / peak >= limits.hard_drawdown or (opening - equity) / opening >= limits.hard_daily_loss:
            return number
        last = equity
    return None


def killed_at(cycles: list[Cycle]) -> int | None:
    return next((number for number, cycle in enumerate(cycles) if cycle.state is State.KILLED), None)


def losses(cycles: list[Cycle]) -> tuple[Decimal, Decimal]:
    """The largest drawdown, and the largest loss of one bar."""
    peak = before = cycles[0].measures.equity
    worst = bar = ZERO
    for cycle in cycles:
        equity = cycle.measures.equity
        peak, worst = max(peak, equity), max(worst, (peak - equity) / peak)
        bar, before = max(bar, (before - equity) / before), equity
    return worst, bar


def test_a_fall_through_the_hard_limit_kills_in_that_bar_and_closes_the_position() -> None:
    bars = liquid(made_bars(200, step=0.0002, fall_at=100, fall=0.03))
    _, cycles = replayed(bars, buyers(), limits=TIGHT)
    number = killed_at(cycles)
    assert number is not None
    assert number == by_hand(cycles, TIGHT)
    assert [row.source for row in cycles[number].decisions if row.decision_type == "control"] == ["risk"]
    assert cycles[number + 1].observation.positions == []
    worst, bar = losses(cycles)
    assert worst <= TIGHT.hard_drawdown + bar


def test_past_the_soft_limit_everything_is_closed_and_nothing_is_bought() -> None:
    soft = Limits(soft_drawdown="0.002", order_fraction="0.2")
    _, cycles = replayed(made_bars(200, step=0.0005, fall_at=100), buyers(), limits=soft)
    reduced = next(n for n, c in enumerate(cycles) if any(row.source == "soft" for row in c.decisions))
    assert killed_at(cycles) is None
    assert not any(cycle.observation.positions for cycle in cycles[reduced + 1 :])
    refused = [row for cycle in cycles[reduced + 1 :] for row in cycle.decisions if row.risk_passed is False]
    assert refused
    assert all("drawdown_breached" in row.risk_reasons[0] for row in refused)


def test_a_kill_leaves_the_position_where_it_is_unless_it_flattens() -> None:
    """A kill for a reason that is no loss: the position is too large at once."""
    hasty = Limits(max_position_fraction="0.3", soft_position_fraction="0.3", hard_position_fraction="0.3")
    bars = liquid(made_bars(60, step=0.0001))
    for number in range(30, 60):
        bars[number] = bars[number].model_copy(
            update={name: getattr(bars[number], name) * D("1.5") for name in ("open", "high", "low", "close")}
        )
    agents = buyers()
    limits = hasty.model_copy(update={"order_fraction": D("0.1")})
    _, kept = replayed(bars, agents, limits=limits)
    assert killed_at(kept) == 30
    assert kept[-1].observation.positions, "cut to the limit, and not closed"
    engine, closed = replayed(bars, agents, limits=limits, kill_flattens=True)
    assert closed[31].observation.positions == []
    assert engine.c.kill
    assert engine.c.kill.flat_at == bars[30].open_time


def warned(cycles: list[Cycle]) -> list[str]:
    """What the warnings are of, in their order: `daily_loss_breached warn_50`."""
    rows = [row for cycle in cycles for row in cycle.decisions if (row.source or "").startswith("warn")]
    return [f"{row.risk_reasons[0].split(':')[0]} {row.source}" for row in rows]


def test_full_positions_wake_nobody() -> None:
    """The incident behind it: in five days 73 warnings that a position was as large as the guards allow."""
    _, cycles = replayed(liquid(made_bars(300, step=0.001)), buyers())
    assert max(cycle.measures.position for cycle in cycles) > D("0.24")
    assert warned(cycles) == []


def test_a_fall_warns_of_the_loss_and_of_nothing_that_the_guards_allow() -> None:
    bars = liquid(made_bars(300, step=0.001, fall_at=100, fall=0.01))
    _, cycles = replayed(bars, buyers())
    found = warned(cycles)
    assert found == ["daily_loss_breached warn_50", "daily_loss_breached warn_75"]


XRP = SHARED / "xrpusdt_perp_5m_2021-11-15_21.csv"


@pytest.mark.skipif(not XRP.exists(), reason="the shared market data is not here")
def test_a_week_of_the_real_market_warns_of_a_loss_and_of_no_full_position() -> None:
    bars = read_bars(XRP)
    _, cycles = replayed(bars, symbol="XRPUSDT", rules=rules_of("XRPUSDT", bars))
    assert max(cycle.measures.position for cycle in cycles) > D("0.24")
    assert warned(cycles) == ["daily_loss_breached warn_50"]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    fall_at=st.integers(30, 150),
    step=st.sampled_from([0.0005, 0.004, 0.02]),
    hard=st.sampled_from(["0.003", "0.01", "0.05"]),
    flattens=st.booleans(),
)
def test_no_account_loses_more_than_its_hard_limit_and_one_bar(
    seed: int, fall_at: int, step: float, hard: str, flattens: bool
) -> None:
    limits = Limits(
        soft_drawdown=D(hard) * D("0.8"), hard_drawdown=hard, soft_daily_loss=D(hard) * D("0.8"), hard_daily_loss=hard,
        order_fraction="0.1", max_volume_share=1, max_price_deviation=1,
    )  # fmt: skip
    _, cycles = replayed(liquid(made_bars(180, seed, step, fall_at)), buyers(), limits=limits, kill_flattens=flattens)
    worst, bar = losses(cycles)
    # What closing costs comes on top: fee and slippage of a position of a quarter of the account.
    assert worst <= limits.hard_drawdown + bar + D("0.0005")
    assert killed_at(cycles) == by_hand(cycles, limits)


@pytest.mark.skipif(not CRASH.exists(), reason="the shared market data is not here")
def test_the_crash_of_2022_kills_where_one_computes_it_by_hand() -> None:
    bars = read_bars(CRASH, "quote")[:3_000]
    limits = Limits(soft_drawdown="0.004", hard_drawdown="0.005", order_fraction="0.1")
    _, cycles = replayed(bars, buyers(), limits=limits)
    assert killed_at(cycles) == by_hand(cycles, limits)
    worst, bar = losses(cycles)
    assert worst <= limits.hard_drawdown + bar + D("0.0005")


# --- the account -----------------------------------------------------------------------------------------------------


def test_the_fills_alone_give_the_same_account() -> None:
    engine, cycles = replayed(made_bars(600, step=0.004))
    portfolio = Portfolio.opened("replay", D(100_000))
    fills = 0
    for cycle in cycles:
        for entry in cycle.entries:
            portfolio = portfolio.after(entry)
        for fill in cycle.fills:
            portfolio = portfolio.after(fill)
        fills += len(cycle.fills)
        portfolio = portfolio.marked(cycle.bar.open_time, {"BTCUSDT": cycle.bar.close})
    assert fills > 20
    assert portfolio.balance == engine.book.balance
    assert portfolio.equity == engine.book.balance + engine.book.unrealised_profit()


def test_a_replayed_day_gives_the_same_book_twice() -> None:
    bars = made_bars(1_440, step=0.003)
    one, first = replayed(bars)
    two, second = replayed(bars)
    assert one.book == two.book
    assert [cycle.decisions for cycle in first] == [cycle.decisions for cycle in second]


# --- what must not grow ----------------------------------------------------------------------------------------------


def test_nothing_that_is_carried_grows_with_the_number_of_bars() -> None:
    engine, _ = replayed(made_bars(300, step=0.004))
    short = len(engine.c.model_dump_json())
    engine, cycles = replayed(made_bars(2_000, step=0.004))
    assert Counter(row.decision_type.value for c in cycles for row in c.decisions)["order_intent"] > 50
    assert len(engine.c.model_dump_json()) < short + 500
    assert len(engine.book.open_orders) == 0


def test_a_curve_keeps_its_extremes_in_a_few_thousand_points() -> None:
    curve = Curve()
    for number in range(3 * MAX_POINTS):
        price = D(1_000) if number == 5_001 else D(100)
        drawdown = D("0.5") if number == 7_001 else ZERO
        equity = D(-7) if number == 7_001 else D(number)
        now = START + timedelta(minutes=number)
        curve.add(Bar(open_time=now, open=price, high=price, low=price, close=price, volume=ZERO), equity, drawdown)
    points = curve.points()
    assert len(points) <= MAX_POINTS
    assert max(point.high for point in points) == D(1_000)
    assert max(point.drawdown for point in points) == D("0.5")
    assert min(point.poorest for point in points) == D(-7)
    assert max(point.richest for point in points) == D(3 * MAX_POINTS - 1)
    assert points[-1].equity == D(3 * MAX_POINTS - 1)
    assert [point.time for point in points] == sorted(point.time for point in points)


def test_one_bar_is_enough() -> None:
    bars: list[Bar] = made_bars(1)
    _, (cycle,) = replayed(bars)
    assert [row.summary for row in cycle.decisions] == ["No agent proposed an order"]
