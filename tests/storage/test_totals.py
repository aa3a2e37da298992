"""Totals of accounts: with whatever was written since, they are the fold over every record; and never what is no longer true."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, NullPool, create_engine, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from domain.accounting import Portfolio, folded
from domain.books import BooksState, Opening
from domain.books import folded as folded_live
from storage import books, migrate, paper, totals
from storage.claims import AccountKey
from storage.tables import live_fills, paper_fills, paper_ledger, paper_totals
from tests.api.test_live_books import a_trade
from tests.domain.test_accounting import a_fill, an_entry
from tests.venues.aster.bookkeeping import start_desk
from tests.venues.builders import make_paper_order

D = Decimal
NOON = datetime(2026, 3, 12, 12, tzinfo=UTC)
OPENING = D(100_000)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests stay in one transaction, on a machine that may be busy."""
    monkeypatch.setattr(totals, "KEEPER_IDLE", "60s")


@pytest.fixture
def connection(migrated: Connection) -> Iterator[Connection]:
    """A transaction that leaves nothing behind, with the account of desk main."""
    with migrated.begin_nested() as undone:
        open_account(migrated)
        yield migrated
        undone.rollback()


def open_account(connection: Connection) -> None:
    paper.lock(connection, "main", OPENING, -1)
    paper.insert_order(connection, make_paper_order(order_id="o", desk="main", status="filled"), None, 0)


def write(connection: Connection, number: int, at: datetime | None = None, **changes: Any) -> None:
    """A fill or a ledger entry, written at a moment."""
    facts: dict[str, Any] = {"bar_no": number, "market_time": NOON + timedelta(minutes=number)} | changes
    if "amount" in facts:
        entry = an_entry(facts.pop("amount"), facts.pop("kind", "funding"), entry_id=f"e{number}", **facts)
        values = entry.model_dump() | {"at": at or NOON + timedelta(seconds=number)}
        connection.execute(insert(paper_ledger).values(values))
    else:
        fill = a_fill(fill_id=f"o:{number:06}", order_id="o", **facts)
        values = fill.model_dump() | {"filled_at": at or NOON + timedelta(seconds=number)}
        connection.execute(insert(paper_fills).values(values))


def account() -> totals.AccountRecords:
    return totals.AccountRecords(totals.PAPER, Portfolio.opened("main", OPENING))


def by_all_records(connection: Connection) -> Portfolio:
    return folded("main", OPENING, paper.list_records(connection, "main"))


def kept(connection: Connection) -> list[int]:
    """How many records each row of totals holds."""
    return list(connection.scalars(select(paper_totals.c.records).order_by(paper_totals.c.through)))


fills = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(["BTCUSDT", "ETHUSDT"]),
        "side": st.sampled_from(["BUY", "SELL"]),
        "quantity": st.integers(1, 999).map(lambda n: D(n) / 1000),
        "price": st.integers(1, 9_999_999).map(lambda n: D(n) / 7000),
        "fee": st.integers(0, 9).map(lambda n: D(n) / 1000),
        "market_time": st.one_of(st.none(), st.integers(0, 5000).map(lambda n: NOON + timedelta(minutes=n))),
    }
)
entries = st.fixed_dictionaries(
    {"amount": st.integers(-99, 99).map(str), "kind": st.sampled_from(["funding", "insurance"])}
)
# A record, the bars and the moments that have passed since the one before it, and whether totals are brought forward then.
steps = st.lists(st.tuples(st.one_of(fills, entries), st.integers(0, 2), st.integers(0, 1), st.booleans()), max_size=25)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, most=st.integers(1, 6))
def test_totals_and_what_came_since_are_the_fold_over_everything(
    connection: Connection, steps: list[Any], most: int
) -> None:
    with connection.begin_nested() as undone:
        bar, at = 0, NOON
        for number, (facts, bars, moments, keep) in enumerate(steps):
            bar, at = bar + bars, at + timedelta(hours=9 * moments)
            # An id of its own, and the bar that it is told.
            write(connection, number, at, **{"bar_no": bar} | facts)
            if keep:
                totals.extend(connection, account(), most)
        assert totals.portfolio(connection, account()) == by_all_records(connection)
        while totals.extend(connection, account(), most):
            pass
        assert totals.portfolio(connection, account()) == by_all_records(connection)
        checked = totals.check(connection, account())
        assert (checked.kept, checked.records, checked.differences) == (len(steps), len(steps), [])
        undone.rollback()


