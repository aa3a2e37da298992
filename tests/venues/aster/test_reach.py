"""The MCP port has no authentication. It is spoken to on this machine or in a private network, and never in the
clear beyond."""

import pytest
from pydantic import ValidationError

from activities.venues.aster.transports import shown
from settings import AsterSettings, explain


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9002/mcp",
        "http://localhost:9002/sse",
        "http://[::1]:9002/mcp",
        "https://mcp.example.com/mcp",
        "stdio:python -m aster_mcp.simple_server",
    ],
)
def test_an_address_that_others_cannot_listen_to_is_taken(address: str) -> None:
    assert not AsterSettings(aster_mcp=address).leaves_this_machine


@pytest.mark.parametrize(
    "address", ["http://10.0.0.7:9002/mcp", "http://aster-mcp:9002/mcp", "http://mcp.internal/sse"]
)
def test_a_private_network_is_taken_and_warned_about(address: str) -> None:
    assert AsterSettings(aster_mcp=address).leaves_this_machine


@pytest.mark.parametrize(
    "address",
    [
        "http://mcp.example.com/mcp",
        "http://8.8.8.8:9002/mcp",
        "http://0.0.0.0:9002/mcp",
        "ftp://127.0.0.1/",
        "127.0.0.1:9002",
        "http://user:password@127.0.0.1:9002/mcp",
        "stdio:",
        "",
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(address: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AsterSettings(aster_mcp=address)
    assert "AIS_ASTER_MCP" in explain(caught.value)
    assert "private network" in explain(caught.value)


def test_what_is_shown_of_an_address_holds_no_token() -> None:
    assert shown("https://mcp.example.com/mcp?token=secret") == "https://mcp.example.com/mcp"
    assert shown("stdio:python -m server --key secret") == "stdio:python"
