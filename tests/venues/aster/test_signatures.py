"""400 on every signed call while public ones are answered is a clock, or a signature, and passes by itself."""

import pytest

from activities.failures import failure
from activities.venues.aster.answers import BadRequest, error_of
from activities.venues.aster.signing import SignatureRefused
from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueError, VenueMisconfigured, VenueUnavailable
from domain.trading.instructions import Tool
from domain.trading.orders import Fate
from tests.venues.aster.fake_server import SCHEMAS, FakeServer
from tests.venues.builders import make_order

SIGNED = {name for name, tool in SCHEMAS.items() if "account_id" in tool["inputSchema"]["properties"]}
CLOCKS = "HTTP 400, as for every signed call, while public ones are answered: compare the clocks"


def clocks_differ(fake: FakeServer) -> None:
    """The exchange's is 20 s ahead: every signed call is answered 400, and the server hides that it is -1021."""
    fake.faults.errors = dict.fromkeys(SIGNED, 400)


async def observed(venue: AsterVenue) -> VenueError:
    with pytest.raises(VenueError) as caught:
        await venue.observe(["BTCUSDT"], "cycle 1")
    return caught.value


async def test_a_reading_says_to_compare_the_clocks(fake: FakeServer, venue: AsterVenue) -> None:
    await venue.observe(["BTCUSDT"], "cycle 1")
    clocks_differ(fake)
    await observed(venue)
    await venue.ping()
    error = await observed(venue)
    assert CLOCKS in str(error)
    assert not failure(error).non_retryable, "it passes once the clocks agree"
    fake.faults.errors = {}
    assert (await venue.observe(["BTCUSDT"], "cycle 2")).marks


async def test_the_check_at_the_start_says_it_at_once(fake: FakeServer, venue: AsterVenue) -> None:
    clocks_differ(fake)
    with pytest.raises(SignatureRefused, match=CLOCKS):
        await venue.check()


async def test_a_cancel_says_it_too_and_works_as_soon_as_it_can(fake: FakeServer, venue: AsterVenue) -> None:
    fake.exchange.rest("BTCUSDT")
    clocks_differ(fake)
    with pytest.raises(VenueError):
        await venue.cancel_all(Tool.CANCEL_ALL_ORDERS, "BTCUSDT")
    await venue.time("BTCUSDT")
    with pytest.raises(VenueUnavailable, match=CLOCKS):
        await venue.cancel_all(Tool.CANCEL_ALL_ORDERS, "BTCUSDT")
    fake.faults.errors = {}
    await venue.cancel_all(Tool.CANCEL_ALL_ORDERS, "BTCUSDT")
    assert not fake.exchange.open_orders()


async def test_an_order_that_is_refused_stays_refused_whatever_the_reason(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"create_order": 400}
    with pytest.raises(BadRequest):
        await venue.create_order(make_order(quantity="0.5"))
    fake.faults.errors = {}
    assert (await venue.create_order(make_order(quantity="0.5"))).fate is Fate.FILLED


async def test_where_nothing_answers_no_clock_is_blamed(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"*": 400}
    for _ in range(3):
        assert "clocks" not in str(await observed(venue))


async def test_one_kind_of_wrong_call_is_not_blamed_on_the_clock(fake: FakeServer, venue: AsterVenue) -> None:
    fake.faults.errors = {"get_all_orders": 400}
    for _ in range(3):
        await venue.ping()
        with pytest.raises(BadRequest):
            await venue._caller.call("get_all_orders", "BTCUSDT")


@pytest.mark.parametrize(
    "text",
    [
        "Error calling tool 'get_positions': 账户 main 不存在",
        "Error calling tool 'get_spot_open_orders': 账户 main 为 V3 密钥签名，现货接口需 HMAC 账户",  # noqa: RUF001
    ],
)
def test_an_account_that_the_server_does_not_have_is_a_setting(text: str) -> None:
    error = error_of("get_positions", text)
    assert isinstance(error, VenueMisconfigured)
    assert "main" not in str(error)
