"""Rules and bars: a symbol that does not trade now, a list without it, and fewer bars than there were."""

import asyncio
from typing import Any

import pytest

from activities.venues.aster import market_data
from activities.venues.aster.operation import Urgency, operation
from activities.venues.aster.rules import BRACKETS_FRESH_SECONDS, FRESH_SECONDS, rules_of
from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueError, VenueRefused
from domain.trading.orders import Fate
from tests.venues.aster.fake_server import FakeServer
from tests.venues.builders import D, make_order
from tests.venues.variants import THOROUGH

BTC, ETH = "BTCUSDT", "ETHUSDT"


@pytest.fixture
def venue(direct: AsterVenue) -> AsterVenue:
    """What it makes of answers, whatever they travel over."""
    return direct


class Time:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(venue: AsterVenue) -> Time:
    time = Time()
    venue._rules._clock = time
    return time


async def halted(venue: AsterVenue, symbol: str = BTC) -> str | None:
    return (await venue.observe([BTC, ETH], None)).rules[symbol].halted


@pytest.mark.parametrize(
    "word", ["BREAK", "SETTLING", "trading", *map(THOROUGH, ("HALT", "PRE_SETTLE", "PENDING_TRADING", "CLOSE"))]
)
async def test_a_symbol_that_does_not_trade_keeps_its_rules_and_tells_the_venues_word(
    fake: FakeServer, venue: AsterVenue, word: str
) -> None:
    fake.exchange.habits.statuses = {BTC: word}
    seen = await venue.observe([BTC, ETH], None)
    assert (seen.rules[BTC].halted, seen.rules[ETH].halted) == (word, None)
    assert seen.rules[BTC].lot_step == D("0.001")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"status": None}, "no status"),
        ({"contractStatus": "SETTLING"}, "SETTLING"),
        ({"status": "BREAK", "contractStatus": "BREAK"}, "BREAK"),
        ({"OrderType": ["STOP"]}, "no LIMIT in OrderType"),
        ({"orderTypes": []}, "no LIMIT in orderTypes"),
        ({"timeInForce": ["GTC"]}, "no IOC in timeInForce"),
        ({"OrderType": None, "timeInForce": None}, None),
    ],
)
def test_every_field_that_says_not_now_is_read(fake: FakeServer, changes: dict[str, Any], word: str | None) -> None:
    info = fake.exchange.info_row()
    info["symbols"][0] |= changes
    assert rules_of(info)[BTC].halted == word


async def test_an_account_that_may_not_trade_says_so(fake: FakeServer, venue: AsterVenue) -> None:
    assert (await venue.observe([BTC], None)).account.halted is None
    fake.exchange.habits.can_trade = False
    assert (await venue.observe([BTC], None)).account.halted == "canTrade=false"


