"""The database as the API reads it. Reports and the health probe have threads and connections of their own."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection, text

from api.belonging import Belonging
from api.errors import InvalidRequest, OtherDatabase, ReportsUnavailable
from domain.accounting import Holding, HoldingKey, Portfolio, folded
from domain.decisions import Decision
from domain.instructions import InstructionRow
from storage import decisions, instructions, paper
from storage.database import Database, DatabaseUnavailable
from storage.decisions import DecisionFilter
from storage.installation import read_id
from storage.instructions import InstructionFilter
from storage.paging import InvalidCursor, PageFilter
from storage.paper import Account, StoredEntry, StoredFill

T = TypeVar("T")

DecisionPage = tuple[list[Decision], str | None]
InstructionPage = tuple[list[InstructionRow], str | None]
FillPage = tuple[list[StoredFill], str | None]
EntryPage = tuple[list[StoredEntry], str | None]

REPORT_THREADS = 4
REPORT_SECONDS = 5.0
# A whole account is computed from every fill that it ever had.
ACCOUNT_SECONDS = 30.0
PROBE_SECONDS = 1.5


class Books(NamedTuple):
    """An account twice: as the paper venue keeps it, and as its records add up."""

    account: Account
    holdings: dict[HoldingKey, Holding]
    portfolio: Portfolio


class Reports(Protocol):
    """What the API asks of the database; each but `ping` raises ApiError."""

    async def page(self, wanted: DecisionFilter) -> DecisionPage:
        """One page of decisions and the next cursor."""

    async def instructions(self, desk: str, wanted: InstructionFilter) -> InstructionPage:
        """One page of instructions."""

    async def fills(self, desk: str, wanted: PageFilter) -> FillPage:
        """One page of the paper venue's fills."""

    async def ledger(self, desk: str, wanted: PageFilter) -> EntryPage:
        """One page of the paper venue's ledger."""

    async def books(self, desk: str) -> Books | None:
        """A desk's account on the paper venue; None where it has none."""

    async def ping(self) -> bool:
        """Whether the database answers, within the probe's time."""

    async def database_id(self) -> str | None:
        """Which database this is, within the probe's time; None where it does not say."""

    def close(self) -> None:
        """Ends what is running."""


class PostgresReports:
    """Reports from PostgreSQL."""

    def __init__(self, url: str, belonging: Belonging | None = None) -> None:
        self._belonging = belonging
        self._database = Database(
            url, threads=REPORT_THREADS, timeout_seconds=REPORT_SECONDS, application_name="ais-api-reports"
        )
        self._probe = Database(url, threads=1, timeout_seconds=PROBE_SECONDS, application_name="ais-api-health")

    async def page(self, wanted: DecisionFilter) -> DecisionPage:
        return await self._run(partial(decisions.page, wanted=wanted))

    async def instructions(self, desk: str, wanted: InstructionFilter) -> InstructionPage:
        return await self._run(partial(instructions.page, desk=desk, wanted=wanted))

    async def fills(self, desk: str, wanted: PageFilter) -> FillPage:
        return await self._run(partial(paper.fills_page, desk=desk, wanted=wanted))

    async def ledger(self, desk: str, wanted: PageFilter) -> EntryPage:
        return await self._run(partial(paper.entries_page, desk=desk, wanted=wanted))

    async def books(self, desk: str) -> Books | None:
        return await self._run(partial(read_books, desk=desk), ACCOUNT_SECONDS)

    async def ping(self) -> bool:
        return await self._probe.ping()

    async def database_id(self) -> str | None:
        try:
            return await self._probe.run(read_id)
        except DatabaseUnavailable:
            return None

    def close(self) -> None:
        self._database.close()
        self._probe.close()

    async def _run(self, work: Callable[[Connection], T], seconds: float | None = None) -> T:
        def told(connection: Connection) -> tuple[T, str | None]:
            # Last, since what `work` does may have to be the transaction's first.
            return work(connection), read_id(connection)

        try:
            found, database_id = await self._database.run(told, seconds)
        except InvalidCursor as error:
            raise InvalidRequest(("query", "cursor"), str(error)) from error
        except DatabaseUnavailable as error:
            raise ReportsUnavailable(error) from error
        await self._check(database_id)
        return found

    async def _check(self, database_id: str | None) -> None:
        """Raises where this is another database than the desk's; asks once more where it may have been changed."""
        belonging = self._belonging
        if belonging is None or await belonging.database_id() in (None, database_id):
            return
        wanted = await belonging.ask()
        if wanted not in (None, database_id):
            raise OtherDatabase(database_id, wanted)


def read_books(connection: Connection, desk: str) -> Books | None:
    """Account, holdings and records as of one moment: a fill that comes meanwhile must not look like a difference."""
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    account = paper.find_account(connection, desk)
    if account is None:
        return None
    portfolio = folded(desk, account.opening_balance, paper.list_records(connection, desk))
    return Books(account, paper.load_holdings(connection, desk), portfolio)
