"""The agents that come with AIS: a window of the market in, a suggestion out."""

import inspect
import tomllib
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.agents.catalogue import BUILT_IN, InstalledAgent, installed_agents, load
from activities.agents.funding_rate import funding_rate
from activities.agents.mean_reversion import mean_reversion
from activities.agents.momentum import LOOKBACK_BARS, momentum
from activities.agents.port import MAX_BARS, Quote
from activities.agents.quoter import quoter
from activities.agents.runner import InlineAgents
from activities.agents.volatility_breakout import volatility_breakout
from activities.market.simulated import SimulatedMarket
from domain.trading.instructions import Side, TimeInForce
from tests.agents.builders import BTC, ETH, NOISE, seeing
from tests.house.sources import ROOT

LONG_NOISE = [*NOISE, *NOISE]
every_agent = pytest.mark.parametrize("name", BUILT_IN)


def drifting(step: float) -> list[float]:
    """Noise on a straight line."""
    return [close + n * step for n, close in enumerate(LONG_NOISE)]


def ours() -> InlineAgents:
    return InlineAgents([InstalledAgent(name, target) for name, target in BUILT_IN.items()])


# --- momentum ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "side"), [(0.12, Side.BUY), (-0.12, Side.SELL)])
def test_momentum_follows_a_move_beyond_the_noise(step: float, side: Side) -> None:
    (suggestion,) = momentum(*seeing({BTC: drifting(step)}))
    assert (suggestion.symbol, suggestion.side) == (BTC, side)
    assert 0.5 <= suggestion.confidence < 1
    assert suggestion.expected_return == pytest.approx(0.0012, rel=0.05)


@pytest.mark.parametrize(
    "closes",
    [[100.0], [100.0] * LOOKBACK_BARS, [100.0] * 30, [*NOISE, 100.1], [100.0, 200.0]],
    ids=["one", "few", "still", "noise", "two"],
)
def test_momentum_abstains_without_a_move_or_without_a_past(closes: Sequence[float]) -> None:
    assert momentum(*seeing({BTC: closes})) == []


def test_a_move_without_any_noise_is_certain() -> None:
    (suggestion,) = momentum(*seeing({BTC: [100 * 1.01**n for n in range(20)]}))
    assert suggestion.confidence == 1.0


# --- mean reversion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("last", "side"), [(101, Side.SELL), (99, Side.BUY)])
def test_mean_reversion_fades_what_left_its_band(last: float, side: Side) -> None:
    (suggestion,) = mean_reversion(*seeing({BTC: [*LONG_NOISE, last]}))
    assert (suggestion.symbol, suggestion.side) == (BTC, side)
    assert 0.5 <= suggestion.confidence <= 1
    # Half of the way back to a mean of about 100.
    assert suggestion.expected_return == pytest.approx(0.005, rel=0.1)


@pytest.mark.parametrize(
    "closes",
    [[100.0], [*[100.0] * 19, 110], LONG_NOISE, [100.0] * 30, [0.1 + 0.2] * 30],
    ids=["one", "few", "noise", "still", "still, with rounding"],
)
def test_mean_reversion_abstains_inside_the_band_or_without_a_past(closes: Sequence[float]) -> None:
    assert mean_reversion(*seeing({BTC: closes})) == []


def test_mean_reversion_does_not_stand_against_a_trend() -> None:
    rising = [100 + 0.1 * n for n in range(30)]
    assert mean_reversion(*seeing({BTC: [*rising, rising[-1] + 2]})) == []
    (against_the_dip,) = mean_reversion(*seeing({BTC: [*rising, rising[-1] - 5]}))
    assert against_the_dip.side is Side.BUY


# --- volatility breakout ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("last", "side"), [(101, Side.BUY), (99, Side.SELL)])
def test_a_breakout_on_a_large_bar_is_followed(last: float, side: Side) -> None:
    (suggestion,) = volatility_breakout(*seeing({BTC: [*LONG_NOISE, last]}, spread=0.1))
    assert (suggestion.symbol, suggestion.side) == (BTC, side)
    assert 0.375 <= suggestion.confidence <= 1
    assert suggestion.expected_return == pytest.approx(0.00226, rel=0.05)


@pytest.mark.parametrize(
    "closes",
    [[100.0], [*[100.0] * 20, 110], LONG_NOISE, [100.0] * 30, [*LONG_NOISE, 100.22]],
    ids=["one", "few", "inside", "still", "a small bar"],
)
def test_a_breakout_needs_a_range_to_leave_and_a_large_bar(closes: Sequence[float]) -> None:
    assert volatility_breakout(*seeing({BTC: closes}, spread=0.1)) == []


def test_out_of_a_range_that_stood_still_any_move_is_large() -> None:
    (suggestion,) = volatility_breakout(*seeing({BTC: [*[100.0] * 30, 100.01]}))
    assert (suggestion.side, suggestion.confidence) == (Side.BUY, 1.0)


