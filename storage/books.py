"""A real account's books: its fills and money movements as the exchange lists them, each once, and how far they were read.

One worker at a time reads for a desk. It holds a lease, which expires if the worker dies. What it read and how far it came are
written in one transaction, so that a crash neither loses a record nor counts one twice.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Table, and_, case, exists, func, literal, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from domain.books import OF_TRADES, QUOTE, BooksState, ForeignOrder, Held, Income, LiveFill, Sums
from domain.trading.instructions import InstructionOutcome, Side, Tool
from domain.trading.market import Market, OpenOrder
from domain.values import ZERO, Moment, Value
from storage.claims import AccountKey
from storage.cleaning import clean, clean_values
from storage.desks import read_desk
from storage.paging import Keyset, PageFilter
from storage.paper import StoredEntry, StoredFill
from storage.tables import desks, instructions, live_books, live_fills, live_income

# How far apart the clocks of the exchange and of the worker that wrote an order's row may be.
_SLACK = text("interval '30 seconds'")
_AHEAD = text("interval '1 minute'")
_STRANGE_FOR = text("interval '1 day'")
MAX_LISTED = 200
# Not the fee, which comes from the ledger, nor the desk: a row stays with the desk that wrote it first.
_TOLD_OF_FILLS = ("order_id", "side", "quantity", "price", "realised_profit", "maker", "filled_at")
_TOLD_OF_INCOME = ("kind", "amount", "at")


class Books(Value):
    """A desk's books."""

    desk: str
    exchange: str
    account: str
    opened_at: Moment
    state: BooksState


class BooksReader(NamedTuple):
    """A worker that reads: for which desk, which account, and under which name."""

    desk: str
    key: AccountKey
    name: str


class BooksLease(NamedTuple):
    """The right to read the books for a while, with the desk's own symbols and whether it is killed."""

    books: Books
    symbols: list[str]
    killed: bool


def lease(connection: Connection, reader: BooksReader, seconds: float) -> BooksLease | None:
    """Takes the right to read the desk's books for so many seconds. None if another worker has it, if the desk was never
    started, or while a kill still sends cancels: reading must not slow those down."""
    desk = read_desk(connection, reader.desk)
    if desk is None or desk.started_at is None or (desk.killed and desk.quiet_at is None):
        return None
    values = {"desk": clean(reader.desk), "exchange": reader.key.exchange, "account": reader.key.account}
    fresh = {"opened_at": desk.started_at, "state": BooksState().model_dump(mode="json")}
    connection.execute(insert(live_books).values(values | fresh).on_conflict_do_nothing())
    until = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    # A lease that ends later than a new one would was taken by a clock that was ahead.
    over = or_(live_books.c.leased_until < func.clock_timestamp(), live_books.c.leased_until > until + _AHEAD)
    free = or_(live_books.c.leased_until.is_(None), over)
    mine = (live_books.c.desk == clean(reader.desk), or_(free, live_books.c.leased_by == reader.name))
    taken = update(live_books).where(*mine).values(leased_by=reader.name, leased_until=until).returning(live_books)
    found = connection.execute(taken).mappings().one_or_none()
    return BooksLease(Books.model_validate(dict(found)), desk.symbols, desk.killed) if found else None


def write_page(
    connection: Connection, reader: BooksReader, state: BooksState, fills: Sequence[LiveFill], rows: Sequence[Income]
) -> bool:
    """Writes a page's rows and how far it was read. The newest answer replaces a row that is there already, so that a later
    answer corrects an earlier one. Returns False, and writes nothing, if `write_state` does."""
    if not write_state(connection, reader, state):
        return False
    own = {"desk": reader.desk, "exchange": reader.key.exchange, "account": reader.key.account}
    filled = [clean_values(fill.model_dump(exclude={"bar_no", "market_time"}) | own) for fill in fills]
    booked = [clean_values(row.model_dump() | {"kind": row.kind} | own) for row in rows]
    _upsert(connection, live_fills, filled, _TOLD_OF_FILLS)
    _upsert(connection, live_income, booked, _TOLD_OF_INCOME)
    trades = {fill.trade_id for fill in fills} | {row.trade_id for row in rows if row.trade_id}
    if trades:
        _settle_fees(connection, reader.desk, trades)
    return True


def write_state(connection: Connection, reader: BooksReader, state: BooksState) -> bool:
    """Writes how far the books were read. False if another worker has taken over, or a kill has begun."""
    killing = exists().where(desks.c.desk == live_books.c.desk, desks.c.killed, desks.c.quiet_at.is_(None))
    mine = (live_books.c.desk == clean(reader.desk), live_books.c.leased_by == reader.name, ~killing)
    return connection.execute(update(live_books).where(*mine).values(state=state.model_dump(mode="json"))).rowcount > 0


def find_books(connection: Connection, desk: str) -> Books | None:
    """A desk's books; None if no worker has begun to read them."""
    found = connection.execute(select(live_books).where(live_books.c.desk == clean(desk))).mappings().one_or_none()
    return Books.model_validate(dict(found)) if found else None


