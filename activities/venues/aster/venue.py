"""The Aster venue: implements the port with the server's tools. It confirms every change by a later reading."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from activities.venues.aster.account import OVER, AccountReader
from activities.venues.aster.answers import BadRequest
from activities.venues.aster.caller import Caller
from activities.venues.aster.market_data import MarketData
from activities.venues.aster.operation import Urgency, current, operation
from activities.venues.aster.readings import holdings_of, position_of
from activities.venues.aster.results import Row, Unreadable, rows
from activities.venues.aster.rules import RuleBook
from activities.venues.aster.sending import OrderSender
from activities.venues.aster.single_cancel import cancel_one
from activities.venues.aster.statements import PAGE_ROWS
from activities.venues.call_observer import CallObserver
from activities.venues.port import (
    CERTAIN,
    CLEARED,
    Clearance,
    VenueError,
    VenueNotSent,
    VenueRateLimited,
    VenueRefused,
    VenueUnavailable,
)
from domain.trading.instructions import Tool
from domain.trading.market import NOTHING_KNOWN, Known, MarketView, Observation, SymbolReading, SymbolRules
from domain.trading.orders import Order, OrderReport
from domain.values import ZERO

_READS_BACK = {
    Tool.CANCEL_ALL_ORDERS: "get_open_orders",
    Tool.CANCEL_SPOT_ALL_ORDERS: "get_spot_open_orders",
}
# Less than the activities have, so that nothing is sent that nobody waits for any more.
OBSERVE_SECONDS = 5.5
LOOK_SECONDS = 4.5
MARKETS_SECONDS = 12.0
CANCEL_SECONDS = 6.8
CREATE_SECONDS = 13.0
TIME_SECONDS = 3.0
_HISTORY = {
    Tool.CANCEL_ALL_ORDERS: "get_all_orders",
    Tool.CANCEL_SPOT_ALL_ORDERS: "get_spot_all_orders",
}
_DONE = "200"
# The exchange may list an order a moment longer than it lives.
_LOOKS_AGAIN_SECONDS = (0.1, 0.3)


class AsterVenue:
    """One account at Aster. Whatever the server does, methods raise only VenueError."""

    # A signed request is valid for five seconds from its time stamp. But a hanging server stamps it late, and after a 429 the
    # server tries again by itself.
    settles_after = timedelta(seconds=30)
    counts_its_calls = True

    def __init__(self, caller: Caller, watch: CallObserver, interval: str = "1m") -> None:
        self._caller = caller
        self._watch = watch
        self._rules = RuleBook(caller)
        self._tape = MarketData(caller, watch, interval)
        self._account = AccountReader(caller)
        self._placing = OrderSender(caller, self._rules, self._account.held, self.settles_after, self.time)

    async def ping(self) -> None:
        """Raises unless the exchange answers the server."""
        await self._caller.call("ping")

    async def check(self) -> None:
        """Raises HedgeMode for an account that cannot be traded through this server, VenueMisconfigured for a wrong key."""
        try:
            await self._check_one_way()
        except CERTAIN:
            await self._check_one_way()

    async def _check_one_way(self) -> None:
        try:
            holdings_of(await self._caller.call("get_positions"))
        except BadRequest:
            # Whether public calls are answered shows what is wrong with this one.
            await self.ping()
            holdings_of(await self._caller.call("get_positions"))

    async def close(self) -> None:
        """Closes the connection."""
        await self._caller.close()

    async def observe(self, symbols: Sequence[str], cycle_id: str | None, known: Known = NOTHING_KNOWN) -> Observation:
        """The whole account, with prices and rules of these symbols and of what is held. It moves nothing.

        A reading without a cycle is urgent: a kill or a limit waits for it.
        """
        with operation(Urgency.READING if cycle_id else Urgency.SOON, OBSERVE_SECONDS):
            return await self._observe(symbols, known)

    async def _observe(self, symbols: Sequence[str], known: Known = NOTHING_KNOWN) -> Observation:
        began = datetime.now(UTC)
        seen, marks, (rules, ruleless) = await asyncio.gather(
            self._account.read(known), self._tape.marks(symbols), self._rules_or_why()
        )
        self._watch.venue_data("positions", began)
        held = [holding for holding in seen.holdings.values() if holding.quantity]
        wanted = list(dict.fromkeys([*symbols, *(holding.symbol for holding in held)]))
        known_prices = {symbol: it.mark_price for symbol, it in seen.holdings.items() if it.mark_price is not None}
        prices = await self._tape.prices(wanted, marks, known_prices, began)
        # Without a price no reading is a fact. One without the price of one position must not keep a kill from closing others.
        none = ZERO if known.flattens else None
        unpriced = [f"{h.symbol} is held and has no price" for h in held if h.symbol not in prices.of]
        return Observation(
            observed_at=began,
            data_time=prices.as_of,
            marks=prices.of,
            rules={symbol: rules[symbol] for symbol in prices.of if symbol in rules},
            positions=[position_of(holding, prices.of.get(holding.symbol, none)) for holding in held],
            open_orders=seen.open_orders,
            account=seen.account,
            note=ruleless or prices.missing,
            doubts=[*seen.doubts, *unpriced],
        )

    async def look(self, symbol: str) -> SymbolReading | Observation:
        """One symbol's position, at a twentieth of the weight. If it shows none, the whole account is read: a position may be
        missing in a single answer.
        """
        with operation(Urgency.SOON, LOOK_SECONDS):
            held, (rules, _) = await asyncio.gather(self._caller.call("get_positions", symbol), self._rules_or_why())
            holding = holdings_of(held).get(symbol)
            if holding is None or not holding.quantity or holding.mark_price is None:
                return await self._observe([symbol])
            # Without any the whole position can be closed. Another reading would ask for them once more.
            found = rules.get(symbol) or self._rules.remembered.get(symbol)
            known = {symbol: found} if found else {}
            return SymbolReading(positions=[position_of(holding, holding.mark_price)], rules=known)

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        """Newest finished bars, top of the book and next funding rate of each symbol, read all at once."""
        with operation(Urgency.READING, MARKETS_SECONDS):
            return await self._tape.markets(symbols, bars)

    async def cancel_all(self, tool: Tool, symbol: str) -> None:
        """Cancels, and returns only once two sources confirm that nothing is open: the answer of the cancel and a reading begun
        after it. If the cancel failed, the order history has to confirm it instead."""
        if tool not in _READS_BACK:
            raise VenueRefused(f"{tool.value} is not a tool that cancels")
        call, failed = f"{tool.value} {symbol}", None
        with operation(Urgency.CANCEL, CANCEL_SECONDS):
            try:
                # The code is a string on one market, a number on the other.
                if Row(call, await self._caller.call(tool.value, symbol)).text("code") != _DONE:
                    raise Unreadable(call, "it does not say that the orders are canceled")
            except (VenueNotSent, VenueRateLimited):
                raise  # Nothing was sent, so there is nothing to confirm, and others wait for the turn.
            except VenueError as error:
                failed = error
            # Both at once, since the activity has the time of two calls.
            active = self._active(tool, symbol, failed) if failed else asyncio.sleep(0, 0)
            left = max(await asyncio.gather(self._left_open(tool, symbol), active))
        if left:
            orders = "1 order is" if left == 1 else f"{left} orders are"
            raise VenueUnavailable(f"{call}: {orders} still open{f' ({failed})' if failed else ''}")

    async def cancel_order(self, symbol: str, order_id: str) -> None:
        """Cancels one order. It is as urgent as a cycle's readings, so that a refusal of it holds up no cancel of a kill."""
        with operation(Urgency.READING, CANCEL_SECONDS):
            await cancel_one(self._caller, symbol, int(order_id))

    async def create_order(self, order: Order, clearance: Clearance = CLEARED) -> OrderReport:
        """Sends an order, once."""
        with operation(Urgency.SOON if order.instruction.reduce_only else Urgency.READING, CREATE_SECONDS):
            return await self._placing.create(order, clearance)

    async def find_order(self, order: Order) -> OrderReport | None:
        """What became of an order, judged by position, resting orders and history."""
        with operation(Urgency.SOON, CANCEL_SECONDS):
            return await self._placing.find(order)

    async def time(self, symbol: str) -> datetime | None:
        """The exchange's clock. A symbol that it does not know any more must not leave an order's fate unknown for ever: then
        another one is asked."""
        with operation(current().urgency, TIME_SECONDS):
            other = self._rules.trading_besides(symbol)
            try:
                told = await self._tape.time(symbol)
            except VenueRefused:
                if other is None:
                    raise
                told = None
            return await self._tape.time(other) if told is None and other else told

    async def _rules_or_why(self) -> tuple[Mapping[str, SymbolRules], str | None]:
        """The rules, or why there are none: positions and account are worth reading without them."""
        try:
            return await self._rules.rules(), None
        except VenueError as error:
            return {}, f"no rules: {error}"

    async def _left_open(self, tool: Tool, symbol: str) -> int:
        left = await self._open_now(tool, symbol)
        for pause in _LOOKS_AGAIN_SECONDS:
            if not left:
                break
            await asyncio.sleep(pause)
            left = await self._open_now(tool, symbol)
        return left

    async def _active(self, tool: Tool, symbol: str, failed: VenueError) -> int:
        """The number of open orders by the order history; 0 on a market that does not have the symbol. Raises VenueError if
        there may be more. After a cancel without an answer, a history without any order proves nothing either."""
        reads = _HISTORY[tool]
        try:
            listed = rows(reads, await self._caller.call(reads, symbol, limit=PAGE_ROWS))
        except VenueRefused as error:
            if await self._has(tool, symbol):
                raise VenueUnavailable(str(error)) from None
            return 0
        active = sum(row.text("symbol") == symbol and row.text("status") not in OVER for row in listed)
        was_answered = isinstance(failed, VenueRefused | Unreadable)
        if not active and len(listed) >= PAGE_ROWS:
            # The exchange lists the newest ones.
            if not was_answered:
                raise Unreadable(f"{reads} {symbol}", "it may be truncated")
            # It may refuse every cancel of this symbol, and no kill would ever end.
            return await self._open_of_all(tool, symbol)
        if not listed and not was_answered:
            raise VenueUnavailable(f"{failed}, and {reads} lists nothing")
        return active

    async def _has(self, tool: Tool, symbol: str) -> bool:
        """Whether the tool's market has the symbol."""
        try:
            await self._caller.call(_READS_BACK[tool], symbol)
        except BadRequest:
            return False
        return True

    async def _open_now(self, tool: Tool, symbol: str) -> int:
        reads = _READS_BACK[tool]
        try:
            answer = await self._caller.call(reads, symbol)
        except VenueRefused:
            # A symbol that only the other market has must not keep a kill open.
            return await self._open_of_all(tool, symbol)
        return sum(row.text("symbol") == symbol for row in rows(reads, answer))

    async def _open_of_all(self, tool: Tool, symbol: str) -> int:
        """The symbol's open orders in the list of all symbols."""
        reads = _READS_BACK[tool]
        return sum(row.text("symbol") == symbol for row in rows(reads, await self._caller.call(reads)))
