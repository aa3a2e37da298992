"""What every venue promises, whichever it is: the paper one on PostgreSQL, and Aster's behind its MCP server."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

import pytest

from activities.clearance import MOST_ASKS, ClockPair, FreshClearance, read_clocks
from activities.market.port import MarketSource
from activities.venues.aster.caller import Caller
from activities.venues.aster.market import AsterMarket
from activities.venues.aster.market_data import MarketData
from activities.venues.aster.rules import RuleBook
from activities.venues.aster.transports import session_for
from activities.venues.aster.venue import AsterVenue
from activities.venues.paper import PaperVenue
from activities.venues.port import StateTooOld, Venue, VenueError, VenueRefused
from domain.trading.instructions import Tool
from domain.trading.market import Market, Observation
from domain.trading.orders import Fate, OrderReport
from storage import paper
from storage.database import Database
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import PATIENT, Heard, make_venue, serving
from tests.venues.builders import TERMS, D, FixedFunding, WrittenMarket, make_order
from tests.venues.variants import THOROUGH

FUTURES, SPOT = Tool.CANCEL_ALL_ORDERS, Tool.CANCEL_SPOT_ALL_ORDERS
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
UNKNOWN_SYMBOL = "NEVERUSDT"


class Stopped:
    """A coordinator that answers in turn, and a worker that stands still after each of the first `times` answers."""

    def __init__(self, *answers: str | None, boot: float = 0.0, wall: float = 0.0, times: int = 1) -> None:
        self.too_old: list[StateTooOld] = []
        self.asked = 0
        self._answers = answers
        self._jump = ClockPair(boot, wall)
        self._ahead = ClockPair(0.0, 0.0)
        self._times = times

    def clearance(self) -> FreshClearance:
        return FreshClearance([self._answer], on_too_old=self.too_old.append, clocks=self._clocks)

    async def _answer(self) -> str | None:
        self.asked += 1
        if self.asked <= self._times:
            self._ahead = ClockPair(self._ahead.boot + self._jump.boot, self._ahead.wall + self._jump.wall)
        return self._answers[self.asked - 1]

    def _clocks(self) -> ClockPair:
        now = read_clocks()
        return ClockPair(now.boot + self._ahead.boot, now.wall + self._ahead.wall)


class Subject(Protocol):
    """A venue under test, and what the test itself may do behind its back."""

    venue: Venue
    desk: str

    async def rest(self, symbol: str, market: Market) -> None:
        """Puts an order there that waits."""

    async def executions(self) -> int:
        """How many orders were executed."""


class OnPaper:
    """The paper venue."""

    def __init__(self, database: Database, market: MarketSource | None = None) -> None:
        self.desk = f"desk-{uuid.uuid4().hex[:8]}"
        still = market or WrittenMarket({symbol: [100] * 20 for symbol in SYMBOLS})
        self.paper = PaperVenue(database, still, self.desk, balance=D(10_000), terms=TERMS, funding=FixedFunding())
        self.venue: Venue = self.paper
        self._database = database

    async def rest(self, symbol: str, market: Market) -> None:
        order = make_order(desk=self.desk, symbol=symbol, order_type="LIMIT", price="98", quantity="0.1")
        assert (await self.paper.create(order, market)).fate is Fate.OPEN

    async def executions(self) -> int:
        return len(await self._database.run(lambda connection: paper.list_fills(connection, self.desk)))


class AtAster:
    """Aster's venue, and the fake server behind it."""

    desk = "main"

    def __init__(self, venue: AsterVenue, fake: FakeServer) -> None:
        self.venue: Venue = venue
        self._fake = fake

    async def rest(self, symbol: str, market: Market) -> None:
        self._fake.exchange.rest(symbol, spot=market is Market.SPOT)

    async def executions(self) -> int:
        return sum(order.executed > 0 for order in self._fake.exchange.orders)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[tuple[FakeServer, str]]:
    fake = FakeServer()
    async with serving(fake) as base:
        yield fake, base


