"""Watching a portfolio: measures by hand, each crossing once, reductions that end inside, breaches that are named."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.risk.assessing import assess, interval_around
from domain.risk.limits import INSIDE, PORTFOLIO_LIMITS, WARNING_BAND, Limits, PortfolioLimit
from domain.risk.measures import RUINED, pair
from domain.trading.assessment import WARNINGS, Assessment, Level, RiskMemory
from domain.trading.market import Account, Market, Position, Reading
from tests.domain.builders import BTC, ETH, NOW, a_position, an_observation, some_rules

D = Decimal
LIMITS = Limits()
# Of two losses that an equity shows, one says nothing.
ONE_LOSS = Limits(soft_daily_loss=1, hard_daily_loss=1)
# Of exposures, for a test that tightens one.
WIDE: dict[str, Any] = {name: D(5) for limit in PORTFOLIO_LIMITS if not limit.is_loss for name in limit.numbers}


def seen(equity: int | str = 10_000, hours: float = 0, **changes: Any) -> Reading:
    """A reading of an account, `hours` after the first one."""
    facts = {"account": Account(balance=D(equity)), "observed_at": NOW + timedelta(hours=hours)}
    rules = {symbol: some_rules(symbol) for symbol in (BTC, ETH, "XRPUSDT")}
    return an_observation(**facts | {"rules": rules} | changes).reading


def told(assessment: Assessment) -> list[tuple[str, str]]:
    return [(crossing.limit, crossing.level.name) for crossing in assessment.crossings]


def equities(*path: int | str, limits: Limits = LIMITS) -> list[Assessment]:
    """One reading after another, an hour apart within one day."""
    memory, found = RiskMemory(), []
    for number, equity in enumerate(path):
        found.append(assess(seen(equity, hours=number / 10), limits, memory))
        memory = found[-1].memory
    return found


# --- measures -------------------------------------------------------------------------------------------------------


def test_measures_by_hand() -> None:
    spot = a_position(10, "XRPUSDT").model_copy(update={"market": Market.SPOT})
    held = [a_position(20), a_position(-15, ETH), spot]
    found = assess(seen(positions=held), LIMITS, RiskMemory(), {pair(BTC, ETH): -0.9}).measures
    assert (found.leverage, found.gross_exposure, found.net_exposure) == (D("0.35"), D("0.45"), D("0.15"))
    assert (found.position, found.concentration) == (D("0.2"), D("0.35"))


def test_drawdown_is_from_the_peak_and_the_days_loss_from_its_opening() -> None:
    found = equities(10_000, 12_000, 11_400)[-1].measures
    assert (found.peak, found.drawdown) == (D(12_000), D("0.05"))
    assert (found.day_open, found.daily_loss) == (D(10_000), D(0))


def test_a_day_opens_with_the_last_equity_of_the_day_before() -> None:
    """A gap over midnight belongs to the new day."""
    first = assess(seen(10_000, positions=[]), LIMITS, RiskMemory())
    next_day = assess(seen(9_900, hours=24), LIMITS, first.memory)
    assert next_day.measures.day_open == D(10_000)
    assert next_day.measures.daily_loss == D("0.01")
    assert assess(seen(9_900, hours=48), LIMITS, next_day.memory).measures.daily_loss == 0


def test_a_day_does_not_go_back_to_the_day_before() -> None:
    """Two workers, one of whose clocks is on the day before: each reading of the other began a day, which had lost nothing."""
    memory, losses = RiskMemory(), []
    for number, equity in enumerate((10_000, 9_900, 9_800, 9_700, 9_600)):
        found = assess(seen(equity, hours=number if number % 2 else number - 24, positions=[]), LIMITS, memory)
        memory = found.memory
        losses.append(found.measures.daily_loss)
    assert losses == [D(0), *map(D, ("0.01", "0.02", "0.03", "0.04"))]
    assert memory.day == NOW.date()


def test_a_day_that_was_never_true_ends() -> None:
    """A clock was months ahead, or a market's bars are played once more."""
    wrong = assess(seen(10_000, hours=24 * 90, positions=[]), LIMITS, RiskMemory())
    found = assess(seen(9_900, positions=[]), LIMITS, wrong.memory)
    assert (found.memory.day, found.measures.day_open) == (NOW.date(), D(10_000))
    assert assess(seen(9_900, hours=24, positions=[]), LIMITS, found.memory).measures.daily_loss == 0


