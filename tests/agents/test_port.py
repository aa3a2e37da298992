"""What agents get to see."""

import pickle
from decimal import Decimal

import pytest

from activities.agents.port import MAX_BARS, Quote, arguments_of
from domain.trading.market import Market, MarketView, Position, TopOfBook
from tests.agents.builders import BTC, ETH, START, arrays, some_bars


def held(quantity: str, market: Market = Market.FUTURES) -> Position:
    return Position(
        symbol=BTC, quantity=Decimal(quantity), entry_price=Decimal(1), mark_price=Decimal(1), market=market
    )


def a_book() -> TopOfBook:
    return TopOfBook(bid=Decimal(99), ask=Decimal(101), bid_quantity=Decimal(2), ask_quantity=Decimal("0.5"))


def test_agents_see_the_newest_bars_oldest_first() -> None:
    view = MarketView(bars=some_bars(range(1, 101), spread=0.5))
    seen = arguments_of({BTC: view}, []).bars[BTC]
    assert len(seen) == len(seen.volume) == MAX_BARS
    assert (seen.close[-1], seen.high[-1], seen.low[-1], seen.open[-1], seen.volume[-1]) == (100, 100.5, 99.5, 100, 1)
    assert seen.time[-1] - seen.time[-2] == 60_000
    assert seen.time[0] == int(START.timestamp() * 1000) + 40 * 60_000


def test_what_is_not_known_of_a_symbol_is_missing() -> None:
    known = MarketView(bars=some_bars([1]), book=a_book(), funding_rate=Decimal("-0.0001"))
    seen = arguments_of({BTC: known, ETH: MarketView(bars=[])}, [])
    assert list(seen.bars) == [BTC]
    assert seen.book == {BTC: Quote(99, 101, 2, 0.5)}
    assert seen.funding == {BTC: -0.0001}


def test_every_symbol_has_a_position_and_spot_is_none() -> None:
    views = {BTC: MarketView(bars=[]), ETH: MarketView(bars=[])}
    seen = arguments_of(views, [held("-1.5"), held("7", Market.SPOT)])
    assert seen.positions == {BTC: -1.5, ETH: 0.0}


@pytest.mark.parametrize("sent", [False, True], ids=["here", "in another process"])
def test_arrays_cannot_be_written_to(sent: bool) -> None:
    seen = arrays([1.0, 2.0])
    seen = pickle.loads(pickle.dumps(seen)) if sent else seen
    with pytest.raises(ValueError, match="read-only"):
        seen.close[0] = 3
    assert list(seen.close) == [1, 2]