# The paper venue is one, whichever market is behind it: what has nothing to do with a market is proved on a written one.
@pytest.fixture(params=["paper", THOROUGH("paper on aster"), "aster"])
async def subject(
    request: pytest.FixtureRequest, database: Database, server: tuple[FakeServer, str]
) -> AsyncIterator[Subject]:
    if request.param == "paper":
        yield OnPaper(database)
        return
    fake, base = server
    fake.reset()
    if request.param == "paper on aster":
        fake.exchange.marks = dict.fromkeys(SYMBOLS, D(100))
        heard = Heard()
        caller = Caller(session_for(f"{base}/mcp", PATIENT), "", PATIENT, heard)
        rules = RuleBook(caller, public=True)
        market = AsterMarket(MarketData(caller, heard, "1m"), rules, timedelta(minutes=1), caller.close)
        on_paper = OnPaper(database, market)
        yield on_paper
        await on_paper.venue.close()
        return
    venue = make_venue(f"{base}/mcp")
    yield AtAster(venue, fake)
    await venue.close()


on_either_market = pytest.mark.parametrize("subject", ["paper", "paper on aster", "aster"], indirect=True)


async def observed(subject: Subject) -> Observation:
    return await subject.venue.observe(SYMBOLS, "cycle_1")


async def placed(subject: Subject, **changes: Any) -> OrderReport:
    return await subject.venue.create_order(make_order(desk=subject.desk, **changes))


async def held(subject: Subject, symbol: str = "BTCUSDT") -> Decimal:
    seen = await subject.venue.observe(SYMBOLS, None)
    return next((position.quantity for position in seen.positions if position.symbol == symbol), D(0))


async def refused(subject: Subject, **changes: Any) -> bool:
    """Whether an order was refused, as a report or as an error."""
    try:
        return (await placed(subject, **changes)).fate in (Fate.REJECTED, Fate.NOT_SENT)
    except VenueRefused:
        return True


async def test_it_says_how_long_a_lost_order_may_still_arrive(subject: Subject) -> None:
    assert subject.venue.settles_after.total_seconds() >= 2
    assert isinstance(subject.venue.counts_its_calls, bool)


@on_either_market
async def test_a_reading_prices_and_rules_the_symbols_it_knows_and_leaves_out_the_others(subject: Subject) -> None:
    seen = await subject.venue.observe([*SYMBOLS, UNKNOWN_SYMBOL], "cycle_1")
    assert sorted(seen.marks) == sorted(seen.rules) == SYMBOLS
    assert all(mark > 0 for mark in seen.marks.values())
    assert seen.rules["BTCUSDT"].lot_step == D("0.001")
    assert seen.data_time <= seen.observed_at
    assert (seen.positions, seen.open_orders, seen.latch) == ([], [], None)
    assert seen.account.nav > 0


@on_either_market
async def test_a_reading_is_repeated_by_a_retry_and_changes_nothing(subject: Subject) -> None:
    await observed(subject)
    await placed(subject)
    first, again = await asyncio.gather(observed(subject), observed(subject))
    read = await subject.venue.observe(SYMBOLS, None)
    assert first.positions == again.positions == read.positions
    assert first.account == again.account == read.account


@on_either_market
async def test_bars_come_oldest_first_and_none_for_an_unknown_symbol(subject: Subject) -> None:
    for number in range(3):
        await subject.venue.observe(SYMBOLS, f"cycle_{number}")
    views = await subject.venue.markets(["BTCUSDT", UNKNOWN_SYMBOL], 2)
    assert list(views) == ["BTCUSDT"]
    first, second = views["BTCUSDT"].bars
    assert first.open_time < second.open_time


@on_either_market
async def test_a_market_order_is_executed_once_and_the_position_shows_it(subject: Subject) -> None:
    await observed(subject)
    report = await placed(subject, quantity="0.5")
    assert (report.fate, report.filled_quantity) == (Fate.FILLED, D("0.5"))
    assert report.average_price
    assert await held(subject) == D("0.5")
    assert await subject.executions() == 1


