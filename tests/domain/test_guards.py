"""Guards: allowed at the limit, refused one step past it; what takes risk off is let through."""

import inspect
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.risk import guards
from domain.risk.guards import (
    GUARDS,
    BarSummary,
    Candidate,
    Guard,
    concentration_exceeded,
    daily_loss_breached,
    data_stale,
    drawdown_breached,
    gross_exposure_exceeded,
    kill_switch_triggered,
    leverage_breached,
    limits_unwatched,
    liquidity_insufficient,
    net_exposure_exceeded,
    order_rate_exceeded,
    position_too_large,
    price_deviation_exceeded,
    refusals,
    symbol_not_whitelisted,
    symbol_unknown,
)
from domain.risk.limits import Limits
from domain.risk.measures import pair
from domain.trading.assessment import RiskMemory
from domain.trading.instructions import OrderInstruction, OrderType, Side
from domain.trading.market import Account, LatchRow, Market
from tests.domain.builders import (
    BTC,
    ETH,
    NOW,
    a_context,
    a_position,
    an_observation,
    an_open_order,
    an_order,
    some_rules,
    watched,
)

D = Decimal
SELL = Side.SELL


def candidate(
    quantity: str | OrderInstruction = "1", side: Side = Side.BUY, given: Any = None, **seen: Any
) -> Candidate:
    """An order for BTC at 100 on an account of 10,000: a quantity of 1 is 1 % of it."""
    order = an_order(quantity, side) if isinstance(quantity, str) else quantity
    return Candidate(order, a_context(**{"observation": an_observation(**seen), **(given or {})}))


def after_losing(peak: int, opened: int) -> dict[str, Any]:
    """An account of 10,000 that once was worth `peak`, and `opened` as the day began."""
    memory = RiskMemory(peak=D(peak), day=NOW.date(), day_open=D(opened), last_equity=D(opened))
    return {"observation": watched(an_observation(), memory=memory)}


def test_an_order_in_a_calm_market_is_approved() -> None:
    assert refusals(candidate()) == []


def test_a_latched_desk_takes_no_order() -> None:
    killed = LatchRow(killed=True, kill_number=1)
    assert kill_switch_triggered(candidate(latch=killed)) == "kill_switch_triggered"
    assert kill_switch_triggered(candidate()) is None


def test_a_position_whose_bars_cannot_be_read_counts_as_moving_with_the_order() -> None:
    seen: dict[str, Any] = {"positions": [a_position("-49.5", ETH)], "marks": {BTC: D(100), ETH: D(100)}}
    assert concentration_exceeded(candidate("2", **seen)) is None
    given = {"barless": [ETH]}
    assert concentration_exceeded(candidate("0.5", given={**given, "observation": an_observation(**seen)})) is None
    refused = concentration_exceeded(candidate("1", given={**given, "observation": an_observation(**seen)}))
    assert refused == "concentration_exceeded: 0.505 > 0.5"
    # Nothing is held of it: it counts for nothing.
    assert concentration_exceeded(candidate("1", given=given)) is None


def test_a_position_whose_bars_cannot_be_read_adds_to_everything_that_moves_with_the_order() -> None:
    """It was counted with the order's own symbol alone, and the twins of that one without it."""
    marks = dict.fromkeys((BTC, ETH, "XRPUSDT"), D(100))
    seen = an_observation(positions=[a_position(25, ETH), a_position(-20, "XRPUSDT")], marks=marks)
    given = {"observation": seen, "barless": ["XRPUSDT"], "correlations": {pair(BTC, ETH): 0.9}}
    assert concentration_exceeded(candidate("5", given=given)) is None
    assert concentration_exceeded(candidate("6", given=given)) == "concentration_exceeded: 0.51 > 0.5"


def test_a_symbol_that_does_not_trade_is_refused_in_the_venues_own_word() -> None:
    for word in ("BREAK", "SETTLING", "PENDING_TRADING", "not listed"):
        rules = {BTC: some_rules(halted=word), ETH: some_rules(ETH)}
        assert refusals(candidate(rules=rules)) == [f"symbol_not_trading: {word}"]
    assert refusals(candidate(rules={BTC: some_rules(), ETH: some_rules(ETH, halted="BREAK")})) == []


def test_an_account_that_may_not_trade_is_refused_in_the_venues_own_word() -> None:
    account = Account(balance=D(10_000), halted="canTrade=false")
    assert refusals(candidate(account=account)) == ["account_not_trading: canTrade=false"]


def test_a_reading_that_is_no_fact_allows_no_order() -> None:
    doubts = ["BTCUSDT: get_positions says 0, get_account_v4 1"]
    assert refusals(candidate(doubts=doubts)) == [f"reading_doubtful: {doubts[0]}"]


def test_a_reading_that_nobody_watched_allows_no_order() -> None:
    given = {"watch": False}
    assert limits_unwatched(candidate(given=given)) == "limits_unwatched"
    assert "limits_unwatched" in refusals(candidate(given=given))


