"""The paper venue's tables. Every change of a desk's account is made under the lock of its clock row."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from pydantic import Field
from sqlalchemy import ColumnElement, Connection, RowMapping, Table, func, select, update
from sqlalchemy.dialects.postgresql import insert

from domain.accounting import Fill, Holding, HoldingKey, LedgerEntry
from domain.paper.advance import CANCELED_ON_REQUEST
from domain.paper.book import Book, Events, OrderStatus, PaperOrder
from domain.trading.market import Bar, Market
from domain.values import Moment, Value
from storage.cleaning import clean, clean_values
from storage.clock import server_time
from storage.paging import Keyset, PageFilter
from storage.tables import paper_accounts, paper_clocks, paper_fills, paper_ledger, paper_orders, paper_positions

# The SQLSTATE that the trigger of migrations 0002 and 0003 raises.
TOO_LATE = "AIS01"
# The SQLSTATE of a transaction that the server has rolled back because it was idle.
IDLE_TOO_LONG = "25P03"

_CHANGED_ORDER = {"status", "filled_quantity", "filled_value", "fills", "code", "reason"}


class MarketClock(Value):
    """How far a desk's market has come. `bar_no` is the number of the newest bar; -1 before the first one.

    `bars` are the newest bars by symbol, if the market cannot be asked for them again later.
    """

    desk: str
    bar_no: int
    cycle_id: str | None
    advanced_at: Moment
    bar_time: Moment | None
    bars: dict[str, Bar] = Field(default_factory=dict)


class PaperBalance(Value):
    """A desk's opening balance and its present one."""

    desk: str
    balance: Decimal
    opening_balance: Decimal


class StoredFill(Fill):
    """A fill, and when it was written."""

    filled_at: Moment


class StoredEntry(LedgerEntry):
    """A ledger entry, and when it was written."""

    at: Moment


def lock(connection: Connection, desk: str, opening_balance: Decimal, first_bar: int) -> MarketClock:
    """Takes the desk's lock until the transaction ends. Opens its account if there is none yet."""
    clock = _locked_clock(connection, desk)
    if clock is None:
        account = {"desk": clean(desk), "balance": opening_balance, "opening_balance": opening_balance}
        connection.execute(insert(paper_accounts).values(account).on_conflict_do_nothing())
        first = {"desk": clean(desk), "bar_no": first_bar, "advanced_at": func.clock_timestamp()}
        connection.execute(insert(paper_clocks).values(first).on_conflict_do_nothing())
        clock = _locked_clock(connection, desk)
    if clock is None:
        raise LookupError(f"the paper account of desk {desk!r} vanished while it was opened")
    return clock


def read_clock(connection: Connection, desk: str) -> MarketClock | None:
    """The clock, without its lock."""
    found = connection.execute(select(paper_clocks).where(paper_clocks.c.desk == clean(desk))).mappings().one_or_none()
    return MarketClock.model_validate(dict(found)) if found else None


def write_clock(connection: Connection, desk: str, cycle_id: str, book: Book, *, keep_bars: bool) -> MarketClock:
    """Moves the clock on to the book's newest bars."""
    values = {
        "cycle_id": clean(cycle_id),
        "bar_no": book.bar_no,
        "bar_time": max((bar.open_time for bar in book.bars.values()), default=None),
        "advanced_at": func.clock_timestamp(),
        "bars": {symbol: bar.model_dump(mode="json") for symbol, bar in book.bars.items()} if keep_bars else {},
    }
    statement = update(paper_clocks).where(paper_clocks.c.desk == clean(desk)).values(values).returning(paper_clocks)
    return MarketClock.model_validate(dict(connection.execute(statement).mappings().one()))


def now(connection: Connection) -> datetime:
    """The time, by the database's clock, which is also the venue's."""
    return server_time(connection)


def end_where_idle(connection: Connection, seconds: float) -> None:
    """Has the server end this transaction, and release its locks, once it has been idle for so many seconds."""
    limit = f"{max(1, int(seconds * 1000))}ms"
    connection.execute(select(func.set_config("idle_in_transaction_session_timeout", limit, True)))


