"""Sends orders: reads first, sends once, reads again. An unknown outcome is a state of its own.

The tool takes no client order id, and a call that we gave up may still be executed. So the adapter reads the position before the
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
from activities.venues.aster.answers import BadRequest
from activities.venues.aster.caller import Caller, ReadyCall
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
from activities.venues.aster.statements import PAGE_ROWS, milliseconds_of, pages_of
from activities.venues.port import Clearance, VenueError, VenueNotSent, VenueRefused
from domain.trading.instructions import OrderType
from domain.trading.market import SymbolRules
from domain.trading.orders import Fate, Order, OrderReport
from domain.values import ZERO

# How many begun sends this process remembers; a repeated call for an order comes within seconds, if at all.
REMEMBERED = 1000
# For the readings before a send; the send and what follows have to fit into the rest of the activity's time.
PREPARE_SECONDS = 6.0
# How long an accepted but undecided order is watched before its fate counts as unknown.
FOLLOW_SECONDS = 2.0
_FIRST_LOOK_SECONDS = 0.05
# How far behind ours the exchange's clock may be, when an order is sent, without being noticed: a desk whose clocks differ by
# a cycle takes no new risk. And how long before the order's own time the search for its traces begins.
_APART = timedelta(seconds=60)
_BEFORE = _APART + timedelta(seconds=10)
# The exchange accepts requests stamped up to a second ahead of its own clock.
_CLOCK_SLACK = timedelta(seconds=2)
_AT_ONCE = timedelta()


ReadHolding = Callable[[str], Awaitable[ExchangePosition | None]]


class BeforeSend(NamedTuple):
    """The state before a send: the position, and the orders that the history already listed.

    Equal orders differ only in their time, and clocks differ too: an equal order of a moment ago must not be mistaken for this
    one. `listed` is None if the history could not be read, or if another process sent the order.
    """

    position: Decimal | None
    listed: frozenset[str] | None


class PreparedOrder(NamedTuple):
    """An order that is ready to be sent: the readings made before, and the call's arguments."""

    order: Order
    quantity: Decimal
    before: SymbolSnapshot
    listed: frozenset[str] | None
    arguments: dict[str, Any]
    ready: ReadyCall


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
        self._begun: OrderedDict[str, BeforeSend] = OrderedDict()

    async def create(self, order: Order, clearance: Clearance) -> OrderReport:
        """Sends an order, at most once. If the send never began, that is reported, not raised."""
        if order.order_id in self._begun:
            return await self._asked_again(order)
        try:
            prepared = await self._prepare(order)
        except (VenueError, NotRepresentable) as error:
            return _report(order, Fate.NOT_SENT, str(error))
        if datetime.now(UTC) > order.not_after:
            return _report(order, Fate.NOT_SENT, "too late: its time ran out before it could be sent")
        # Checked again, since another attempt may have prepared at the same time. Nothing is awaited from here to the note below.
        if order.order_id in self._begun:
            return await self._asked_again(order)
        self._begun[order.order_id] = BeforeSend(prepared.before.position, prepared.listed)
        while len(self._begun) > REMEMBERED:
            self._begun.popitem(last=False)
        return await self._send(prepared, clearance)

    async def find(self, order: Order) -> OrderReport | None:
        """What the exchange shows of an order; None if it shows no trace of it."""
        symbol = order.instruction.symbol
        # Decided before the readings: an order that arrives after them is not in them.
        over, told = await asyncio.gather(
            none_can_arrive(order, self._settles_after, self._venue_time), self._exchange_is_behind(symbol)
        )
        behind, ahead = max(told or _AT_ONCE, _AT_ONCE), max(-(told or _AT_ONCE), _AT_ONCE)
        # Nothing that arrives later is this order.
        until = order.not_after + self._settles_after + ahead + _BEFORE
        look, history = await asyncio.gather(self._look(symbol), self._history(order, behind, until))
        before = self._begun.get(order.order_id) or BeforeSend(order.position_before, None)
        # Without a note of what was listed before, only the time distinguishes it from an equal order of a moment ago.
        earlier = behind + _CLOCK_SLACK if before.listed is None else max(behind + _CLOCK_SLACK, _APART)
        if not position_tells(order):
            before = before._replace(position=None)
        try:
            quantity = quantity_of(order.instruction, await self._known_rules(order))
        except NotRepresentable:
            quantity = order.instruction.quantity
        for row in [*(history or []), *look.resting]:
            if (
                row.text("orderId") not in order.others
                and is_of(order, row, quantity, order.prepared_at - earlier)
                and _is_new(row, before, look.position, None if told is None else order.prepared_at - told)
            ):
                found = report_of(order, row, before.position)
                return found or _unknown(order, "the exchange has not decided it yet", before.position)
        # Without the exchange's clock it may be listed, and dated long before.
        proves = history is not None and told is not None
        if before.position is None:
            lacking = "no history, no earlier position or no clock of the exchange is known"
            return None if proves else _unknown(order, lacking)
        return _from_position(order, before.position, look.position, quantity, over=over, listed=proves)

    async def _asked_again(self, order: Order) -> OrderReport:
        return await self.find(order) or _unknown(order, "its send had already begun; it is not sent again")

    # --- before the send -------------------------------------------------------------------------------------------------

    async def _prepare(self, order: Order) -> PreparedOrder:
        """Prepares everything that a send needs, without sending. Raises VenueError or NotRepresentable."""
        instruction = order.instruction
        if datetime.now(UTC) > order.not_after:
            raise NotRepresentable("too late: its time ran out before the venue could begin")
        priced = instruction.order_type is OrderType.MARKET
        with operation(current().urgency, PREPARE_SECONDS):
            look, rules, history = await asyncio.gather(
                self._look(instruction.symbol, priced=priced),
                self._known_rules(order),
                self._history(order),
            )
        if rules and rules.halted and not instruction.reduce_only:
            raise NotRepresentable(f"the venue takes no new order of {instruction.symbol}: {rules.halted}")
        quantity, arguments = quantity_of(instruction, rules), arguments_of(instruction, rules, look.mark)
        ready = await self._caller.ready("create_order", instruction.symbol)
        if ready.takes_text("quantity"):
            # Newer versions of the server take decimal text.
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

    async def _known_rules(self, order: Order) -> SymbolRules | None:
        symbol = order.instruction.symbol
        try:
            return (await self._rules.rules()).get(symbol)
        except VenueError:
            return self._rules.remembered.get(symbol) if order.instruction.reduce_only else None

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
                raise Unreadable(row.call, "it is about another symbol")
            if decided := report_of(order, row, before):
                return decided
            return await self._follow(prepared, int(row.number("orderId")) if row.has("orderId") else None)
        except VenueError as error:
            # The order was accepted, but an answer about it cannot be read.
            return _unknown(order, str(error), before)

    async def _follow(self, prepared: PreparedOrder, order_id: int | None) -> OrderReport:
        """Watches an accepted order until it is decided, which takes moments for MARKET and IOC."""
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
            # If the order cannot be read, the position may still tell.
            with contextlib.suppress(VenueError):
                found = await self._caller.call("get_order", symbol, seconds=seconds, order_id=order_id)
                return report_of(order, Row("get_order", found).of_order(order_id), before)
        if not position_tells(order):
            return None
        look = await self._look(symbol)
        return by_position(order, before, look.position, prepared.quantity, over=False)

    async def _exchange_is_behind(self, symbol: str) -> timedelta | None:
        """How far the exchange's clock, by which it dates orders, is behind ours; negative if it is ahead, None if it does not
        tell."""
        began = datetime.now(UTC)
        try:
            told = await self._venue_time(symbol)
        except VenueError:
            return None
        return began - told if told else None

    async def _history(
        self, order: Order, behind: timedelta = timedelta(), until: datetime | None = None
    ) -> list[Row] | None:
        """The symbol's orders from shortly before this one on, oldest first; None if not all of them can be read.

        Of more than a page the exchange lists the newest, and of more than a week nothing. Then the time up to `until` is read in
        parts, if that is given.
        """
        since, symbol = order.prepared_at - _BEFORE - behind, order.instruction.symbol

        async def read(start: int, end: int | None = None) -> list[Row]:
            bounds = {"start_time": start} if end is None else {"start_time": start, "end_time": end}
            return rows("get_all_orders", await self._caller.call("get_all_orders", symbol, **bounds, limit=PAGE_ROWS))

        try:
            with contextlib.suppress(BadRequest):
                # Refused if it is more than a week.
                found = await read(milliseconds_of(since))
                if len(found) < PAGE_ROWS:
                    return found
            pages = [] if until is None else [page async for page in pages_of(read, since, until)]
        except VenueError:
            return None
        return [row for page in pages for row in page.rows] if pages and all(page.whole for page in pages) else None


