"""`timeInForce` goes out with MARKET too, which may be refused for just that. LIMIT with IOC is taken either way."""

import pytest

from activities.venues.aster.orders import arguments_of
from activities.venues.aster.venue import AsterVenue
from domain.trading.instructions import OrderInstruction
from domain.trading.market import SymbolRules
from domain.trading.orders import Fate
from tests.venues.aster.fake_server import FakeServer
from tests.venues.builders import RULES, D, make_order

WITHIN = RULES.model_copy(update={"multiplier_up": D("1.03"), "multiplier_down": D("0.97")})


@pytest.fixture
def venue(direct: AsterVenue) -> AsterVenue:
    """What it makes of answers, whatever they travel over."""
    return direct


def instruction(**changes: object) -> OrderInstruction:
    return make_order(**{"quantity": "0.5"} | changes).instruction  # type: ignore[arg-type]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("side", ["BUY", "SELL"])
async def test_a_position_is_closed_at_either_kind_of_exchange(
    fake: FakeServer, venue: AsterVenue, strict: bool, side: str
) -> None:
    fake.exchange.habits.strict_time_in_force = strict
    fake.exchange.positions["BTCUSDT"] = D("-0.5") if side == "BUY" else D("0.5")
    report = await venue.create_order(make_order(quantity="0.5", side=side, reduce_only=True))
    assert (report.fate, fake.exchange.position("BTCUSDT")) == (Fate.FILLED, D(0))
    (sent,) = fake.sent("create_order")
    assert (sent["order_type"], sent["time_in_force"], sent["reduce_only"]) == ("LIMIT", "IOC", True)


@pytest.mark.parametrize(
    ("side", "rules", "price"),
    [
        ("BUY", WITHIN, 102.7),  # nine tenths of the way to the edge of PERCENT_PRICE
        ("SELL", WITHIN, 97.3),
        ("BUY", RULES, 105.0),  # without that filter, five per cent
        ("SELL", RULES, 95.0),
    ],
)
def test_the_bound_lies_inside_what_the_exchange_allows(side: str, rules: SymbolRules, price: float) -> None:
    arguments = arguments_of(instruction(side=side), rules, D(100))
    assert arguments["price"] == price


def test_the_bound_is_rounded_to_the_tick_and_towards_the_mark() -> None:
    odd = D("99.97")
    assert arguments_of(instruction(side="BUY"), WITHIN, odd)["price"] == 102.6
    assert arguments_of(instruction(side="SELL"), WITHIN, odd)["price"] == 97.3


def test_a_sale_is_worth_the_least_that_the_exchange_takes_at_its_bound_too() -> None:
    """MIN_NOTIONAL is of price times quantity, and of the mark price only for MARKET (Aster, Filters): a sale worth 5.1 at the
    mark went out at a price at which it was worth 4.85. Every sale of a small account was refused, and no purchase."""
    assert arguments_of(instruction(side="SELL", quantity="0.051"), RULES, D(100))["price"] == 98.1
    assert arguments_of(instruction(side="SELL", quantity="0.053"), RULES, D(100))["price"] == 95.0
    # What only reduces has no least worth, and a purchase is worth more at its bound.
    assert arguments_of(instruction(side="SELL", quantity="0.051", reduce_only=True), RULES, D(100))["price"] == 95.0
    assert arguments_of(instruction(side="BUY", quantity="0.051"), RULES, D(100))["price"] == 105.0
    # Not worth enough at the mark either: the exchange decides.
    assert arguments_of(instruction(side="SELL", quantity="0.049"), RULES, D(100))["price"] == 95.0


def test_without_a_price_it_goes_out_as_the_market_order_that_it_is() -> None:
    arguments = arguments_of(instruction(), RULES, None)
    assert (arguments["order_type"], "price" in arguments) == ("MARKET", False)


def test_a_price_that_needs_an_exponent_is_not_sent_either() -> None:
    tiny = RULES.model_copy(update={"tick_size": D("0.0000001")})
    assert arguments_of(instruction(), tiny, D("0.00002"))["order_type"] == "MARKET"


def test_a_limit_order_keeps_its_price_and_its_time_in_force() -> None:
    arguments = arguments_of(instruction(order_type="LIMIT", price="90", time_in_force="GTX"), RULES, D(100))
    assert (arguments["price"], arguments["time_in_force"], arguments["order_type"]) == (90.0, "GTX", "LIMIT")
    assert arguments_of(instruction(order_type="LIMIT", price="90"), RULES, None)["time_in_force"] == "GTC"
