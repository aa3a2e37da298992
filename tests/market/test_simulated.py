"""The simulated market: one market in every process, for any bar number."""

import subprocess
import sys
from decimal import Decimal
from itertools import pairwise
from statistics import median

import pytest

from activities.market.simulated import CHUNK_BARS, SimulatedMarket
from domain.trading.market import Bar

SYMBOLS = ["BTCUSDT", "ETHUSDT", "XRPUSDT"]


def bars_of(symbol: str, count: int = 3 * CHUNK_BARS, start: int = 0, seed: int = 1) -> list[Bar]:
    market = SimulatedMarket(SYMBOLS, seed)
    return [bar for number in range(start, start + count) if (bar := market.bar(symbol, number))]


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_bars_follow_each_other_without_a_gap(symbol: str) -> None:
    for before, bar in pairwise(bars_of(symbol)):
        assert bar.open == before.close
        assert (bar.open_time - before.open_time).total_seconds() == 60


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_price_is_a_whole_tick_within_the_bar(symbol: str) -> None:
    rules = SimulatedMarket(SYMBOLS, 1).rules(symbol)
    assert rules
    for bar in bars_of(symbol):
        assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
        assert not any(price % rules.tick_size for price in (bar.open, bar.high, bar.low, bar.close))


def test_any_bar_can_be_made_first() -> None:
    forwards = bars_of("BTCUSDT")
    market = SimulatedMarket(SYMBOLS, 1)
    backwards = [market.bar("BTCUSDT", number) for number in reversed(range(len(forwards)))]
    assert backwards[::-1] == forwards


def test_a_bar_months_away_costs_no_more_than_the_first() -> None:
    market = SimulatedMarket(SYMBOLS, 1)
    far = market.bar("BTCUSDT", 10**9)
    assert far
    assert 40_000 < far.close < 90_000


def test_another_process_sees_the_same_market() -> None:
    code = (
        "from activities.market.simulated import SimulatedMarket;"
        "m = SimulatedMarket(['BTCUSDT'], 1); print(m.bar('BTCUSDT', 12345).model_dump_json())"
    )
    # A new process has another hash seed.
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert Bar.model_validate_json(printed) == SimulatedMarket(SYMBOLS, 1).bar("BTCUSDT", 12345)


def test_seeds_and_symbols_differ() -> None:
    closes = [tuple(bar.close for bar in bars_of("BTCUSDT", 20, seed=seed)) for seed in (1, 2)]
    assert closes[0] != closes[1]
    market = SimulatedMarket(["AUSDT", "BUSDT"], 1)
    assert market.bar("AUSDT", 5) != market.bar("BUSDT", 5)


def test_an_unknown_symbol_or_bar_is_none() -> None:
    market = SimulatedMarket(["BTCUSDT"], 1)
    assert market.bar("ETHUSDT", 0) is None
    assert market.rules("ETHUSDT") is None
    assert market.bar("BTCUSDT", -1) is None


def test_steps_have_the_magnitude_of_an_exchange() -> None:
    rules = SimulatedMarket(["BTCUSDT"], 1).rules("BTCUSDT")
    assert rules
    assert (str(rules.tick_size), str(rules.lot_step)) == ("0.1", "0.001")
    assert [rules.max_quantity, rules.market_max_quantity] == [Decimal(1000), Decimal(120)]
    assert rules.multiplier_up
    assert rules.multiplier_down
    assert rules.multiplier_down < 1 < rules.multiplier_up
    assert 0 < rules.maintenance_ratio < 1


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_symbol_turns_over_the_same_money(symbol: str) -> None:
    """A tenth of a bar can take an order worth 5,000, whatever one unit costs."""
    turnover = [bar.volume * bar.close for bar in bars_of(symbol, count=1_000)]
    assert 2_500_000 < median(turnover) < 3_500_000
    assert min(turnover) / 10 > 5_000
