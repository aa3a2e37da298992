"""Refusals that a replay knows without an order: the guards say the same."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.agents.port import columns_of
from activities.bar_summaries import TAPE_BARS, tape_of
from activities.market.replay import read_bars
from domain.risk.guards import GUARDS
from domain.risk.limits import Limits
from domain.trading.instructions import Side
from domain.trading.proposals import Proposal
from replay.engine import Engine
from replay.refusing import NOTHING_CERTAIN, Refusals, Tape, tapes_of
from tests.replay.builders import BTC, CRASH, built_in_agents, liquid, made_bars, setup
from tests.replay.test_shortcut import compared

D = Decimal
# What `replay/refusing.py` makes of each guard.
PASSED_AT_REST = {
    "kill_switch_triggered", "limits_unwatched", "reading_doubtful", "data_stale", "symbol_not_whitelisted",
    "symbol_unknown", "account_not_trading", "price_outside_band",
}  # fmt: skip
PASSED_OR_LEFT = {
    "symbol_not_trading", "leverage_breached", "net_exposure_exceeded", "concentration_exceeded",
    "liquidity_insufficient", "price_deviation_exceeded", "order_rate_exceeded",
}  # fmt: skip
TOLD = {"daily_loss_breached", "drawdown_breached", "gross_exposure_exceeded", "position_too_large"}


def test_every_guard_was_thought_of() -> None:
    assert {guard.__name__ for guard in GUARDS} == PASSED_AT_REST | PASSED_OR_LEFT | TOLD


class Knowing(Engine):
    """Counts the refusals that were known, and leaves each choice to the guards as well."""

    known = 0

    def _refused(self, analysis: Any, bar: Any, still: Any, measures: Any) -> Any:
        choice = super()._refused(analysis, bar, still, measures)
        if choice:
            seen = self._seen(still, still.bars + 1, bar, measures)
            round_ = self._round(still.bars + 1)
            assert choice == self._chosen(round_, analysis, bar, seen)
            self.known += 1
        return choice


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    step=st.sampled_from([0.0005, 0.002, 0.01]),
    changes=st.fixed_dictionaries(
        {},
        optional={
            "order_fraction": st.sampled_from(["0.001", "0.1", "0.3"]),
            "max_position_fraction": st.sampled_from(["0.02", "0.1"]),
            "max_gross_exposure_fraction": st.just("0.12"),
            "max_net_exposure_fraction": st.just("0.12"),
            "max_concentration_fraction": st.just("0.12"),
            "max_leverage": st.just("0.12"),
            "soft_drawdown": st.just("0.001"),
            "soft_daily_loss": st.just("0.001"),
            "max_price_deviation": st.sampled_from(["0.0005", "0.004"]),
            "max_volume_share": st.sampled_from(["0.000001", "0.0001"]),
            "max_orders_per_minute": st.just(1),
        },
    ),
    make=st.sampled_from([liquid, list]),
)
def test_guards_say_the_same(seed: int, step: float, changes: dict[str, Any], make: Callable[..., Any]) -> None:
    bars = make(made_bars(250, seed, step))
    facts = setup(bars, limits=Limits(**changes), weights={"momentum": 0.01})
    for _ in Knowing(facts, built_in_agents(), bars[0].open_time).run(bars):
        pass


def test_most_refusals_are_known() -> None:
    bars = liquid(made_bars(1_500, step=0.0009))
    engine = Knowing(setup(bars), built_in_agents("momentum"), bars[0].open_time)
    refused = sum(row.risk_passed is False for cycle in engine.run(bars) for row in cycle.decisions)
    assert engine.known > 0.8 * refused > 20


@pytest.mark.skipif(not CRASH.exists(), reason="the shared market data is not here")
@pytest.mark.thorough
def test_refusals_of_a_real_crash() -> None:
    bars = read_bars(CRASH, "quote")
    assert compared(bars, limits=Limits(max_position_fraction="0.05")).heard > 100


def test_the_figures_of_the_newest_bars_are_those_of_the_guards() -> None:
    bars = made_bars(200, step=0.01)
    assert tapes_of(columns_of(bars), []) == {}
    for at, tape in tapes_of(columns_of(bars), [0, 1, *range(15, 200)]).items():
        exact = tape_of(bars[max(0, at - 60) : at + 1])
        if at < TAPE_BARS:
            assert tape == NOTHING_CERTAIN
        else:
            assert exact.reference_price is not None
            away = abs(bars[at].close - exact.reference_price) / exact.reference_price
            assert tape.deviation == pytest.approx(float(away), rel=1e-10, abs=1e-13)
            assert tape.traded == pytest.approx(float(exact.bar_volume or 0), rel=1e-10)


def test_a_proposal_that_may_be_approved_is_left_to_the_guards() -> None:
    bars = liquid(made_bars(30))
    rules, limits = setup(bars).rules, Limits()
    buy = Proposal(proposal_id="1", agent_id="it", symbol=BTC, side=Side.BUY, confidence=1.0)
    measures = Engine(setup(bars), built_in_agents(), bars[0].open_time).measures()
    usual, refusals = Tape(0.0, 1e9), Refusals(limits, rules)
    assert refusals.reasons(buy, measures, D(0), D(40_000), usual) is None
    assert refusals.reasons(buy, measures, D("0.6"), D(40_000), usual) == ["position_too_large"]
    assert refusals.reasons(buy, measures, D("-0.6"), D(40_000), usual) is None
    assert refusals.reasons(buy, measures, D("0.6"), D(40_000), Tape(0.05, 1e9)) is None
    assert refusals.reasons(buy, measures, D("0.6"), D(40_000), Tape(0.0, 50_000.0)) is None
    halted = Refusals(limits, rules.model_copy(update={"halted": "BREAK"}))
    assert halted.reasons(buy, measures, D("0.6"), D(40_000), usual) is None
    at_limit = buy.model_copy(update={"price": D(39_000)})
    assert refusals.reasons(at_limit, measures, D("0.6"), D(40_000), usual) is None
