"""The exchange's dead man's switch is not among the server's tools, and nothing here counts on it."""

from activities.venues.aster.venue import AsterVenue
from domain.trading.instructions import CANCEL_TOOLS
from tests.venues.aster.fake_server import ANSWERS, SCHEMAS, FakeServer
from tests.venues.builders import make_order


def test_the_server_has_no_tool_for_it() -> None:
    assert not [name for name in SCHEMAS if "countdown" in name.lower()]


async def test_the_adapter_calls_the_tools_of_its_contract_and_no_other(fake: FakeServer, venue: AsterVenue) -> None:
    await venue.observe(["BTCUSDT"], "cycle_1")
    await venue.markets(["BTCUSDT"], 2)
    order = make_order(quantity="0.1")
    await venue.create_order(order)
    await venue.find_order(order)
    for tool in CANCEL_TOOLS:
        await venue.cancel_all(tool, "BTCUSDT")
    assert set(fake.calls) <= set(ANSWERS)
    # Nothing that moves money about or changes the account.
    assert not [name for name in fake.calls if name.startswith(("set_", "transfer_"))]
