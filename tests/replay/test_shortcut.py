"""What a replay leaves out changes nothing: every short way is compared with the long one, digit by digit."""

import io
import json
import sys
from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.agents.catalogue import BUILT_IN, InstalledAgent, load
from activities.agents.port import MAX_BARS, BarArrays, Quote, columns_of
from activities.agents.runner import InlineAgents
from activities.market.funding import FundingTable
from activities.market.replay import read_bars
from domain import values
from domain.accounting import Holding, HoldingKey
from domain.paper.book import NOTHING_HAPPENED, Book, Exchange, Terms
from domain.paper.funding import next_funding_hour
from domain.paper.liquidation import is_safe, liquidate, safe_from
from domain.risk.limits import Limits
from domain.trading.market import Bar, Market
from replay.cycle import Cycle, QuietBars
from replay.engine import Engine
from replay.spool import LISTS, Spool
from replay.window import BLOCK, blocks_of
from tests.replay.builders import BTC, CRASH, SHARED, START, built_in_agents, liquid, made_bars, setup

D = Decimal
XRP = SHARED / "xrpusdt_perp_5m_2021-11-15_21.csv"
SCREENED = ("momentum", "mean_reversion", "volatility_breakout", "funding_rate")
NEAR = Limits(
    soft_drawdown="0.002", hard_drawdown="0.02", soft_daily_loss="0.002", hard_daily_loss="0.02", order_fraction="0.1"
)
TIGHT = Limits(
    soft_drawdown="0.002", hard_drawdown="0.004", soft_daily_loss="0.002", hard_daily_loss="0.004", order_fraction="0.2"
)


def told(cycle: Cycle) -> tuple[Any, ...]:
    """All that a bar came to."""
    return cycle._replace(observed=lambda: cycle.observation)[2:], cycle.observation


class Counted(Engine):
    """Counts the bars that take each way."""

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.ways: Counter[str] = Counter()

    def _full(self, *facts: Any) -> Any:
        self.ways["full"] += 1
        return super()._full(*facts)

    def _quiet(self, *facts: Any) -> Any:
        cycle = super()._quiet(*facts)
        self.ways["quiet"] += cycle is not None
        return cycle

    def _heard(self, *facts: Any) -> Any:
        cycle = super()._heard(*facts)
        self.ways["heard"] += cycle is not None
        return cycle


class Ways(NamedTuple):
    """How many bars took each way: worked out from the one before, alone or with what agents said; checked; or in full."""

    still: int
    heard: int
    quiet: int
    full: int


def compared(bars: list[Bar], names: tuple[str, ...] = (), agents: InlineAgents | None = None, **changes: Any) -> Ways:
    """Replays the bars by every way, and compares them."""
    facts, began, agents = setup(bars, **changes), bars[0].open_time, agents or built_in_agents(*names)
    short, full = Counted(facts, agents, began), Engine(facts, agents, began, shortcut=False)
    for one, other in zip(short.run(bars), full.run(bars), strict=True):
        assert told(one) == told(other), one.bar.open_time
    assert short.book == full.book
    assert short.c.model_dump() == full.c.model_dump()
    assert short.measures() == full.measures()
    long = [short.ways[name] for name in ("heard", "quiet", "full")]
    return Ways(len(bars) - sum(long), *long)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    step=st.sampled_from([0.0002, 0.001, 0.004, 0.02]),
    fall_at=st.none() | st.integers(30, 250),
    deep=st.booleans(),
    names=st.sampled_from([(), ("momentum",), ("momentum", "quoter")]),
    limits=st.sampled_from([Limits(), NEAR]),
    rate=st.sampled_from(["0.0001", "-0.0004"]),
    flattens=st.booleans(),
)
def test_a_quiet_bar_comes_to_what_a_whole_cycle_would(
    seed: int,
    step: float,
    fall_at: int | None,
    deep: bool,
    names: tuple[str, ...],
    limits: Limits,
    rate: str,
    flattens: bool,
) -> None:
    bars = made_bars(300, seed, step, fall_at, fall=0.02)
    compared(
        liquid(bars) if deep else bars, names, limits=limits, funding=FundingTable(D(rate)), kill_flattens=flattens
    )


def test_most_bars_of_a_calm_market_take_the_short_way() -> None:
    """Over the seams of blocks, a day and funding hours; without it the comparison would compare nothing."""
    bars = liquid(made_bars(3 * BLOCK + 20, step=0.0005))
    ways = compared(bars, ("momentum",))
    assert ways.still > 2 * BLOCK
    assert ways.heard > 20


@pytest.mark.parametrize("flattens", [True, False])
def test_a_killed_desk_that_holds_nothing_takes_the_short_way(flattens: bool) -> None:
    """Over midnight, when the loss of the day begins anew. Alive, a desk with this agent would ask it at every bar."""
    bars = liquid(made_bars(1_700, step=0.0002, fall_at=100, fall=0.03))
    agents = InlineAgents([InstalledAgent("buy", "tests.replay.buyer:buy_and_hold")])
    assert compared(bars, agents=agents, limits=TIGHT, kill_flattens=flattens).still > 1_500