def _is_new(row: Row, before: BeforeSend, position: Decimal, prepared_at: datetime | None) -> bool:
    """Whether a row that matches the order was not there before it. `prepared_at` is by the exchange's clock, if it tells.

    If nobody noted what was listed before, the position has to show the row's fill as well, or the row has to be of after the
    order was prepared: other orders may have moved the position since.
    """
    if before.listed is not None:
        return row.text("orderId") not in before.listed
    filled, placed = row.number("executedQty") if row.has("executedQty") else ZERO, row.moment("time")
    if before.position is None or not filled or abs(position - before.position) == filled:
        return True
    return prepared_at is not None and placed is not None and placed >= prepared_at


def _from_position(
    order: Order, before: Decimal, now: Decimal, quantity: Decimal, *, over: bool, listed: bool
) -> OrderReport | None:
    """The report if no listed order can be this one; None if there is no trace of it."""
    if found := by_position(order, before, now, quantity, over=over):
        return found
    # Without a history the position alone proves nothing: a fill and a later close would leave it unchanged.
    if listed and (now == before or over):
        return None
    return _unknown(order, f"the position went from {before} to {now}, and no order is listed that explains it", before)


def _unknown(order: Order, detail: str, before: Decimal | None = None) -> OrderReport:
    return _report(order, Fate.UNKNOWN, detail, before)


def _report(order: Order, fate: Fate, detail: str, before: Decimal | None = None) -> OrderReport:
    return OrderReport(order_id=order.order_id, fate=fate, detail=detail, position_before=before)
