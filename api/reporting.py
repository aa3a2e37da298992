"""The API's access to the database. Reports and health probes have separate threads and connections."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from api.desk_database import DeskDatabase
from api.errors import BooksUnread, InvalidRequest, OtherAccount, OtherDatabase, ReportsUnavailable
from domain.accounting import Holding, HoldingKey, Portfolio
from domain.desk.states import Mode
from domain.trading.decisions import Decision
from domain.trading.instructions import InstructionRow
from storage import books as live
from storage import decisions, instructions, paper, rights, totals
from storage.database import Database, DatabaseUnavailable
from storage.decisions import DecisionFilter
from storage.equity import CurveFilter, EquityPoint, read_curve
from storage.installation import read_id
from storage.instructions import InstructionFilter
from storage.paging import InvalidCursor, PageFilter
from storage.paper import PaperBalance, StoredEntry, StoredFill
from storage.writable import try_to_grow, try_to_write

T = TypeVar("T")
_Pages = Callable[[Connection, str, PageFilter], tuple[list[T], str | None]]

DecisionPage = tuple[list[Decision], str | None]
# The text of a page, and the cursor of the next one.
PageText = tuple[str, str | None]
RowsToText = Callable[[list[T]], str]
"""Makes a report's text from its rows. Call it in a thread of the reports: for some thousands of rows it takes longer than a
kill may wait, and the event loop serves kills."""

REPORT_THREADS = 4
REPORT_SECONDS = 5.0
# Without totals, an account is computed from every fill that it ever had.
ACCOUNT_SECONDS = 30.0
PROBE_SECONDS = 1.5
# Anybody may request /health. This probe writes to disk, and each failure leaves a line in PostgreSQL's own log.
SPACE_SECONDS = 10.0
FAILED_SECONDS = 1.0


class PaperBooks(NamedTuple):
    """An account twice: as the paper venue keeps it, and as the sum of its records."""

    account: PaperBalance
    holdings: dict[HoldingKey, Holding]
    portfolio: Portfolio


class LiveBooks(NamedTuple):
    """A real account as the sum of its records, and the facts that put the records in question."""

    portfolio: Portfolio
    facts: list[str]


class _Unread(Exception):
    """The books are not known yet; the text says why, or is empty."""


class Reports(Protocol):
    """What the API needs from the database. All methods but the probes raise ApiError."""

    async def page(self, wanted: DecisionFilter) -> DecisionPage:
        """One page of decisions and the next cursor."""

    async def page_text(self, wanted: DecisionFilter) -> PageText:
        """One page of decisions as the text of a JSON array, and the next cursor."""

    async def instructions(self, desk: str, wanted: InstructionFilter, to_text: RowsToText[InstructionRow]) -> PageText:
        """One page of instructions."""

    async def fills(self, desk: str, wanted: PageFilter, to_text: RowsToText[StoredFill]) -> PageText:
        """One page of a desk's fills."""

    async def ledger(self, desk: str, wanted: PageFilter, to_text: RowsToText[StoredEntry]) -> PageText:
        """One page of a desk's ledger."""

    async def books(self, desk: str) -> PaperBooks | LiveBooks | None:
        """A desk's account; None if the paper venue has none for it."""

    async def curve(self, desk: str, wanted: CurveFilter, to_text: RowsToText[EquityPoint]) -> str:
        """A desk's equity over time, oldest first."""

    async def can_write(self) -> bool:
        """Whether a row could be written, within the probe's time."""

    async def missing_rights(self) -> list[str]:
        """The rights that the role of this process lacks, read within the probe's time; empty if they cannot be read."""

    async def database_id(self) -> str | None:
        """The id of this database, read within the probe's time; None if it cannot be read."""

    def close(self) -> None:
        """Ends what is running."""