def test_the_last_totals_of_each_day_stay(connection: Connection) -> None:
    for number in range(9):
        write(connection, number, NOON + timedelta(hours=8 * number))
        totals.extend(connection, account())
    assert kept(connection) == [2, 5, 8, 9]


@pytest.mark.parametrize("change", ["a late fill", "a late entry", "a changed fill", "a moved fill", "a deleted fill"])
def test_totals_that_a_record_contradicts_are_deleted_with_it(connection: Connection, change: str) -> None:
    for number in range(0, 20, 2):
        write(connection, number, NOON + timedelta(hours=8 * number), price=100 + number)
        totals.extend(connection, account())
    before = len(kept(connection))
    of_nine = paper_fills.c.fill_id == "o:000010"
    late = NOON + timedelta(hours=8 * 9)
    match change:
        case "a late fill":
            write(connection, 9, late)
        case "a late entry":
            write(connection, 9, late, amount="-3")
        case "a changed fill":
            connection.execute(update(paper_fills).where(of_nine).values(fee=7))
        case "a moved fill":
            connection.execute(update(paper_fills).where(of_nine).values(filled_at=late))
        case "a deleted fill":
            connection.execute(paper_fills.delete().where(of_nine))
    assert 0 < len(kept(connection)) < before
    assert totals.portfolio(connection, account()) == by_all_records(connection)
    assert totals.check(connection, account()).differences == []


@pytest.mark.parametrize("table", ["paper.fills", "paper.ledger"])
def test_a_table_of_records_that_is_truncated_takes_all_totals_with_it(connection: Connection, table: str) -> None:
    for number in range(4):
        changes: dict[str, Any] = {"amount": "1"} if number % 2 else {}
        write(connection, number, **changes)
    totals.extend(connection, account())
    assert kept(connection) == [4]
    connection.execute(text(f"TRUNCATE {table}"))
    assert kept(connection) == []
    assert totals.portfolio(connection, account()) == by_all_records(connection)


def test_a_fill_that_is_written_twice_counts_once(connection: Connection) -> None:
    write(connection, 1)
    totals.extend(connection, account())
    again = a_fill(fill_id="o:000001", order_id="o").model_dump() | {"filled_at": NOON + timedelta(hours=1)}
    statement = paper_fills.insert().values(again)
    with pytest.raises(Exception, match="fills_pkey"), connection.begin_nested():
        connection.execute(statement)
    assert totals.extend(connection, account()) is False
    assert totals.portfolio(connection, account()).holdings == by_all_records(connection).holdings


