"""Fills are counted once: those of an order that is sent by who sends it, all others by the reading that brought them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from temporalio.testing import ActivityEnvironment

from activities.act import ActActivities, CoordinatorState
from activities.calls import OrderCall, Scope
from activities.metrics import WorkerMetrics
from activities.venues.port import CLEARED, Clearance, Venue
from domain.desk.states import Mode, State
from domain.paper.advance import advance
from domain.paper.book import NOTHING_HAPPENED
from domain.paper.matching import place
from domain.paper.view import Times, observation_of
from domain.risk.reducing import plan
from domain.trading.instructions import Side, Tool
from domain.trading.market import NOTHING_KNOWN, FilledOrder, Known, Market, MarketView, Observation, Position
from domain.trading.orders import Fate, Order, OrderReport
from storage.database import Database
from tests.domain.builders import an_observation
from tests.venues.builders import EXCHANGE, START, D, make_book, make_order, make_paper_order, still_bar


class ReportingVenue:
    """A venue that answers every order alike."""

    settles_after = timedelta(0)
    counts_its_calls = False

    def __init__(self, fate: Fate, filled: str) -> None:
        self._fate, self._filled = fate, D(filled)

    async def check(self) -> None:
        pass

    async def create_order(self, order: Order, clearance: Clearance = CLEARED) -> OrderReport:
        return OrderReport(order_id=order.order_id, fate=self._fate, filled_quantity=self._filled)

    async def observe(self, symbols: Sequence[str], cycle_id: str | None, known: Known = NOTHING_KNOWN) -> Observation:
        return an_observation()

    async def time(self, symbol: str) -> datetime | None:
        return datetime.now(UTC)

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        return {}

    async def cancel_order(self, symbol: str, order_id: str) -> None:
        raise NotImplementedError

    async def cancel_all(self, tool: Tool, symbol: str) -> None:
        return None

    async def find_order(self, order: Order) -> OrderReport | None:
        return None

    async def look(self, symbol: str) -> Observation:
        return an_observation()

    async def close(self) -> None:
        return None


async def running() -> CoordinatorState:
    return CoordinatorState(State.RUNNING)


def counted(instruments: WorkerMetrics, symbol: str = "BTCUSDT") -> tuple[float, float]:
    """Fills, and orders that are filled whole."""
    names = ("ais_paper_fills_total", "ais_orders_filled_total")
    fills, orders = (instruments.registry.get_sample_value(name, {"symbol": symbol}) or 0 for name in names)
    return fills, orders


def test_a_reading_counts_what_moving_the_market_on_has_filled() -> None:
    instruments = WorkerMetrics("main")
    part = FilledOrder(symbol="BTCUSDT", quantity=D(1), maker=True, whole=False)
    instruments.observed(an_observation(fills=[part, part.model_copy(update={"whole": True})]))
    assert counted(instruments) == (2, 1)
    instruments.observed(an_observation())
    assert counted(instruments) == (2, 1)


def test_an_order_that_fills_over_several_bars_at_once_is_whole_once() -> None:
    """The real market brings every bar since the last cycle: an order of two fills was counted as two orders."""
    book = place(make_paper_order(order_type="LIMIT", price="90", quantity="3"), make_book(), EXCHANGE).book
    events = NOTHING_HAPPENED
    for minutes in (1, 2):
        book, happened = advance(book, {"BTCUSDT": still_bar(90, minutes, volume="20")}, EXCHANGE)
        events = events.then(happened)
    seen = observation_of(book, EXCHANGE, Times(START, START, START), events)
    assert [(fill.quantity, fill.whole) for fill in seen.fills] == [(D(2), False), (D(1), True)]


@pytest.mark.parametrize(
    ("fate", "filled", "expected"),
    [
        (Fate.FILLED, "1", (1, 1)),
        (Fate.OPEN, "0.5", (1, 0)),
        (Fate.CANCELED, "0.5", (1, 0)),
        (Fate.CANCELED, "0", (0, 0)),
        (Fate.OPEN, "0", (0, 0)),
        (Fate.REJECTED, "0", (0, 0)),
    ],
)
async def test_a_sent_order_counts_what_it_filled_at_once(
    database: Database, fate: Fate, filled: str, expected: tuple[int, int]
) -> None:
    scope, instruments = Scope(desk="main", mode=Mode.PAPER), WorkerMetrics("main")
    venue: Venue = ReportingVenue(fate, filled)
    acting = ActActivities(scope, venue, database, running, instruments)
    order = make_order(side="SELL", reduce_only=True)
    report = await ActivityEnvironment().run(acting.place_order, OrderCall(scope=scope, order=order))
    assert report.fate is fate
    assert counted(instruments) == expected


def test_a_deleverage_is_sized_from_the_futures_position_and_never_from_spot() -> None:
    def held(market: Market, quantity: int) -> Position:
        return Position(symbol="BTCUSDT", quantity=D(quantity), entry_price=D(100), mark_price=D(100), market=market)

    both = an_observation(positions=[held(Market.SPOT, 8), held(Market.FUTURES, -2)])
    instruction = plan(both, "BTCUSDT", Decimal("0.5")).instruction
    assert instruction
    assert (instruction.side, instruction.quantity) == (Side.BUY, D(1))
    assert "no open position" in (plan(an_observation(positions=[held(Market.SPOT, 8)]), "BTCUSDT", D(1)).refusal or "")
