"""Reads one account's history and money from the exchange: trades, ledger, balances, resting orders.

It has its own connection and back-off, so that nothing it waits for delays a reading, an order or a cancel. It makes one call
at a time. A full page may be truncated, so it never counts as complete: its period is halved, and both halves are read.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import localcontext
from functools import partial
from typing import Any, NamedTuple, Protocol

from activities.venues.aster.allowance import Allowance
from activities.venues.aster.markets import book_time_of
from activities.venues.aster.readings import holdings_of, orders_of, side_of
from activities.venues.aster.results import Row, Unreadable, rows
from domain.books import QUOTE, ExchangeAccount, Held, Income, LiveFill
from domain.trading.market import Market, OpenOrder
from domain.values import EXACT

# GET /fapi/v1/userTrades, /fapi/v1/allOrders and /fapi/v1/income: at most 1,000 rows, and at most seven days of the first two.
PAGE_ROWS = 1000
LONGEST = timedelta(days=7) - timedelta(milliseconds=1)
_BOOK_LEVELS = 5
_MILLISECOND = timedelta(milliseconds=1)

Read = Callable[[int, int], Awaitable[list[Row]]]


class StatementPage(NamedTuple):
    """The rows of a period. `whole` is False if a single millisecond has more rows than the exchange lists."""

    rows: list[Row]
    since: datetime
    until: datetime
    whole: bool


class Tools(Protocol):
    """The server's tools (`caller.py`)."""

    async def call(self, tool: str, symbol: str | None = None, **arguments: Any) -> object: ...

    async def close(self) -> None: ...


class Statements:
    """One account's statements. Every method raises VenueError."""

    def __init__(self, tools: Tools, allowance: Allowance | None = None) -> None:
        self._tools = tools
        self._allowance = allowance or Allowance()

    async def close(self) -> None:
        """Closes the connection."""
        await self._tools.close()

    async def now(self, symbol: str) -> datetime | None:
        """The exchange's clock; None if a book does not tell it."""
        return book_time_of(await self._tools.call("get_order_book", symbol, limit=_BOOK_LEVELS))

    def trades(self, symbol: str, since: datetime, until: datetime) -> AsyncGenerator[StatementPage]:
        """The account's futures trades in a symbol, oldest first."""

        async def read(start: int, end: int) -> list[Row]:
            answer = await self._tools.call("get_my_trades", symbol, start_time=start, end_time=end, limit=PAGE_ROWS)
            return rows("get_my_trades", answer)

        return pages_of(read, since, until, partial(self._allowance.take, "get_my_trades"))

    def income(self, since: datetime, until: datetime) -> AsyncGenerator[StatementPage]:
        """The futures account's ledger, oldest first."""

        async def read(start: int, end: int) -> list[Row]:
            answer = await self._tools.call("get_income", start_time=start, end_time=end, limit=PAGE_ROWS)
            return rows("get_income", answer)

        return pages_of(read, since, until, partial(self._allowance.take, "get_income"))

    async def account(self) -> ExchangeAccount:
        """Wallet balances and positions."""
        account = Row("get_account_v4", await self._tools.call("get_account_v4"))
        held = holdings_of(await self._tools.call("get_positions"))
        listed = rows("get_account_v4", account.listed("positions")) if account.has("positions") else []
        for row in listed:
            # An empty list of positions counts only if the account agrees.
            quantity = row.number("positionAmt") if row.has("positionAmt") else None
            if quantity and (row.text("symbol") not in held or held[row.text("symbol")].quantity != quantity):
                raise Unreadable("get_positions", f"get_account_v4 disagrees about {row.text('symbol')}")
        with localcontext(EXACT):
            positions = {
                symbol: Held(quantity=it.quantity, cost=it.quantity * it.entry_price) for symbol, it in held.items()
            }
        assets = rows("get_account_v4", account.listed("assets")) if account.has("assets") else []
        balances = {row.text("asset"): row.number("walletBalance") for row in assets if row.has("walletBalance")}
        if QUOTE not in balances:
            # If the exchange lists no quote asset, the total stands for it.
            balances[QUOTE] = account.number("totalWalletBalance")
        return ExchangeAccount(balances=balances, positions=positions)

    async def resting(self) -> list[OpenOrder]:
        """Every open futures order of the account."""
        return orders_of("get_open_orders", await self._tools.call("get_open_orders"), Market.FUTURES)


def fill_of(row: Row, desk: str, account: str) -> LiveFill:
    """One trade. The list does not define the sign of a paid fee; the ledger settles that (`storage.books`)."""
    symbol, trade_id, at = row.text("symbol"), row.text("id"), _moment(row)
    quantity, price = row.positive("qty"), row.positive("price")
    if quantity is None or price is None:
        raise Unreadable(row.call, f"trade {trade_id} has no quantity or no price")
    return LiveFill(
        fill_id=f"{account}:{Market.FUTURES.value}:{symbol}:{trade_id}",
        trade_id=trade_id,
        order_id=row.text("orderId"),
        desk=desk,
        market=Market.FUTURES,
        symbol=symbol,
        side=side_of(row),
        quantity=quantity,
        price=price,
        fee=abs(row.number("commission")),
        fee_asset=row.text("commissionAsset"),
        realised_profit=row.number("realizedPnl"),
        maker=row.flag("maker"),
        filled_at=at,
        market_time=at,
    )


def income_of(row: Row) -> Income:
    """One row of the ledger. `tranId` is unique only within a type; symbol, asset and trade distinguish the rows of one event."""
    kind, symbol = row.text("incomeType"), row.words("symbol")
    trade_id, asset = row.words("tradeId"), row.text("asset")
    return Income(
        entry_id=":".join([kind, row.text("tranId"), symbol, asset, trade_id]),
        income_type=kind,
        symbol=symbol,
        asset=asset,
        amount=row.number("income"),
        trade_id=trade_id or None,
        at=_moment(row),
    )


async def _at_once() -> None:
    """Waits for nothing."""


async def pages_of(
    read: Read, since: datetime, until: datetime, wait: Callable[[], Awaitable[None]] = _at_once
) -> AsyncGenerator[StatementPage]:
    """Every row between two moments, oldest first. `read` is given milliseconds, and lists PAGE_ROWS at most; it waits before
    every page but the first."""
    begin, stop, longest = milliseconds_of(since), milliseconds_of(until), LONGEST // _MILLISECOND
    # Newest first, since the last element is read next.
    waiting = [(at, min(at + longest, stop)) for at in range(begin, stop + 1, longest + 1)][::-1]
    is_first = True
    while waiting:
        start, end = waiting.pop()
        if not is_first:
            await wait()
        is_first, found = False, await read(start, end)
        if len(found) >= PAGE_ROWS:
            # If the exchange ignored the period, halving it would go on for ever.
            if any(not start <= int(row.number("time")) <= end for row in found):
                raise Unreadable(found[0].call, "it has rows outside the requested period, and may be truncated")
            if end > start:
                middle = (start + end) // 2
                waiting += [(middle + 1, end), (start, middle)]
                continue
        yield StatementPage(found, _time_at(start), _time_at(end), whole=len(found) < PAGE_ROWS)


def _moment(row: Row) -> datetime:
    try:
        return _time_at(int(row.number("time")))
    except OverflowError:
        raise Unreadable(row.call, "a time is out of range") from None


def milliseconds_of(moment: datetime) -> int:
    """A moment as the exchange writes it."""
    return (moment - _EPOCH) // _MILLISECOND


def _time_at(milliseconds: int) -> datetime:
    return _EPOCH + milliseconds * _MILLISECOND


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
