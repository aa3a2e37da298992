"""Shadow: reads the real venue, and sends it nothing."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from activities.venues.port import CLEARED, Clearance, Venue
from domain.desk.outbox import NOT_SENT_IN_SHADOW
from domain.trading.instructions import Tool
from domain.trading.market import NOTHING_KNOWN, Known, MarketView, Observation, SymbolReading
from domain.trading.orders import Fate, Order, OrderReport


class ShadowVenue:
    """Reads through the venue behind it. Calls that would change something there are never sent."""

    settles_after = timedelta(0)
    counts_its_calls = True

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    async def check(self) -> None:
        """Nothing to check, since nothing is sent."""

    async def close(self) -> None:
        """Closes the connection."""
        await self._venue.close()

    async def observe(self, symbols: Sequence[str], cycle_id: str | None, known: Known = NOTHING_KNOWN) -> Observation:
        """The real account."""
        return await self._venue.observe(symbols, cycle_id, known)

    async def look(self, symbol: str) -> SymbolReading | Observation:
        """The real position."""
        return await self._venue.look(symbol)

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        """The real market."""
        return await self._venue.markets(symbols, bars)

    async def cancel_all(self, tool: Tool, symbol: str) -> None:
        """Calls nothing: the open orders at the real venue are somebody else's."""

    async def cancel_order(self, symbol: str, order_id: str) -> None:
        """Calls nothing: no order of ours rests there."""

    async def create_order(self, order: Order, clearance: Clearance = CLEARED) -> OrderReport:
        """Reports what shadow does with every order."""
        return OrderReport(order_id=order.order_id, fate=Fate.PREPARED, detail=NOT_SENT_IN_SHADOW)

    async def time(self, symbol: str) -> datetime | None:
        """The real venue's clock."""
        return await self._venue.time(symbol)

    async def find_order(self, order: Order) -> OrderReport | None:
        """Nothing is ever sent, so nothing is ever found."""
        return None