class PostgresReports:
    """Reports from PostgreSQL. Fills and money are those of a `live` desk's real account, or of the paper venue."""

    def __init__(self, url: str, desk_database: DeskDatabase | None = None, *, live: bool = False) -> None:
        self._desk_database = desk_database
        self._live = live
        self._database = Database(
            url, threads=REPORT_THREADS, timeout_seconds=REPORT_SECONDS, application_name="ais-api-reports"
        )
        self._probe = Database(url, threads=1, timeout_seconds=PROBE_SECONDS, application_name="ais-api-health")
        self._space_known_until = 0.0
        self._failed_until: dict[str, float] = {}

    async def page(self, wanted: DecisionFilter) -> DecisionPage:
        return await self._run(partial(decisions.page, wanted=wanted))

    async def page_text(self, wanted: DecisionFilter) -> PageText:
        def work_and_id(connection: Connection) -> tuple[PageText, str | None]:
            found = decisions.page_text(connection, wanted)
            return (found.text, found.cursor), found.database_id or read_id(connection)

        return await self._checked(work_and_id)

    async def instructions(self, desk: str, wanted: InstructionFilter, to_text: RowsToText[InstructionRow]) -> PageText:
        return await self._run(lambda connection: _text_of(instructions.page(connection, desk, wanted), to_text))

    async def fills(self, desk: str, wanted: PageFilter, to_text: RowsToText[StoredFill]) -> PageText:
        return await self._of_account(desk, paper.fills_page, live.fills_page, wanted, to_text)

    async def ledger(self, desk: str, wanted: PageFilter, to_text: RowsToText[StoredEntry]) -> PageText:
        return await self._of_account(desk, paper.entries_page, live.entries_page, wanted, to_text)

    async def books(self, desk: str) -> PaperBooks | LiveBooks | None:
        await self._check_account()
        if not self._live:
            return await self._run(partial(read_books, desk=desk), ACCOUNT_SECONDS)
        return await self._known(desk, partial(read_live_books, desk=desk), ACCOUNT_SECONDS)

    async def curve(self, desk: str, wanted: CurveFilter, to_text: RowsToText[EquityPoint]) -> str:
        return await self._run(lambda connection: to_text(read_curve(connection, desk, wanted)))

    async def can_write(self) -> bool:
        look_at_space = time.monotonic() >= self._space_known_until

        def attempt(connection: Connection) -> bool:
            try_to_write(connection)
            if look_at_space:
                try_to_grow(connection)
            return True

        could = bool(await self._probed("write", attempt))
        if could and look_at_space:
            self._space_known_until = time.monotonic() + SPACE_SECONDS
        return could

    async def missing_rights(self) -> list[str]:
        return await self._probed("rights", rights.missing) or []

    async def database_id(self) -> str | None:
        return await self._probed("id", read_id)

    async def _probed(self, what: str, work: Callable[[Connection], T]) -> T | None:
        """A probe's result; None if it fails, or failed a moment ago."""
        if time.monotonic() < self._failed_until.get(what, 0.0):
            return None
        try:
            return await self._probe.run(work)
        except (DatabaseUnavailable, DBAPIError):
            # For other statements a missing right is a bug of ours; for a probe it is an answer.
            self._failed_until[what] = time.monotonic() + FAILED_SECONDS
            return None

    def close(self) -> None:
        self._database.close()
        self._probe.close()

    async def _of_account(
        self, desk: str, of_paper: _Pages[T], of_live: _Pages[T], wanted: PageFilter, to_text: RowsToText[T]
    ) -> PageText:
        def live_page(connection: Connection) -> PageText:
            _known_books(connection, desk)
            return _text_of(of_live(connection, desk, wanted), to_text)

        await self._check_account()
        if self._live:
            return await self._known(desk, live_page)
        return await self._run(lambda connection: _text_of(of_paper(connection, desk, wanted), to_text))

    async def _check_account(self) -> None:
        """Raises OtherAccount if the desk trades for real and this process is not set to that, or the other way round."""
        known = self._desk_database
        if known is None:
            return
        await known.database_id()
        if self._is_other(known.mode):
            # The desk may have moved since: ask once more.
            await known.ask()
        if known.mode is not None and self._is_other(known.mode):
            raise OtherAccount(known.mode)

    def _is_other(self, mode: Mode | None) -> bool:
        return mode is not None and (mode is Mode.LIVE) != self._live

    async def _known(self, desk: str, work: Callable[[Connection], T], seconds: float | None = None) -> T:
        try:
            return await self._run(work, seconds)
        except _Unread as error:
            raise BooksUnread(desk, str(error) or None) from None

    async def _run(self, work: Callable[[Connection], T], seconds: float | None = None) -> T:
        def work_and_id(connection: Connection) -> tuple[T, str | None]:
            # Last, since the statements of `work` may have to come first in the transaction.
            return work(connection), read_id(connection)

        return await self._checked(work_and_id, seconds)

    async def _checked(
        self, work_and_id: Callable[[Connection], tuple[T, str | None]], seconds: float | None = None
    ) -> T:
        """The work's result. `work_and_id` also returns the database's id; raises OtherDatabase if that is not the desk's."""
        try:
            found, database_id = await self._database.run(work_and_id, seconds)
        except InvalidCursor as error:
            raise InvalidRequest(("query", "cursor"), str(error)) from error
        except DatabaseUnavailable as error:
            raise ReportsUnavailable(error) from error
        desk_database = self._desk_database
        if desk_database is not None and await desk_database.database_id() not in (None, database_id):
            # The desk may have got another database since: ask once more.
            wanted = await desk_database.ask()
            if wanted not in (None, database_id):
                raise OtherDatabase(database_id, wanted)
        return found


def _text_of(page: tuple[list[T], str | None], to_text: RowsToText[T]) -> PageText:
    rows, cursor = page
    return to_text(rows), cursor


def read_books(connection: Connection, desk: str) -> PaperBooks | None:
    """Account, holdings and records as of one moment: a fill in between must not look like a difference."""
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    account = paper.find_account(connection, desk)
    if account is None:
        return None
    portfolio = totals.portfolio(connection, totals.paper_account(account))
    return PaperBooks(account, paper.load_holdings(connection, desk), portfolio)


def read_live_books(connection: Connection, desk: str) -> LiveBooks:
    """A real account, as of one moment. Raises _Unread."""
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    books = _known_books(connection, desk)
    return LiveBooks(totals.portfolio(connection, totals.live_account(books)), books.state.facts)


def _known_books(connection: Connection, desk: str) -> live.Books:
    books = live.find_books(connection, desk)
    if books is None or books.state.opening is None:
        failing = books.state.failing.values() if books else []
        raise _Unread(next((it.why for it in failing), ""))
    return books
