"""Totals: a desk's account added up so far, so that a report need not begin with the very first fill.

A row holds the account after all its records up to one moment, `through`. A reader adds the records written since. So totals
that are missing or behind make no number wrong; they only cost time. If a record is written, changed or deleted at or before
`through`, triggers of the records' tables (migration 0009) delete the row, whoever made the change.
"""

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, literal, or_, select, text
from sqlalchemy.dialects.postgresql import insert

from domain import accounting
from domain import books as domain_books
from domain.accounting import FOLD_VERSION, Fold, Holding, HoldingKey, LedgerKind, Portfolio
from domain.trading.market import Market
from domain.values import Moment, Value
from storage import books as live
from storage import paper
from storage.cleaning import clean
from storage.paper import StoredEntry, StoredFill
from storage.tables import live_fills, live_income, live_totals, paper_accounts, paper_fills, paper_ledger, paper_totals

_Record = StoredFill | StoredEntry
Records = Callable[[Connection, str, datetime | None, int | None], list[StoredFill] | list[StoredEntry]]

BATCH = 2_000
# A reader adds up this many records by itself, which takes less than two milliseconds.
KEEP_EVERY = 64
KEEPER_IDLE = "1s"
# For real accounts: the exchange may list a row some time after the row's own time.
SETTLED_AFTER = timedelta(minutes=10)
_FOREVER_AGO = text("'-infinity'::timestamptz")


class RecordTables(NamedTuple):
    """Where an account's records are, and how they are added up. `times` are the columns of desk and time of each table."""

    name: str
    totals: Table
    fills: Records
    entries: Records
    times: tuple[tuple[ColumnElement[str], ColumnElement[datetime]], ...]
    fold: Callable[[Fold, Iterable[_Record]], Fold]


PAPER = RecordTables(
    "paper",
    paper_totals,
    paper.list_fills,
    paper.list_entries,
    ((paper_fills.c.desk, paper_fills.c.filled_at), (paper_ledger.c.desk, paper_ledger.c.at)),
    accounting.fold,
)
LIVE = RecordTables(
    "live",
    live_totals,
    live.list_fills,
    live.list_entries,
    ((live_fills.c.desk, live_fills.c.filled_at), (live_income.c.desk, live_income.c.at)),
    domain_books.fold,
)


class AccountRecords(NamedTuple):
    """One account: its tables, how it began, and the moment up to which its records are final; None if all are."""

    books: RecordTables
    start: Portfolio
    settled: datetime | None = None


class TotalsCheck(NamedTuple):
    """Totals compared with all records: `differences` is empty if they agree; `kept` counts the records in the totals."""

    account: AccountRecords
    kept: int
    records: int
    differences: list[str]


class _Stored(Value):
    """A fold as JSON; exact, because every Decimal is written as text."""

    balance: Decimal
    peak: Decimal
    day_opening: Decimal
    last_equity: Decimal
    day: date | None
    max_drawdown: Decimal
    holdings: list[tuple[Market, str, Holding]]
    ledger: dict[LedgerKind, Decimal]
    marks: dict[str, Decimal]
    group: int | Moment | None
    group_marks: dict[str, Decimal]
    group_moment: Moment | None


class _Kept(NamedTuple):
    """Totals, or the account's beginning if there are none."""

    fold: Fold
    through: datetime | None = None
    records: int = 0


def portfolio(connection: Connection, account: AccountRecords) -> Portfolio:
    """The account, from its totals and the records since. The transaction must be REPEATABLE READ."""
    return _added(connection, account, _newest(connection, account)).fold.valued()


def check(connection: Connection, account: AccountRecords) -> TotalsCheck:
    """Adds up all records and compares. The transaction must be REPEATABLE READ."""
    kept = _newest(connection, account)
    whole = _added(connection, account, _Kept(Fold(account.start)))
    found, expected = _added(connection, account, kept).fold.valued()._asdict(), whole.fold.valued()._asdict()
    wrong = [f"{name}: {found[name]} in the totals, {expected[name]} by all records" for name in found]
    differences = [text for name, text in zip(found, wrong, strict=True) if found[name] != expected[name]]
    return TotalsCheck(account, kept.records, whole.records, differences)


def extend(connection: Connection, account: AccountRecords, most: int = BATCH) -> bool:
    """Adds about `most` records to the totals. Returns whether there were any. Waits for transactions that write records."""
    # Those that write records wait for this transaction: if it comes to a standstill, the server ends it.
    idle = func.set_config("idle_in_transaction_session_timeout", KEEPER_IDLE, True)
    connection.execute(select(idle, func.pg_advisory_xact_lock(_lock_key(account))))
    return _extend(connection, account, most)


def extend_if_behind(connection: Connection, desk: str) -> None:
    """Adds new records to a paper desk's totals if there are many and no other process does it."""
    if _are_behind(connection, PAPER, desk) and (found := paper.find_account(connection, desk)):
        account = paper_account(found)
        if connection.scalar(select(func.pg_try_advisory_xact_lock(_lock_key(account)))):
            _extend(connection, account, 8 * KEEP_EVERY)


def _extend(connection: Connection, account: AccountRecords, most: int) -> bool:
    kept = _newest(connection, account)
    records = _records(connection, account.books, account.start.desk, kept.through, most)
    if account.settled is not None:
        records = [record for record in records if _time_of(record) <= account.settled]
    if records:
        fold = account.books.fold(kept.fold, records)
        _write(connection, account, _Kept(fold, _time_of(records[-1]), kept.records + len(records)))
    return bool(records)


def forget(connection: Connection, account: AccountRecords) -> None:
    """Deletes an account's totals."""
    connection.execute(delete(account.books.totals).where(account.books.totals.c.desk == clean(account.start.desk)))