def test_without_equity_every_measure_is_beyond_its_limit() -> None:
    found = assess(seen(0, positions=[a_position(1)]), LIMITS, RiskMemory(peak=D(10)))
    assert found.measures.leverage == RUINED
    assert {breach.limit for breach in found.breaches} >= {"drawdown", "leverage", "gross_exposure"}
    assert [(cut.symbol, cut.quantity) for cut in found.cuts] == [(BTC, D(1))]


# --- crossings ------------------------------------------------------------------------------------------------------


def test_each_level_is_reported_once_on_the_way_down() -> None:
    path = [10_000, 9_600, 9_590, 9_400, 9_280, 9_279, 9_200, 9_199]
    found = [told(one) for one in equities(*path, limits=ONE_LOSS)]
    assert found == [
        [],
        [("drawdown", "WARN_50")],
        [],
        [("drawdown", "WARN_75")],
        [("drawdown", "WARN_90")],
        [],
        [("drawdown", "SOFT")],
        [],
    ]


def test_a_fall_through_several_levels_tells_each_of_them() -> None:
    found = equities(10_000, 9_150, limits=ONE_LOSS)[-1]
    assert told(found) == [("drawdown", name) for name in ("WARN_50", "WARN_75", "WARN_90", "SOFT")]


def test_a_measure_that_trembles_around_a_level_is_reported_once() -> None:
    again = equities(10_000, 9_599, 9_601, 9_599, 9_601, limits=ONE_LOSS)
    assert sum(len(one.crossings) for one in again) == 1
    # Far enough for the level not to hold any more, and still the same fall.
    back = equities(10_000, 9_599, 9_630, 9_599, limits=ONE_LOSS)
    assert [one.memory.levels for one in back] == [{}, {"drawdown": Level.WARN_50}, {}, {"drawdown": Level.WARN_50}]
    assert sum(len(one.crossings) for one in back) == 1


def test_a_warning_is_reported_again_once_the_measure_has_come_back_by_the_band() -> None:
    """A quarter of the soft 8 %: the warning at 4 % is forgotten below 2 %, the one at 6 % below 4 %."""
    assert WARNING_BAND * LIMITS.soft_drawdown == D("0.02")
    at_the_band = equities(10_000, 9_599, 9_800, 9_599, limits=ONE_LOSS)
    assert sum(len(one.crossings) for one in at_the_band) == 1
    past_it = equities(10_000, 9_599, 9_801, 9_599, limits=ONE_LOSS)
    assert [told(one) for one in past_it] == [[], [("drawdown", "WARN_50")], [], [("drawdown", "WARN_50")]]
    from_the_second = equities(10_000, 9_399, 9_601, 9_399, limits=ONE_LOSS)[-1]
    assert told(from_the_second) == [("drawdown", "WARN_75")]


def test_the_warnings_of_a_new_day_are_its_own() -> None:
    """Yesterday's loss of the day silences none of today's, though the first reading of today is a loss already."""
    found = assess(seen(9_840, positions=[]), LIMITS, assess(seen(10_000, positions=[]), LIMITS, RiskMemory()).memory)
    assert told(found) == [("daily_loss", "WARN_50")]
    morning = assess(seen(9_760, hours=24, positions=[]), LIMITS, found.memory)
    assert told(morning) == []
    assert told(assess(seen(9_680, hours=25, positions=[]), LIMITS, morning.memory)) == [("daily_loss", "WARN_50")]


