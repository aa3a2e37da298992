"""Replaces an agent's resting order by its new one: cancel the old order, wait for the confirmation, then send the new one.

Until the cancel is confirmed, the symbol takes no new order.
"""

from domain.desk.carried import Carried
from domain.desk.outbox import prepared_row, queue_instruction
from domain.desk.recording import Tick
from domain.desk.resting import covers
from domain.trading.instructions import OpenCancel, Tool
from domain.trading.orders import Order
from domain.trading.quotes import AgentQuote, quotes_of

STILL_RESTS = "the cancel of the agent's earlier order {} is not confirmed: it may still fill"


def replaced_by(c: Carried, order: Order) -> list[AgentQuote]:
    """The agent's orders that still rest and that this order replaces."""
    return quotes_of(c.quotes.values(), order.agent_id, order.instruction.symbol)


def replace(c: Carried, order: Order, tick: Tick) -> None:
    """Prepares a cancel for each replaced order, under the decision's id, unless an open cancel already covers it."""
    waiting = [quote for quote in replaced_by(c, order) if not _is_covered(c, quote)]
    for number, quote in enumerate(waiting, 1):
        # By the venue's id of the order. If that is unknown, cancel all orders of the symbol.
        tool = Tool.CANCEL_ORDER if quote.venue_order_id else Tool.CANCEL_ALL_ORDERS
        cancel = OpenCancel.prepared(order.command_id, number, tool, quote.symbol, tick.now)
        cancel.order_id, cancel.venue_order_id = quote.order_id, quote.venue_order_id
        c.cancels.add(cancel)
        queue_instruction(c, prepared_row(c.desk, cancel))


def blocked(c: Carried) -> dict[str, str]:
    """Symbols that take no new order while the cancel of a resting order is open, each with the reason."""
    open_ = [quote for quote in c.quotes.values() if not quote.canceled and _is_covered(c, quote)]
    return {quote.symbol: f"cancel_open: {quote.order_id}" for quote in open_}


def refusal(c: Carried, order: Order) -> str | None:
    """Why an order is not sent: the cancel of an order that it replaces is not confirmed. None once all are confirmed."""
    left = replaced_by(c, order)
    return STILL_RESTS.format(left[0].order_id) if left else None


def _is_covered(c: Carried, quote: AgentQuote) -> bool:
    lanes = (c.cancels.lane(tool, quote.symbol) for tool in (Tool.CANCEL_ORDER, Tool.CANCEL_ALL_ORDERS))
    return any(covers(cancel, quote) for lane in lanes for cancel in lane)
