"""Agents' orders that rest at the venue: added when the venue has them, updated by every reading, removed with their cancel.

The desk remembers, by order id, which agent each order belongs to, so that an agent's next proposal can replace its last
one. A reading that began before a change cannot show it: only a reading of a later cycle proves that an order is gone.
"""

from datetime import datetime
from decimal import Decimal

from domain.desk.carried import Carried
from domain.desk.listed import Listed
from domain.desk.states import Mode
from domain.trading.instructions import OpenCancel, Side, Tool
from domain.trading.market import Market, Observation, OpenOrder
from domain.trading.orders import Fate, Order, OrderReport
from domain.trading.quotes import AgentQuote
from domain.values import Value

MAX_QUOTES = 100


class RestingOrderStatus(Value):
    """An order that rests at the venue. If the desk knows the order, `order_id` is ours and `agent_id` names the agent that
    asked for it. Otherwise `order_id` is the venue's and `agent_id` is null."""

    order_id: str
    venue_order_id: str | None
    agent_id: str | None
    market: str
    symbol: str
    side: Side
    price: Decimal | None
    quantity: Decimal
    filled: Decimal


def note(c: Carried, order: Order, report: OrderReport, now: datetime) -> None:
    """Remembers a reported order if it rests. Past the bound, forgets a canceled one, or the oldest."""
    instruction = order.instruction
    if report.fate is not Fate.OPEN or instruction.price is None or order.agent_id is None:
        return
    c.quotes[order.order_id] = AgentQuote(
        order_id=order.order_id,
        # The paper venue uses our ids.
        venue_order_id=order.order_id if c.mode is Mode.PAPER else report.venue_order_id,
        agent_id=order.agent_id,
        symbol=instruction.symbol,
        side=instruction.side,
        price=instruction.price,
        quantity=instruction.quantity,
        filled=report.filled_quantity,
        since=now,
        cycle=c.cycle_number,
    )
    if len(c.quotes) > MAX_QUOTES:
        canceled = (name for name, quote in c.quotes.items() if quote.canceled)
        del c.quotes[next(canceled, next(iter(c.quotes)))]


def update_from(c: Carried, reading: Observation) -> None:
    """Updates the resting orders from a reading: how much of each has filled, and which are gone."""
    if not c.quotes:
        return
    # An exchange's order id may be unique only within its symbol.
    listed = {(order.symbol, order.order_id): order for order in reading.open_orders if order.market == Market.FUTURES}
    for quote in list(c.quotes.values()):
        found = next((listed[name] for name in quote.names if name in listed), None)
        if found is not None:
            quote.filled = found.filled_quantity
            quote.canceled = quote.canceled and quote.cycle >= c.cycle_number
        elif quote.cycle < c.cycle_number:
            del c.quotes[quote.order_id]


def covers(cancel: OpenCancel, quote: AgentQuote) -> bool:
    """Whether the cancel, once confirmed, leaves nothing of the quote: it names the quote, or it was prepared for the whole
    symbol after the venue had the quote."""
    if cancel.tool is Tool.CANCEL_ORDER:
        return cancel.order_id == quote.order_id
    whole = cancel.tool is Tool.CANCEL_ALL_ORDERS and cancel.symbol == quote.symbol
    return whole and cancel.prepared_at >= quote.since


def canceled(c: Carried, cancel: OpenCancel) -> list[OpenCancel]:
    """Handles a confirmed cancel: the quotes that it covers no longer rest. Returns open cancels that it makes superfluous:
    a confirmed cancel of all orders also settles cancels of single ones, so they delay no kill."""
    for quote in c.quotes.values():
        if covers(cancel, quote):
            quote.canceled, quote.cycle = True, c.cycle_number
    if cancel.tool is not Tool.CANCEL_ALL_ORDERS:
        return []
    single = c.cancels.lane(Tool.CANCEL_ORDER, cancel.symbol)
    return [other for other in single if other.prepared_at <= cancel.prepared_at]


# --- what is shown --------------------------------------------------------------------------------------------------


def resting_orders(c: Carried) -> Listed[RestingOrderStatus]:
    """What rests according to the last reading, plus what was placed since, less what was canceled since."""
    known = {name: quote for quote in c.quotes.values() for name in quote.names}
    listed = c.observation.open_orders if c.observation else []
    whose = [(order, known.get((order.symbol, order.order_id))) for order in listed]
    found = [(order, quote) for order, quote in whose if not (quote and quote.canceled)]
    shown = {quote.order_id if quote else order.order_id for order, quote in found}
    placed = [q for q in c.quotes.values() if not q.canceled and q.order_id not in shown]
    return Listed((found, _resting), (placed, _placed))


def _resting(found: tuple[OpenOrder, AgentQuote | None]) -> RestingOrderStatus:
    order, quote = found
    return RestingOrderStatus(
        order_id=quote.order_id if quote else order.order_id,
        venue_order_id=quote.venue_order_id if quote else None,
        agent_id=quote.agent_id if quote else None,
        market=order.market,
        symbol=order.symbol,
        side=order.side,
        price=order.price,
        quantity=order.quantity,
        filled=order.filled_quantity,
    )


def _placed(quote: AgentQuote) -> RestingOrderStatus:
    return RestingOrderStatus.model_validate(quote.model_dump() | {"market": Market.FUTURES})