def test_a_soft_limit_is_reported_each_time_that_it_is_passed() -> None:
    """It reduces, each time: the band is of warnings alone."""
    found = [told(one) for one in equities(10_000, 9_199, 9_250, 9_199, limits=ONE_LOSS)]
    warnings = [("drawdown", name) for name in ("WARN_50", "WARN_75", "WARN_90")]
    assert found == [[], [*warnings, ("drawdown", "SOFT")], [], [("drawdown", "SOFT")]]


def test_a_memory_of_before_there_was_a_band_repeats_no_warning() -> None:
    old = RiskMemory.model_validate_json('{"peak": "10000", "levels": {"drawdown": 1}}')
    first = assess(seen(9_599), ONE_LOSS, old)
    assert told(first) == []
    assert told(assess(seen(9_399), ONE_LOSS, first.memory)) == [("drawdown", "WARN_75")]
    assert told(assess(seen(9_599), ONE_LOSS, assess(seen(9_630), ONE_LOSS, old).memory)) == []


@pytest.mark.parametrize("limit", [limit for limit in PORTFOLIO_LIMITS if limit.maximum], ids=lambda limit: limit.name)
def test_what_the_guards_allow_is_no_warning(limit: PortfolioLimit) -> None:
    allowed, soft = getattr(LIMITS, limit.maximum or ""), getattr(LIMITS, limit.soft)
    warnings = {level: bound for level, bound in LIMITS.bounds[limit.name].items() if level in WARNINGS}
    assert warnings
    assert all(allowed < bound < soft for bound in warnings.values())


def test_full_positions_are_told_only_once_they_have_grown_past_what_an_order_may_create() -> None:
    memory, found = RiskMemory(), []
    for quantity in (25, 0, 25, 26, "26.3", 25, "26.3", 0, "26.3"):
        one = assess(seen(positions=[a_position(quantity)]), LIMITS, memory)
        memory = one.memory
        found.append(told(one))
    # 26.25 % is 75 % of the soft limit; 17.5 % is where that is forgotten.
    warned = [("position", "WARN_75")]
    assert found == [[], [], [], [], warned, [], [], [], warned]


def test_limits_that_leave_no_room_for_a_warning_have_none() -> None:
    tight = Limits(max_position_fraction="0.3", soft_position_fraction="0.3")
    assert list(tight.bounds["position"]) == [Level.SOFT, Level.HARD]
    assert told(assess(seen(positions=[a_position("30.1")]), tight, RiskMemory())) == [("position", "SOFT")]


def test_the_hard_level_is_left_to_whoever_kills() -> None:
    found = equities(10_000, 8_000)[-1]
    assert [breach.limit for breach in found.breaches] == ["drawdown", "daily_loss"]
    assert found.breaches[0].reason == "drawdown_breached: 0.2 >= 0.1"
    assert Level.HARD not in {crossing.level for crossing in found.crossings}


def test_a_tightened_limit_tells_what_it_now_sees() -> None:
    first = assess(seen(positions=[a_position(20)]), LIMITS, RiskMemory())
    tight = Limits(max_position_fraction="0.1", soft_position_fraction="0.1", hard_position_fraction="0.15")
    found = assess(seen(positions=[a_position(20)]), tight, first.memory)
    assert ("position", "SOFT") in told(found)
    assert [breach.limit for breach in found.breaches] == ["position"]


# --- cuts -----------------------------------------------------------------------------------------------------------


def test_at_the_limit_nothing_is_cut_and_past_it_the_position_comes_inside() -> None:
    assert assess(seen(positions=[a_position(35)]), LIMITS, RiskMemory()).cuts == []
    (cut,) = assess(seen(positions=[a_position("35.001")]), LIMITS, RiskMemory()).cuts
    assert (cut.symbol, cut.limits) == (BTC, ["position"])
    assert D("35.001") - cut.quantity == D("33.25")


def test_a_loss_closes_everything_the_largest_first() -> None:
    held = [a_position(2), a_position(-20, ETH), a_position(5, "XRPUSDT")]
    found = assess(seen(9_000, positions=held), LIMITS, RiskMemory(peak=D(10_000)))
    assert [(cut.symbol, cut.quantity) for cut in found.cuts] == [(ETH, D(20)), ("XRPUSDT", D(5)), (BTC, D(2))]


