"""A fake Aster MCP server for each module, clean for each test, and the adapter in front of it."""

from collections.abc import AsyncIterator

import pytest
from mcp import Client

from activities.venues.aster import sending, session
from activities.venues.aster import venue as adapter
from activities.venues.aster.session import Session
from activities.venues.aster.venue import AsterVenue
from activities.venues.port import VenueUnavailable
from domain.books import EXCHANGE
from storage.claims import AccountKey
from storage.database import Database
from tests.venues.aster.bookkeeping import Ledgers
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import PATIENT, Heard, make_venue, serving, venue_of


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


def direct_session(fake: FakeServer) -> Session:
    return Session(lambda: Client(fake.server, cache=None), PATIENT)


@pytest.fixture
async def direct(fake: FakeServer, heard: Heard) -> AsyncIterator[AsterVenue]:
    """The adapter and the server without HTTP between them, which is more than half the cost of a call.

    For what the adapter makes of answers. How they get there is tested by all the others.
    """
    venue = venue_of(direct_session(fake), watch=heard)
    yield venue
    await venue.close()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of what takes several calls, and of a call's wait for its turn, that no busy machine meets."""
    for bound in ("OBSERVE_SECONDS", "LOOK_SECONDS", "MARKETS_SECONDS", "CANCEL_SECONDS", "CREATE_SECONDS"):
        monkeypatch.setattr(adapter, bound, PATIENT)
    monkeypatch.setattr(sending, "PREPARE_SECONDS", PATIENT)
    monkeypatch.setattr(session, "WAITS_SECONDS", PATIENT)


@pytest.fixture
async def patient(fake: FakeServer, address: str, heard: Heard, patience: None) -> AsyncIterator[AsterVenue]:
    """The adapter with time-outs so long that no busy machine meets them: of a call, and of what takes several."""
    venue = make_venue(address, seconds=PATIENT, watch=heard)
    yield venue
    await venue.close()


async def _answers(venue: AsterVenue) -> bool:
    try:
        await venue.ping()
    except VenueUnavailable:
        return False
    return True


@pytest.fixture
async def hasty(fake: FakeServer, address: str) -> AsyncIterator[AsterVenue]:
    """The adapter with so short a time-out that a test can wait for it."""
    venue = make_venue(address, seconds=2)
    # Connecting is part of the first call, and may take longer than that on a busy machine.
    while not await _answers(venue):
        pass
    fake.reset()
    yield venue
    await venue.close()


@pytest.fixture
async def ledgers(fake: FakeServer, database: Database, desk: str) -> AsyncIterator[Ledgers]:
    """The books of a desk of its own, without HTTP between them and the server."""
    made = await Ledgers(database, direct_session(fake), desk, key=AccountKey(EXCHANGE, desk)).started()
    yield made
    await made.close()