def load_book(connection: Connection, clock: MarketClock, bars: Mapping[str, Bar]) -> Book:
    """The account of the clock's desk. `bars` are the newest ones, as of the clock."""
    balance = select(paper_accounts.c.balance).where(paper_accounts.c.desk == clean(clock.desk))
    o = paper_orders.c
    resting = select(paper_orders).where(o.desk == clean(clock.desk), o.status == OrderStatus.OPEN.value)
    # Oldest first: that is the order in which they are matched.
    resting = resting.order_by(o.created_at, o.order_id)
    return Book(
        desk=clock.desk,
        balance=connection.execute(balance).scalar_one(),
        holdings=load_holdings(connection, clock.desk),
        open_orders=[PaperOrder.model_validate(dict(row)) for row in connection.execute(resting).mappings()],
        bar_no=clock.bar_no,
        bars=bars,
        taken=taken(connection, clock),
    )


def taken(connection: Connection, clock: MarketClock) -> dict[str, Decimal]:
    """How much of the newest bar's volume the desk's fills have used, by symbol."""
    total = func.sum(paper_fills.c.quantity)
    statement = select(paper_fills.c.symbol, total).where(
        paper_fills.c.desk == clean(clock.desk), paper_fills.c.bar_no == clock.bar_no
    )
    return dict(iter(connection.execute(statement.group_by(paper_fills.c.symbol))))


def write_book(connection: Connection, desk: str, before: Book, after: Book) -> None:
    """Writes the changes of balance and holdings."""
    if after.balance != before.balance:
        statement = update(paper_accounts).where(paper_accounts.c.desk == clean(desk))
        connection.execute(statement.values(balance=after.balance))
    keys = [paper_positions.c.desk, paper_positions.c.market, paper_positions.c.symbol]
    for key, held in after.holdings.items():
        if before.holdings.get(key) != held:
            own = {"desk": clean(desk), "market": key.market, "symbol": clean(key.symbol)}
            row = insert(paper_positions).values(own | held.model_dump())
            connection.execute(row.on_conflict_do_update(index_elements=keys, set_=held.model_dump()))


def find_order(connection: Connection, order_id: str) -> PaperOrder | None:
    """An order by its client order id."""
    statement = select(paper_orders).where(paper_orders.c.order_id == clean(order_id))
    found = connection.execute(statement).mappings().one_or_none()
    return PaperOrder.model_validate(dict(found)) if found else None


def insert_order(connection: Connection, order: PaperOrder, not_after: datetime | None, bar_no: int) -> None:
    """Writes a new order with its result. After `not_after`, the commit of an accepted one fails (TOO_LATE).

    Only the venue's own orders, which are liquidations, have no `not_after`.
    """
    facts = {"not_after": not_after, "bar_no": bar_no, "created_at": func.clock_timestamp()}
    values = clean_values(order.model_dump()) | facts | {"average_price": order.average_price}
    connection.execute(insert(paper_orders).values(values))


def update_order(connection: Connection, order: PaperOrder) -> None:
    """Writes the new state of an order that rested."""
    changed = order.model_dump(include=_CHANGED_ORDER) | {"average_price": order.average_price}
    connection.execute(update(paper_orders).where(paper_orders.c.order_id == clean(order.order_id)).values(changed))


def insert_fill(connection: Connection, fill: Fill) -> None:
    """Writes a new fill."""
    connection.execute(
        insert(paper_fills).values(clean_values(fill.model_dump()) | {"filled_at": func.clock_timestamp()})
    )


def insert_entry(connection: Connection, entry: LedgerEntry) -> None:
    """Writes a new ledger entry. A second one with the same id fails with its whole transaction: money moves once."""
    values = clean_values(entry.model_dump()) | {"at": func.clock_timestamp()}
    connection.execute(insert(paper_ledger).values(values))


def write_events(connection: Connection, events: Events, bar_no: int) -> None:
    """Writes everything that a bar caused, except for the book itself."""
    for order in events.liquidations:
        insert_order(connection, order, None, bar_no)
    for order in events.changed:
        update_order(connection, order)
    for fill in events.fills:
        insert_fill(connection, fill)
    for entry in events.entries:
        insert_entry(connection, entry)


def cancel_open(connection: Connection, desk: str, market: Market, symbol: str) -> int:
    """Cancels every resting order of a symbol on one market; returns how many there were."""
    return _cancel(connection, desk, paper_orders.c.market == market, paper_orders.c.symbol == clean(symbol))