def traded_symbols(connection: Connection, desk: str) -> list[str]:
    """Every symbol for which the exchange booked the money of a trade."""
    of_trade = and_(
        live_income.c.desk == clean(desk), live_income.c.income_type.in_(OF_TRADES), live_income.c.symbol != ""
    )
    return list(connection.scalars(select(live_income.c.symbol).where(of_trade).distinct()))


def sums(connection: Connection, desk: str) -> Sums:
    """The sums of all records."""
    f, i = live_fills.c, live_income.c
    by_asset = select(i.asset, func.sum(i.amount)).where(i.desk == clean(desk)).group_by(i.asset)
    ours = and_(i.desk == clean(desk), i.asset == QUOTE, i.kind.is_not(None))
    ledger = connection.scalar(select(func.coalesce(func.sum(i.amount), 0)).where(ours)) or ZERO
    fee = case((f.fee_asset == QUOTE, f.fee), else_=0)
    trades = select(func.coalesce(func.sum(f.realised_profit - fee), 0)).where(f.desk == clean(desk))
    quote = Decimal(ledger) + (connection.scalar(trades) or ZERO)
    signed = case((f.side == Side.BUY.value, f.quantity), else_=-f.quantity)
    totals = select(f.symbol, func.sum(signed), func.sum(signed * f.price + f.realised_profit))
    found = connection.execute(totals.where(f.desk == clean(desk)).group_by(f.symbol))
    traded = {symbol: Held(quantity=quantity, cost=cost) for symbol, quantity, cost in found}
    return Sums(income=dict(iter(connection.execute(by_asset))), quote=quote, traded=traded)


def unlisted(connection: Connection, desk: str, before: datetime) -> list[str]:
    """Trades for which the exchange booked money before a moment, but lists no fill."""
    f, i = live_fills.c, live_income.c
    listed = exists().where(f.desk == i.desk, f.symbol == i.symbol, f.trade_id == i.trade_id)
    booked = and_(i.desk == clean(desk), i.income_type.in_(OF_TRADES), i.trade_id.is_not(None), i.at < before)
    statement = select(i.symbol, i.trade_id).where(booked, ~listed).distinct().order_by(i.symbol, i.trade_id)
    return [f"trade {trade} of {symbol}" for symbol, trade in connection.execute(statement.limit(MAX_LISTED))]


def foreign_orders(
    connection: Connection, desk: str, now: datetime, resting: Sequence[OpenOrder]
) -> list[ForeignOrder]:
    """Orders at the exchange that no instruction of the desk explains: resting ones, and those that filled within a day."""
    f = live_fills.c
    recent = and_(f.desk == clean(desk), f.filled_at > literal(now) - _STRANGE_FOR)
    ours = _is_ours(desk, f.order_id, f.symbol, f.side, f.filled_at)
    statement = select(f.order_id, f.symbol).where(recent, ~ours).distinct().order_by(f.order_id.desc())
    found = connection.execute(statement.limit(MAX_LISTED))
    filled = [ForeignOrder(order_id=id_, symbol=symbol, open=False) for id_, symbol in found]
    rests = []
    for order in resting[:MAX_LISTED]:
        ours = _is_ours(desk, literal(order.order_id), literal(order.symbol), literal(order.side.value), literal(now))
        if not connection.scalar(select(ours)):
            rests.append(ForeignOrder(order_id=order.order_id, symbol=order.symbol, open=True))
    return [*rests, *filled]


# --- reports -------------------------------------------------------------------------------------------------------------


def fills_page(connection: Connection, desk: str, wanted: PageFilter) -> tuple[list[StoredFill], str | None]:
    """One page of a desk's fills, newest first; an order is named by its instruction if that is known."""
    i = instructions.c
    of_order = and_(i.desk == live_fills.c.desk, i.venue_order_id == live_fills.c.order_id)
    named = select(func.min(i.instruction_id)).where(of_order, i.symbol == live_fills.c.symbol).scalar_subquery()
    statement = select(live_fills, named.label("instruction_id")).where(live_fills.c.desk == clean(desk))
    keyset = Keyset(live_fills.c.filled_at, live_fills.c.fill_id)
    rows, cursor = _page(connection, statement, keyset, live_fills, wanted)
    return [_stored_fill(row) for row in rows], cursor


def entries_page(connection: Connection, desk: str, wanted: PageFilter) -> tuple[list[StoredEntry], str | None]:
    """One page of a desk's ledger, newest first."""
    rows, cursor = _page(
        connection, _entries_of(desk), Keyset(live_income.c.at, live_income.c.entry_id), live_income, wanted
    )
    return [_stored_entry(row) for row in rows], cursor


def list_books(connection: Connection) -> list[Books]:
    """The books of every desk."""
    found = connection.execute(select(live_books).order_by(live_books.c.desk)).mappings()
    return [Books.model_validate(dict(row)) for row in found]


