"""What a desk knows of its account as a reading begins: whatever is gone in that reading has to be confirmed."""

from domain.carried import Carried
from domain.enforcing import flattening
from domain.growth import held_now
from domain.killing import verifying
from domain.market import Known, Market, RestingOrder


def known_of(c: Carried) -> Known:
    """By the last reading that was a fact, with what was filled since; and what a kill wants of the next one."""
    asked = {"verifies": verifying(c), "flattens": flattening(c)}
    if c.observation is None:
        return Known(**asked)
    resting = [
        RestingOrder(market=Market(order.market), symbol=order.symbol, order_id=order.order_id)
        for order in c.observation.open_orders
    ]
    return Known(held=held_now(c), resting=resting, balance=c.observation.account.balance, **asked)
