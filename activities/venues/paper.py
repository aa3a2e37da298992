"""The paper venue: the desk's own account and order book in PostgreSQL, on a market that moves one bar a cycle.

Every change of a desk's account is one transaction under one lock (the row of its clock), so that any number of workers see the
same account. Everything is idempotent: a reading by its cycle, an order by its client order id.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from activities.market.port import MarketSource
from activities.venues.port import (
    CLEARED,
    Clearance,
    StateTooOld,
    VenueNotSent,
    VenueRefused,
    VenueUnavailable,
)
from domain.paper.advance import advance
from domain.paper.book import NOTHING_HAPPENED, Book, Events, Exchange, FundingRates, PaperOrder, Terms
from domain.paper.matching import place
from domain.paper.view import Times, market_view, observation_of, report_of
from domain.trading.instructions import Tool
from domain.trading.market import NOTHING_KNOWN, Bar, Known, Market, MarketView, Observation
from domain.trading.orders import Fate, Order, OrderReport
from domain.values import ZERO
from storage import paper, totals
from storage.database import Database, DatabaseUnavailable
from storage.desks import is_killed

T = TypeVar("T")
log = structlog.get_logger("paper")
_Step = tuple[int, Mapping[str, Bar]]

# A decision follows a reading of the market, by this process or another, and does not read it again.
READ_LATELY_SECONDS = 30.0
FINISHED = "the replay file is finished"
OLD_AT_COMMIT = "the coordinator's answer was too old before the order could be committed"
NO_DATA = "the market has no data for any symbol of this desk"

_MARKETS = {Tool.CANCEL_ALL_ORDERS: Market.FUTURES, Tool.CANCEL_SPOT_ALL_ORDERS: Market.SPOT}


class PaperVenue:
    """One desk's account. `database` should be the venue's own, so that it shares no thread with the records."""

    # The database refuses to commit an order after its time; this allows for clocks that differ.
    settles_after = timedelta(seconds=2)
    counts_its_calls = False

    def __init__(
        self,
        database: Database,
        market: MarketSource,
        desk: str,
        *,
        balance: Decimal,
        terms: Terms,
        funding: FundingRates,
    ) -> None:
        self._database = database
        self._market = market
        self._desk = desk
        self._balance = balance
        self._exchange = Exchange(terms, market.rules, funding)

    async def check(self) -> None:
        """Nothing to check: the account is our own."""

    async def observe(self, symbols: Sequence[str], cycle_id: str | None, known: Known = NOTHING_KNOWN) -> Observation:
        """The account and the newest bar. A new cycle moves the market on, once; None only reads.

        Anything from elsewhere is read before the transaction, and not at all for None: a kill is verified with the database
        alone.
        """
        if cycle_id is not None and self._market.is_live:
            # The symbols asked for, and those that the account holds or has orders in.
            in_play = await self._run(
                lambda connection: _covered(symbols, paper.load_book(connection, self._lock(connection), {}))
            )
            await self._market.refresh(in_play, 0.0)
        return await self._run(lambda connection: self._observe(connection, symbols, cycle_id))

    async def look(self, symbol: str) -> Observation:
        """A reading of the whole account, which costs no more here."""
        return await self.observe([symbol], None)

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        """The market view of each symbol with data, as of the last observation."""
        if self._market.is_live:
            # Another process may have made the observation.
            await self._market.refresh(symbols, READ_LATELY_SECONDS)
        return await self._run(lambda connection: self._markets(connection, symbols, bars))

    async def cancel_all(self, tool: Tool, symbol: str) -> None:
        """Cancels the resting orders of a symbol. Repeating it is harmless."""
        market = _MARKETS.get(tool)
        if market is None:
            raise VenueRefused(f"{tool.value} is not a tool that cancels")
        await self._cancel(lambda connection: paper.cancel_open(connection, self._desk, market, symbol))

    async def cancel_order(self, symbol: str, order_id: str) -> None:
        """Cancels one order if it rests."""
        await self._cancel(lambda connection: paper.cancel_order(connection, self._desk, order_id))

    async def create_order(self, order: Order, clearance: Clearance = CLEARED) -> OrderReport:
        """Executes a futures order once. A repeated call gets the report of the first."""
        try:
            return await clearance.send(partial(self.create, order, Market.FUTURES, clearance))
        except VenueNotSent as error:
            return OrderReport(order_id=order.order_id, fate=Fate.NOT_SENT, detail=str(error))

    async def create(self, order: Order, market: Market | str, clearance: Clearance = CLEARED) -> OrderReport:
        """Like `create_order`, but on either market: an instruction cannot name spot."""
        try:
            return await self._run(lambda connection: self._create(connection, order, Market(market), clearance))
        except DBAPIError as error:
            # The commit itself came too late, so the database undid everything (migration 0002).
            if _sqlstate(error) != paper.TOO_LATE:
                raise
            if clearance.seconds_left is not None:
                raise StateTooOld(OLD_AT_COMMIT) from None
            return _too_late(order)
        except VenueUnavailable as error:
            if not await self._was_ended_idle(order, clearance, error):
                raise
            raise StateTooOld(OLD_AT_COMMIT) from None

    async def _was_ended_idle(self, order: Order, clearance: Clearance, error: VenueUnavailable) -> bool:
        """Whether the server ended the order's transaction because it was idle for too long. Then none of it took effect.

        A server that closes the connection while our statement is unread resets it, and its message is lost (three times in
        ten). Then this looks for the order: taking the lock waits for the end of that transaction.
        """
        cause, left = error.__cause__ and error.__cause__.__cause__, clearance.seconds_left
        if left is None or not isinstance(cause, DBAPIError):
            return False
        if _sqlstate(cause) == paper.IDLE_TOO_LONG:
            return True
        return left <= 0 and cause.connection_invalidated and await self.find_order(order) is None

    async def find_order(self, order: Order) -> OrderReport | None:
        """What became of an order; None if it is not there. It may still arrive until its `not_after`, not later."""
        return await self._run(lambda connection: self._find(connection, order))

    async def time(self, symbol: str) -> datetime | None:
        """The database's clock."""
        return await self._run(paper.now)

    async def close(self) -> None:
        """Closes what the market holds open."""
        await self._market.close()

    async def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._database.run(work)
        except DatabaseUnavailable as error:
            raise VenueUnavailable(f"the paper venue's database cannot be reached: {error}") from error

    async def _cancel(self, cancel: Callable[[Connection], int]) -> None:
        def locked(connection: Connection) -> int:
            self._lock(connection)
            return cancel(connection)

        await self._run(locked)

    # --- inside one transaction, under the desk's lock ---------------------------------------------------------------

    def _lock(self, connection: Connection) -> paper.MarketClock:
        return paper.lock(connection, self._desk, self._balance, self._market.warm_up - 1)

    def _observe(self, connection: Connection, symbols: Sequence[str], cycle_id: str | None) -> Observation:
        clock = self._lock(connection)
        book = self._book(connection, clock, symbols)
        note, events = None, NOTHING_HAPPENED
        if cycle_id is not None and cycle_id != clock.cycle_id:
            steps, note = self._next_bars(book, _covered(symbols, book))
            if steps or (self._market.is_live and note is None):
                clock, book, events = self._advance(connection, book, steps, cycle_id)
        if unpriced := book.unpriced():
            raise VenueRefused(f"there is a position in {unpriced[0]}, but the market has no data for it")
        # The data of a market without new bars must grow old.
        until = clock.bar_time and self._market.good_until(clock.bar_time)
        data_time = min(clock.advanced_at, until) if until else clock.advanced_at
        times = Times(observed_at=paper.now(connection), data_time=data_time, bar_time=clock.bar_time)
        return observation_of(book, self._exchange, times, events, note)

    def _next_bars(self, book: Book, symbols: Iterable[str]) -> tuple[list[_Step], str | None]:
        """The next bars of every symbol with data, up to the first that ends; and why there are no more."""
        known = [symbol for symbol in symbols if self._market.rules(symbol)]
        steps: list[_Step] = []
        for number in self._market.due(book.bar_no, idle=book.is_idle) if known else ():
            bars = self._bars(known, number)
            if len(bars) < len(known):
                return steps, FINISHED
            steps.append((number, bars))
        return steps, None if known else NO_DATA

    def _advance(
        self, connection: Connection, before: Book, steps: Iterable[_Step], cycle_id: str
    ) -> tuple[paper.MarketClock, Book, Events]:
        book, events = before, NOTHING_HAPPENED
        for number, bars in steps:
            # Bars that change nothing are skipped.
            book, happened = advance(book._replace(bar_no=number - 1), bars, self._exchange)
            paper.write_events(connection, happened, number)
            events = events.then(happened)
        clock = paper.write_clock(connection, self._desk, cycle_id, book, keep_bars=self._market.is_live)
        paper.write_book(connection, self._desk, before, book)
        # Here and not in `_create`: an order must not be held up.
        self._keep_totals(connection)
        return clock, book, events

    def _keep_totals(self, connection: Connection) -> None:
        """Brings the totals up to date. They only make reports faster, so their failure must not undo a bar."""
        try:
            with connection.begin_nested():
                totals.extend_if_behind(connection, self._desk)
        except Exception as error:  # whatever it is: a lost connection makes the commit fail as well
            log.warning(
                "totals were not brought up to date; reports take longer", desk=self._desk, why=str(error)[:200]
            )

    def _create(self, connection: Connection, order: Order, market: Market, clearance: Clearance) -> OrderReport:
        clearance.check()
        if (left := clearance.seconds_left) is not None:
            # If this worker is suspended in here, its transaction must not hold up a kill's cancels and latch.
            paper.end_where_idle(connection, left)
        clock = self._lock(connection)
        if known := self._find(connection, order):
            return known
        # In this order, so that the time left is never counted from a later moment.
        now, left = paper.now(connection), clearance.seconds_left
        if now > order.not_after:
            return _too_late(order)
        # The database itself refuses a commit after that, so that even a COMMIT that was sent late has no effect.
        until = order.not_after if left is None else min(order.not_after, now + timedelta(seconds=left))
        book = self._book(connection, clock, [order.instruction.symbol])
        asked = PaperOrder.asked(order.order_id, self._desk, market, order.instruction)
        step = place(asked, book, self._exchange)
        paper.insert_order(connection, step.order, until, clock.bar_no)
        if step.fill:
            paper.insert_fill(connection, step.fill)
        paper.write_book(connection, self._desk, book, step.book)
        if not order.instruction.reduce_only and is_killed(connection, self._desk):
            raise VenueNotSent("the database says killed")
        clearance.check()
        return report_of(step.order)

    def _find(self, connection: Connection, order: Order) -> OrderReport | None:
        # Under the lock: this waits for a transaction that is about to commit this very order.
        self._lock(connection)
        found = paper.find_order(connection, order.order_id)
        if found is not None and found.desk != self._desk:
            raise VenueRefused(f"order id {order.order_id} belongs to another desk")
        return report_of(found) if found else None

    def _book(self, connection: Connection, clock: paper.MarketClock, symbols: Iterable[str]) -> Book:
        """The account, with the newest bar of each symbol that is asked for or held."""
        book = paper.load_book(connection, clock, {})
        covered = _covered(symbols, book)
        kept = {symbol: bar for symbol, bar in clock.bars.items() if symbol in covered}
        return book._replace(bars=self._bars(covered, clock.bar_no) | kept)

    def _bars(self, symbols: Iterable[str], number: int) -> dict[str, Bar]:
        return {symbol: bar for symbol in symbols if (bar := self._market.bar(symbol, number))}

    def _markets(self, connection: Connection, symbols: Sequence[str], count: int) -> dict[str, MarketView]:
        clock = paper.read_clock(connection, self._desk)
        if clock is None:
            return {}
        taken = paper.taken(connection, clock)
        before = range(max(0, clock.bar_no - count + 1), clock.bar_no)
        views = {}
        for symbol in symbols:
            # Another worker may have moved the account to a bar that was not finished when this one read the market.
            newest = clock.bars.get(symbol) or self._market.bar(symbol, clock.bar_no)
            bars = [bar for number in before if (bar := self._market.bar(symbol, number))]
            bars += [newest] if newest else []
            if view := market_view(symbol, bars, self._exchange, taken.get(symbol, ZERO)):
                views[symbol] = view
        return views


def _covered(symbols: Iterable[str], book: Book) -> list[str]:
    """The symbols asked for, held and with resting orders, each once."""
    held = (key.symbol for key, holding in book.holdings.items() if holding.quantity)
    return list(dict.fromkeys([*symbols, *held, *(order.symbol for order in book.open_orders)]))


def _sqlstate(error: BaseException | None) -> str | None:
    return getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None


def _too_late(order: Order) -> OrderReport:
    detail = "too late: its time ran out before the venue could begin"
    return OrderReport(order_id=order.order_id, fate=Fate.NOT_SENT, detail=detail)
