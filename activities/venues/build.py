"""The venue of a mode, built from what the settings say.

Modules that speak to Aster are imported only where they are used: the MCP SDK behind them is a third of all that a worker would
import, and a paper desk does not need it.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from activities.books import Bookkeeper, reader_of
from activities.market.build import MarketError, build_funding, build_market
from activities.market.port import MarketSource
from activities.market.replay import VolumeUnit
from activities.metrics import WorkerMetrics
from activities.venues.aster.access import AsterAccess
from activities.venues.aster.statements import Statements
from activities.venues.paper import PaperVenue
from activities.venues.port import Venue
from activities.venues.shadow import ShadowVenue
from domain.books import EXCHANGE
from domain.desk.states import Mode
from domain.paper.book import FundingRates, Terms
from storage.claims import AccountKey
from storage.database import Database

ASTER_MARKET = "aster"


@dataclass(frozen=True)
class PaperAccount:
    """What the paper venue starts with. `market` and `funding` are specs of `activities/market/build.py`, or `aster`."""

    balance: Decimal
    terms: Terms
    market: str
    volume: VolumeUnit
    seed: int
    funding: str
    funding_rate: Decimal


@dataclass(frozen=True)
class VenuePlan:
    """Where a desk trades."""

    desk: str
    mode: Mode
    symbols: tuple[str, ...]
    paper: PaperAccount
    aster: AsterAccess


def build_venue(plan: VenuePlan, database: Database, instruments: WorkerMetrics) -> Venue:
    """The venue of the plan's mode; MarketError names the setting that is wrong. A new exchange becomes a case here."""
    match plan.mode:
        case Mode.PAPER:
            paper, (market, funding) = plan.paper, _paper_market(plan, instruments)
            return PaperVenue(database, market, plan.desk, balance=paper.balance, terms=paper.terms, funding=funding)
        case Mode.SHADOW | Mode.LIVE:
            from activities.venues.aster.build import build_aster_venue

            venue = build_aster_venue(plan.aster, instruments)
            return ShadowVenue(venue) if plan.mode is Mode.SHADOW else venue


def build_bookkeeper(plan: VenuePlan, database: Database, account: str, instruments: WorkerMetrics) -> Bookkeeper:
    """The keeper of a live desk's books, with its own connection. `account` is the fingerprint."""
    from activities.venues.aster.build import build_caller

    statements = Statements(build_caller(plan.aster, instruments))
    reader = reader_of(plan.desk, AccountKey(EXCHANGE, account))
    return Bookkeeper(reader, statements, database, plan.aster.books_seconds, instruments)


def _paper_market(plan: VenuePlan, instruments: WorkerMetrics) -> tuple[MarketSource, FundingRates]:
    paper, symbols = plan.paper, plan.symbols
    if paper.market != ASTER_MARKET:
        with _naming("AIS_MARKET"):
            made_up = build_market(paper.market, symbols, paper.seed, paper.volume)
        with _naming("AIS_PAPER_FUNDING"):
            return made_up, build_funding(paper.funding, symbols, paper.funding_rate)
    if paper.funding:
        raise MarketError("AIS_PAPER_FUNDING: AIS_MARKET=aster brings its own funding rates; leave it out")
    from activities.venues.aster.build import build_aster_market

    market = build_aster_market(plan.aster, instruments)
    return market, market


@contextlib.contextmanager
def _naming(variable: str) -> Iterator[None]:
    """Names the variable in the error about an unusable file."""
    try:
        yield
    except MarketError as error:
        raise MarketError(f"{variable}: {error}") from error
