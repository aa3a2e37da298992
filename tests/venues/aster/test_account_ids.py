"""Every account tool wants an account_id, and an unknown argument is refused. Operators see neither."""

import json
import logging
from pathlib import Path

import pytest

from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueMisconfigured, VenueUnavailable
from domain.trading.instructions import Tool
from tests.venues.aster.fake_server import SCHEMAS, FakeServer
from tests.venues.aster.running import make_venue
from tests.venues.builders import make_order

CONTRACT = Path(__file__).parents[4] / "shared/contract/aster_mcp_tools.json"


async def use_every_tool(venue: AsterVenue) -> None:
    await venue.ping()
    await venue.observe(["BTCUSDT"], "cycle_1")
    await venue.markets(["BTCUSDT", "ETHUSDT"], 3)
    order = make_order(quantity="0.1")
    await venue.create_order(order)
    await venue.find_order(order)
    for tool in (Tool.CANCEL_ALL_ORDERS, Tool.CANCEL_SPOT_ALL_ORDERS):
        await venue.cancel_all(tool, "BTCUSDT")


async def test_every_call_has_the_arguments_that_its_schema_wants_and_no_other(
    fake: FakeServer, venue: AsterVenue
) -> None:
    """The fake server refuses by the official schemas, so that one wrong argument would fail here."""
    await use_every_tool(venue)
    for tool, arguments in fake.arguments:
        properties = SCHEMAS[tool]["inputSchema"]["properties"]
        assert ("account_id" in arguments) == ("account_id" in properties), tool
        assert set(arguments) <= set(properties), tool


def test_the_fake_has_the_official_schemas() -> None:
    assert len(SCHEMAS) == 41
    assert all(tool["inputSchema"]["additionalProperties"] is False for tool in SCHEMAS.values())


@pytest.mark.skipif(not CONTRACT.exists(), reason="the contract does not lie beside this repository")
def test_the_committed_schemas_are_those_of_the_contract() -> None:
    told = {tool["name"]: tool for tool in json.loads(CONTRACT.read_text())}
    for name, tool in SCHEMAS.items():
        assert tool == {part: told[name][part] for part in tool}
    assert set(told) == set(SCHEMAS)


async def test_an_account_that_the_server_does_not_know_is_no_guess(fake: FakeServer, address: str) -> None:
    stranger = make_venue(address, account_id="a-secret-name")
    try:
        with pytest.raises(VenueUnavailable, match="does it know the account") as caught:
            await stranger.observe(["BTCUSDT"], None)
        assert "a-secret-name" not in str(caught.value)
    finally:
        await stranger.close()


async def test_the_accounts_name_reaches_no_log(
    fake: FakeServer, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    venue = make_venue(address)
    with caplog.at_level(logging.DEBUG):
        await use_every_tool(venue)
        await venue.close()
    assert "account_id" not in caplog.text


async def test_a_server_that_is_not_asters_is_told_apart(fake: FakeServer, address: str) -> None:
    listed = fake._schemas.pop("get_positions")
    venue = make_venue(address)
    try:
        with pytest.raises(VenueMisconfigured, match="no such tool"):
            await venue.observe(["BTCUSDT"], None)
    finally:
        fake._schemas["get_positions"] = listed
        await venue.close()
