"""The Aster venue: the port's methods in terms of the server's tools. Outcomes are judged by reading the state back."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from activities.venues.aster.account import STILL_OPEN, AccountReader
from activities.venues.aster.caller import Caller
from activities.venues.aster.errand import Urgency, current, errand
from activities.venues.aster.placing import Placing
from activities.venues.aster.readings import Holding, holdings_of, position_of
from activities.venues.aster.results import BadRequest, Row, Unreadable, rows
from activities.venues.aster.rules import RuleBook
from activities.venues.aster.tape import Tape
from activities.venues.port import (
    CLEARED,
    Clearance,
    VenueError,
    VenueNotSent,
    VenueRateLimited,
    VenueRefused,
    VenueUnavailable,
)
from activities.venues.watch import Watch
from domain.instructions import Tool
from domain.market import NOTHING_KNOWN, Known, MarketView, Observation, Position, SymbolReading, SymbolRules
from domain.orders import Order, OrderReport

_READS_BACK = {
    Tool.CANCEL_ALL_ORDERS: "get_open_orders",
    Tool.CANCEL_SPOT_ALL_ORDERS: "get_spot_open_orders",
}
# Less than the activities have, so that what nobody waits for any more is not sent either.
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
    """One account at Aster. Every method raises VenueError and nothing else that a server could cause."""

    # A signed request is good for five seconds after it was stamped, a hanging server stamps it late, and one that was
    # told to wait (429) tries it again by itself.
    settles_after = timedelta(seconds=30)
    counts_its_calls = True

    def __init__(self, caller: Caller, watch: Watch, interval: str = "1m") -> None:
        self._caller = caller
        self._watch = watch
        self._rules = RuleBook(caller)
        self._tape = Tape(caller, watch, interval)
        self._account = AccountReader(caller)
        self._placing = Placing(caller, self._rules, self._account.held, self.settles_after, self.time)

    async def ping(self) -> None:
        """Raises unless the exchange answers the server."""
        await self._caller.call("ping")

    async def check_one_way(self) -> None:
        """Raises HedgeMode for an account that cannot be traded through this server."""
        try:
            holdings_of(await self._caller.call("get_positions"))
        except BadRequest:
            # Whether public calls are answered tells what is wrong with this one.
            await self.ping()
            holdings_of(await self._caller.call("get_positions"))

    async def close(self) -> None:
        """Ends the connection."""
        await self._caller.close()

    async def observe(self, symbols: Sequence[str], cycle_id: str | None, known: Known = NOTHING_KNOWN) -> Observation:
        """The whole account, and the prices and rules of these symbols and of what is held. It moves nothing.

        One that belongs to no cycle is what a kill or a limit waits for.
        """
        with errand(Urgency.READING if cycle_id else Urgency.SOON, OBSERVE_SECONDS):
            return await self._observe(symbols, known)

    async def _observe(self, symbols: Sequence[str], known: Known = NOTHING_KNOWN) -> Observation:
        began = datetime.now(UTC)
        seen, marks, (rules, ruleless) = await asyncio.gather(
            self._account.read(known), self._tape.marks(symbols), self._rules_or_why()
        )
        self._watch.venue_data("positions", began)
        wanted = list(dict.fromkeys([*symbols, *_held(seen.holdings)]))
        prices = await self._tape.prices(wanted, marks, _prices(seen.holdings), began)
        return Observation(
            observed_at=began,
            data_time=prices.as_of,
            marks=prices.of,
            rules={symbol: rules[symbol] for symbol in prices.of if symbol in rules},
            positions=_positions(seen.holdings, prices.of),
            open_orders=seen.open_orders,
            account=seen.account,
            note=ruleless or prices.missing,
            doubts=seen.doubts,
        )

    async def look(self, symbol: str) -> SymbolReading | Observation:
        """One symbol's position at a twentieth of the weight. Where it shows none, the whole account is read: a position that
        is missing in one answer may be missing in that answer alone.
        """
        with errand(Urgency.SOON, LOOK_SECONDS):
            held, (rules, _) = await asyncio.gather(self._caller.call("get_positions", symbol), self._rules_or_why())
            holding = holdings_of(held).get(symbol)
            if holding is None or not holding.quantity or holding.mark_price is None or symbol not in rules:
                return await self._observe([symbol])
            return SymbolReading(positions=[position_of(holding, holding.mark_price)], rules={symbol: rules[symbol]})

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        """Newest finished bars, top of the book and next funding rate, of all symbols at once."""
        with errand(Urgency.READING, MARKETS_SECONDS):
            return await self._tape.markets(symbols, bars)

    async def cancel_all(self, tool: Tool, symbol: str) -> None:
        """Cancels, and returns only once two sources say that nothing is open: what the cancel answered, and a reading that
        began after it. Where the cancel did not say so, the order history has to."""
        if tool not in _READS_BACK:
            raise VenueRefused(f"{tool.value} is not a tool that cancels")
        with errand(Urgency.CANCEL, CANCEL_SECONDS):
            await self._cancel(tool, symbol)

    async def _cancel(self, tool: Tool, symbol: str) -> None:
        failed: VenueError | None = None
        try:
            _took(tool, symbol, await self._caller.call(tool.value, symbol))
        except (VenueNotSent, VenueRateLimited):
            raise  # Nothing was sent: there is nothing to read back, and others wait for the room.
        except VenueError as error:
            failed = error
        # Both at once: the activity has the time of two calls.
        active = self._active(tool, symbol) if failed else _none()
        if left := max(await asyncio.gather(self._left_open(tool, symbol), active)):
            why = f" ({failed})" if failed else ""
            raise VenueUnavailable(f"{tool.value} {symbol}: {_are_open(left)}{why}")

    async def create_order(self, order: Order, clearance: Clearance = CLEARED) -> OrderReport:
        """Sends an order, once."""
        with errand(Urgency.SOON if order.instruction.reduce_only else Urgency.READING, CREATE_SECONDS):
            return await self._placing.create(order, clearance)

    async def find_order(self, order: Order) -> OrderReport | None:
        """What became of an order, from position, resting orders and history."""
        with errand(Urgency.SOON, CANCEL_SECONDS):
            return await self._placing.find(order)

    async def time(self, symbol: str) -> datetime | None:
        """The exchange's clock."""
        with errand(current().urgency, TIME_SECONDS):
            return await self._tape.time(symbol)

    async def _rules_or_why(self) -> tuple[Mapping[str, SymbolRules], str | None]:
        """Positions and account are worth reading without rules; new orders are not worth sending."""
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

    async def _active(self, tool: Tool, symbol: str) -> int:
        """By the order history, which lists open orders too; a market that does not have the symbol has none."""
        reads = _HISTORY[tool]
        try:
            answer = await self._caller.call(reads, symbol, limit=1000)
        except VenueRefused:
            return 0
        return sum(row.text("symbol") == symbol and row.text("status") in STILL_OPEN for row in rows(reads, answer))

    async def _open_now(self, tool: Tool, symbol: str) -> int:
        reads = _READS_BACK[tool]
        try:
            answer = await self._caller.call(reads, symbol)
        except VenueRefused:
            # A symbol that only the other market has is no reason never to be quiet: the whole list tells too.
            answer = await self._caller.call(reads)
        return sum(row.text("symbol") == symbol for row in rows(reads, answer))


async def _none() -> int:
    return 0


def _took(tool: Tool, symbol: str, answer: object) -> None:
    """Raises Unreadable unless the exchange says that it is done. Its code is a string on one market, a number on the other."""
    row = Row(f"{tool.value} {symbol}", answer)
    if row.text("code") != _DONE:
        raise Unreadable(row.call, "it does not say that it is done")


def _held(holdings: Mapping[str, Holding]) -> Iterable[str]:
    return (holding.symbol for holding in holdings.values() if holding.quantity)


def _prices(holdings: Mapping[str, Holding]) -> dict[str, Decimal]:
    return {symbol: holding.mark_price for symbol, holding in holdings.items() if holding.mark_price is not None}


def _positions(holdings: Mapping[str, Holding], marks: Mapping[str, Decimal]) -> list[Position]:
    return [position_of(holdings[symbol], marks.get(symbol)) for symbol in _held(holdings)]


def _are_open(count: int) -> str:
    return "1 order is still open" if count == 1 else f"{count} orders are still open"