def test_an_agent_that_fails_at_times_is_judged_as_on_the_long_way() -> None:
    """Its failures, its quarantine and its trials, by the number of the cycle."""
    agents = InlineAgents([InstalledAgent("it", "tests.replay.buyer:stumbles")])
    assert compared(liquid(made_bars(600, step=0.002)), agents=agents).heard > 50


def test_a_price_alone_may_bring_a_position_past_its_limit() -> None:
    limits = Limits(order_fraction="0.1", max_position_fraction="0.1005", soft_position_fraction="0.101")
    ways = compared(liquid(made_bars(600, step=0.002)), ("momentum",), limits=limits)
    assert ways.still > 100


def test_a_replay_may_end_in_quiet_bars_of_a_new_day() -> None:
    """A position of the evening, and nothing but prices after midnight: the day's loss is that of the new day."""
    bars = made_bars(1_500, step=0.0005)
    still = [bar.model_copy(update={"volume": D(0)}) for bar in bars[1_300:]]
    assert compared(liquid(bars[:1_300]) + still, ("mean_reversion",)).still > 1_000
    assert compared(bars, ("funding_rate",)).still > 1_400


@pytest.mark.skipif(not CRASH.exists(), reason="the shared market data is not here")
# Near limits: test_a_quiet_bar_comes_to_what_a_whole_cycle_would has them too.
@pytest.mark.parametrize("limits", [Limits(), pytest.param(NEAR, marks=pytest.mark.thorough)], ids=["usual", "near"])
def test_a_quiet_bar_of_a_real_crash(limits: Limits) -> None:
    assert compared(read_bars(CRASH, "quote")[500:2_500], limits=limits).still > 100


@pytest.mark.skipif(not XRP.exists(), reason="the shared market data is not here")
def test_a_quiet_bar_of_a_real_week() -> None:
    assert compared(read_bars(XRP), ("momentum", "mean_reversion")).still > 500


class ByTheHour:
    """Another rate at each funding hour of a day."""

    def rate(self, symbol: str, at: datetime) -> Decimal:
        return D("0.0004") + at.hour * D("0.00002")


def test_an_agent_is_told_the_rate_of_the_next_funding_hour() -> None:
    bars = liquid(made_bars(1_000, step=0.0005))
    cycles = Engine(setup(bars, funding=ByTheHour()), built_in_agents("funding_rate"), START).run(bars)
    votes = [cycle.decisions[-1].agent_votes["funding_rate"] for cycle in cycles]
    hours = [next_funding_hour(bar.open_time) for bar in bars]
    assert votes == [-round(float(ByTheHour().rate(BTC, hour)) / 0.0012, 4) for hour in hours]


# --- screens of agents ------------------------------------------------------------------------------------------------


def speaks(name: str, arrays: BarArrays, rates: np.ndarray) -> list[bool]:
    """Whether the agent says anything at each bar."""
    agent, found = load(InstalledAgent(name, BUILT_IN[name])), []
    for end in range(1, len(arrays) + 1):
        seen = BarArrays(*(column[max(0, end - MAX_BARS) : end] for column in arrays.columns))
        funding = {} if np.isnan(rates[end - 1]) else {BTC: float(rates[end - 1])}
        found.append(bool(agent({BTC: seen}, {}, funding, {BTC: 0.0})))
    return found


def hears_all(name: str, bars: list[Bar]) -> None:
    arrays = columns_of(bars)
    rates = np.where(np.arange(len(bars)) % 3, np.nan, np.linspace(-0.001, 0.001, len(bars)))
    may = load(InstalledAgent(name, BUILT_IN[name])).screen(arrays, rates)  # type: ignore[attr-defined]
    missed = [at for at, said in enumerate(speaks(name, arrays, rates)) if said and not may[at]]
    assert missed == []


@pytest.mark.parametrize("name", SCREENED)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), step=st.sampled_from([0.0, 1e-7, 0.0005, 0.02]), fall_at=st.integers(0, 140))
def test_where_a_screen_is_silent_the_agent_is(name: str, seed: int, step: float, fall_at: int) -> None:
    hears_all(name, made_bars(150, seed, step, fall_at, fall=step))


@pytest.mark.skipif(not CRASH.exists(), reason="the shared market data is not here")
@pytest.mark.parametrize("name", SCREENED)
def test_where_a_screen_is_silent_the_agent_is_in_a_crash(name: str) -> None:
    hears_all(name, read_bars(CRASH, "quote")[:3_000])


