"""Orders: read, send once, read again; unknown is a state.

The tool takes no client order id and a call that is given up still executes. So the position is read before the send, one
call is made and never a second one, and an outcome that nobody told is settled later from what the exchange shows.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from activities.venues.arriving import VenueTime, none_can_arrive
from activities.venues.aster.caller import Caller, Ready
from activities.venues.aster.errand import current, errand
from activities.venues.aster.markets import mark_of
from activities.venues.aster.orders import (
    Look,
    Unsendable,
    arguments_of,
    by_position,
    is_of,
    quantity_of,
    report_of,
)
from activities.venues.aster.readings import Holding
from activities.venues.aster.results import Row, Unreadable, rows
from activities.venues.aster.rules import RuleBook
from activities.venues.port import Clearance, VenueError, VenueNotSent, VenueRefused
from domain.instructions import OrderType
from domain.market import SymbolRules
from domain.orders import Fate, Order, OrderReport
from domain.values import ZERO

# Sends that this process remembers having begun; an order is asked for again within seconds, if at all.
REMEMBERED = 1000
# What is read before a send; the send itself, and what follows, have to fit into the rest of the activity's time.
PREPARE_SECONDS = 6.0
# An order that the exchange has taken and not yet decided is looked at for so long before it is called unknown.
FOLLOW_SECONDS = 2.0
_FIRST_LOOK_SECONDS = 0.05
# How far back before the order's own time its traces are looked for.
_BEFORE = timedelta(seconds=10)


ReadHolding = Callable[[str], Awaitable[Holding | None]]


class Before(NamedTuple):
    """What stood there before a send: how much was held, and which orders the history already listed.

    Orders differ by nothing but their time, and clocks differ too: an equal order of a moment ago must not be taken for
    this one. `listed` is None where the history could not be read, or where another process sent.
    """

    position: Decimal | None
    listed: frozenset[str] | None


class Ticket(NamedTuple):
    """An order that may be sent now: what was read before, and what will be said."""

    order: Order
    quantity: Decimal
    before: Look
    listed: frozenset[str] | None
    arguments: dict[str, Any]
    ready: Ready


class Placing:
    """Sends one account's orders, and finds out what became of them."""

    def __init__(
        self, caller: Caller, rules: RuleBook, held: ReadHolding, settles_after: timedelta, venue_time: VenueTime
    ) -> None:
        self._caller = caller
        self._rules = rules
        self._held = held
        self._settles_after = settles_after
        self._venue_time = venue_time
        self._begun: OrderedDict[str, Before] = OrderedDict()

    async def create(self, order: Order, clearance: Clearance) -> OrderReport:
        """Sends an order, at most once. What has not begun to be sent is reported as such, never raised."""
        if order.order_id in self._begun:
            return await self._asked_again(order)
        try:
            ticket = await self._prepare(order)
        except (VenueError, Unsendable) as error:
            return _report(order, Fate.NOT_SENT, str(error))
        if datetime.now(UTC) > order.not_after:
            return _report(order, Fate.NOT_SENT, "too late: its time ran out before it could be sent")
        # Once more, since another attempt may have read the position at the same time; nothing is awaited from here on.
        if order.order_id in self._begun:
            return await self._asked_again(order)
        self._remember(order, Before(ticket.before.position, ticket.listed))
        return await self._send(ticket, clearance)

    async def find(self, order: Order) -> OrderReport | None:
        """What the exchange shows of an order; None where it shows nothing of it."""
        symbol = order.instruction.symbol
        # Before the readings: what arrives after them is not in them.
        over = await none_can_arrive(order, self._settles_after, self._venue_time)
        look, history = await asyncio.gather(self._look(symbol), self._history(order))
        before = self._begun.get(order.order_id) or Before(order.position_before, None)
        quantity = self._quantity(order, await self._known_rules(symbol))
        for row in [*(history or []), *look.resting]:
            if is_of(order, row, quantity) and _is_new(row, before, look.position):
                found = report_of(order, row, before.position)
                return found or _unknown(order, "the exchange has not decided it yet", before.position)
        if before.position is None:
            return None if history is not None else _unknown(order, "neither history nor earlier position is known")
        return _from_position(order, before.position, look.position, quantity, over=over, listed=history is not None)

    async def _asked_again(self, order: Order) -> OrderReport:
        return await self.find(order) or _unknown(order, "its send has begun before; it is not sent again")

    # --- before the send -------------------------------------------------------------------------------------------------

    async def _prepare(self, order: Order) -> Ticket:
        """Everything that a send needs. Raises VenueError or Unsendable while nothing has been sent."""
        instruction = order.instruction
        if datetime.now(UTC) > order.not_after:
            raise Unsendable("too late: its time ran out before the venue could begin")
        priced = instruction.order_type is OrderType.MARKET
        with errand(current().urgency, PREPARE_SECONDS):
            look, rules, history = await asyncio.gather(
                self._look(instruction.symbol, priced=priced),
                self._known_rules(instruction.symbol),
                self._history(order),
            )
        if rules and rules.halted and not instruction.reduce_only:
            raise Unsendable(f"the venue takes no new order of {instruction.symbol}: {rules.halted}")
        quantity, arguments = quantity_of(instruction, rules), arguments_of(instruction, rules, look.mark)
        ready = await self._caller.ready("create_order", instruction.symbol)
        if ready.takes_text("quantity"):
            # A later version of the server, which wants the digits.
            arguments["quantity"] = f"{quantity:f}"
        listed = None if history is None else frozenset(row.text("orderId") for row in history) | look.order_ids
        return Ticket(order, quantity, look, listed, arguments, ready)

    async def _look(self, symbol: str, *, priced: bool = False) -> Look:
        holding, resting, mark = await asyncio.gather(
            self._held(symbol),
            self._caller.call("get_open_orders", symbol),
            self._mark(symbol) if priced else _nothing(),
        )
        listed = [row for row in rows("get_open_orders", resting) if row.text("symbol") == symbol]
        return Look(
            position=holding.quantity if holding else ZERO,
            mark=mark or (holding.mark_price if holding else None),
            resting=listed,
        )

    async def _mark(self, symbol: str) -> Decimal | None:
        try:
            return mark_of(await self._caller.call("get_funding_rate", symbol), symbol).price
        except VenueError:
            return None

    async def _known_rules(self, symbol: str) -> SymbolRules | None:
        try:
            return (await self._rules.rules()).get(symbol)
        except VenueError:
            return None

    def _quantity(self, order: Order, rules: SymbolRules | None) -> Decimal:
        try:
            return quantity_of(order.instruction, rules)
        except Unsendable:
            return order.instruction.quantity

    def _remember(self, order: Order, before: Before) -> None:
        self._begun[order.order_id] = before
        while len(self._begun) > REMEMBERED:
            self._begun.popitem(last=False)

    # --- the send and after ----------------------------------------------------------------------------------------------

    async def _send(self, ticket: Ticket, clearance: Clearance) -> OrderReport:
        order, before = ticket.order, ticket.before.position
        try:
            answer = await ticket.ready(ticket.arguments, self._caller.timeout_seconds, clearance)
        except VenueRefused as error:
            # The exchange may have stopped trading the symbol since the rules were read.
            self._rules.expire()
            if await self._nothing_changed(ticket):
                raise
            return _unknown(order, f"{error}, but something changed meanwhile", before)
        except VenueNotSent as error:
            return _report(order, Fate.NOT_SENT, str(error))
        except VenueError as error:
            return _unknown(order, str(error), before)
        try:
            return await self._answered(ticket, Row(ticket.ready.label, answer))
        except VenueError as error:
            # It was taken, and what the exchange said of it, or says now, cannot be read.
            return _unknown(order, str(error), before)

    async def _nothing_changed(self, ticket: Ticket) -> bool:
        try:
            return (await self._look(ticket.order.instruction.symbol)).same_as(ticket.before)
        except VenueError:
            return False

    async def _answered(self, ticket: Ticket, answer: Row) -> OrderReport:
        if answer.has("symbol") and answer.text("symbol") != ticket.order.instruction.symbol:
            raise Unreadable(answer.call, "it is of another symbol")
        if decided := report_of(ticket.order, answer, ticket.before.position):
            return decided
        return await self._follow(ticket, int(answer.number("orderId")) if answer.has("orderId") else None)

    async def _follow(self, ticket: Ticket, order_id: int | None) -> OrderReport:
        """Looks at an order that was taken until it is decided. MARKET and IOC are, within moments."""
        began, pause = time.monotonic(), _FIRST_LOOK_SECONDS
        while (left := FOLLOW_SECONDS - (time.monotonic() - began)) > 0:
            if decided := await self._look_at(ticket, order_id, left):
                return decided
            await asyncio.sleep(min(pause, left))
            pause *= 2
        return _unknown(ticket.order, "the venue took it and has not decided it yet", ticket.before.position)

    async def _look_at(self, ticket: Ticket, order_id: int | None, seconds: float) -> OrderReport | None:
        order, before = ticket.order, ticket.before.position
        if order_id is not None:
            try:
                found = await self._caller.call(
                    "get_order", order.instruction.symbol, seconds=seconds, order_id=order_id
                )
                return report_of(order, _of_id(Row("get_order", found), order_id), before)
            except VenueError:
                pass  # The position still tells.
        look = await self._look(order.instruction.symbol)
        return by_position(order, before, look.position, ticket.quantity, over=False)

    async def _history(self, order: Order) -> list[Row] | None:
        """The symbol's orders since a little before this one, oldest first; None where the venue does not show them."""
        since = int((order.prepared_at - _BEFORE).timestamp() * 1000)
        try:
            answer = await self._caller.call("get_all_orders", order.instruction.symbol, start_time=since, limit=1000)
            return rows("get_all_orders", answer)
        except VenueError:
            return None


