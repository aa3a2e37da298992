"""No client order id, and a call that is given up still executes. Read, send once, read again."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from activities.clearance import FreshClearance
from activities.venues.aster.statements import PAGE_ROWS
from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueRefused
from domain.trading.orders import Fate, Order, OrderReport
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import make_venue
from tests.venues.builders import D, make_order
from tests.venues.variants import THOROUGH

LIMIT = {"order_type": "LIMIT", "price": "50000"}


async def found(venue: AsterVenue, order: Order) -> OrderReport:
    """Asks again, as the workflow does: on a busy machine one question may run out of its time."""
    for _ in range(5):
        if report := await venue.find_order(order):
            return report
    pytest.fail("it is not found")


async def filled_unseen_and_closed(fake: FakeServer, venue: AsterVenue) -> Order:
    """An order that filled, whose answer was lost, and what it bought is sold again: the position is what it was."""
    fake.faults.errors, fake.faults.executes = {"create_order": 503}, True
    order = make_order(quantity="0.5")
    assert (await venue.create_order(order)).fate is Fate.UNKNOWN
    fake.faults.errors, fake.faults.executes = {}, False
    assert (await venue.create_order(make_order(quantity="0.5", side="SELL", reduce_only=True))).fate is Fate.FILLED
    return order


def sends(fake: FakeServer) -> int:
    return fake.calls["create_order"]


async def test_a_call_that_is_given_up_is_unknown_and_what_fills_later_is_found(
    fake: FakeServer, hasty: AsterVenue
) -> None:
    await hasty.ping()
    fake.faults.held = {"create_order"}
    order = make_order(quantity="0.5")
    report = await hasty.create_order(order)
    assert (report.fate, report.position_before) == (Fate.UNKNOWN, D(0))
    assert await hasty.find_order(order) is None
    fake.faults.held = set()
    async with asyncio.timeout(180):
        while not fake.exchange.orders:
            await asyncio.sleep(0.01)
    later = await found(hasty, order)
    assert (later.fate, later.filled_quantity, sends(fake)) == (Fate.FILLED, D("0.5"), 1)


@pytest.mark.parametrize(
    ("status", "executes", "fate"),
    [
        (503, True, Fate.FILLED),
        (503, False, None),
        (429, True, Fate.FILLED),
        (0, False, None),
        # As a 503: `test_errors_differ_by_their_http_status_alone`.
        THOROUGH(500, True, Fate.FILLED),
        THOROUGH(500, False, None),
        THOROUGH(408, True, Fate.FILLED),
        THOROUGH(408, False, None),
        THOROUGH(429, False, None),
        THOROUGH(0, True, Fate.FILLED),
    ],
)
async def test_an_error_that_says_nothing_of_the_order_is_unknown_until_the_venue_is_asked(
    fake: FakeServer, venue: AsterVenue, address: str, status: int, executes: bool, fate: Fate | None
) -> None:
    fake.faults.errors, fake.faults.executes = {"create_order": status}, executes
    order = make_order(quantity="0.5")
    report = await venue.create_order(order)
    assert report.fate is Fate.UNKNOWN
    # Another process settles it, with nothing but what the order carries.
    other = make_venue(address)
    try:
        settled = await other.find_order(order.model_copy(update={"position_before": report.position_before}))
    finally:
        await other.close()
    assert (settled.fate if settled else None, sends(fake)) == (fate, 1)


async def test_an_equal_order_of_a_moment_ago_is_not_taken_for_this_one(
    fake: FakeServer, venue: AsterVenue, address: str
) -> None:
    assert (await venue.create_order(make_order(quantity="0.5"))).fate is Fate.FILLED
    fake.faults.errors = {"create_order": 503}
    order = make_order(quantity="0.5")
    report = await venue.create_order(order)
    assert report.fate is Fate.UNKNOWN
    assert await venue.find_order(order) is None
    other = make_venue(address)
    try:
        assert await other.find_order(order.model_copy(update={"position_before": D("0.5")})) is None
    finally:
        await other.close()


async def test_without_a_history_the_position_tells(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors, fake.faults.executes = {"create_order": 503, "get_all_orders": 400}, True
    order = make_order(quantity="0.5", side="SELL")
    assert (await venue.create_order(order)).fate is Fate.UNKNOWN
    report = await found(venue, order)
    assert (report.fate, report.filled_quantity) == (Fate.FILLED, D("0.5"))


async def test_without_history_and_without_an_earlier_position_nothing_is_guessed(
    fake: FakeServer, venue: AsterVenue
) -> None:
    fake.faults.errors = {"get_all_orders": 400}
    assert (await found(venue, make_order())).fate is Fate.UNKNOWN


async def test_a_part_that_filled_is_no_end_while_the_rest_may_still_fill(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors, fake.faults.executes = {"create_order": 503, "get_all_orders": 400}, True
    fake.exchange.habits.fills_at_most = "0.2"
    order = make_order(quantity="0.5")
    await venue.create_order(order)
    assert (await found(venue, order)).fate is Fate.UNKNOWN
    over = order.model_copy(update={"not_after": order.not_after - timedelta(seconds=100)})
    report = await found(venue, over)
    assert (report.fate, report.filled_quantity) == (Fate.CANCELED, D("0.2"))


async def test_a_part_that_filled_is_no_end_by_our_clock_alone(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors, fake.faults.executes = {"create_order": 503, "get_all_orders": 400}, True
    fake.exchange.habits.fills_at_most = "0.2"
    order = make_order(quantity="0.5")
    await venue.create_order(order)
    over = order.model_copy(update={"not_after": order.not_after - timedelta(seconds=100)})
    an_hour_ago = int((time.time() - 3600) * 1000)
    fake.faults.answers = {"get_order_book": {"E": an_hour_ago, "bids": [["1", "1"]], "asks": [["2", "1"]]}}
    assert (await found(venue, over)).fate is Fate.UNKNOWN
    fake.faults.answers = {}
    assert (await found(venue, over)).fate is Fate.CANCELED


async def test_a_position_that_moved_otherwise_leaves_it_unknown(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"create_order": 503, "get_all_orders": 400}
    order = make_order(quantity="0.5")
    await venue.create_order(order)
    fake.exchange.positions["BTCUSDT"] = D(-3)
    assert (await found(venue, order)).fate is Fate.UNKNOWN


async def test_a_refusal_is_one_once_nothing_has_changed(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"create_order": 400}
    with pytest.raises(VenueRefused, match="create_order BTCUSDT: HTTP 400"):
        await venue.create_order(make_order(quantity="0.5"))
    assert sends(fake) == 1


async def test_a_refusal_after_which_something_has_changed_is_unknown(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors, fake.faults.executes = {"create_order": 400}, True
    order = make_order(quantity="0.5")
    assert (await venue.create_order(order)).fate is Fate.UNKNOWN
    assert (await found(venue, order)).fate is Fate.FILLED


@pytest.mark.parametrize(
    ("changes", "habits", "fate", "filled"),
    [
        ({}, {}, Fate.FILLED, "0.5"),
        ({}, {"fills_after_seconds": 0.1}, Fate.FILLED, "0.5"),
        ({}, {"fills_at_most": "0.2"}, Fate.CANCELED, "0.2"),
        (LIMIT, {}, Fate.OPEN, "0"),
        (LIMIT | {"price": "60000"}, {"fills_at_most": "0.2"}, Fate.OPEN, "0.2"),
        (LIMIT | {"time_in_force": "IOC"}, {}, Fate.CANCELED, "0"),
        (LIMIT | {"time_in_force": "GTX", "price": "60000"}, {}, Fate.CANCELED, "0"),
        (LIMIT | {"time_in_force": "GTX"}, {}, Fate.OPEN, "0"),
    ],
)
async def test_the_exchanges_words_become_a_fate(
    fake: FakeServer, venue: AsterVenue, changes: dict[str, Any], habits: dict[str, Any], fate: Fate, filled: str
) -> None:
    vars(fake.exchange.habits).update(habits)
    report = await venue.create_order(make_order(quantity="0.5", **changes))
    assert (report.fate, report.filled_quantity, report.position_before) == (fate, D(filled), D(0))


@pytest.mark.parametrize("unreadable", [{}, {"status": "PONDERING", "orderId": 1}, {"status": "NEW"}])
async def test_an_answer_that_cannot_be_read_is_settled_by_asking(
    fake: FakeServer, venue: AsterVenue, unreadable: dict[str, Any]
) -> None:
    fake.faults.answers = {"create_order": unreadable}
    order = make_order(quantity="0.5")
    report = await venue.create_order(order)
    assert report.fate in (Fate.FILLED, Fate.UNKNOWN)
    assert ((await found(venue, order)).fate, sends(fake)) == (Fate.FILLED, 1)


@pytest.mark.parametrize("executed", ["-0.1", "0.6", "1E+30"])
async def test_an_order_is_never_filled_by_less_than_nothing_or_more_than_all(
    fake: FakeServer, venue: AsterVenue, executed: str
) -> None:
    fake.faults.answers = {"create_order": {"status": "FILLED", "orderId": 1000, "executedQty": executed}}
    report = await venue.create_order(make_order(quantity="0.5"))
    assert (report.fate, report.filled_quantity) == (Fate.UNKNOWN, D(0))


async def test_what_stops_an_order_before_its_send_is_reported_as_not_sent(fake: FakeServer, venue: AsterVenue) -> None:
    for tool in ("get_positions", "get_open_orders"):
        fake.faults.errors = {tool: 503}
        report = await venue.create_order(make_order(quantity="0.5"))
        assert (report.fate, report.detail) == (Fate.NOT_SENT, f"{tool} BTCUSDT: HTTP 503")
    assert sends(fake) == 0


async def test_an_order_whose_time_runs_out_while_the_position_is_read_is_not_sent(
    fake: FakeServer, venue: AsterVenue
) -> None:
    await venue.ping()
    fake.faults.slow = {"get_positions": 0.3}
    report = await venue.create_order(make_order(quantity="0.5", seconds=0.1))
    assert (report.fate, sends(fake)) == (Fate.NOT_SENT, 0)
    assert report.detail.startswith("too late")


async def test_a_second_attempt_asks_and_does_not_send(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"create_order": 503}
    order = make_order(quantity="0.5")
    reports = [await venue.create_order(order) for _ in range(3)]
    assert {report.fate for report in reports} == {Fate.UNKNOWN}
    assert sends(fake) == 1


async def test_attempts_at_the_same_time_send_once(fake: FakeServer, venue: AsterVenue) -> None:
    order = make_order(quantity="0.5")
    reports = await asyncio.gather(*(venue.create_order(order) for _ in range(5)))
    assert Fate.FILLED in {report.fate for report in reports}
    assert (sends(fake), fake.exchange.position("BTCUSDT")) == (1, D("0.5"))


async def test_whatever_takes_time_comes_before_the_question_whether_the_desk_still_runs(
    fake: FakeServer, venue: AsterVenue
) -> None:
    """A kill that is acknowledged while the position is read stops the order (I3)."""
    read: list[int] = []

    async def in_the_way() -> str | None:
        read.append(fake.calls["get_positions"] + fake.calls["get_all_orders"])
        return "the coordinator is killed"

    report = await venue.create_order(make_order(quantity="0.5"), FreshClearance([in_the_way]))
    assert (report.fate, report.detail, sends(fake)) == (Fate.NOT_SENT, "the coordinator is killed", 0)
    assert read == [2]


async def test_without_a_history_an_unmoved_position_does_not_prove_that_nothing_filled(
    fake: FakeServer, venue: AsterVenue
) -> None:
    """It filled, its answer was lost, and a reduction closed it: the position is what it was."""
    order = await filled_unseen_and_closed(fake, venue)
    fake.faults.errors = {"get_all_orders": 503}
    late = order.model_copy(update={"not_after": order.not_after - timedelta(seconds=100), "position_before": D(0)})
    report = await venue.find_order(late)
    assert report
    assert report.fate is Fate.UNKNOWN
    fake.faults.errors = {}
    assert (await found(venue, late)).fate is Fate.FILLED


async def test_nor_does_an_unmoved_position_to_a_worker_that_did_not_send_it(
    fake: FakeServer, venue: AsterVenue, address: str
) -> None:
    """Found to be false: the worker died, a reduction closed what had filled, and the next worker had never seen the order."""
    order = (await filled_unseen_and_closed(fake, venue)).model_copy(update={"position_before": D(0)})
    other = make_venue(address)
    try:
        report = await found(other, order)
    finally:
        await other.close()
    assert (report.fate, report.filled_quantity) == (Fate.FILLED, D("0.5"))


async def test_a_history_that_lists_only_its_newest_orders_does_not_prove_that_nothing_filled(
    fake: FakeServer, venue: AsterVenue
) -> None:
    """As above, and a thousand orders have been placed since."""
    order = await filled_unseen_and_closed(fake, venue)
    late = order.model_copy(update={"not_after": order.not_after - timedelta(seconds=100), "position_before": D(0)})
    now = int(time.time() * 1000)
    for number in range(PAGE_ROWS):
        fake.exchange.rest("BTCUSDT", status="CANCELED", time_ms=now + 300_000 + number)
    # The time in which the order can have arrived is read by itself.
    assert (await found(venue, late)).fate is Fate.FILLED
    # Unless that is more than is listed of one millisecond.
    for _ in range(PAGE_ROWS):
        fake.exchange.rest("BTCUSDT", status="CANCELED", time_ms=now)
    assert (await found(venue, late)).fate is Fate.UNKNOWN


async def test_an_order_of_last_month_is_settled_too(fake: FakeServer, venue: AsterVenue) -> None:
    """Found to be false: the exchange lists no more than a week of orders, and so it was unknown for ever."""
    ago = timedelta(days=30)
    order = make_order(quantity="0.5", order_type="LIMIT", price="50000")
    order = order.model_copy(
        update={"prepared_at": order.prepared_at - ago, "not_after": order.not_after - ago, "position_before": D(0)}
    )
    assert await venue.find_order(order) is None
    placed = int((time.time() - ago.total_seconds()) * 1000)
    fake.exchange.rest("BTCUSDT", quantity=D("0.5"), price=D("50000"), time_ms=placed, status="CANCELED")
    assert (await found(venue, order)).fate is Fate.CANCELED


async def test_orders_that_a_full_page_does_not_list_are_not_new(fake: FakeServer, venue: AsterVenue) -> None:
    equal = fake.exchange.rest("BTCUSDT", quantity=D("0.5"), price=D("50000"), time_ms=int(time.time() * 1000) - 9_000)
    equal.status = "CANCELED"
    for _ in range(PAGE_ROWS):
        fake.exchange.rest("BTCUSDT", status="CANCELED")
    fake.faults.errors = {"create_order": 503}
    order = make_order(quantity="0.5", order_type="LIMIT", price="50000")
    assert (await venue.create_order(order)).fate is Fate.UNKNOWN
    # A busy machine may give a reading of so many rows up, which tells nothing.
    while (report := await venue.find_order(order)) is not None:
        assert report.fate is Fate.UNKNOWN


async def test_another_order_of_the_desk_that_rested_is_never_taken_for_one_that_was_lost(
    fake: FakeServer, venue: AsterVenue
) -> None:
    """It looks alike, and moves the position by just as much. The one that was lost may still arrive."""
    lost = make_order(quantity="0.5", order_type="LIMIT", price="50000")
    quote = fake.exchange.rest("BTCUSDT", quantity=D("0.5"), price=D("50000"))
    fake.exchange._fill(quote, D("0.5"), D("50000"))
    alone = lost.model_copy(update={"position_before": D(0)})
    assert (await found(venue, alone)).fate is Fate.FILLED
    beside = alone.model_copy(update={"others": [str(quote.order_id)]})
    assert await venue.find_order(beside) is None
    # Nor does the position tell of a market order that no list shows.
    market = make_order(quantity="0.5").model_copy(update={"position_before": D(0), "others": [str(quote.order_id)]})
    assert await venue.find_order(market) is None
    fake.faults.errors = {"get_all_orders": 503}
    assert (await found(venue, market)).fate is Fate.UNKNOWN


async def test_of_a_limit_order_the_position_tells_nothing(fake: FakeServer, venue: AsterVenue) -> None:
    """It moves whenever an order fills that rested before. This one is found by its own row, however much else was filled."""
    order = make_order(quantity="0.5", order_type="LIMIT", price="50000").model_copy(update={"position_before": D(0)})
    fake.exchange.positions["BTCUSDT"] = D("0.5")
    assert await venue.find_order(order) is None
    mine = fake.exchange.rest("BTCUSDT", quantity=D("0.5"), price=D("50000"))
    fake.exchange._fill(mine, D("0.5"), D("50000"))
    assert (await found(venue, order)).fate is Fate.FILLED


SKEW_MS = 15_000


def an_exchange_whose_clock_is_behind(fake: FakeServer) -> None:
    """All that it has dated so far, and its clock: less than a cycle, so the desk trades on."""
    for row in fake.exchange.orders:
        row.time_ms -= SKEW_MS
    told = int(time.time() * 1000) - SKEW_MS
    fake.faults.answers = {"get_order_book": {"E": told, "bids": [["1", "1"]], "asks": [["2", "1"]]}}


@pytest.mark.parametrize("same_process", [True, False])
async def test_an_order_that_rests_is_found_though_the_exchanges_clock_is_behind(
    fake: FakeServer, venue: AsterVenue, address: str, same_process: bool
) -> None:
    # Found to be false: it rested at the exchange, and counted as one that the venue has never seen.
    fake.faults.errors, fake.faults.executes = {"create_order": 503}, True
    order = make_order(quantity="0.5", order_type="LIMIT", price="50000")
    assert (await venue.create_order(order)).fate is Fate.UNKNOWN
    an_exchange_whose_clock_is_behind(fake)
    other = make_venue(address)
    try:
        report = await found(venue if same_process else other, order.model_copy(update={"position_before": D(0)}))
    finally:
        await other.close()
    assert (report.fate, sends(fake)) == (Fate.OPEN, 1)


@pytest.mark.parametrize("same_process", [True, False])
async def test_nor_is_an_equal_order_of_a_moment_ago_taken_for_it_then(
    fake: FakeServer, venue: AsterVenue, address: str, same_process: bool
) -> None:
    fake.exchange.rest("BTCUSDT", quantity=D("0.5"), price=D("50000"), time_ms=int(time.time() * 1000) - 5_000)
    an_exchange_whose_clock_is_behind(fake)
    fake.faults.errors = {"create_order": 503}
    order = make_order(quantity="0.5", order_type="LIMIT", price="50000")
    assert (await venue.create_order(order)).fate is Fate.UNKNOWN
    other = make_venue(address)
    try:
        settled = await (venue if same_process else other).find_order(
            order.model_copy(update={"position_before": D(0)})
        )
    finally:
        await other.close()
    assert settled is None


async def test_without_the_exchanges_clock_no_list_proves_that_it_never_came(
    fake: FakeServer, venue: AsterVenue
) -> None:
    fake.faults.errors = {"create_order": 503, "get_order_book": 503}
    order = make_order(quantity="0.5", order_type="LIMIT", price="50000")
    assert (await venue.create_order(order)).fate is Fate.UNKNOWN
    assert (await found(venue, order)).fate is Fate.UNKNOWN
    fake.faults.errors = {"create_order": 503}
    assert await venue.find_order(order) is None


@pytest.mark.parametrize("gone", [400, None])
async def test_a_symbol_whose_book_is_gone_leaves_no_fate_open(
    fake: FakeServer, venue: AsterVenue, gone: int | None
) -> None:
    """Found to be false: the exchange's clock was asked of that symbol alone, and without it nothing is settled."""
    await venue.observe(["ETHUSDT"], None)
    fake.faults.errors = {"create_order": 503}
    order = make_order(quantity="0.5", order_type="LIMIT", price="50000")
    assert (await venue.create_order(order)).fate is Fate.UNKNOWN
    if gone:
        fake.faults.change(errors={"get_order_book": gone}, symbols=["BTCUSDT"])
    else:
        fake.faults.answers = {"get_order_book": {"bids": [], "asks": []}}
        fake.faults.answers_left = {"get_order_book": 1}
    assert await venue.find_order(order) is None
