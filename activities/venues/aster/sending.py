"""Sends orders: reads first, sends once, reads again. An unknown outcome is a state of its own.

The tool takes no client order id, and a call that we give up may still execute. So the adapter reads the position before the
send, makes one call and never a second, and settles a missing outcome later from what the exchange shows.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

from activities.venues.arriving import VenueTime, none_can_arrive
from activities.venues.aster.caller import Caller, Ready
from activities.venues.aster.markets import mark_of
from activities.venues.aster.operation import current, operation
from activities.venues.aster.orders import (
    NotRepresentable,
    SymbolSnapshot,
    arguments_of,
    by_position,
    is_of,
    position_tells,
    quantity_of,
    report_of,
)
from activities.venues.aster.readings import ExchangePosition
from activities.venues.aster.results import Row, Unreadable, rows
from activities.venues.aster.rules import RuleBook
from activities.venues.port import Clearance, VenueError, VenueNotSent, VenueRefused
from domain.trading.instructions import OrderType
from domain.trading.market import SymbolRules
from domain.trading.orders import Fate, Order, OrderReport
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


ReadHolding = Callable[[str], Awaitable[ExchangePosition | None]]


class Before(NamedTuple):
    """What stood there before a send: how much was held, and which orders the history already listed.

    Orders differ by nothing but their time, and clocks differ too: an equal order of a moment ago must not be taken for
    this one. `listed` is None where the history could not be read, or where another process sent.
    """

    position: Decimal | None
    listed: frozenset[str] | None


class PreparedOrder(NamedTuple):
    """An order that may be sent now: the readings made before, and the arguments of the call."""

    order: Order
    quantity: Decimal
    before: SymbolSnapshot
    listed: frozenset[str] | None
    arguments: dict[str, Any]
    ready: Ready


class OrderSender:
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
            prepared = await self._prepare(order)
        except (VenueError, NotRepresentable) as error:
            return _report(order, Fate.NOT_SENT, str(error))
        if datetime.now(UTC) > order.not_after:
            return _report(order, Fate.NOT_SENT, "too late: its time ran out before it could be sent")
        # Once more, since another attempt may have read the position at the same time; nothing is awaited from here on.
        if order.order_id in self._begun:
            return await self._asked_again(order)
        self._begun[order.order_id] = Before(prepared.before.position, prepared.listed)
        while len(self._begun) > REMEMBERED:
            self._begun.popitem(last=False)
        return await self._send(prepared, clearance)

    async def find(self, order: Order) -> OrderReport | None:
        """What the exchange shows of an order; None where it shows nothing of it."""
        symbol = order.instruction.symbol
        # Before the readings: what arrives after them is not in them.
        over = await none_can_arrive(order, self._settles_after, self._venue_time)
        look, history = await asyncio.gather(self._look(symbol), self._history(order))
        before = self._begun.get(order.order_id) or Before(order.position_before, None)
        if not position_tells(order):
            before = before._replace(position=None)
        try:
            quantity = quantity_of(order.instruction, await self._known_rules(symbol))
        except NotRepresentable:
            quantity = order.instruction.quantity
        for row in [*(history or []), *look.resting]:
            if (
                row.text("orderId") not in order.others
                and is_of(order, row, quantity)
                and _is_new(row, before, look.position)
            ):
                found = report_of(order, row, before.position)
                return found or _unknown(order, "the exchange has not decided it yet", before.position)
        if before.position is None:
            return None if history is not None else _unknown(order, "neither history nor earlier position is known")
        return _from_position(order, before.position, look.position, quantity, over=over, listed=history is not None)

    async def _asked_again(self, order: Order) -> OrderReport:
        return await self.find(order) or _unknown(order, "its send has begun before; it is not sent again")

    # --- before the send -------------------------------------------------------------------------------------------------

    async def _prepare(self, order: Order) -> PreparedOrder:
        """Everything that a send needs. Raises VenueError or NotRepresentable while nothing has been sent."""
        instruction = order.instruction
        if datetime.now(UTC) > order.not_after:
            raise NotRepresentable("too late: its time ran out before the venue could begin")
        priced = instruction.order_type is OrderType.MARKET
        with operation(current().urgency, PREPARE_SECONDS):
            look, rules, history = await asyncio.gather(
                self._look(instruction.symbol, priced=priced),
                self._known_rules(instruction.symbol),
                self._history(order),
            )
        if rules and rules.halted and not instruction.reduce_only:
            raise NotRepresentable(f"the venue takes no new order of {instruction.symbol}: {rules.halted}")
        quantity, arguments = quantity_of(instruction, rules), arguments_of(instruction, rules, look.mark)
        ready = await self._caller.ready("create_order", instruction.symbol)
        if ready.takes_text("quantity"):
            # A later version of the server, which wants the digits.
            arguments["quantity"] = f"{quantity:f}"
        listed = None if history is None else frozenset(row.text("orderId") for row in history) | look.order_ids
        return PreparedOrder(order, quantity, look, listed, arguments, ready)

    async def _look(self, symbol: str, *, priced: bool = False) -> SymbolSnapshot:
        read_mark = partial(mark_of, symbol=symbol)
        holding, resting, mark = await asyncio.gather(
            self._held(symbol),
            self._caller.call("get_open_orders", symbol),
            self._caller.call_or_none(read_mark, "get_funding_rate", symbol=symbol, heeds_pauses=False)
            if priced
            else asyncio.sleep(0),
        )
        listed = [row for row in rows("get_open_orders", resting) if row.text("symbol") == symbol]
        return SymbolSnapshot(
            position=holding.quantity if holding else ZERO,
            mark=(mark.price if mark else None) or (holding.mark_price if holding else None),
            resting=listed,
        )

    async def _known_rules(self, symbol: str) -> SymbolRules | None:
        try:
            return (await self._rules.rules()).get(symbol)
        except VenueError:
            return None

    # --- the send and after ----------------------------------------------------------------------------------------------

    async def _send(self, prepared: PreparedOrder, clearance: Clearance) -> OrderReport:
        order, before = prepared.order, prepared.before.position
        try:
            answer = await prepared.ready(prepared.arguments, self._caller.timeout_seconds, clearance)
        except VenueRefused as error:
            # The exchange may have stopped trading the symbol since the rules were read.
            self._rules.expire()
            try:
                unchanged = (await self._look(order.instruction.symbol)).same_as(prepared.before)
            except VenueError:
                unchanged = False
            if unchanged:
                raise
            return _unknown(order, f"{error}, but something changed meanwhile", before)
        except VenueNotSent as error:
            return _report(order, Fate.NOT_SENT, str(error))
        except VenueError as error:
            return _unknown(order, str(error), before)
        try:
            row = Row(prepared.ready.label, answer)
            if row.has("symbol") and row.text("symbol") != order.instruction.symbol:
                raise Unreadable(row.call, "it is of another symbol")
            if decided := report_of(order, row, before):
                return decided
            return await self._follow(prepared, int(row.number("orderId")) if row.has("orderId") else None)
        except VenueError as error:
            # It was taken, and what the exchange said of it, or says now, cannot be read.
            return _unknown(order, str(error), before)

    async def _follow(self, prepared: PreparedOrder, order_id: int | None) -> OrderReport:
        """Looks at an order that was taken until it is decided. MARKET and IOC are, within moments."""
        began, pause = time.monotonic(), _FIRST_LOOK_SECONDS
        while (left := FOLLOW_SECONDS - (time.monotonic() - began)) > 0:
            if decided := await self._look_at(prepared, order_id, left):
                return decided
            await asyncio.sleep(min(pause, left))
            pause *= 2
        return _unknown(prepared.order, "the venue took it and has not decided it yet", prepared.before.position)

    async def _look_at(self, prepared: PreparedOrder, order_id: int | None, seconds: float) -> OrderReport | None:
        order, before, symbol = prepared.order, prepared.before.position, prepared.order.instruction.symbol
        if order_id is not None:
            # Where that cannot be read the position may still tell.
            with contextlib.suppress(VenueError):
                found = await self._caller.call("get_order", symbol, seconds=seconds, order_id=order_id)
                return report_of(order, Row("get_order", found).of_order(order_id), before)
        if not position_tells(order):
            return None
        look = await self._look(symbol)
        return by_position(order, before, look.position, prepared.quantity, over=False)

    async def _history(self, order: Order) -> list[Row] | None:
        """The symbol's orders since a little before this one, oldest first; None where the venue does not show them."""
        since, symbol = int((order.prepared_at - _BEFORE).timestamp() * 1000), order.instruction.symbol
        listed = partial(rows, "get_all_orders")
        return await self._caller.call_or_none(
            listed, "get_all_orders", symbol=symbol, heeds_pauses=False, start_time=since, limit=1000
        )


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