def accounts(connection: Connection) -> list[AccountRecords]:
    """Every account that can be added up."""
    desks = connection.scalars(select(paper_accounts.c.desk).order_by(paper_accounts.c.desk)).all()
    papers = [paper_account(found) for desk in desks if (found := paper.find_account(connection, desk))]
    opened = [live_account(found) for found in live.list_books(connection) if found.state.opening]
    return papers + opened


def paper_account(found: paper.PaperBalance) -> AccountRecords:
    """A paper desk's account."""
    return AccountRecords(PAPER, Portfolio.opened(found.desk, found.opening_balance))


def live_account(found: live.Books) -> AccountRecords:
    """A real account, whose books must be open."""
    state = found.state
    if state.opening is None:
        raise LookupError(f"the books of desk {found.desk!r} are not open")
    # A source that is read less far may still bring older records than the others have.
    settled = min(state.until.values(), default=found.opened_at) - SETTLED_AFTER
    return AccountRecords(LIVE, domain_books.opened(found.desk, state.opening), settled)


# --- records ---------------------------------------------------------------------------------------------------------------


def _added(connection: Connection, account: AccountRecords, kept: _Kept) -> _Kept:
    """The totals with every record that is not in them yet."""
    while records := _records(connection, account.books, account.start.desk, kept.through, BATCH):
        kept = _Kept(account.books.fold(kept.fold, records), _time_of(records[-1]), kept.records + len(records))
    return kept


def _records(
    connection: Connection, books: RecordTables, desk: str, after: datetime | None, most: int
) -> list[_Record]:
    """The next records in the order in which they were written; all or none of those that share a time."""
    kinds = [books.fills(connection, desk, after, most), books.entries(connection, desk, after, most)]
    records: list[_Record] = sorted((record for kind in kinds for record in kind), key=_time_of)
    cut = min((_time_of(kind[-1]) for kind in kinds if len(kind) == most), default=None)
    if cut is None:
        return records
    # The last moment may have more records than were read.
    whole = [record for record in records if _time_of(record) < cut]
    return whole or _records(connection, books, desk, after, 10 * most)


def _time_of(record: _Record) -> datetime:
    return record.filled_at if isinstance(record, StoredFill) else record.at


def _are_behind(connection: Connection, books: RecordTables, desk: str) -> bool:
    """Whether more records than KEEP_EVERY are newer than the totals."""
    t = books.totals.c
    newest = select(func.max(t.through)).where(t.desk == clean(desk)).scalar_subquery()
    since = func.coalesce(newest, _FOREVER_AGO)
    newer = [
        select(literal(1)).where(of_desk == clean(desk), at > since).limit(KEEP_EVERY).subquery()
        for of_desk, at in books.times
    ]
    counts = [select(func.count()).select_from(rows).scalar_subquery() for rows in newer]
    return bool(connection.scalar(select(counts[0] + counts[1] >= KEEP_EVERY)))


# --- rows ------------------------------------------------------------------------------------------------------------------


def _lock_key(account: AccountRecords) -> ColumnElement[int]:
    """The same key as in migration 0009: writing a record and writing totals that may include it exclude each other."""
    return func.hashtextextended(f"{account.books.name}.totals:{clean(account.start.desk)}", 0)


def _newest(connection: Connection, account: AccountRecords) -> _Kept:
    """The newest totals that this version computed for an account that began like this one."""
    t = account.books.totals.c
    mine = (t.desk == clean(account.start.desk), t.version == FOLD_VERSION, t.start == _digest(account.start))
    statement = select(t.through, t.records, t.state).where(*mine).order_by(t.through.desc()).limit(1)
    found = connection.execute(statement).one_or_none()
    if found is None:
        return _Kept(Fold(account.start))
    return _Kept(_loaded(account.start, _Stored.model_validate(found.state)), found.through, found.records)


def _write(connection: Connection, account: AccountRecords, kept: _Kept) -> None:
    """Keeps the last row of each day: if a late record deletes a row, the previous day's is still there to start from."""
    t, through = account.books.totals.c, kept.through
    if through is None:
        return
    day = through.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = _digest(account.start)
    older = or_(t.version != FOLD_VERSION, t.start != start, and_(t.through >= day, t.through <= through))
    connection.execute(delete(account.books.totals).where(t.desk == clean(account.start.desk), older))
    values = {"desk": clean(account.start.desk), "through": through, "version": FOLD_VERSION, "start": start}
    state = _dumped(kept.fold).model_dump(mode="json")
    connection.execute(insert(account.books.totals).values(values | {"records": kept.records, "state": state}))


def _digest(start: Portfolio) -> str:
    """Identifies how an account began."""
    return hashlib.sha256(_dumped(Fold(start)).model_dump_json().encode()).hexdigest()


def _dumped(fold: Fold) -> _Stored:
    facts = fold.portfolio._asdict()
    facts["holdings"] = [(key.market, key.symbol, held) for key, held in sorted(fold.portfolio.holdings.items())]
    group = {"group": fold.group, "group_marks": fold.marks, "group_moment": fold.moment}
    return _Stored.model_validate(facts | group)


def _loaded(start: Portfolio, stored: _Stored) -> Fold:
    portfolio = start._replace(
        balance=stored.balance,
        peak=stored.peak,
        day_opening=stored.day_opening,
        last_equity=stored.last_equity,
        day=stored.day,
        max_drawdown=stored.max_drawdown,
        holdings={HoldingKey(market, symbol): held for market, symbol, held in stored.holdings},
        ledger=stored.ledger,
        marks=stored.marks,
    )
    return Fold(portfolio, stored.group, stored.group_marks, stored.group_moment)
