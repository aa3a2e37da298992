"""Quantities go through a float. Whole lot steps, and never an exponent."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.venues.aster import rules
from activities.venues.aster.orders import NotRepresentable, arguments_of, as_float, quantity_of
from activities.venues.aster.results import Row, Unreadable
from activities.venues.aster.venue import AsterVenue
from domain.risk.reducing import plan
from domain.trading.orders import Fate
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import make_venue
from tests.venues.builders import RULES, D, make_order


@pytest.mark.parametrize(
    ("asked", "sent"), [("0.5", 0.5), ("0.12345", 0.123), ("0.3", 0.3), ("1.1000", 1.1), ("2", 2.0)]
)
def test_a_quantity_is_cut_to_whole_steps_in_decimal(asked: str, sent: float) -> None:
    assert arguments_of(make_order(quantity=asked).instruction, RULES, None)["quantity"] == sent


@pytest.mark.parametrize(("number", "written"), [("0.00001", "1e-05"), ("0.000015", "1.5e-05"), ("1E+16", "1e+16")])
def test_what_would_go_out_with_an_exponent_is_not_sent(number: str, written: str) -> None:
    with pytest.raises(NotRepresentable, match=f"it would go out as {written}".replace("+", r"\+")):
        as_float(D(number))
    assert as_float(D("0.0001")) == 0.0001


def test_what_a_float_cannot_hold_is_not_sent() -> None:
    with pytest.raises(NotRepresentable):
        as_float(D("12345678.123456789012"))


@pytest.mark.parametrize(
    "written", ["1e999999999", "-1E+61", "1e-999999999", "0e999999999", "9" * 70, "NaN", "-Infinity"]
)
def test_a_number_that_cannot_be_a_price_or_a_time_is_unreadable(written: str) -> None:
    # `int` of the first one takes all memory, in the worker that has a kill's cancels to send.
    with pytest.raises(Unreadable):
        Row("get_order", {"orderId": written}).number("orderId")


@pytest.mark.parametrize(
    "written", ["0", "-0.00000000", "1E-8", "1e3", "123456789012345678901234567890.123456789", 7, 0.5]
)
def test_a_number_is_read_exactly(written: object) -> None:
    assert Row("get_order", {"price": written}).number("price") == Decimal(str(written))


@given(st.integers(1, 10**12))
def test_every_sensible_quantity_arrives_digit_for_digit(steps: int) -> None:
    quantity = quantity_of(make_order(quantity=str(steps * RULES.lot_step)).instruction, RULES)
    assert Decimal(repr(as_float(quantity))) == steps * RULES.lot_step


async def test_below_the_lot_step_nothing_is_sent(fake: FakeServer, venue: AsterVenue) -> None:
    report = await venue.create_order(make_order(quantity="0.0009"))
    assert (report.fate, fake.calls["create_order"]) == (Fate.NOT_SENT, 0)
    assert "below the lot step" in report.detail


async def test_without_rules_only_what_reduces_is_sent(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"get_exchange_info": 503}
    fake.exchange.positions["BTCUSDT"] = D("0.5")
    assert (await venue.create_order(make_order(quantity="0.5"))).fate is Fate.NOT_SENT
    report = await venue.create_order(make_order(quantity="0.5", side="SELL", reduce_only=True))
    assert (report.fate, fake.exchange.position("BTCUSDT")) == (Fate.FILLED, D(0))


async def test_a_position_is_closed_though_the_rules_cannot_be_read(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"get_exchange_info": 503}
    fake.exchange.positions["BTCUSDT"] = D("0.5")
    sized = plan(await venue.look("BTCUSDT"), "BTCUSDT", D(1), automatic=True).instruction
    assert sized
    report = await venue.create_order(make_order(quantity=str(sized.quantity), side=sized.side, reduce_only=True))
    assert (report.fate, fake.exchange.position("BTCUSDT")) == (Fate.FILLED, D(0))


async def test_what_reduces_goes_by_rules_however_old(
    fake: FakeServer, venue: AsterVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour after the last list of rules, no part of a position was closed any more."""
    fake.exchange.positions["BTCUSDT"] = D("0.5")
    await venue.look("BTCUSDT")
    fake.faults.errors = {"get_exchange_info": 503}
    for age in ("FRESH_SECONDS", "STALE_SECONDS"):
        monkeypatch.setattr(rules, age, -1.0)
    sized = plan(await venue.look("BTCUSDT"), "BTCUSDT", D("0.4567")).instruction
    assert (sized and sized.quantity) == D("0.228")
    report = await venue.create_order(make_order(quantity="0.228", side="SELL", reduce_only=True))
    assert (report.fate, fake.exchange.position("BTCUSDT")) == (Fate.FILLED, D("0.272"))
    assert fake.sent("create_order")[0]["time_in_force"] == "IOC"
    assert (await venue.create_order(make_order(quantity="0.5"))).fate is Fate.NOT_SENT


async def test_a_server_that_wants_the_digits_gets_them(fake: FakeServer, address: str) -> None:
    """As later versions of the official one do: quantity is a string in their schema."""
    before = fake._schemas["create_order"]
    fake.change_schema("create_order", "quantity", {"type": "string"})
    venue = make_venue(address)
    try:
        assert (await venue.create_order(make_order(quantity="0.1200"))).fate is Fate.FILLED
        assert fake.sent("create_order")[0]["quantity"] == "0.12"
    finally:
        fake._schemas["create_order"] = before
        await venue.close()