def cancel_order(connection: Connection, desk: str, order_id: str) -> int:
    """Cancels an order of a desk if it rests. Returns how many were canceled: 1 or 0."""
    return _cancel(connection, desk, paper_orders.c.order_id == clean(order_id))


def _cancel(connection: Connection, desk: str, *which: ColumnElement[bool]) -> int:
    open_ = (paper_orders.c.desk == clean(desk), paper_orders.c.status == OrderStatus.OPEN)
    statement = update(paper_orders).where(*open_, *which)
    return connection.execute(statement.values(status=OrderStatus.CANCELED, reason=CANCELED_ON_REQUEST)).rowcount


def find_account(connection: Connection, desk: str) -> PaperBalance | None:
    """A desk's money; None if the venue has never seen the desk."""
    statement = select(paper_accounts).where(paper_accounts.c.desk == clean(desk))
    found = connection.execute(statement).mappings().one_or_none()
    return PaperBalance.model_validate(dict(found)) if found else None


def fills_page(connection: Connection, desk: str, wanted: PageFilter) -> tuple[list[StoredFill], str | None]:
    """One page of a desk's fills, newest first, and the cursor of the next one; None on the last page."""
    rows, cursor = _page(connection, Keyset(paper_fills.c.filled_at, paper_fills.c.fill_id), paper_fills, desk, wanted)
    return [StoredFill.model_validate(dict(row)) for row in rows], cursor


def entries_page(connection: Connection, desk: str, wanted: PageFilter) -> tuple[list[StoredEntry], str | None]:
    """One page of a desk's ledger entries, read like its fills."""
    rows, cursor = _page(connection, Keyset(paper_ledger.c.at, paper_ledger.c.entry_id), paper_ledger, desk, wanted)
    return [StoredEntry.model_validate(dict(row)) for row in rows], cursor


def list_fills(
    connection: Connection, desk: str, after: datetime | None = None, most: int | None = None
) -> list[StoredFill]:
    """A desk's fills in the order of time: all, or at most `most` of those written after a moment."""
    statement = Keyset(paper_fills.c.filled_at, paper_fills.c.fill_id).following(after, most, select(paper_fills))
    rows = connection.execute(statement.where(paper_fills.c.desk == clean(desk))).mappings()
    return [StoredFill.model_validate(dict(row)) for row in rows]


def list_entries(
    connection: Connection, desk: str, after: datetime | None = None, most: int | None = None
) -> list[StoredEntry]:
    """Ledger entries of a desk, read like its fills."""
    statement = Keyset(paper_ledger.c.at, paper_ledger.c.entry_id).following(after, most, select(paper_ledger))
    rows = connection.execute(statement.where(paper_ledger.c.desk == clean(desk))).mappings()
    return [StoredEntry.model_validate(dict(row)) for row in rows]


def list_records(connection: Connection, desk: str) -> list[StoredFill | StoredEntry]:
    """A desk's fills and entries, in the order in which they were written: a portfolio is computed from these."""
    records: list[StoredFill | StoredEntry] = [*list_fills(connection, desk), *list_entries(connection, desk)]
    return sorted(records, key=lambda record: record.filled_at if isinstance(record, StoredFill) else record.at)


def load_holdings(connection: Connection, desk: str) -> dict[HoldingKey, Holding]:
    """The holdings in the venue's book, including those that are zero now."""
    statement = select(paper_positions).where(paper_positions.c.desk == clean(desk))
    ordered = statement.order_by(paper_positions.c.market, paper_positions.c.symbol)
    return {
        HoldingKey(Market(row["market"]), row["symbol"]): Holding.model_validate(dict(row))
        for row in connection.execute(ordered).mappings()
    }


def _page(
    connection: Connection, keyset: Keyset, table: Table, desk: str, wanted: PageFilter
) -> tuple[list[RowMapping], str | None]:
    statement = select(table).where(table.c.desk == clean(desk))
    if wanted.symbol is not None:
        statement = statement.where(table.c.symbol == clean(wanted.symbol))
    return keyset.read(connection, statement, wanted)


def _locked_clock(connection: Connection, desk: str) -> MarketClock | None:
    statement = select(paper_clocks).where(paper_clocks.c.desk == clean(desk)).with_for_update()
    found = connection.execute(statement).mappings().one_or_none()
    return MarketClock.model_validate(dict(found)) if found else None
