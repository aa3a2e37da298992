"""What a desk knows of its account as a reading begins: whatever is gone in that reading has to be confirmed."""

from domain.desk.carried import Carried
from domain.desk.enforcing import flattening
from domain.desk.growth import held_now
from domain.desk.killing import verifying
from domain.trading.market import Known, Market, RestingOrder


def known_of(c: Carried) -> Known:
    """By the last reading that was a fact, with what was filled since; and what a kill wants of the next one."""
    asked = {"verifies": verifying(c), "flattens": flattening(c)}
    if c.observation is None:
        return Known(**asked)
    resting = [
        RestingOrder(market=Market(order.market), symbol=order.symbol, order_id=order.order_id)
        for order in c.observation.open_orders
    ]
    # Placed since: a reading that leaves it out proves nothing either.
    listed = {(order.symbol, order.order_id) for order in resting}
    resting += [
        RestingOrder(market=Market.FUTURES, symbol=quote.symbol, order_id=quote.venue_order_id)
        for quote in c.quotes.values()
        if quote.venue_order_id and not quote.canceled and not quote.names & listed
    ]
    return Known(held=held_now(c), resting=resting, balance=c.observation.account.balance, **asked)