def test_gross_exposure_is_cut_from_the_largest_position_down() -> None:
    wide = Limits(
        soft_position_fraction=1, hard_position_fraction=1, soft_concentration_fraction=1, soft_net_exposure_fraction=1,
        soft_gross_exposure_fraction="1.2",
    )  # fmt: skip
    found = assess(seen(positions=[a_position(70), a_position(-60, ETH)]), wide, RiskMemory())
    # 130 % is to become 95 % of 120 %: 16 % are taken off the larger one.
    assert [(cut.symbol, cut.quantity, cut.limits) for cut in found.cuts] == [(BTC, D("16"), ["gross_exposure"])]


def test_net_exposure_is_cut_on_the_side_that_is_too_large() -> None:
    wide = Limits(
        soft_position_fraction=2, hard_position_fraction=2, soft_concentration_fraction=2, hard_concentration_fraction=2,
        max_net_exposure_fraction="0.5", soft_net_exposure_fraction="0.5",
    )  # fmt: skip
    found = assess(seen(positions=[a_position(60), a_position(-5, ETH)]), wide, RiskMemory())
    assert [(cut.symbol, cut.quantity) for cut in found.cuts] == [(BTC, D("7.5"))]


def test_correlated_positions_are_cut_together() -> None:
    tight = Limits(soft_concentration_fraction="0.5")
    held = [a_position(30), a_position(25, ETH)]
    found = assess(seen(positions=held), tight, RiskMemory(), {pair(BTC, ETH): 0.95})
    assert [(cut.symbol, cut.quantity) for cut in found.cuts] == [(BTC, D("7.5"))]
    assert assess(seen(positions=held), tight, RiskMemory(), {}).cuts == []


def test_spot_holdings_count_and_are_not_cut() -> None:
    spot = a_position(40).model_copy(update={"market": Market.SPOT})
    found = assess(seen(positions=[spot]), LIMITS, RiskMemory())
    assert ("position", "SOFT") in told(found)
    assert found.cuts == []


@pytest.mark.parametrize("limit", ["concentration", "gross_exposure", "net_exposure"])
def test_a_short_that_hedges_a_larger_spot_holding_is_never_cut(limit: str) -> None:
    """The value of its symbol grew with each cut: one hedge after another was closed, and the measure rose with every order."""
    tight = Limits(**WIDE | {f"{word}_{limit}_fraction": "0.5" for word in ("max", "soft")})
    spot = a_position(90).model_copy(update={"market": Market.SPOT})
    hedged = [spot, a_position(-20)]
    found = assess(seen(positions=hedged), tight, RiskMemory())
    assert (limit, "SOFT") in told(found)
    assert found.cuts == []
    # What is not a hedge is cut instead.
    (cut,) = assess(seen(positions=[*hedged, a_position(10, ETH)]), tight, RiskMemory(), {pair(BTC, ETH): 0.9}).cuts
    assert (cut.symbol, cut.quantity) == (ETH, D(10))


def test_of_a_short_that_is_larger_than_the_spot_holding_no_more_than_the_rest_is_cut() -> None:
    """The short is worth 50 %, of which 20 % are no hedge."""
    tight = Limits(**WIDE | {"max_gross_exposure_fraction": "0.1", "soft_gross_exposure_fraction": "0.1"})
    held = [a_position(30).model_copy(update={"market": Market.SPOT}), a_position(-50), a_position(40, ETH)]
    found = {cut.symbol: cut.quantity for cut in assess(seen(positions=held), tight, RiskMemory()).cuts}
    assert found == {BTC: D(20), ETH: D("30.5")}


quantities = st.integers(-3_000, 3_000).map(lambda n: D(n) / 10)
portfolios = st.lists(quantities, min_size=1, max_size=3)


