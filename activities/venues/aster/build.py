"""Puts together what speaks to the Aster MCP server."""

import structlog

from activities.metrics import WorkerMetrics
from activities.venues.aster.access import AsterAccess
from activities.venues.aster.caller import Caller
from activities.venues.aster.market import AsterMarket
from activities.venues.aster.market_data import MarketData
from activities.venues.aster.markets import length_of
from activities.venues.aster.rules import RuleBook
from activities.venues.aster.transports import session_for, shown
from activities.venues.aster.venue import AsterVenue

log = structlog.get_logger("worker")


def build_aster_venue(aster: AsterAccess, instruments: WorkerMetrics) -> AsterVenue:
    """The account's venue, not connected yet."""
    return AsterVenue(build_caller(aster, instruments), instruments, aster.interval)


def build_aster_market(aster: AsterAccess, instruments: WorkerMetrics) -> AsterMarket:
    """The market, read with public tools only: it needs no account and sends no orders."""
    caller = build_caller(aster, instruments)
    tape, rules = MarketData(caller, instruments, aster.interval), RuleBook(caller, public=True)
    return AsterMarket(tape, rules, length_of(aster.interval), caller.close)


def build_caller(aster: AsterAccess, instruments: WorkerMetrics) -> Caller:
    """A caller with its own connection, not connected yet."""
    if aster.leaves_this_machine:
        log.warning(
            "the MCP server has no authentication, and it is asked over plain HTTP beyond this machine: whoever reaches "
            "it can trade",
            address=shown(aster.address),
        )
    session = session_for(aster.address, aster.timeout_seconds)
    return Caller(session, aster.account_id, aster.timeout_seconds, instruments)