def list_fills(
    connection: Connection, desk: str, after: datetime | None = None, most: int | None = None
) -> list[StoredFill]:
    """A desk's fills in the order of time, for sums: all, or at most `most` of those after a moment. An order is named as the
    exchange names it."""
    statement = select(live_fills, literal(None).label("instruction_id")).where(live_fills.c.desk == clean(desk))
    statement = Keyset(live_fills.c.filled_at, live_fills.c.fill_id).following(after, most, statement)
    return [_stored_fill(row) for row in connection.execute(statement).mappings()]


def list_entries(
    connection: Connection, desk: str, after: datetime | None = None, most: int | None = None
) -> list[StoredEntry]:
    """Entries of a desk in the quote asset, read like its fills."""
    quoted = _entries_of(desk).where(live_income.c.asset == QUOTE)
    statement = Keyset(live_income.c.at, live_income.c.entry_id).following(after, most, quoted)
    return [_stored_entry(row) for row in connection.execute(statement).mappings()]


def list_records(connection: Connection, desk: str) -> list[StoredFill | StoredEntry]:
    """Fills and entries in the quote asset, in the order of time: a portfolio is computed from these."""
    records: list[StoredFill | StoredEntry] = [*list_fills(connection, desk), *list_entries(connection, desk)]
    return sorted(records, key=lambda record: record.filled_at if isinstance(record, StoredFill) else record.at)


def _page(connection: Connection, statement: Select[Any], keyset: Keyset, table: Table, wanted: PageFilter) -> Any:
    if wanted.symbol is not None:
        statement = statement.where(table.c.symbol == clean(wanted.symbol))
    return keyset.read(connection, statement, wanted)


def _entries_of(desk: str) -> Select[Any]:
    return select(live_income).where(live_income.c.desk == clean(desk), live_income.c.kind.is_not(None))


def _stored_fill(row: Any) -> StoredFill:
    facts = dict(row)
    fee = facts["fee"] if facts["fee_asset"] == QUOTE else ZERO
    derived = {"order_id": facts["instruction_id"] or facts["order_id"], "fee": fee, "market_time": facts["filled_at"]}
    return StoredFill.model_validate(facts | derived)


def _stored_entry(row: Any) -> StoredEntry:
    facts = dict(row)
    # An entry without a symbol, such as a transfer, shows its asset.
    derived = {"symbol": facts["symbol"] or facts["asset"], "market": Market.FUTURES, "market_time": facts["at"]}
    return StoredEntry.model_validate(dict.fromkeys(("price", "rate")) | {"bar_no": 0} | facts | derived)


# --- parts ---------------------------------------------------------------------------------------------------------------


def _upsert(connection: Connection, table: Table, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    """Inserts rows, or updates the named `columns`. If an answer holds a row twice, the last one counts."""
    keys = [column.name for column in table.primary_key]
    newest = {tuple(row[key] for key in keys): row for row in rows}
    if not newest:
        return
    statement = insert(table).values(list(newest.values()))
    other = or_(*(table.c[name].is_distinct_from(statement.excluded[name]) for name in columns))
    values = {name: statement.excluded[name] for name in columns}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=values, where=other))


def _settle_fees(connection: Connection, desk: str, trades: set[str]) -> None:
    """Takes each trade's fee, with its sign, from the exchange's ledger: its list of trades does not show the sign reliably."""
    f, i = live_fills.c, live_income.c
    paid = select(i.symbol, i.trade_id, i.asset, func.sum(-i.amount).label("fee"))
    paid = paid.where(i.desk == clean(desk), i.income_type == "COMMISSION", i.trade_id.in_(trades))
    ledger_fees = paid.group_by(i.symbol, i.trade_id, i.asset).subquery()
    same = (f.symbol == ledger_fees.c.symbol, f.trade_id == ledger_fees.c.trade_id, f.fee_asset == ledger_fees.c.asset)
    statement = update(live_fills).where(f.desk == clean(desk), *same, f.fee != ledger_fees.c.fee)
    connection.execute(statement.values(fee=ledger_fees.c.fee))


def _is_ours(desk: str, order_id: Any, symbol: Any, side: Any, at: Any) -> Any:
    """Whether an instruction names the order, or has no order id yet and may be it."""
    i = instructions.c
    may_be = and_(
        i.venue_order_id.is_(None), i.symbol == symbol, i.side == side, i.outcome != InstructionOutcome.FAILED.value,
        i.prepared_at <= at + _SLACK, or_(i.settled_at.is_(None), i.settled_at >= at - _SLACK),
    )  # fmt: skip
    sent = and_(i.desk == clean(desk), i.tool == Tool.CREATE_ORDER.value)
    # An exchange's order id may be unique only within its symbol.
    named = and_(i.venue_order_id == order_id, i.symbol == symbol)
    return exists().where(sent, or_(named, may_be))