def _of_id(row: Row, order_id: int) -> Row:
    if row.number("orderId") != order_id:
        raise Unreadable(row.call, "it is of another order")
    return row


def _is_new(row: Row, before: Before, position: Decimal) -> bool:
    """Whether a row that looks like the order was not there before it.

    Where nobody noted what was listed, one that filled has to be seen in the position as well.
    """
    if before.listed is not None:
        return row.text("orderId") not in before.listed
    filled = row.number("executedQty") if row.has("executedQty") else ZERO
    return before.position is None or not filled or abs(position - before.position) == filled


def _from_position(
    order: Order, before: Decimal, now: Decimal, quantity: Decimal, *, over: bool, listed: bool
) -> OrderReport | None:
    """Where no order is listed that could be this one."""
    if found := by_position(order, before, now, quantity, over=over):
        return found
    # Without a history the position alone says nothing: a fill and its closing leave it as it was.
    if listed and (now == before or over):
        return None
    return _unknown(order, f"the position went from {before} to {now}, and no order is listed that explains it", before)


def _unknown(order: Order, detail: str, before: Decimal | None = None) -> OrderReport:
    return _report(order, Fate.UNKNOWN, detail, before)


def _report(order: Order, fate: Fate, detail: str, before: Decimal | None = None) -> OrderReport:
    return OrderReport(order_id=order.order_id, fate=fate, detail=detail, position_before=before)


async def _nothing() -> None:
    return None