def test_totals_of_another_version_or_another_beginning_are_not_used(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(connection, 1)
    totals.extend(connection, account())
    connection.execute(update(paper_totals).values(state=paper_totals.c.state + text("""'{"balance": "1"}'""")))
    assert totals.portfolio(connection, account()).balance == 1
    assert totals.check(connection, account()).differences[0] == "balance: 1 in the totals, 100000 by all records"
    other = totals.AccountRecords(totals.PAPER, Portfolio.opened("main", D(5)))
    assert totals.portfolio(connection, other) == folded("main", D(5), paper.list_records(connection, "main"))
    monkeypatch.setattr(totals, "FOLD_VERSION", 99)
    assert totals.portfolio(connection, account()) == by_all_records(connection)
    totals.extend(connection, account())
    assert kept(connection) == [1]


def test_many_records_of_one_moment_are_taken_together(connection: Connection) -> None:
    for number in range(25):
        write(connection, number, NOON)
    assert totals.extend(connection, account(), 2)
    assert kept(connection) == [25]
    assert totals.portfolio(connection, account()) == by_all_records(connection)


def test_a_cycle_brings_totals_forward_once_they_are_behind(connection: Connection) -> None:
    for number in range(totals.KEEP_EVERY - 1):
        write(connection, number)
    totals.extend_if_behind(connection, "main")
    assert kept(connection) == []
    write(connection, totals.KEEP_EVERY, amount="1")
    totals.extend_if_behind(connection, "main")
    assert kept(connection) == [totals.KEEP_EVERY]
    totals.extend_if_behind(connection, "nobody")


def test_a_fill_that_is_not_yet_committed_is_never_passed_over(new_database_url: Callable[[], str]) -> None:
    """One transaction has written an early fill and takes its time; another brings the totals to a later moment."""
    engine = create_engine(new_database_url(), poolclass=NullPool)
    with engine.begin() as connection:
        open_account(connection)
        write(connection, 5)

    def keep() -> None:
        with engine.begin() as connection:
            totals.extend(connection, account())

    slow = engine.connect()
    write(slow, 1)
    keeper = threading.Thread(target=keep)
    keeper.start()
    keeper.join(0.3)
    assert keeper.is_alive()
    slow.commit()
    keeper.join(10)
    with engine.begin() as connection:
        assert kept(connection) == [2]
        assert totals.portfolio(connection, account()) == by_all_records(connection)
        connection.execute(paper_totals.delete())
    # And the other way round: the totals are there first, and the fill of before them comes while they are not committed.
    keeping = engine.connect()
    totals.extend(keeping, account())
    writer = threading.Thread(target=lambda: write_committed(engine, 2))
    writer.start()
    writer.join(0.3)
    assert writer.is_alive()
    keeping.commit()
    writer.join(10)
    with engine.begin() as connection:
        assert kept(connection) == []
        assert totals.portfolio(connection, account()) == by_all_records(connection)
    slow.close()
    keeping.close()


def test_a_keeper_that_stands_still_holds_up_no_record_for_long(
    new_database_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "KEEPER_IDLE", "300ms")
    engine = create_engine(new_database_url(), poolclass=NullPool)
    with engine.begin() as connection:
        open_account(connection)
        write(connection, 5)
    stopped = engine.connect()
    totals.extend(stopped, account())
    write_committed(engine, 1)
    with pytest.raises(DBAPIError):
        stopped.commit()
    stopped.invalidate()
    stopped.close()
    with engine.begin() as connection:
        assert kept(connection) == []


def write_committed(engine: Any, number: int) -> None:
    with engine.begin() as connection:
        write(connection, number)


def test_a_migration_adds_up_what_is_there(new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        open_account(connection)
        for number in range(10):
            write(connection, number)
    migrate.upgrade(url)
    with engine.begin() as connection:
        assert kept(connection) == [10]
        (found,) = totals.accounts(connection)
        assert totals.portfolio(connection, found) == by_all_records(connection)
        totals.forget(connection, found)
        assert kept(connection) == []


def test_totals_that_cannot_be_made_fail_no_migration(
    new_database_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bool:
        raise ValueError("a stored state that nobody can read")

    url, told = new_database_url(), list[str]()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        open_account(connection)
    monkeypatch.setattr(totals, "extend", broken)
    migrate.upgrade(url, told.append)
    assert told == [
        "The totals were not brought up to date, so reports take longer (a stored state that nobody can read)."
    ]
    with pytest.raises(ValueError, match="nobody can read"):
        migrate.add_up(url)


def test_a_real_account_is_added_up_as_far_as_every_source_was_read(connection: Connection) -> None:
    start_desk(connection, "main", NOON)
    key = AccountKey("aster", "0123456789abcdef")
    reader = books.BooksReader("main", key, "reader")
    assert books.lease(connection, reader, 60)
    opening = Opening(balances={"USDT": D(1_000)})
    until = NOON + timedelta(minutes=40)
    state = BooksState(opening=opening, until={"income": until, "BTCUSDT": until + timedelta(hours=1)})
    books.write_page(connection, reader, state, [a_trade(number, "BUY", "1", 100) for number in (1, 29, 31)], [])
    (found,) = [it for it in totals.accounts(connection) if it.books is totals.LIVE]
    assert found.settled == NOON + timedelta(minutes=30)
    assert totals.extend(connection, found)
    assert not totals.extend(connection, found)
    whole = totals.check(connection, found)
    assert (whole.kept, whole.records, whole.differences) == (2, 3, [])
    # The exchange's ledger corrects a fee.
    connection.execute(update(live_fills).where(live_fills.c.trade_id == "1").values(fee=2))
    assert totals.check(connection, found).kept == 0
    assert totals.portfolio(connection, found) == folded_live("main", opening, books.list_records(connection, "main"))
    assert connection.scalar(select(func.count()).select_from(live_fills)) == 3
