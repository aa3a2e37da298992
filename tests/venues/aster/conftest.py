"""A fake Aster MCP server for each module, clean for each test, and the adapter in front of it."""

from collections.abc import AsyncIterator

import pytest

from activities.venues.aster.venue import AsterVenue
from domain.books import EXCHANGE
from storage.claims import AccountKey
from storage.database import Database
from tests.venues.aster.bookkeeping import Ledgers
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import Heard, make_venue, serving


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[tuple[FakeServer, str]]:
    fake = FakeServer()
    async with serving(fake) as base:
        yield fake, base


@pytest.fixture
def fake(server: tuple[FakeServer, str]) -> FakeServer:
    server[0].reset()
    return server[0]


@pytest.fixture
def address(server: tuple[FakeServer, str]) -> str:
    return f"{server[1]}/mcp"


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def venue(fake: FakeServer, address: str, heard: Heard) -> AsyncIterator[AsterVenue]:
    venue = make_venue(address, watch=heard)
    yield venue
    await venue.close()


@pytest.fixture
async def hasty(fake: FakeServer, address: str) -> AsyncIterator[AsterVenue]:
    """The adapter with so short a time-out that a test can wait for it."""
    venue = make_venue(address, seconds=1)
    yield venue
    await venue.close()


@pytest.fixture
async def ledgers(fake: FakeServer, address: str, database: Database, desk: str) -> AsyncIterator[Ledgers]:
    """The books of a desk of its own."""
    made = await Ledgers(database, address, desk, key=AccountKey(EXCHANGE, desk)).started()
    yield made
    await made.close()