@pytest.mark.parametrize("name", SCREENED)
def test_an_agent_that_is_asked_ahead_looks_at_neither_book_nor_positions(name: str) -> None:
    arrays, agent = columns_of(made_bars(400, step=0.002)), load(InstalledAgent(name, BUILT_IN[name]))
    assert agent.sees_market_alone  # type: ignore[attr-defined]
    for end in range(1, len(arrays) + 1):
        seen = {BTC: BarArrays(*(column[max(0, end - MAX_BARS) : end] for column in arrays.columns))}
        answers = [
            [vars(said) for said in agent(seen, book, {BTC: -0.0004}, {BTC: held})]
            for book, held in (({}, 0.0), ({BTC: Quote(1.0, 2.0, 3.0, 4.0)}, -5.0))
        ]
        assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "answer", [lambda n: np.zeros(n - 1), lambda n: np.zeros((n, 2)), lambda n: False, lambda n: 1 / 0],
    ids=["too few", "two of each", "one for all", "an error"],
)  # fmt: skip
def test_an_agent_whose_screen_has_no_answer_for_each_bar_is_asked(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = liquid(made_bars(120, step=0.003))
    momentum = load(InstalledAgent("momentum", BUILT_IN["momentum"]))
    monkeypatch.setattr(momentum, "screen", lambda bars, funding: answer(len(bars)))
    ways = compared(bars, ("momentum",))
    assert (ways.still, ways.quiet) == (0, 0)


# --- liquidation ------------------------------------------------------------------------------------------------------

numbers = st.decimals(min_value="0.001", max_value="200000", places=3)


@settings(max_examples=300, deadline=None)
@given(
    quantity=st.decimals(min_value="-5", max_value="5", places=3),
    entry=numbers,
    prices=st.lists(numbers, min_size=4, max_size=4),
    balance=st.decimals(min_value="-1000", max_value="100000", places=4),
    ratio=st.sampled_from(["0", "0.005", "0.5", "0.999", "1", "1.5"]),
)
def test_a_safe_account_is_never_liquidated(
    quantity: Decimal, entry: Decimal, prices: list[Decimal], balance: Decimal, ratio: str
) -> None:
    low, open_, close, high = sorted(prices)
    bar = Bar(open_time=START, open=open_, high=high, low=low, close=close, volume=D(1))
    rules = setup([bar]).rules.model_copy(update={"maintenance_ratio": D(ratio)})
    exchange = Exchange(Terms(fee_bps=D(4), slippage_bps=D(2)), {BTC: rules}.get, FundingTable(D(0)))
    held = Holding(quantity=quantity, cost=quantity * entry)
    book = Book("it", balance, {HoldingKey(Market.FUTURES, BTC): held}, bars={BTC: bar})
    if is_safe(book, exchange):
        assert liquidate(book, exchange) == (book, NOTHING_HAPPENED)
    safe = safe_from(held, balance, rules) if quantity else None
    if safe is not None and safe > 0:
        # As far as that goes.
        bar = bar.model_copy(update={"low": safe, "high": safe})
        assert is_safe(book._replace(bars={BTC: bar}), exchange)


# --- values that are not validated ------------------------------------------------------------------------------------


def test_values_made_without_validation_are_those_that_validation_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, made = values.assembled, set()

    def checked(kind: Any, fields: dict[str, Any]) -> Any:
        value, again = quick(kind, fields), kind.model_validate(fields)
        assert value == again
        assert list(fields) == list(kind.model_fields), kind
        assert {n: type(v) for n, v in vars(value).items()} == {n: type(v) for n, v in vars(again).items()}, kind
        assert value.model_dump_json() == again.model_dump_json()
        made.add(kind.__name__)
        return value

    for module in [*sys.modules.values()]:
        if getattr(module, "assembled", None) is quick:
            monkeypatch.setattr(module, "assembled", checked)
    bars = liquid(made_bars(700, step=0.002, fall_at=500, fall=0.01))
    for names in (("momentum", "mean_reversion", "quoter"), ("momentum",)):
        for _ in Engine(setup(bars, limits=NEAR), built_in_agents(*names), bars[0].open_time).run(bars):
            pass
    assert made >= {"Assessment", "Choice", "Decision", "Fill", "Measures", "Observation", "Proposal"}


# --- the JSON ---------------------------------------------------------------------------------------------------------


def test_rows_are_written_as_their_own_json() -> None:
    bars = liquid(made_bars(400, step=0.003))
    bars[250:] = [bar.model_copy(update={"open_time": bar.open_time + timedelta(milliseconds=7)}) for bar in bars[250:]]
    engine, cycles, target = Engine(setup(bars), built_in_agents(), bars[0].open_time), list[Cycle](), io.BytesIO()
    with Spool() as spool:
        for found in engine.run_blocks(blocks_of(bars)):
            spool.add(found)
            cycles += found.cycles() if isinstance(found, QuietBars) else [found]
        spool.write(target, {"a": 1})
    written = json.loads(target.getvalue())
    assert set(LISTS) < set(written)
    names = set(written["decisions"][0])
    rows = [json.loads(row.model_dump_json(include=names)) for cycle in cycles for row in cycle.decisions]
    assert written["decisions"] == rows