def test_data_may_be_as_old_as_its_limit_and_not_older() -> None:
    assert data_stale(candidate(data_time=NOW - timedelta(seconds=180))) is None
    assert data_stale(candidate(data_time=NOW - timedelta(seconds=180.1))) == "data_stale: 180.1s > 180.0s"


def test_a_symbol_outside_the_whitelist_is_refused() -> None:
    assert symbol_not_whitelisted(candidate(given={"symbols": [ETH]})) == "symbol_not_whitelisted: BTCUSDT"


def test_a_symbol_without_price_or_rules_is_refused() -> None:
    assert symbol_unknown(candidate(marks={})) == "symbol_unknown: BTCUSDT"
    assert symbol_unknown(candidate(rules={})) == "symbol_unknown: BTCUSDT"


def test_losses_refuse_new_risk_from_their_soft_limit_on() -> None:
    limits = Limits(soft_drawdown="0.2", hard_drawdown="0.5", soft_daily_loss="0.2", hard_daily_loss="0.5")
    at, below = after_losing(12_500, 12_500), after_losing(12_499, 12_499)
    assert drawdown_breached(candidate(given=at | {"limits": limits})) == "drawdown_breached: 0.2 >= 0.2"
    assert daily_loss_breached(candidate(given=at | {"limits": limits})) == "daily_loss_breached: 0.2 >= 0.2"
    assert drawdown_breached(candidate(given=below | {"limits": limits})) is None
    assert daily_loss_breached(candidate(given=below | {"limits": limits})) is None


def test_leverage_counts_futures_alone() -> None:
    held = [a_position(150, ETH), a_position(500, "XRPUSDT").model_copy(update={"market": Market.SPOT})]
    assert leverage_breached(candidate("50", positions=held)) is None
    assert leverage_breached(candidate("50.001", positions=held)) == "leverage_breached: 2.00001 > 2"


@pytest.mark.parametrize("other", [-80, 80])
def test_gross_exposure_may_be_as_large_as_its_limit_and_not_larger(other: int) -> None:
    held = [a_position(other, ETH)]
    assert gross_exposure_exceeded(candidate("20", positions=held)) is None
    assert gross_exposure_exceeded(candidate("20.001", positions=held)) == "gross_exposure_exceeded"


def test_net_exposure_lets_a_short_balance_a_long() -> None:
    assert net_exposure_exceeded(candidate("20", positions=[a_position(80, ETH)])) is None
    assert (
        net_exposure_exceeded(candidate("20.001", positions=[a_position(80, ETH)]))
        == "net_exposure_exceeded: 1.00001 > 1"
    )
    assert net_exposure_exceeded(candidate("180", positions=[a_position(-80, ETH)])) is None


def test_a_position_may_be_as_large_as_its_limit_and_not_larger() -> None:
    assert position_too_large(candidate("25")) is None
    assert position_too_large(candidate("25.001")) == "position_too_large"


def test_what_rests_in_the_same_direction_counts_as_filled() -> None:
    resting = [an_open_order(BTC)]
    assert position_too_large(candidate("24", open_orders=resting)) is None
    assert position_too_large(candidate("24.001", open_orders=resting)) == "position_too_large"
    assert position_too_large(candidate("25", SELL, open_orders=resting)) is None


def test_correlated_symbols_count_as_one() -> None:
    held, alike = [a_position(30, ETH)], {"correlations": {pair(BTC, ETH): 0.8}}
    assert concentration_exceeded(candidate("20", positions=held, given=alike)) is None
    found = concentration_exceeded(candidate("20.001", positions=held, given=alike))
    assert found == "concentration_exceeded: 0.50001 > 0.5"
    below = {"correlations": {pair(BTC, ETH): 0.79}}
    assert concentration_exceeded(candidate("20.001", positions=held, given=below)) is None


def test_a_short_beside_its_twin_is_no_concentration() -> None:
    held, opposed = [a_position(-30, ETH)], {"correlations": {pair(BTC, ETH): 0.9}}
    assert concentration_exceeded(candidate("45", positions=held, given=opposed)) is None
    mirrored = {"correlations": {pair(BTC, ETH): -0.9}}
    assert (
        concentration_exceeded(candidate("25", positions=held, given=mirrored)) == "concentration_exceeded: 0.55 > 0.5"
    )


def test_an_order_may_be_its_share_of_a_bars_volume_and_not_more() -> None:
    thin = {"tapes": {BTC: BarSummary(reference_price=D(100), bar_volume=D(1_000))}}
    assert liquidity_insufficient(candidate("1", given=thin)) is None
    assert liquidity_insufficient(candidate("1.01", given=thin)) == "liquidity_insufficient: 1000 < 1010"
    assert liquidity_insufficient(candidate("1", given={"tapes": {}})) == "liquidity_insufficient: 0 < 1000"


