"""Orders, bars and accounts with defaults, and a market that a test writes down."""

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from activities.market.port import MarketSource
from domain.paper.book import Book, Exchange, PaperOrder, Terms
from domain.trading.instructions import OrderInstruction, OrderType, Side
from domain.trading.market import Bar, Market, SymbolRules
from domain.trading.orders import Order

D = Decimal
START = datetime(2026, 1, 1, tzinfo=UTC)
RULES = SymbolRules(
    symbol="BTCUSDT", tick_size=D("0.1"), lot_step=D("0.001"), min_quantity=D("0.001"), min_notional=D("5")
)
TERMS = Terms(fee_bps=D(4), slippage_bps=D(2))
# More than any order asks for: how much of it there is, is the subject of few tests.
PLENTY = "1000000000000"
_numbers = itertools.count()


def make_bar(**changes: Any) -> Bar:
    defaults = {"open_time": START, "open": "100", "high": "101", "low": "99", "close": "100", "volume": PLENTY}
    return Bar.model_validate(defaults | changes)


def still_bar(price: Decimal | int | str, minutes: int = 0, volume: str = PLENTY) -> Bar:
    """A bar in which the price does not move."""
    moment = START + minutes * timedelta(minutes=1)
    return make_bar(open=price, high=price, low=price, close=price, open_time=moment, volume=volume)


def make_book(*, marks: Mapping[str, Decimal] | None = None, **changes: Any) -> Book:
    """An account of 10,000 whose newest bars stand still at `marks`."""
    shown = {"BTCUSDT": D(100), "CHEAPUSDT": D(1)} if marks is None else marks
    bars = {symbol: still_bar(mark) for symbol, mark in shown.items()}
    facts: dict[str, Any] = {"desk": "main", "balance": D(10_000), "bar_no": 0, "bars": bars}
    return Book(**facts | changes | {"balance": D(changes.get("balance", 10_000))})


class FixedFunding:
    """One rate for everything, or none."""

    def __init__(self, rate: Decimal | None = None) -> None:
        self._rate = rate

    def rate(self, symbol: str, at: datetime) -> Decimal | None:
        return self._rate


def make_exchange(
    *, terms: Terms = TERMS, rules: SymbolRules = RULES, funding: str | None = None, **limits: Any
) -> Exchange:
    """Rules alike for every symbol but NEVERUSDT; `limits` are the ones that a test is about."""

    def rules_of(symbol: str) -> SymbolRules | None:
        return None if symbol == "NEVERUSDT" else rules.model_copy(update={"symbol": symbol, **limits})

    return Exchange(terms, rules_of, FixedFunding(None if funding is None else D(funding)))


EXCHANGE = make_exchange()


def make_paper_order(**changes: Any) -> PaperOrder:
    defaults = {
        "order_id": "ord_1",
        "desk": "main",
        "symbol": "BTCUSDT",
        "market": Market.FUTURES,
        "side": Side.BUY,
        "order_type": OrderType.MARKET,
        "quantity": "1",
        "price": None,
        "reduce_only": False,
    }
    return PaperOrder.model_validate(defaults | changes)


def make_order(*, order_id: str | None = None, seconds: float = 60, desk: str = "main", **changes: Any) -> Order:
    """An order of the coordinator's that may begin for `seconds` from now."""
    defaults = {
        "symbol": "BTCUSDT",
        "side": "BUY",
        "order_type": "MARKET",
        "quantity": "1",
        "price": None,
        "reduce_only": False,
    }
    now = datetime.now(UTC)
    return Order(
        order_id=order_id or f"ord_{next(_numbers)}_{now.timestamp()}",
        command_id="cycle_1",
        desk=desk,
        instruction=OrderInstruction.model_validate(defaults | changes),
        not_after=now + timedelta(seconds=seconds),
        prepared_at=now,
    )


class WrittenMarket(MarketSource):
    """Bars written down in a test; a bare number is a bar that stands still."""

    def __init__(self, bars: Mapping[str, Sequence[Bar | int | str]], warm_up: int = 0) -> None:
        self._warm_up = warm_up
        self.listed = {
            symbol: [_bar(bar, number) for number, bar in enumerate(listed)] for symbol, listed in bars.items()
        }

    @property
    def warm_up(self) -> int:
        return self._warm_up

    def bar(self, symbol: str, number: int) -> Bar | None:
        bars = self.listed.get(symbol, [])
        return bars[number] if 0 <= number < len(bars) else None

    def rules(self, symbol: str) -> SymbolRules | None:
        return RULES.model_copy(update={"symbol": symbol}) if symbol in self.listed else None


def _bar(bar: Bar | int | str, number: int) -> Bar:
    moment = START + number * timedelta(minutes=1)
    return bar.model_copy(update={"open_time": moment}) if isinstance(bar, Bar) else still_bar(bar, number)