def positions_of(amounts: list[Decimal]) -> list[Position]:
    named = zip((BTC, ETH, "XRPUSDT"), amounts, strict=False)
    return [a_position(amount, symbol) for symbol, amount in named if amount]


@given(amounts=portfolios, alike=st.floats(-1, 1), peak=st.integers(10_000, 12_000))
def test_cuts_bring_every_limit_inside_and_never_turn_a_position(
    amounts: list[Decimal], alike: float, peak: int
) -> None:
    held, correlations = positions_of(amounts), {pair(BTC, ETH): alike}
    found = assess(seen(positions=held), LIMITS, RiskMemory(peak=D(peak)), correlations)
    cut = {one.symbol: one.quantity for one in found.cuts}
    left = []
    for position in held:
        quantity = cut.get(position.symbol, D(0))
        assert 0 <= quantity <= abs(position.quantity)
        assert quantity % D("0.001") == 0
        left.append(a_position(position.quantity - quantity.copy_sign(position.quantity), position.symbol))
    after = assess(seen(positions=[p for p in left if p.quantity]), LIMITS, RiskMemory(peak=D(peak)), correlations)
    assert after.cuts == [] or all(one.limits == ["drawdown"] for one in found.cuts)
    if any("drawdown" in one.limits for one in found.cuts):
        assert not any(p.quantity for p in left)


@given(path=st.lists(st.integers(5_000, 12_000), min_size=1, max_size=30))
def test_a_level_is_never_reported_twice_without_a_fall_below_it(path: list[int]) -> None:
    levels: dict[str, Level] = {}
    for found in equities(*path):
        for crossing in found.crossings:
            assert crossing.level > levels.get(crossing.limit, Level.CALM)
        levels = found.memory.levels
        for name, level in levels.items():
            value = getattr(found.measures, name)
            assert level is Level.CALM or value >= LIMITS.bounds[name][level] * INSIDE


@given(path=st.lists(st.integers(5_000, 12_000), min_size=2, max_size=30))
def test_between_two_tellings_of_one_warning_the_measure_has_come_back_by_the_band(path: list[int]) -> None:
    lowest: dict[tuple[str, Level], Decimal] = {}
    for found in equities(*path):
        lowest = {key: min(least, getattr(found.measures, key[0])) for key, least in lowest.items()}
        for crossing in found.crossings:
            key = crossing.limit, crossing.level
            if crossing.level in WARNINGS:
                assert lowest.get(key, D(0)) < LIMITS.forgets[crossing.limit][crossing.level]
            lowest[key] = crossing.value


# --- checks that need not be made --------------------------------------------------------------------------------------


@given(
    path=st.lists(st.integers(8_900, 10_400), min_size=2, max_size=30),
    amount=st.decimals(min_value=-6_000, max_value=6_000, places=2),
)
def test_a_check_in_the_same_room_finds_the_same(path: list[int], amount: Decimal) -> None:
    """Whatever came before it: the levels, what people were warned of, and whether there is anything to do."""
    memory, held = RiskMemory(), positions_of([amount])
    for equity in path:
        found = assess(seen(equity, positions=held), LIMITS, memory)
        is_same = (found.memory.levels, found.memory.warned) == (memory.levels, memory.warned)
        memory = found.memory
        intervals = [interval_around(value, edges) for value, edges in zip(moving(found), EDGES, strict=True)]
        for near in (equity - 40, equity - 1, equity + 1, equity + 40):
            other = assess(seen(near, positions=held), LIMITS, memory)
            inside = (one.above < value < one.below for one, value in zip(intervals, moving(other), strict=True))
            if is_same and all(inside):
                assert (other.memory.levels, other.memory.warned) == (memory.levels, memory.warned)
                assert other.is_calm is found.is_calm


EDGES = (LIMITS.edges["drawdown"], LIMITS.edges["daily_loss"], LIMITS.exposure_edges)


def moving(found: Assessment) -> tuple[Decimal, ...]:
    """What a price moves; of one position, every exposure is the same number."""
    return found.measures.drawdown, found.measures.daily_loss, found.measures.position
