"""The MCP port has no authentication. It is spoken to on this machine or in a private network, and never in the
clear beyond."""

import ssl
from typing import Any

import pytest
from pydantic import ValidationError

from activities.venues.aster import transports
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


def test_certificates_are_read_once_for_plain_http_and_for_each_client_of_https(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reading them blocks the event loop. A renewed bundle holds from the next connection over HTTPS on."""
    monkeypatch.setattr(transports, "LookingClient", lambda **options: options)

    def verify(address: str) -> Any:
        options: Any = transports._http_client(address, 1)
        return options["verify"]

    first, second = (verify("http://127.0.0.1:9002/mcp") for _ in range(2))
    assert first is second
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert verify("https://mcp.example.com/mcp") is True