async def test_an_order_that_is_sent_again_is_executed_once(subject: Subject) -> None:
    await observed(subject)
    order = make_order(desk=subject.desk, quantity="0.5")
    first = await subject.venue.create_order(order)
    again = await subject.venue.create_order(order)
    assert (first.fate, again.fate) == (Fate.FILLED, Fate.FILLED)
    assert (await subject.executions(), await held(subject)) == (1, D("0.5"))


async def test_what_became_of_an_order_can_be_asked(subject: Subject) -> None:
    await observed(subject)
    filled, resting = make_order(desk=subject.desk), make_order(desk=subject.desk, order_type="LIMIT", price="90")
    for order, fate in ((filled, Fate.FILLED), (resting, Fate.OPEN)):
        assert (await subject.venue.create_order(order)).fate is fate
        found = await subject.venue.find_order(order)
        assert found
        assert (found.order_id, found.fate) == (order.order_id, fate)


async def test_an_order_that_the_venue_never_saw_is_not_found(subject: Subject) -> None:
    await observed(subject)
    assert await subject.venue.find_order(make_order(desk=subject.desk)) is None


@pytest.mark.parametrize("reduce_only", [False, True])
async def test_no_order_begins_after_its_time(subject: Subject, reduce_only: bool) -> None:
    await observed(subject)
    await placed(subject)
    late = make_order(desk=subject.desk, side="SELL", reduce_only=reduce_only, seconds=-1)
    assert (await subject.venue.create_order(late)).fate is Fate.NOT_SENT
    assert await subject.executions() == 1
    assert await subject.venue.find_order(late) is None


async def test_the_coordinators_word_stops_an_order_in_the_last_moment(subject: Subject) -> None:
    await observed(subject)
    report = await subject.venue.create_order(
        make_order(desk=subject.desk), Stopped("the coordinator is killed").clearance()
    )
    assert (report.fate, report.detail) == (Fate.NOT_SENT, "the coordinator is killed")
    assert await subject.executions() == 0


@pytest.mark.parametrize("clock", [{"boot": 8.0}, {"wall": 8.0}, {"wall": -8.0}, {"boot": 0.6, "wall": 0.6}], ids=str)
async def test_an_answer_that_is_too_old_before_the_send_is_asked_for_again(subject: Subject, clock: Any) -> None:
    """Stopped between the answer and the send, as by SIGSTOP: by either clock."""
    await observed(subject)
    stopped = Stopped(None, "the coordinator is killed", **clock)
    report = await subject.venue.create_order(make_order(desk=subject.desk), stopped.clearance())
    assert (report.fate, report.detail) == (Fate.NOT_SENT, "the coordinator is killed")
    assert (len(stopped.too_old), await subject.executions()) == (1, 0)


async def test_what_was_stopped_once_and_may_still_go_out_goes_out_once(subject: Subject) -> None:
    await observed(subject)
    stopped = Stopped(None, None, boot=8.0, wall=8.0, times=1)
    assert (await subject.venue.create_order(make_order(desk=subject.desk), stopped.clearance())).fate is Fate.FILLED
    assert (len(stopped.too_old), stopped.asked, await subject.executions()) == (1, 2, 1)
    # Nothing of it stays: the same session, or the same pool, serves what comes next.
    await observed(subject)


async def test_a_worker_that_is_too_slow_each_time_sends_nothing_and_says_so(subject: Subject) -> None:
    await observed(subject)
    stopped = Stopped(*[None] * MOST_ASKS, boot=0.6, wall=0.6, times=MOST_ASKS)
    report = await subject.venue.create_order(make_order(desk=subject.desk), stopped.clearance())
    assert report.fate is Fate.NOT_SENT
    assert re.search(
        rf"answer was .*{MOST_ASKS} times in a row: the worker keeps being suspended, or is too slow", report.detail
    )
    assert (len(stopped.too_old), await subject.executions()) == (MOST_ASKS, 0)


async def test_what_takes_risk_off_has_no_word_that_grows_old(subject: Subject) -> None:
    await observed(subject)
    await placed(subject)
    closing = make_order(desk=subject.desk, side="SELL", reduce_only=True)
    assert (await subject.venue.create_order(closing, FreshClearance((), closing.not_after))).fate.reached_venue


