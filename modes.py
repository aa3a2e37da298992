"""What each mode needs before it may start, and the venue that it trades on."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

import settings
from activities.books import Bookkeeper, reader_of
from activities.instruments import Instruments
from activities.market.aster import AsterMarket, length_of
from activities.market.build import MarketError, build_funding, build_market
from activities.market.port import MarketSource
from activities.venues.aster.caller import Caller
from activities.venues.aster.rules import RuleBook
from activities.venues.aster.statements import Statements
from activities.venues.aster.tape import Tape
from activities.venues.aster.transports import session_for, shown
from activities.venues.aster.venue import AsterVenue
from activities.venues.paper import PaperVenue
from activities.venues.port import HedgeMode, Venue, VenueError, VenueMisconfigured
from activities.venues.shadow import ShadowVenue
from domain.books import EXCHANGE
from domain.paper.book import FundingRates
from startup import NotUp, patiently
from storage.claims import AccountKey
from storage.database import Database

VENUE_SECONDS = 5.0
# A setting that is wrong, and stays wrong until somebody changes it.
CERTAIN = (VenueMisconfigured, HedgeMode)
ASTER_MARKET = "aster"

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
            return _paper_venue(config, database, instruments)
        case "shadow":
            return ShadowVenue(_aster_venue(config.aster, instruments))
        case "live":
            return _aster_venue(config.aster, instruments)


def build_bookkeeper(config: VenueConfig, database: Database, account: str, instruments: Instruments) -> Bookkeeper:
    """What keeps a live desk's books, over a connection of its own. `account` is the fingerprint."""
    statements = Statements(_caller(config.aster, instruments))
    reader = reader_of(config.desk.desk, AccountKey(EXCHANGE, account))
    return Bookkeeper(reader, statements, database, config.aster.books_seconds, instruments)


async def check_account(venue: Venue) -> None:
    """Refuses to start on an account that cannot be traded, where two answers in a row say so. Raises NotAllowed.

    Nothing that may pass by itself is a reason to refuse, be it no answer or an answer that refuses us (clocks that differ,
    400): without a worker nobody carries out a kill. Every order reads the account anew before it is sent, so that none goes
    out unchecked.
    """
    assert isinstance(venue, AsterVenue)
    account, said = venue, list[VenueError]()

    async def attempt() -> None:
        try:
            await account.check_one_way()
        except VenueError as error:
            said.append(error)
            if len(said) > 1 and all(isinstance(each, CERTAIN) for each in said[-2:]):
                raise NotAllowed(f"AIS_MODE=live cannot start: {error}") from None
            raise

    try:
        await patiently("the venue", attempt, VENUE_SECONDS, log.warning, VenueError)
    except NotUp as error:
        log.warning("starting without the venue; every order checks the account before it is sent", why=str(error))


def _paper_venue(config: VenueConfig, database: Database, instruments: Instruments) -> PaperVenue:
    paper = config.paper
    market, funding = (
        _aster_market(config, instruments) if config.worker.market == ASTER_MARKET else _made_up_market(config)
    )
    return PaperVenue(
        database, market, config.desk.desk, balance=paper.paper_balance, terms=paper.terms(), funding=funding
    )


def _made_up_market(config: VenueConfig) -> tuple[MarketSource, FundingRates]:
    worker, paper, symbols = config.worker, config.paper, config.desk.symbols
    with _naming("AIS_MARKET"):
        market = build_market(worker.market, symbols, worker.seed, worker.market_volume)
    with _naming("AIS_PAPER_FUNDING"):
        return market, build_funding(paper.paper_funding, symbols, paper.paper_funding_rate)


def _aster_market(config: VenueConfig, instruments: Instruments) -> tuple[MarketSource, FundingRates]:
    """Its public tools alone: no account, and no order ever goes there."""
    if config.paper.paper_funding:
        raise MarketError("AIS_PAPER_FUNDING: AIS_MARKET=aster brings its own funding rates; leave it out")
    caller, interval = _caller(config.aster, instruments), config.aster.aster_interval
    tape, rules = Tape(caller, instruments, interval), RuleBook(caller, public=True)
    market = AsterMarket(tape, rules, length_of(interval), caller.close)
    return market, market


def _caller(aster: settings.AsterSettings, instruments: Instruments) -> Caller:
    if aster.leaves_this_machine:
        log.warning(
            "the MCP server has no authentication, and it is asked over plain HTTP beyond this machine: whoever reaches "
            "it can trade",
            address=shown(aster.aster_mcp),
        )
    account_id = aster.aster_account_id.get_secret_value() if aster.aster_account_id else ""
    session = session_for(aster.aster_mcp, aster.aster_timeout)
    return Caller(session, account_id, aster.aster_timeout, instruments)


def _aster_venue(aster: settings.AsterSettings, instruments: Instruments) -> AsterVenue:
    return AsterVenue(_caller(aster, instruments), instruments, aster.aster_interval)


@contextlib.contextmanager
def _naming(variable: str) -> Iterator[None]:
    """A file that cannot be used is told with the variable that named it."""
    try:
        yield
    except MarketError as error:
        raise MarketError(f"{variable}: {error}") from error
