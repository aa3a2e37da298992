"""What each mode needs before it may start, and the venue that it trades on."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

import settings
from activities.instruments import Instruments
from activities.market.build import MarketError, build_funding, build_market
from activities.venues.aster.caller import Caller
from activities.venues.aster.transports import session_for, shown
from activities.venues.aster.venue import AsterVenue
from activities.venues.paper import PaperVenue
from activities.venues.port import Venue, VenueError, VenueRefused
from activities.venues.shadow import ShadowVenue
from startup import NotUp, patiently
from storage.database import Database

VENUE_SECONDS = 5.0

log = structlog.get_logger("worker")


class NotAllowed(Exception):
    """A mode that is not fully set up; the text names everything that is missing."""


@dataclass(frozen=True)
class VenueConfig:
    """The settings that decide where a desk trades."""

    desk: settings.DeskSettings
    worker: settings.WorkerSettings
    paper: settings.PaperVenueSettings
    aster: settings.AsterSettings


def check_settings(config: VenueConfig) -> None:
    """Raises NotAllowed, naming whatever the configured mode needs and does not have."""
    if missing := missing_for(config):
        raise NotAllowed(f"AIS_MODE={config.desk.mode} needs {'; '.join(missing)}")


def missing_for(config: VenueConfig) -> list[str]:
    """What the configured mode needs and does not have, as people are told it."""
    if config.desk.mode == "paper":
        return []
    missing = [] if config.aster.aster_account_id else ["AIS_ASTER_ACCOUNT_ID"]
    if config.desk.mode == "live":
        missing += [] if config.aster.enable_live_trading else ["AIS_ENABLE_LIVE_TRADING=true"]
        missing += [] if _key_is_fit() else [settings.LIVE_KEY]
    return missing


def _key_is_fit() -> bool:
    """Of the API's key, which the worker asks for in live mode alone."""
    try:
        return settings.ApiSettings.load().fit_for_live
    except ValidationError:
        return False


def build_venue(config: VenueConfig, database: Database, instruments: Instruments) -> Venue:
    """The venue of the configured mode. A new venue is one line here."""
    match config.desk.mode:
        case "paper":
            return _paper_venue(config, database)
        case "shadow":
            return ShadowVenue(_aster_venue(config.aster, instruments))
        case "live":
            return _aster_venue(config.aster, instruments)


async def check_account(venue: Venue) -> None:
    """Refuses to start on an account that cannot be traded. Raises NotAllowed.

    A venue that does not answer is no reason to refuse: without a worker nobody carries out a kill. Every order reads the
    account anew before it is sent, so that none goes out unchecked.
    """
    assert isinstance(venue, AsterVenue)
    account = venue

    async def attempt() -> None:
        try:
            await account.check_one_way()
        except VenueRefused as error:
            raise NotAllowed(f"AIS_MODE=live cannot start: {error}") from None

    try:
        await patiently("the venue", attempt, VENUE_SECONDS, log.warning, VenueError)
    except NotUp as error:
        log.warning("starting without the venue; every order checks the account before it is sent", why=str(error))


def _paper_venue(config: VenueConfig, database: Database) -> PaperVenue:
    worker, paper, symbols = config.worker, config.paper, config.desk.symbols
    with _naming("AIS_MARKET"):
        market = build_market(worker.market, symbols, worker.seed, worker.market_volume)
    with _naming("AIS_PAPER_FUNDING"):
        funding = build_funding(paper.paper_funding, symbols, paper.paper_funding_rate)
    return PaperVenue(
        database, market, config.desk.desk, balance=paper.paper_balance, terms=paper.terms(), funding=funding
    )


def _aster_venue(aster: settings.AsterSettings, instruments: Instruments) -> AsterVenue:
    if aster.leaves_this_machine:
        log.warning(
            "the MCP server has no authentication, and it is asked over plain HTTP beyond this machine: whoever reaches "
            "it can trade",
            address=shown(aster.aster_mcp),
        )
    account_id = aster.aster_account_id.get_secret_value() if aster.aster_account_id else ""
    session = session_for(aster.aster_mcp, aster.aster_timeout)
    return AsterVenue(Caller(session, account_id, aster.aster_timeout, instruments), instruments, aster.aster_interval)


@contextlib.contextmanager
def _naming(variable: str) -> Iterator[None]:
    """A file that cannot be used is told with the variable that named it."""
    try:
        yield
    except MarketError as error:
        raise MarketError(f"{variable}: {error}") from error