async def test_it_is_seen_within_a_minute_and_after_the_first_order_that_is_refused(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    assert await halted(venue) is None
    fake.exchange.habits.statuses = {BTC: "BREAK"}
    clock.now = FRESH_SECONDS
    assert await halted(venue) is None
    clock.now += 1
    assert await halted(venue) == "BREAK"
    fake.exchange.habits.statuses = {ETH: "BREAK"}
    with pytest.raises(VenueRefused):
        await venue.create_order(make_order(symbol=ETH, quantity="0.1"))
    assert (await halted(venue, ETH), await halted(venue)) == ("BREAK", None)


async def test_nothing_new_is_sent_for_it_and_what_reduces_is(fake: FakeServer, venue: AsterVenue) -> None:
    fake.exchange.habits.statuses = {BTC: "PRE_SETTLE"}
    report = await venue.create_order(make_order(quantity="0.1"))
    assert (report.fate, report.detail) == (Fate.NOT_SENT, "the venue takes no new order of BTCUSDT: PRE_SETTLE")
    assert fake.calls["create_order"] == 0
    fake.exchange.positions[BTC] = D("0.1")
    with pytest.raises(VenueRefused):
        await venue.create_order(make_order(quantity="0.1", side="SELL", reduce_only=True))
    assert fake.calls["create_order"] == 1


async def test_an_empty_list_of_rules_is_none_and_the_older_ones_hold(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    before = (await venue.observe([BTC], None)).rules
    clock.now = FRESH_SECONDS + 1
    fake.faults.answers = {"get_exchange_info": {"symbols": []}}
    assert (await venue.observe([BTC], None)).rules == before
    clock.now = 4000
    seen = await venue.observe([BTC], None)
    assert (seen.rules, seen.note) == ({}, "no rules: get_exchange_info: the answer cannot be read: it lists no symbol")


async def test_who_waits_for_a_reading_that_fails_does_not_make_another_one(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    # Found: each waiting caller tried again, one after the other: with a list that hangs, a kill closed one position in 3 s.
    fake.faults.errors = {"get_exchange_info": 503}
    none = await asyncio.gather(*(venue._rules.rules() for _ in range(10)), return_exceptions=True)
    assert {str(error) for error in none} == {"get_exchange_info: HTTP 503"}
    assert fake.calls["get_exchange_info"] == 1
    fake.faults.errors = {}
    known = await venue._rules.rules()
    clock.now = FRESH_SECONDS + 1
    fake.faults.errors = {"get_exchange_info": 503}
    assert await asyncio.gather(*(venue._rules.rules() for _ in range(10))) == [known] * 10
    assert fake.calls["get_exchange_info"] == 3
    # Whoever asks later tries again.
    fake.faults.errors = {}
    await venue._rules.rules()
    assert fake.calls["get_exchange_info"] == 4


async def test_who_waits_for_a_reading_that_is_given_up_makes_another_one(fake: FakeServer, venue: AsterVenue) -> None:
    """Not known yet, the rules decide whether a kill can close a position: an older failure says nothing about them."""
    fake.faults.errors = {"get_exchange_info": 503}
    with pytest.raises(VenueError):
        await venue._rules.rules()
    fake.faults.errors, fake.faults.held = {}, {"get_exchange_info"}
    given_up = asyncio.create_task(venue._rules.rules())
    while fake.calls["get_exchange_info"] < 2:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(venue._rules.rules())
    await asyncio.sleep(0)
    given_up.cancel()
    fake.faults.held = set()
    assert await waiting


async def test_what_a_kill_waits_for_does_not_wait_for_a_cycles_reading_of_the_rules(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    known = await venue._rules.rules()
    clock.now = FRESH_SECONDS + 1
    fake.faults.held = {"get_exchange_info"}
    reading = asyncio.create_task(venue._rules.rules())
    while fake.calls["get_exchange_info"] < 2:
        await asyncio.sleep(0)
    with operation(Urgency.SOON, 60):
        assert await venue._rules.rules() == known
    assert not reading.done()
    # An order that adds risk waits for the newest.
    waiting = asyncio.create_task(venue._rules.rules())
    await asyncio.sleep(0)
    assert not waiting.done()
    fake.faults.held = set()
    assert sorted(await waiting) == sorted(await reading)


async def test_a_symbol_that_a_later_list_leaves_out_takes_no_new_order_and_can_be_closed(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    await venue.observe([BTC], None)
    info = fake.exchange.info_row()
    fake.faults.answers = {"get_exchange_info": info | {"symbols": info["symbols"][1:]}}
    clock.now = FRESH_SECONDS + 1
    seen = await venue.observe([BTC, ETH], None)
    assert (seen.rules[BTC].halted, seen.rules[BTC].lot_step) == ("not listed", D("0.001"))
    fake.faults.answers = {}
    clock.now *= 2
    assert await halted(venue) is None


async def test_an_answer_without_brackets_leaves_those_that_are_known(
    fake: FakeServer, venue: AsterVenue, clock: Time
) -> None:
    await venue.observe([BTC], None)
    fake.faults.answers = {"get_leverage_bracket": []}
    clock.now = FRESH_SECONDS + 1
    assert (await venue.observe([BTC], None)).rules[BTC].maintenance_ratio == D("0.004")
    assert fake.calls["get_leverage_bracket"] == 1
    clock.now = BRACKETS_FRESH_SECONDS + 1
    assert (await venue.observe([BTC], None)).rules[BTC].maintenance_ratio == D("0.004")
    assert fake.calls["get_leverage_bracket"] == 2


@pytest.mark.parametrize("left", [0, 1, 4])
async def test_fewer_bars_than_there_were_leave_the_symbol_out_and_no_other(
    fake: FakeServer, venue: AsterVenue, left: int
) -> None:
    assert sorted(await venue.markets([BTC, ETH], 5)) == [BTC, ETH]
    bars = await venue._caller.call("get_klines", ETH, interval="1m", limit=6)
    assert isinstance(bars, list)
    fake.faults.answers = {"get_klines": bars[: left + 1][:left]}
    assert await venue.markets([BTC, ETH], 5) == {}
    fake.faults.answers = {}
    assert sorted(await venue.markets([BTC, ETH], 5)) == [BTC, ETH]


async def test_fewer_bars_for_long_enough_are_all_there_are(
    fake: FakeServer, venue: AsterVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange may list a symbol anew: with bars of a day it would have been left out for two months."""
    assert list(await venue.markets([ETH], 5)) == [ETH]
    bars = await venue._caller.call("get_klines", ETH, interval="1m", limit=6)
    assert isinstance(bars, list)
    fake.faults.answers = {"get_klines": bars[-4:]}
    assert await venue.markets([ETH], 5) == {}
    monkeypatch.setattr(market_data, "FEWER_SECONDS", 0.0)
    assert len((await venue.markets([ETH], 5))[ETH].bars) == 3
    monkeypatch.undo()
    fake.faults.answers = {"get_klines": bars[-3:]}
    assert await venue.markets([ETH], 5) == {}


async def test_a_symbol_that_has_never_had_more_bars_is_new(fake: FakeServer, venue: AsterVenue) -> None:
    bars = await venue._caller.call("get_klines", ETH, interval="1m", limit=6)
    assert isinstance(bars, list)
    fake.faults.answers = {"get_klines": bars[-4:]}
    assert len((await venue.markets([BTC], 5))[BTC].bars) == 3


@pytest.mark.parametrize(
    "prices", [["0", "0", "0", "0"], ["-1", "1", "-1", "1"], ["5", "4", "3", "4"], ["5", "9", "6", "7"]]
)
async def test_bars_whose_numbers_contradict_each_other_are_none(
    fake: FakeServer, venue: AsterVenue, prices: list[str]
) -> None:
    bars = await venue._caller.call("get_klines", BTC, interval="1m", limit=6)
    assert isinstance(bars, list)
    bars[2] = [bars[2][0], *prices, *bars[2][5:]]
    fake.faults.answers = {"get_klines": bars}
    assert await venue.markets([BTC], 5) == {}


async def test_bars_that_are_old_or_not_begun_leave_the_symbol_out(fake: FakeServer, venue: AsterVenue) -> None:
    """Found to be false: bars of an hour ago beside a price of this moment were decided on."""
    bars = await venue._caller.call("get_klines", BTC, interval="1m", limit=6)
    assert isinstance(bars, list)
    for minutes, seen in ((-2, [BTC]), (-60, [])):
        by = minutes * 60_000
        fake.faults.answers = {"get_klines": [[bar[0] + by, *bar[1:6], bar[6] + by, *bar[7:]] for bar in bars]}
        assert list(await venue.markets([BTC], 3)) == seen
    ahead = [bars[0], [bars[1][0] + 10**9, *bars[1][1:]]]
    fake.faults.answers = {"get_klines": ahead}
    assert await venue.markets([BTC], 3) == {}


async def test_what_cannot_be_read_of_one_symbol_costs_no_other_its_price(fake: FakeServer, venue: AsterVenue) -> None:
    """Found to be false: an empty text in the row of a symbol that nobody trades took every mark, and all brackets."""
    symbols = [BTC, ETH, "DOGEUSDT", "S0USDT"]
    fake.exchange.marks["S0USDT"] = fake.exchange.marks[BTC]
    marks = [{"symbol": name, "markPrice": "7", "lastFundingRate": "0.0001", "time": 1} for name in symbols]
    marks += [{"symbol": "BTCUSDT_291228", "markPrice": "8", "lastFundingRate": "", "time": 1}, {"symbol": ""}]
    brackets = [{"symbol": "X", "brackets": [{}]}, {"symbol": BTC, "brackets": [{"maintMarginRatio": 0.004}]}]
    hours = [{"symbol": "X", "fundingIntervalHours": ""}, {"symbol": ETH, "fundingIntervalHours": 4}]
    fake.faults.answers = {"get_funding_rate": marks, "get_leverage_bracket": brackets, "get_funding_info": hours}
    seen = await venue.observe(symbols, None)
    assert (set(seen.marks.values()), seen.rules[BTC].maintenance_ratio) == ({D(7)}, D("0.004"))
    rates = {name: view.funding_rate for name, view in (await venue.markets(symbols, 1)).items()}
    assert rates == {BTC: D("0.0001"), ETH: D("0.0002"), "DOGEUSDT": D("0.0001"), "S0USDT": D("0.0001")}