# --- funding rate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "side", "confidence"),
    [(0.0003, Side.SELL, 0.25), (-0.0006, Side.BUY, 0.5), (0.01, Side.SELL, 1.0)],
)
def test_an_extreme_funding_rate_is_received(rate: float, side: Side, confidence: float) -> None:
    (suggestion,) = funding_rate(*seeing(funding={BTC: rate}))
    assert (suggestion.side, suggestion.confidence) == (side, confidence)
    assert suggestion.expected_return == abs(rate)


@pytest.mark.parametrize("rate", [0.0, 0.0001, 0.00029, -0.00029])
def test_an_ordinary_funding_rate_is_none_of_its_business(rate: float) -> None:
    assert funding_rate(*seeing(funding={BTC: rate})) == []


# --- quoter -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("middle", "held", "side", "price"),
    [
        (64_012.0, 0.0, Side.BUY, "63900"),
        (64_012.0, -1.0, Side.BUY, "63900"),
        (64_012.0, 0.5, Side.SELL, "64100"),
        (2_986.0, 0.0, Side.BUY, "2980"),
        (0.2, 0.0, Side.BUY, "0.199"),
        (0.2, 1.0, Side.SELL, "0.201"),
        (99.95, 1.0, Side.SELL, "101"),
    ],
)
def test_quoter_waits_on_the_side_that_brings_its_inventory_back(
    middle: float, held: float, side: Side, price: str
) -> None:
    arguments = seeing()._replace(book={BTC: Quote(middle - 0.01, middle + 0.01, 1.0, 1.0)}, positions={BTC: held})
    (suggestion,) = quoter(*arguments)
    assert (suggestion.side, suggestion.price, suggestion.sent_as) == (side, Decimal(price), TimeInForce.GTX)
    assert 0.05 < suggestion.confidence < 0.2


def test_quoter_keeps_its_price_while_the_market_moves_little() -> None:
    books = ({BTC: Quote(price, price + 0.1, 1.0, 1.0)} for price in (64_000.0, 64_020.0, 64_040.0))
    asked = [quoter({}, book, {}, {BTC: 0.0})[0].price for book in books]
    assert asked == [Decimal(63900)] * 3


# --- all of them ------------------------------------------------------------------------------------------------------


@every_agent
def test_each_tells_its_rule_and_its_source(name: str) -> None:
    agent = load(InstalledAgent(name, BUILT_IN[name]))
    text = inspect.getdoc(agent) or ""
    assert "Source" in text
    assert "19" in text or "20" in text, "the year"


@every_agent
def test_each_abstains_where_nothing_is_known(name: str) -> None:
    assert list(load(InstalledAgent(name, BUILT_IN[name]))(*seeing())) == []


@given(
    st.lists(st.floats(0.01, 1e6).map(lambda price: round(price, 4)), max_size=MAX_BARS),
    st.floats(0, 0.005),
    st.floats(-0.1, 0.1),
)
def test_each_always_answers_within_bounds(closes: list[float], spread: float, rate: float) -> None:
    arguments = seeing({BTC: closes} if closes else {}, spread=spread, funding={BTC: rate})
    answers = ours().answers(BUILT_IN, arguments)
    assert [answer.failure for answer in answers] == [None] * len(BUILT_IN)


@given(st.lists(st.floats(1, 1e4).map(lambda price: round(price, 2)), min_size=22, max_size=MAX_BARS))
def test_a_symbol_is_judged_by_itself_alone(closes: list[float]) -> None:
    agents = ours()
    alone = agents.answers(BUILT_IN, seeing({BTC: closes}))
    beside = agents.answers(BUILT_IN, seeing({ETH: closes[::-1], BTC: closes}))
    for one, two in zip(alone, beside, strict=True):
        assert list(one.suggestions) == [s for s in two.suggestions if s.symbol == BTC]


def test_on_the_simulated_market_each_trades_now_and_then() -> None:
    market = SimulatedMarket([BTC, ETH], 1)
    past = {s: [bar for n in range(1000) if (bar := market.bar(s, n))] for s in (BTC, ETH)}
    closes = {s: [float(bar.close) for bar in bars] for s, bars in past.items()}
    agents, said = ours(), dict.fromkeys(BUILT_IN, 0)
    for n in range(MAX_BARS, 1000, 4):
        for answer in agents.answers(BUILT_IN, seeing({s: history[n - MAX_BARS : n] for s, history in closes.items()})):
            said[answer.agent_id] += bool(answer.suggestions)
    assert said.pop("funding_rate") == 0
    assert said.pop("quoter") == 0, "it takes a book"
    assert all(2 < count < 118 for count in said.values()), said


def test_the_built_in_ones_are_declared_as_foreign_ones_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["ais.agents"] == BUILT_IN


def test_the_built_in_ones_are_installed_in_any_checkout() -> None:
    assert list(installed_agents().agents)[: len(BUILT_IN)] == list(BUILT_IN)