def test_a_price_may_be_as_far_from_the_last_ones_as_its_limit_and_not_farther() -> None:
    def at(price: str) -> dict[str, Any]:
        return {"observation": an_observation(marks={BTC: D(price)})}

    assert price_deviation_exceeded(candidate(given=at("95"))) is None
    assert price_deviation_exceeded(candidate(given=at("94.9"))) == "price_deviation_exceeded: 0.051 > 0.05"
    assert price_deviation_exceeded(candidate(given=at("105.1"))) == "price_deviation_exceeded: 0.051 > 0.05"
    assert (
        price_deviation_exceeded(candidate(given={"tapes": {}})) == "price_deviation_exceeded: no price to compare with"
    )


def test_orders_are_counted_over_a_minute_of_the_markets_time() -> None:
    limits = Limits(max_orders_per_minute=2)
    recent, old = NOW - timedelta(seconds=59), NOW - timedelta(seconds=60)
    assert order_rate_exceeded(candidate(given={"limits": limits, "sent": [old, recent]})) is None
    assert (
        order_rate_exceeded(candidate(given={"limits": limits, "sent": [recent, recent]}))
        == "order_rate_exceeded: 3 > 2"
    )


def test_orders_from_before_the_markets_time_went_back_do_not_count_for_ever() -> None:
    """Another file of bars, or a clock that had been wrong: a desk at its limit was refused every order from then on."""
    limits = Limits(max_orders_per_minute=1)
    for ahead, refused in ((timedelta(days=30), False), (timedelta(seconds=60), False), (timedelta(seconds=59), True)):
        found = order_rate_exceeded(candidate(given={"limits": limits, "sent": [NOW + ahead]}))
        assert bool(found) is refused


EXPOSURES: list[Guard] = [
    daily_loss_breached,
    drawdown_breached,
    leverage_breached,
    gross_exposure_exceeded,
    net_exposure_exceeded,
    position_too_large,
    concentration_exceeded,
]


@pytest.mark.parametrize("guard", EXPOSURES, ids=lambda guard: guard.__name__)
def test_what_only_takes_risk_off_passes_however_far_past_a_limit_the_desk_is(guard: Guard) -> None:
    memory = RiskMemory(peak=D(50_000), day=NOW.date(), day_open=D(50_000), last_equity=D(50_000))
    seen = watched(an_observation(positions=[a_position(400)]), memory=memory)
    given = {"observation": seen}
    assert guard(candidate("1", SELL, given=given)) is None
    assert guard(candidate("400", SELL, given=given)) is None
    assert guard(candidate("1", given=given)) is not None


def test_an_order_that_turns_a_position_is_no_reduction() -> None:
    held = [a_position(400)]
    assert position_too_large(candidate("450", SELL, positions=held)) == "position_too_large"


def test_a_sale_of_futures_against_a_spot_holding_is_no_reduction_of_leverage() -> None:
    """It makes its symbol's position smaller, and the futures worth more: it passed whatever the leverage was."""
    spot = a_position(30).model_copy(update={"market": Market.SPOT})
    tight = {"limits": Limits(max_leverage="0.1")}
    for held, quantity, told in (
        ([spot], "10", None),
        ([spot], "11", "leverage_breached: 0.11 > 0.1"),
        ([spot, a_position(-10)], "1", "leverage_breached: 0.11 > 0.1"),
        # A long is reduced, however far past the limit it is.
        ([spot, a_position(30)], "1", None),
    ):
        seen = an_observation(positions=held)
        assert leverage_breached(candidate(quantity, SELL, given={**tight, "observation": seen})) == told


def test_without_equity_every_exposure_is_too_large() -> None:
    ruined = Account(balance=D(0))
    for guard in (leverage_breached, gross_exposure_exceeded, net_exposure_exceeded, position_too_large):
        assert guard(candidate(account=ruined)) is not None


def test_each_guard_says_its_own_name_first() -> None:
    """Metrics and filters take what stands before the colon."""
    order = OrderInstruction(
        symbol="XUSDT", side=Side.BUY, order_type=OrderType.MARKET, quantity=D(1), reduce_only=False
    )
    seen = an_observation(
        latch=LatchRow(killed=True, kill_number=1),
        account=Account(balance=D(0)),
        data_time=NOW - timedelta(days=1),
        marks={"XUSDT": D(1)},
    )
    limits = Limits(max_orders_per_minute=1)
    reasons = refusals(Candidate(order, a_context(seen, watch=False, limits=limits, sent=[NOW], tapes={})))
    names = {guard.__name__ for guard in GUARDS}
    assert {reason.split(":")[0] for reason in reasons} <= names
    assert len(reasons) > 8


def test_every_guard_that_there_is_is_asked() -> None:
    there = {
        name
        for name, function in vars(guards).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and list(inspect.signature(function).parameters) == ["candidate"]
    }
    assert there - {"refusals"} == {guard.__name__ for guard in GUARDS}
