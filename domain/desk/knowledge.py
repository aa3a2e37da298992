"""The positions, orders and fills that a desk knows when a reading begins. If the reading no longer shows one of them, a second
source must confirm that."""

from domain.desk.carried import Carried
from domain.desk.enforcing import flattening
from domain.desk.growth import held_now
from domain.desk.killing import verifying
from domain.trading.market import Known, Market, RestingOrder


def known_of(c: Carried) -> Known:
    """What the last good reading showed, plus the fills since, and what a kill needs from the next reading."""
    asked = {"verifies": verifying(c), "flattens": flattening(c)}
    if c.observation is None:
        return Known(**asked)
    resting = [
        RestingOrder(market=Market(order.market), symbol=order.symbol, order_id=order.order_id)
        for order in c.observation.open_orders
    ]
    # Orders placed since. If a reading leaves one out, that proves nothing either.
    listed = {(order.symbol, order.order_id) for order in resting}
    resting += [
        RestingOrder(market=Market.FUTURES, symbol=quote.symbol, order_id=quote.venue_order_id)
        for quote in c.quotes.values()
        if quote.venue_order_id and not quote.canceled and not quote.names & listed
    ]
    return Known(held=held_now(c), resting=resting, balance=c.observation.account.balance, **asked)
