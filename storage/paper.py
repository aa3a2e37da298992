"""The paper venue's tables. Whoever changes a desk's account holds the lock of its clock row first."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from domain.market import Market
from domain.paper import Book, Fill, Holding, HoldingKey, OrderStatus, PaperOrder
from domain.values import Moment, Value
from storage.cleaning import clean, clean_values
from storage.tables import paper_accounts, paper_clocks, paper_fills, paper_orders, paper_positions

# What the trigger of migration 0002 raises.
TOO_LATE = "AIS01"


class Clock(Value):
    """How far a desk's market has come. `bar_no` is the newest bar; before the first one it is -1."""

    desk: str
    bar_no: int
    cycle_id: str | None
    advanced_at: Moment
    bar_time: Moment | None


def lock(connection: Connection, desk: str, opening_balance: Decimal, first_bar: int) -> Clock:
    """Takes the desk's lock until the transaction ends; opens its account where there is none yet."""
    clock = _locked_clock(connection, desk)
    if clock is None:
        _open_account(connection, desk, opening_balance, first_bar)
        clock = _locked_clock(connection, desk)
    if clock is None:
        raise LookupError(f"the paper account of desk {desk!r} vanished while it was opened")
    return clock


def read_clock(connection: Connection, desk: str) -> Clock | None:
    """The clock, without its lock."""
    found = connection.execute(select(paper_clocks).where(paper_clocks.c.desk == clean(desk))).mappings().one_or_none()
    return Clock.model_validate(dict(found)) if found else None


def write_clock(connection: Connection, desk: str, cycle_id: str, bar_no: int, bar_time: datetime | None) -> Clock:
    """Moves the clock on to a bar that it has just come to."""
    values = {
        "cycle_id": clean(cycle_id),
        "bar_no": bar_no,
        "bar_time": bar_time,
        "advanced_at": func.clock_timestamp(),
    }
    statement = update(paper_clocks).where(paper_clocks.c.desk == clean(desk)).values(values).returning(paper_clocks)
    return Clock.model_validate(dict(connection.execute(statement).mappings().one()))


def now(connection: Connection) -> datetime:
    """The database's clock, which is the venue's."""
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def load_book(connection: Connection, desk: str, marks: Mapping[str, Decimal]) -> Book:
    """The desk's account. `marks` are the prices known now."""
    balance = select(paper_accounts.c.balance).where(paper_accounts.c.desk == clean(desk))
    return Book(
        balance=connection.execute(balance).scalar_one(),
        holdings=_holdings(connection, desk),
        open_orders=_open_orders(connection, desk),
        marks=marks,
    )


def write_book(connection: Connection, desk: str, before: Book, after: Book) -> None:
    """Writes what changed of balance and holdings."""
    if after.balance != before.balance:
        statement = update(paper_accounts).where(paper_accounts.c.desk == clean(desk))
        connection.execute(statement.values(balance=after.balance))
    for key, held in after.holdings.items():
        if before.holdings.get(key) != held:
            _write_holding(connection, desk, key, held)


def find_order(connection: Connection, order_id: str) -> PaperOrder | None:
    """An order by its client order id."""
    statement = select(paper_orders).where(paper_orders.c.order_id == clean(order_id))
    found = connection.execute(statement).mappings().one_or_none()
    return PaperOrder.model_validate(dict(found)) if found else None


def insert_order(connection: Connection, order: PaperOrder, not_after: datetime, bar_no: int) -> None:
    """A new order, whatever became of it. Past `not_after` the commit of an accepted one fails (TOO_LATE)."""
    facts = {"not_after": not_after, "bar_no": bar_no, "created_at": func.clock_timestamp()}
    connection.execute(insert(paper_orders).values(clean_values(order.model_dump()) | facts))


def update_order(connection: Connection, order: PaperOrder) -> None:
    """What became of an order that rested."""
    changed = order.model_dump(include={"status", "filled_quantity", "average_price", "reason"})
    connection.execute(update(paper_orders).where(paper_orders.c.order_id == clean(order.order_id)).values(changed))


def insert_fill(connection: Connection, fill: Fill, bar_no: int) -> None:
    """A new fill."""
    facts = {"bar_no": bar_no, "filled_at": func.clock_timestamp()}
    connection.execute(insert(paper_fills).values(clean_values(fill.model_dump()) | facts))


def cancel_open(connection: Connection, desk: str, market: Market, symbol: str) -> int:
    """Cancels every resting order of a symbol on one market; returns how many there were."""
    statement = update(paper_orders).where(
        paper_orders.c.desk == clean(desk),
        paper_orders.c.market == market,
        paper_orders.c.symbol == clean(symbol),
        paper_orders.c.status == OrderStatus.OPEN,
    )
    return connection.execute(statement.values(status=OrderStatus.CANCELED, reason="canceled on request")).rowcount


def list_fills(connection: Connection, desk: str) -> list[Fill]:
    """Every fill of a desk, oldest first."""
    statement = select(paper_fills).where(paper_fills.c.desk == clean(desk))
    ordered = statement.order_by(paper_fills.c.filled_at, paper_fills.c.fill_id)
    return [Fill.model_validate(dict(found)) for found in connection.execute(ordered).mappings()]


def _locked_clock(connection: Connection, desk: str) -> Clock | None:
    statement = select(paper_clocks).where(paper_clocks.c.desk == clean(desk)).with_for_update()
    found = connection.execute(statement).mappings().one_or_none()
    return Clock.model_validate(dict(found)) if found else None


def _open_account(connection: Connection, desk: str, opening_balance: Decimal, first_bar: int) -> None:
    account = insert(paper_accounts).values(desk=clean(desk), balance=opening_balance)
    connection.execute(account.on_conflict_do_nothing())
    clock = insert(paper_clocks).values(desk=clean(desk), bar_no=first_bar, advanced_at=func.clock_timestamp())
    connection.execute(clock.on_conflict_do_nothing())


def _holdings(connection: Connection, desk: str) -> dict[HoldingKey, Holding]:
    statement = select(paper_positions).where(paper_positions.c.desk == clean(desk))
    ordered = statement.order_by(paper_positions.c.market, paper_positions.c.symbol)
    return {
        HoldingKey(Market(row.market), row.symbol): Holding(quantity=row.quantity, cost=row.cost)
        for row in connection.execute(ordered)
    }


def _open_orders(connection: Connection, desk: str) -> list[PaperOrder]:
    """Oldest first: that is the order in which they are matched."""
    statement = select(paper_orders).where(
        paper_orders.c.desk == clean(desk), paper_orders.c.status == OrderStatus.OPEN.value
    )
    ordered = statement.order_by(paper_orders.c.created_at, paper_orders.c.order_id)
    return _orders(dict(found) for found in connection.execute(ordered).mappings())


def _orders(rows: Iterable[dict[str, object]]) -> list[PaperOrder]:
    return [PaperOrder.model_validate(row) for row in rows]


def _write_holding(connection: Connection, desk: str, key: HoldingKey, held: Holding) -> None:
    values = {"desk": clean(desk), "market": key.market, "symbol": clean(key.symbol), **held.model_dump()}
    statement = insert(paper_positions).values(values)
    changed = {"quantity": held.quantity, "cost": held.cost}
    keys = [paper_positions.c.desk, paper_positions.c.market, paper_positions.c.symbol]
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))