@on_either_market
async def test_a_venue_tells_its_own_time(subject: Subject) -> None:
    await observed(subject)
    before = datetime.now(UTC) - timedelta(seconds=1)
    told = await subject.venue.time("BTCUSDT")
    assert told
    assert before < told < datetime.now(UTC) + timedelta(seconds=1)


@on_either_market
async def test_a_limit_order_waits_and_the_reading_lists_it(subject: Subject) -> None:
    await observed(subject)
    assert (await placed(subject, order_type="LIMIT", price="90", quantity="0.5")).fate is Fate.OPEN
    (order,) = (await subject.venue.observe(SYMBOLS, None)).open_orders
    assert (order.symbol, order.market, order.quantity, order.price) == ("BTCUSDT", Market.FUTURES, D("0.5"), D(90))
    assert (order.filled_quantity, order.reduce_only) == (D(0), False)


async def test_a_reduce_only_order_reduces_and_neither_opens_nor_turns(subject: Subject) -> None:
    await observed(subject)
    assert await refused(subject, side="SELL", reduce_only=True)
    await placed(subject, quantity="0.5")
    assert (await placed(subject, side="SELL", quantity="0.2", reduce_only=True)).fate is Fate.FILLED
    assert await held(subject) == D("0.3")
    await placed(subject, side="SELL", quantity="0.9", reduce_only=True)
    assert await held(subject) == 0


@pytest.mark.parametrize(
    "changes", [{"quantity": "0.0001"}, {"quantity": "0"}, {"symbol": UNKNOWN_SYMBOL}, {"quantity": "-1"}]
)
async def test_what_the_venue_cannot_take_is_refused_and_changes_nothing(
    subject: Subject, changes: dict[str, str]
) -> None:
    await observed(subject)
    assert await refused(subject, **changes)
    assert await subject.executions() == 0


@pytest.mark.parametrize(("tool", "market"), [(FUTURES, Market.FUTURES), (SPOT, Market.SPOT)])
async def test_cancel_all_leaves_nothing_open_of_its_symbol_and_market_and_touches_no_other(
    subject: Subject, tool: Tool, market: Market
) -> None:
    await observed(subject)
    for symbol in SYMBOLS:
        await subject.rest(symbol, Market.FUTURES)
        await subject.rest(symbol, Market.SPOT)
    await subject.venue.cancel_all(tool, "BTCUSDT")
    await subject.venue.cancel_all(tool, "BTCUSDT")
    left = {(order.symbol, order.market) for order in (await subject.venue.observe(SYMBOLS, None)).open_orders}
    everywhere = {(symbol, each.value) for symbol in SYMBOLS for each in Market}
    assert left == everywhere - {("BTCUSDT", market.value)}


async def test_the_cancel_of_one_order_leaves_the_others_and_may_be_repeated(subject: Subject) -> None:
    await observed(subject)
    first, second = make_order(order_type="LIMIT", price="90"), make_order(order_type="LIMIT", price="91")
    reports = [await subject.venue.create_order(order) for order in (first, second)]
    assert [report.fate for report in reports] == [Fate.OPEN, Fate.OPEN]
    for _ in range(2):
        await subject.venue.cancel_order("BTCUSDT", reports[0].venue_order_id or first.order_id)
    left = (await subject.venue.observe(SYMBOLS, None)).open_orders
    assert [order.order_id for order in left] == [reports[1].venue_order_id or second.order_id]


async def test_a_tool_that_does_not_cancel_is_refused(subject: Subject) -> None:
    with pytest.raises(VenueRefused):
        await subject.venue.cancel_all(Tool.CREATE_ORDER, "BTCUSDT")


def test_every_error_says_for_itself_whether_a_retry_helps() -> None:
    classes, seen = [VenueError], set()
    while classes:
        each = classes.pop()
        seen.add(each.__name__)
        assert "retryable" in vars(each), f"{each.__name__}: set retryable, the activities go by it"
        classes += each.__subclasses__()
    assert {"VenueUnavailable", "VenueRateLimited", "VenueRefused", "VenueMisconfigured", "HedgeMode"} <= seen
