"""Nothing is a fact because one reading says so: what is empty, short or gone is held against a second source."""

from collections.abc import Sequence
from typing import Any

import pytest

from activities.venues.aster import account
from activities.venues.aster.statements import PAGE_ROWS
from activities.venues.aster.venue import AsterVenue
from activities.venues.port import HedgeMode, VenueError, VenueUnavailable
from domain.trading.instructions import Tool
from domain.trading.market import NOTHING_KNOWN, Known, Market, Observation, RestingOrder
from domain.trading.orders import Fate
from tests.venues.aster.exchange import FakeOrder
from tests.venues.aster.fake_server import FakeServer
from tests.venues.builders import D, make_order
from tests.venues.variants import THOROUGH

BTC, ETH = "BTCUSDT", "ETHUSDT"
HELD = Known(held={BTC: D("0.123"), ETH: D("-2.5")})
LIST_OF_ORDERS = {Market.FUTURES: "get_open_orders", Market.SPOT: "get_spot_open_orders"}
both_markets = pytest.mark.parametrize("market", [Market.FUTURES, Market.SPOT])


@pytest.fixture
def venue(direct: AsterVenue) -> AsterVenue:
    """What it makes of answers, whatever they travel over."""
    return direct


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks again follow at once."""
    monkeypatch.setattr(account, "LOOKS_AGAIN_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(account, "SECOND_LOOK_SECONDS", 0.0)
    # A busy machine is no slow exchange.
    monkeypatch.setattr(account, "CONFIRM_SECONDS", 3.0)


@pytest.fixture
def clock(venue: AsterVenue) -> Time:
    time = Time()
    venue._account._clock = time
    return time


def holds(fake: FakeServer) -> None:
    fake.exchange.positions |= HELD.held


async def read(venue: AsterVenue, known: Known = NOTHING_KNOWN) -> Observation:
    return await venue.observe([BTC, ETH], None, known)


def held(seen: Observation) -> dict[str, Any]:
    return {position.symbol: position.quantity for position in seen.positions}


def rested(*orders: FakeOrder, market: Market = Market.FUTURES, **more: Any) -> Known:
    resting = [RestingOrder(market=market, symbol=o.symbol, order_id=str(o.order_id)) for o in orders]
    return Known(resting=resting, **more)


# --- positions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [[], "shorter"])
async def test_one_answer_without_a_position_is_read_again_and_the_position_is_there(
    fake: FakeServer, venue: AsterVenue, answer: Any
) -> None:
    """What the official server makes of `{}` or `null`, once."""
    holds(fake)
    shorter = [row for row in fake.exchange.position_rows(None) if row["symbol"] != BTC]
    fake.faults.change(
        answers={"get_positions": shorter if answer == "shorter" else answer}, answers_left={"get_positions": 1}
    )
    seen = await read(venue)
    assert (held(seen), seen.doubts) == (HELD.held, [])


@pytest.mark.parametrize("known", [NOTHING_KNOWN, HELD])
async def test_an_empty_list_against_an_account_that_lists_positions_is_no_fact(
    fake: FakeServer, venue: AsterVenue, known: Known
) -> None:
    holds(fake)
    fake.faults.answers = {"get_positions": []}
    seen = await read(venue, known)
    assert held(seen) == HELD.held
    assert seen.doubts == [
        f"{BTC}: get_positions says 0, get_account_v4 0.123",
        f"{ETH}: get_positions says 0, get_account_v4 -2.5",
    ]


async def test_an_account_without_positions_against_a_list_of_them_is_no_fact(
    fake: FakeServer, venue: AsterVenue
) -> None:
    holds(fake)
    fake.faults.answers = {"get_account_v4": fake.exchange.account_row() | {"positions": []}}
    seen = await read(venue)
    assert (held(seen), len(seen.doubts)) == (HELD.held, 2)


@pytest.mark.parametrize("tool", ["get_spot_open_orders", "get_open_orders", "get_account_v4", "get_positions"])
async def test_a_source_that_does_not_answer_keeps_no_kill_from_closing_what_the_others_show(
    fake: FakeServer, venue: AsterVenue, tool: str
) -> None:
    """While spot was away, a kill that flattens closed no futures position: every reading of the account failed."""
    holds(fake)
    fake.faults.errors = {tool: 503}
    seen = await read(venue, Known(flattens=True, balance=D(9)))
    assert (held(seen), seen.doubts) == (HELD.held, [f"{tool}: HTTP 503"])
    for known in (NOTHING_KNOWN, Known(verifies=True)):
        with pytest.raises(VenueUnavailable, match=tool):
            await read(venue, known)


@pytest.mark.parametrize("order_id", ["abc", "1e3", "12.0", "-7", "9" * 5_000])
async def test_an_order_whose_id_no_tool_takes_is_unreadable(
    fake: FakeServer, venue: AsterVenue, order_id: str
) -> None:
    """It was read, and carried: once it was gone, each reading ended with a ValueError when its status was asked for."""
    rows = [fake.exchange.rest(BTC).row() | {"orderId": order_id}]
    fake.faults.answers = {"get_open_orders": rows}
    with pytest.raises(VenueUnavailable, match="orderId is not a whole number"):
        await read(venue)


async def test_a_position_without_a_price_keeps_no_kill_from_closing_others(
    fake: FakeServer, venue: AsterVenue
) -> None:
    fake.exchange.positions |= HELD.held | {"DOGEUSDT": D(100)}
    rows = fake.exchange.position_rows(None)
    unpriced = [row | {"markPrice": "0"} if row["symbol"] == "DOGEUSDT" else row for row in rows]
    fake.faults.change(answers={"get_positions": unpriced}, errors={"get_ticker": 503})
    seen = await read(venue, Known(flattens=True))
    assert held(seen) == HELD.held | {"DOGEUSDT": D(100)}
    assert seen.doubts == ["DOGEUSDT is held and has no price"]
    with pytest.raises(VenueUnavailable, match="DOGEUSDT is held and has no price"):
        await read(venue)


async def test_without_any_source_of_positions_no_reading_is_made(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = dict.fromkeys(("get_positions", "get_account_v4"), 503)
    with pytest.raises(VenueUnavailable, match="get_positions: HTTP 503"):
        await read(venue, Known(flattens=True))
    fake.faults.errors, fake.exchange.habits.hedge = {"get_account_v4": 503}, True
    with pytest.raises(HedgeMode):
        await read(venue, Known(flattens=True))


async def test_of_two_quantities_the_smaller_one_can_be_closed(fake: FakeServer, venue: AsterVenue) -> None:
    rows = fake.exchange.position_rows(None)
    holds(fake)
    rows[0]["positionAmt"] = "9"
    fake.faults.answers = {"get_positions": rows}
    seen = await read(venue)
    assert held(seen) == HELD.held
    assert f"{BTC}: get_positions says 9, get_account_v4 0.123" in seen.doubts


async def test_an_account_that_is_empty_or_half_is_no_reading(fake: FakeServer, venue: AsterVenue) -> None:
    holds(fake)
    row = fake.exchange.account_row()
    half = [{key: value for key, value in row.items() if key != left} for left in ("positions", "totalMarginBalance")]
    answers: Sequence[Any] = ({}, None, [], *half)
    for answer in answers:
        fake.faults.answers = {"get_account_v4": answer}
        with pytest.raises(VenueUnavailable):
            await read(venue)


async def test_what_a_person_closed_by_hand_is_a_fact_at_once(fake: FakeServer, venue: AsterVenue) -> None:
    seen = await read(venue, HELD)
    assert (held(seen), seen.doubts) == ({}, [])
    assert fake.calls["get_positions"] == 1


async def test_it_is_a_fact_a_little_later_where_the_exchange_lists_nothing_that_is_zero(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    fake.exchange.habits.lists_held_only = True
    for moment, gone in ((0, False), (1.9, False), (2, True)):
        clock.now = moment
        seen = await read(venue, HELD)
        assert (held(seen), bool(seen.doubts)) == ({} if gone else HELD.held, not gone)
    # One that came back in between begins anew.
    clock.now = 10
    await read(venue, HELD)
    holds(fake)
    assert (await read(venue, HELD)).doubts == []
    fake.exchange.positions.clear()
    clock.now = 20
    assert (await read(venue, HELD)).doubts


async def test_margin_that_is_set_aside_for_positions_contradicts_two_empty_lists(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    """Two endpoints of one source may lose the same at once, and for longer than anything is waited for."""
    holds(fake)
    fake.faults.answers = {"get_positions": [], "get_account_v4": fake.exchange.account_row() | {"positions": []}}
    for clock.now in (0, 60):
        seen = await read(venue, HELD)
        assert "no position is listed, though get_account_v4 has margin set aside for positions" in seen.doubts
    fake.faults.answers = {}
    fake.exchange.positions.clear()
    assert (await read(venue, HELD)).doubts == []


async def test_a_position_that_every_list_leaves_out_is_asked_for_by_itself(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    holds(fake)
    nothing = {"positions": [], "totalPositionInitialMargin": "0"}
    answers = {"get_positions": [], "get_account_v4": fake.exchange.account_row() | nothing}
    fake.faults.change(answers=answers, of_all=True)
    for clock.now in (0.0, 100.0):
        seen = await read(venue, HELD)
        assert (held(seen), len(seen.doubts)) == (HELD.held, 2)
        assert "when asked for it alone" in seen.doubts[0]
    fake.exchange.positions.clear()
    assert (await read(venue, HELD)).doubts == []


async def test_a_position_is_not_gone_because_nobody_answers_when_asked_for_it_alone(
    fake: FakeServer, venue: AsterVenue, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Found to be false: two empty lists and a question that failed made a desk flat after two seconds.
    fake.exchange.habits.lists_held_only = True
    fake.faults.change(errors={"get_positions": 503}, symbols=[BTC])
    for clock.now in (0.0, 100.0):
        seen = await read(venue, HELD)
        assert BTC in held(seen)
        assert f"{BTC}: held before, and get_positions {BTC}: HTTP 503" in seen.doubts
    # Nor because too many were missing to be asked for in one reading.
    fake.faults.errors = {}
    await read(venue)
    monkeypatch.setattr(account, "MOST_POSITIONS_ASKED", 0)
    assert set(held(await read(venue, HELD))) == set(HELD.held)
    monkeypatch.undo()
    clock.now = 103
    assert held(await read(venue, HELD)) == {}
    await read(venue)
    # A symbol that the exchange does not know any more is not held.
    fake.faults.change(errors={"get_positions": 400}, symbols=[BTC])
    for clock.now, gone in ((200.0, False), (203.0, True)):
        assert (held(await read(venue, HELD)) == {}) is gone


async def test_however_few_are_asked_for_at_once_all_that_are_gone_become_a_fact(
    fake: FakeServer, venue: AsterVenue, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.exchange.habits.lists_held_only = True
    monkeypatch.setattr(account, "MOST_POSITIONS_ASKED", 1)
    doubts = []
    for clock.now in (0.0, 1.0, 2.0, 3.0):
        doubts.append(bool((await read(venue, HELD)).doubts))
    assert doubts == [True, True, False, False]


async def test_that_a_position_was_missing_long_ago_does_not_make_it_gone_the_next_time(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    fake.exchange.habits.lists_held_only = True
    assert (await read(venue, HELD)).doubts
    clock.now = 100
    # Held by nobody's knowledge; another worker reads that it is.
    assert (await read(venue)).doubts == []
    clock.now = 200
    assert (await read(venue, HELD)).doubts


async def test_an_account_in_hedge_mode_is_seen_in_either_answer(fake: FakeServer, venue: AsterVenue) -> None:
    fake.exchange.habits.hedge = True
    fake.faults.answers = {"get_positions": []}
    with pytest.raises(HedgeMode):
        await read(venue)


async def test_a_symbol_that_is_listed_twice_cannot_be_read(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.answers = {"get_positions": fake.exchange.position_rows(None) * 2}
    with pytest.raises(VenueUnavailable, match="listed twice"):
        await read(venue)


async def test_an_order_is_sized_and_settled_by_a_row_and_not_by_its_absence(
    fake: FakeServer, venue: AsterVenue
) -> None:
    holds(fake)
    fake.faults.answers = {"get_positions": []}
    report = await venue.create_order(make_order(quantity="0.1"))
    assert report.position_before == D("0.123")
    fake.faults.change(answers={"get_positions": []}, errors={"get_account_v4": 503})
    report = await venue.create_order(make_order(quantity="0.1"))
    assert (report.fate, report.detail) == (Fate.NOT_SENT, "get_account_v4: HTTP 503")


# --- open orders ----------------------------------------------------------------------------------------------------------


@both_markets
async def test_an_order_that_a_list_leaves_out_is_asked_for_by_its_id(
    fake: FakeServer, venue: AsterVenue, market: Market
) -> None:
    order = fake.exchange.rest(BTC, spot=market is Market.SPOT, reduce_only=True)
    fake.faults.answers = {LIST_OF_ORDERS[market]: []}
    seen = await read(venue, rested(order, market=market))
    assert [o.order_id for o in seen.open_orders] == [str(order.order_id)]
    assert seen.doubts == [f"order {order.order_id} of {BTC}: open, and {LIST_OF_ORDERS[market]} does not list it"]


@pytest.mark.parametrize("executed", ["-1", "1.001", "1E+30"])
async def test_an_open_order_filled_by_more_than_it_has_is_no_reading(
    fake: FakeServer, venue: AsterVenue, executed: str
) -> None:
    """Its rest would be less than nothing, and what the guards count would be too small."""
    fake.faults.answers = {"get_open_orders": [fake.exchange.rest(BTC).row() | {"executedQty": executed}]}
    with pytest.raises(VenueUnavailable, match=r"executedQty is .* of 1"):
        await read(venue)


async def test_orders_of_two_symbols_with_one_id_are_two(fake: FakeServer, venue: AsterVenue) -> None:
    """Found to be false: an exchange may number the orders of each symbol by itself."""
    one = fake.exchange.rest(BTC)
    other = fake.exchange.rest(ETH)
    other.order_id = one.order_id
    assert sorted(order.symbol for order in (await read(venue)).open_orders) == [BTC, ETH]


@both_markets
async def test_one_that_was_canceled_or_filled_is_gone_at_once_and_asked_for_once(
    fake: FakeServer, venue: AsterVenue, market: Market
) -> None:
    order = fake.exchange.rest(BTC, spot=market is Market.SPOT)
    order.status = "CANCELED"
    for _ in range(2):
        seen = await read(venue, rested(order, market=market))
        assert (seen.open_orders, seen.doubts) == ([], [])
    assert fake.calls["get_order"] + fake.calls["get_spot_order"] == 1


async def test_one_of_which_nobody_tells_is_a_doubt_and_one_that_nobody_knows_is_gone(
    fake: FakeServer, venue: AsterVenue
) -> None:
    order = fake.exchange.rest(BTC, reduce_only=True)
    fake.faults.change(answers={"get_open_orders": []}, errors={"get_order": 503})
    assert (await read(venue, rested(order))).doubts == ["get_order BTCUSDT: HTTP 503"]
    fake.faults.change(answers={"get_open_orders": [], "get_order": {"orderId": 5, "status": "FILLED"}}, errors={})
    assert "about another order" in (await read(venue, rested(order))).doubts[0]
    # Canceled a week after it was made: the exchange answers 400 from then on.
    fake.faults.change(answers={"get_open_orders": []}, errors={"get_order": 400})
    assert (await read(venue, rested(order))).doubts == []


@pytest.mark.parametrize("status", [THOROUGH(401), 403, THOROUGH(404)])
async def test_a_status_that_may_not_be_read_does_not_end_an_order(
    fake: FakeServer, venue: AsterVenue, status: int
) -> None:
    # Found to be false: a firewall's 403 counted as an order that the exchange does not know.
    order = fake.exchange.rest(BTC, reduce_only=True)
    fake.faults.change(answers={"get_open_orders": []}, errors={"get_order": status, "cancel_order": 503})
    assert f"HTTP {status}" in (await read(venue, rested(order, verifies=True))).doubts[0]
    with pytest.raises(VenueError, match=f"get_order {BTC}: HTTP {status}"):
        await venue.cancel_order(BTC, str(order.order_id))


async def test_margin_that_is_set_aside_for_orders_contradicts_an_empty_list(
    fake: FakeServer, venue: AsterVenue
) -> None:
    fake.exchange.rest(BTC)
    fake.faults.answers = {"get_open_orders": []}
    (doubt,) = (await read(venue)).doubts
    assert doubt == "get_open_orders lists none, though get_account_v4 has margin set aside for open orders"
    fake.faults.change(answers={"get_open_orders": []}, answers_left={"get_open_orders": 1})
    seen = await read(venue)
    assert (len(seen.open_orders), seen.doubts) == (1, [])


@both_markets
async def test_a_kill_is_verified_by_two_lists_without_an_order(
    fake: FakeServer, venue: AsterVenue, market: Market
) -> None:
    # A reduce-only order sets no margin aside, and nobody has seen it before.
    order = fake.exchange.rest(BTC, spot=market is Market.SPOT, reduce_only=True)
    for known, shown in ((NOTHING_KNOWN, 0), (Known(verifies=True), 1), (Known(flattens=True), 1)):
        fake.faults.change(answers={LIST_OF_ORDERS[market]: []}, answers_left={LIST_OF_ORDERS[market]: 1})
        assert len((await read(venue, known)).open_orders) == shown
    order.status = "CANCELED"
    fake.faults.change(answers={})
    assert (await read(venue, Known(verifies=True))).doubts == []


async def test_a_kill_that_closes_positions_reads_the_list_twice_only_where_none_is_left(
    fake: FakeServer, venue: AsterVenue
) -> None:
    holds(fake)
    await read(venue, Known(flattens=True))
    assert fake.calls["get_open_orders"] == 1
    fake.exchange.positions.clear()
    await read(venue, Known(flattens=True))
    assert fake.calls["get_open_orders"] == 3


async def test_a_spot_balance_that_is_locked_contradicts_an_empty_list(fake: FakeServer, venue: AsterVenue) -> None:
    fake.exchange.rest(BTC, spot=True)
    fake.faults.answers = {"get_spot_open_orders": []}
    (doubt,) = (await read(venue, Known(verifies=True))).doubts
    assert doubt == "get_spot_open_orders lists none, though USDT is locked"
    row = fake.exchange.spot_row()
    fake.faults.answers |= {"get_spot_account": row | {"balances": [{"asset": "NEW"}, *row["balances"]]}}
    assert (await read(venue, Known(verifies=True))).doubts == [doubt]
    # Where the venue has no such answer, the list itself was still read twice.
    fake.faults.errors = {"get_spot_account": 404}
    assert (await read(venue, Known(verifies=True))).doubts == []


CANCELS = {
    Tool.CANCEL_ALL_ORDERS: ("get_open_orders", "get_all_orders"),
    Tool.CANCEL_SPOT_ALL_ORDERS: ("get_spot_open_orders", "get_spot_all_orders"),
}
both_cancels = pytest.mark.parametrize("tool", CANCELS)


@both_cancels
@pytest.mark.parametrize(
    "answer", [{}, None, THOROUGH([]), THOROUGH({"code": 500, "msg": "busy"}), {"code": -1, "msg": "x"}]
)
async def test_a_cancel_that_does_not_say_it_is_done_is_confirmed_by_the_history_too(
    fake: FakeServer, venue: AsterVenue, tool: Tool, answer: Any
) -> None:
    listed, history = CANCELS[tool]
    order = fake.exchange.rest(BTC, spot=tool is Tool.CANCEL_SPOT_ALL_ORDERS)
    fake.exchange.habits.ignores_cancels = True
    fake.faults.answers = {tool.value: answer, listed: []}
    with pytest.raises(VenueUnavailable, match="1 order is still open"):
        await venue.cancel_all(tool, BTC)
    fake.faults.errors = {history: 503}
    with pytest.raises(VenueUnavailable, match=f"{history} {BTC}: HTTP 503"):
        await venue.cancel_all(tool, BTC)
    fake.faults.errors, order.status = {}, "CANCELED"
    await venue.cancel_all(tool, BTC)


@both_cancels
async def test_a_cancel_that_failed_is_not_confirmed_by_one_empty_list(
    fake: FakeServer, venue: AsterVenue, tool: Tool
) -> None:
    fake.exchange.rest(BTC, spot=tool is Tool.CANCEL_SPOT_ALL_ORDERS)
    fake.faults.change(answers={CANCELS[tool][0]: []}, errors={tool.value: 503})
    with pytest.raises(VenueUnavailable, match=f"1 order is still open \\({tool.value} {BTC}: HTTP 503\\)"):
        await venue.cancel_all(tool, BTC)


@both_cancels
@pytest.mark.parametrize("status", [400, 403, THOROUGH(404)])
async def test_a_history_that_is_refused_confirms_no_cancel_on_a_market_that_has_the_symbol(
    fake: FakeServer, venue: AsterVenue, tool: Tool, status: int
) -> None:
    listed, history = CANCELS[tool]
    fake.exchange.rest(BTC, spot=tool is Tool.CANCEL_SPOT_ALL_ORDERS)
    fake.faults.change(answers={listed: []}, errors={tool.value: 503, history: status})
    with pytest.raises(VenueError, match=f"{history} {BTC}: HTTP {status}"):
        await venue.cancel_all(tool, BTC)


@both_cancels
async def test_a_cancel_without_an_answer_is_not_confirmed_by_two_empty_lists(
    fake: FakeServer, venue: AsterVenue, tool: Tool
) -> None:
    """One bad moment of the exchange empties both."""
    order = fake.exchange.rest(BTC, spot=tool is Tool.CANCEL_SPOT_ALL_ORDERS)
    fake.faults.change(answers={name: [] for name in CANCELS[tool]}, errors={tool.value: 503})
    with pytest.raises(VenueUnavailable, match=f"{tool.value} {BTC}: HTTP 503, and {CANCELS[tool][1]} lists nothing"):
        await venue.cancel_all(tool, BTC)
    # One that the exchange refused was none of its bad moments: it may have nothing to cancel.
    order.status = "CANCELED"
    fake.faults.errors = {tool.value: 400}
    await venue.cancel_all(tool, BTC)


@both_cancels
async def test_a_history_of_which_only_the_newest_rows_are_listed_confirms_no_cancel(
    fake: FakeServer, venue: AsterVenue, tool: Tool
) -> None:
    """The order that is open may be older than all of them."""
    spot, (listed, _) = tool is Tool.CANCEL_SPOT_ALL_ORDERS, CANCELS[tool]
    fake.exchange.rest(BTC, spot=spot)
    for _ in range(PAGE_ROWS):
        fake.exchange.rest(BTC, spot=spot, status="CANCELED")
    fake.faults.change(answers={listed: []}, errors={tool.value: 503})
    with pytest.raises(VenueUnavailable, match="may be truncated"):
        await venue.cancel_all(tool, BTC)
    fake.faults.change(answers={}, errors={})
    await venue.cancel_all(tool, BTC)


@both_cancels
async def test_a_cancel_that_is_always_refused_is_confirmed_however_many_orders_there_were(
    fake: FakeServer, venue: AsterVenue, tool: Tool
) -> None:
    """A market that is being closed, or one that refuses to cancel nothing: no kill ever ended on a symbol of many orders."""
    spot, (listed, _) = tool is Tool.CANCEL_SPOT_ALL_ORDERS, CANCELS[tool]
    open_one = fake.exchange.rest(BTC, spot=spot)
    for _ in range(PAGE_ROWS):
        fake.exchange.rest(BTC, spot=spot, status="CANCELED")
    fake.faults.change(answers={listed: []}, answers_left={listed: 1}, errors={tool.value: 400})
    with pytest.raises(VenueUnavailable, match="1 order is still open"):
        await venue.cancel_all(tool, BTC)
    open_one.status = "CANCELED"
    fake.faults.change(answers={}, errors={tool.value: 400})
    await venue.cancel_all(tool, BTC)


# --- the account ----------------------------------------------------------------------------------------------------------


async def test_a_balance_that_jumps_is_a_fact_if_a_second_endpoint_confirms_it(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    known = Known(balance=D("10000.5"))
    true, wrong = fake.exchange.account_row(), fake.exchange.account_row()
    wrong |= {"totalWalletBalance": "90000", "totalMarginBalance": "89987.65"}
    fake.faults.answers = {"get_account_v4": wrong}
    (doubt,) = (await read(venue, known)).doubts
    assert doubt.endswith("and get_account_info says 10000.50000000") or "get_account_info says 10000.5" in doubt
    fake.faults.answers = {"get_account_v4": wrong, "get_account_info": wrong}
    assert (await read(venue, known)).doubts == []
    # Where there is no second endpoint, the same has to be read for a while.
    fake.faults.change(answers={"get_account_v4": wrong}, errors={"get_account_info": 404})
    for clock.now, doubted in ((0.0, True), (1.0, True), (2.5, False)):
        assert bool((await read(venue, known)).doubts) is doubted
    fake.faults.answers = {"get_account_v4": true}
    assert (await read(venue, known)).doubts == []


@pytest.mark.parametrize(
    "changes",
    [
        {"totalMarginBalance": "0"},
        {"totalUnrealizedProfit": "5000"},
        {"positions": [{"symbol": BTC, "positionAmt": "1", "unrealizedProfit": "-4000"}]},
    ],
)
async def test_an_account_that_contradicts_itself_cannot_be_read(
    fake: FakeServer, venue: AsterVenue, changes: dict[str, Any]
) -> None:
    fake.faults.answers = {"get_account_v4": fake.exchange.account_row() | changes}
    with pytest.raises(VenueUnavailable, match="do not make up"):
        await read(venue)


# --- every call and every answer that is none -----------------------------------------------------------------------------

NOTHING: Sequence[Any] = ({}, None, [], {"code": -1, "msg": "x"})
MORE_OF_NOTHING: Sequence[Any] = ([{}], 0)
READS = (
    "get_positions",
    "get_account_v4",
    "get_open_orders",
    "get_spot_open_orders",
    "get_exchange_info",
    "get_funding_rate",
    "get_ticker",
    "get_leverage_bracket",
    "get_order",
    "get_spot_order",
    "get_spot_account",
    "get_account_info",
)


@pytest.mark.parametrize("answers", [NOTHING, THOROUGH(MORE_OF_NOTHING)], ids=["nothing", "more of it"])
@pytest.mark.parametrize("tool", READS)
async def test_no_answer_that_says_nothing_hides_a_position_an_order_or_a_price(
    fake: FakeServer, venue: AsterVenue, tool: str, answers: Sequence[Any]
) -> None:
    holds(fake)
    futures, spot = fake.exchange.rest(BTC), fake.exchange.rest(BTC, spot=True)
    known = rested(futures, held=HELD.held, balance=D("10000.5"), verifies=True)
    known = known.model_copy(update={"resting": known.resting + rested(spot, market=Market.SPOT).resting})
    for answer in answers:
        fake.faults.answers = {tool: answer}
        try:
            seen = await read(venue, known)
        except VenueError:
            continue
        assert held(seen) == HELD.held
        if not seen.doubts:
            assert len(seen.open_orders) == 2
            assert seen.marks == {BTC: D(60_000), ETH: D(3_000)}


@pytest.mark.parametrize("tool", ["get_klines", "get_order_book", "get_funding_rate", "get_funding_info"])
async def test_a_symbol_whose_market_says_nothing_is_left_out_or_without_it(
    fake: FakeServer, venue: AsterVenue, tool: str
) -> None:
    for answer in (*NOTHING, *MORE_OF_NOTHING):
        fake.faults.answers = {tool: answer}
        views = await venue.markets([BTC], 5)
        if tool == "get_klines":
            assert views == {}
        else:
            assert views or tool == "get_order_book"
        for view in views.values():
            assert len(view.bars) == 5


async def test_an_order_that_is_gone_and_that_nobody_asked_for_is_a_doubt(
    fake: FakeServer, venue: AsterVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "MOST_ORDERS_ASKED", 1)
    orders = [fake.exchange.rest(BTC, status="CANCELED") for _ in range(2)]
    assert (await read(venue, rested(*orders))).doubts == ["1 more orders are not listed any more"]
    # The next reading asks for the next of them.
    assert (await read(venue, rested(*orders))).doubts == []


@both_markets
async def test_a_status_that_nobody_knows_does_not_end_an_order(
    fake: FakeServer, venue: AsterVenue, market: Market
) -> None:
    # Of spot, exchanges of this family have PENDING_NEW and PENDING_CANCEL. Any such word counted as the end, for good.
    order = fake.exchange.rest(BTC, spot=market is Market.SPOT, status="PENDING_CANCEL")
    for _ in range(2):
        (doubt,) = (await read(venue, rested(order, market=market))).doubts
        assert "PENDING_CANCEL" in doubt
    order.status = "CANCELED"
    assert (await read(venue, rested(order, market=market))).doubts == []


@pytest.mark.parametrize("tool", [Tool.CANCEL_ALL_ORDERS, Tool.CANCEL_SPOT_ALL_ORDERS])
async def test_nor_does_it_confirm_a_cancel_that_failed(fake: FakeServer, venue: AsterVenue, tool: Tool) -> None:
    order = fake.exchange.rest(BTC, spot=tool is Tool.CANCEL_SPOT_ALL_ORDERS, status="PENDING_NEW")
    fake.faults.errors = {tool.value: 503}
    with pytest.raises(VenueUnavailable, match="1 order is still open"):
        await venue.cancel_all(tool, BTC)
    order.status = "REJECTED"
    await venue.cancel_all(tool, BTC)


async def test_nor_the_cancel_of_a_single_order(fake: FakeServer, venue: AsterVenue) -> None:
    order = fake.exchange.rest(BTC, status="PENDING_CANCEL")
    fake.faults.answers = {"cancel_order": order.row()}
    with pytest.raises(VenueUnavailable, match="PENDING_CANCEL"):
        await venue.cancel_order(BTC, str(order.order_id))
    order.status = "CANCELED"
    await venue.cancel_order(BTC, str(order.order_id))


async def test_an_order_whose_answer_says_nothing_is_known_by_what_it_did_or_unknown(
    fake: FakeServer, venue: AsterVenue
) -> None:
    for number, answer in enumerate((*NOTHING, *MORE_OF_NOTHING), start=1):
        fake.faults.answers = {"create_order": answer}
        report = await venue.create_order(make_order(quantity="0.1"))
        assert report.fate in (Fate.UNKNOWN, Fate.FILLED)
        assert fake.calls["create_order"] == number
        assert fake.exchange.position(BTC) == number * D("0.1")


async def test_an_answer_of_another_symbol_or_order_is_none(fake: FakeServer, venue: AsterVenue) -> None:
    other = fake.exchange.place(
        {"symbol": ETH, "side": "BUY", "order_type": "LIMIT", "quantity": 1, "price": 3000, "time_in_force": "IOC"}
    ).row()
    fake.faults.answers = {"create_order": other}
    assert (await venue.create_order(make_order(quantity="0.1"))).fate is Fate.UNKNOWN
    fake.exchange.positions.clear()
    fake.faults.answers = {"get_funding_rate": {"symbol": ETH, "markPrice": "1"}, "get_positions": []}
    fake.faults.answers |= {"get_ticker": {"symbol": ETH, "lastPrice": "1"}}
    seen = await venue.observe([BTC], None)
    assert BTC not in seen.marks
    assert seen.note == "no price: get_ticker: the answer cannot be read: it is about another symbol"


async def test_an_answer_that_breaks_its_own_schema_ends_no_connection(fake: FakeServer, venue: AsterVenue) -> None:
    """As the official server passes `null` on: of one symbol's cancel it must not cost the others theirs."""
    await venue.ping()
    connection = venue._caller._session._connecting
    fake.faults.answers = {"cancel_all_orders": None}
    await venue.cancel_all(Tool.CANCEL_ALL_ORDERS, BTC)
    assert venue._caller._session._connecting is connection
    assert connection
    assert connection.result().is_open
