"""What reports read of the paper venue: fills and ledger entries, in pages and in the order of time."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from domain.accounting import Fill, LedgerEntry
from storage import paper
from storage.paging import PageFilter
from storage.paper import StoredEntry, StoredFill
from tests.domain.builders import BTC
from tests.domain.test_accounting import a_fill, an_entry
from tests.venues.builders import D, make_paper_order


@pytest.fixture
def connection(migrated: Connection) -> Iterator[Connection]:
    """A transaction that leaves nothing behind."""
    with migrated.begin_nested() as undone:
        yield migrated
        undone.rollback()


def write(connection: Connection, *records: Fill | LedgerEntry) -> None:
    for record in records:
        if isinstance(record, LedgerEntry):
            paper.insert_entry(connection, record)
        else:
            paper.insert_fill(connection, record)


def some_fills(connection: Connection, count: int, desk: str = "main") -> None:
    paper.insert_order(connection, make_paper_order(order_id=f"of {desk}", desk=desk, status="filled"), None, 0)
    fills = (a_fill(fill_id=f"{desk}:{n}", order_id=f"of {desk}", desk=desk, bar_no=n) for n in range(count))
    write(connection, *fills)


def ids(rows: list[StoredFill] | list[StoredEntry]) -> list[str]:
    return [row.fill_id if isinstance(row, StoredFill) else row.entry_id for row in rows]


def walk(connection: Connection, read: Any, **wanted: Any) -> list[str]:
    """The ids of every page."""
    seen, cursor = [], None
    while True:
        rows, cursor = read(connection, "main", PageFilter(**wanted, cursor=cursor))
        seen += ids(rows)
        if cursor is None:
            return seen


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
def test_pages_of_fills_follow_each_other_without_a_gap(connection: Connection, limit: int) -> None:
    some_fills(connection, 7)
    some_fills(connection, 3, "other")
    everything = ids(paper.list_fills(connection, "main"))
    assert everything == [f"main:{n}" for n in range(7)]
    assert walk(connection, paper.fills_page, limit=limit) == everything[::-1]


def test_pages_of_entries_are_read_like_those_of_fills(connection: Connection) -> None:
    write(connection, *(an_entry("1", entry_id=f"e{n}") for n in range(4)), an_entry("1", entry_id="x", desk="other"))
    assert walk(connection, paper.entries_page, limit=3) == ["e3", "e2", "e1", "e0"]


def test_pages_keep_a_symbol_and_times(connection: Connection) -> None:
    some_fills(connection, 3)
    write(connection, a_fill(fill_id="eth", order_id="of main", symbol="ETHUSDT"))
    assert walk(connection, paper.fills_page, symbol="ETHUSDT") == ["eth"]
    second = paper.list_fills(connection, "main")[1].filled_at
    assert walk(connection, paper.fills_page, since=second, symbol=BTC) == ["main:2", "main:1"]
    assert walk(connection, paper.fills_page, until=second) == ["main:0"]


def test_a_record_comes_back_as_it_was_written(connection: Connection) -> None:
    some_fills(connection, 0)
    fill = a_fill(fill_id="f", order_id="of main", fee=D("0.000000000001"), maker=True, bar_no=9)
    entry = an_entry("-0.00012345678901234567890", price=None, rate=None, kind="insurance")
    write(connection, fill, entry)
    assert Fill.model_validate(paper.list_fills(connection, "main")[0].model_dump()) == fill
    assert LedgerEntry.model_validate(paper.list_entries(connection, "main")[0].model_dump()) == entry


def test_records_of_both_kinds_come_in_the_order_in_which_they_were_written(connection: Connection) -> None:
    some_fills(connection, 2)
    write(connection, an_entry("1", entry_id="e"), a_fill(fill_id="last", order_id="of main"))
    kinds = [type(record) for record in paper.list_records(connection, "main")]
    assert kinds == [StoredFill, StoredFill, StoredEntry, StoredFill]


@pytest.mark.parametrize("what", ["entry", "fill"])
def test_money_that_moved_once_is_not_written_twice(connection: Connection, what: str) -> None:
    some_fills(connection, 0)
    record: Any = an_entry("1") if what == "entry" else a_fill(order_id="of main")
    write(connection, record)
    with pytest.raises(IntegrityError), connection.begin_nested():
        write(connection, record)


def test_a_desk_that_the_venue_never_saw_has_no_account(connection: Connection) -> None:
    assert paper.find_account(connection, "nobody") is None
