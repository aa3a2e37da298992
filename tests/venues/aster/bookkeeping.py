"""A live desk's books in front of the fake server, on a real PostgreSQL."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from activities.books import Bookkeeper, reader_of
from activities.metrics import WorkerMetrics
from activities.venues.aster.allowance import Allowance
from activities.venues.aster.caller import Caller
from activities.venues.aster.session import Session
from activities.venues.aster.statements import Statements
from domain.books import EXCHANGE, BooksState
from domain.desk.states import Mode
from storage import books
from storage.claims import AccountKey
from storage.database import Database
from storage.desks import NewDesk, begin_start, finish_start
from storage.paging import PageFilter
from storage.paper import StoredEntry, StoredFill
from tests.venues.aster.fake_server import ACCOUNT
from tests.venues.aster.running import PATIENT, Heard

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
FINGERPRINT = "0123456789abcdef"
KEY = AccountKey(EXCHANGE, FINGERPRINT)


def start_desk(connection: Connection, desk: str, started_at: datetime, symbols: Sequence[str] = SYMBOLS) -> None:
    """As `ais start` does, without a claim."""
    begin_start(connection, NewDesk(desk=desk, mode=Mode.LIVE, symbols=list(symbols), now=started_at))
    finish_start(connection, desk, started_at)


async def _at_once(seconds: float) -> None:
    """The fake exchange weighs nothing."""


class Ledgers:
    """A bookkeeper of one desk, and what it wrote."""

    def __init__(self, database: Database, session: Session, desk: str, *, key: AccountKey = KEY) -> None:
        self.database, self.desk, self.heard = database, desk, Heard()
        self.instruments = WorkerMetrics(desk)
        caller = Caller(session, ACCOUNT, PATIENT, self.heard)
        self.keeper = Bookkeeper(
            reader_of(desk, key), Statements(caller, Allowance(sleep=_at_once)), database, 60.0, self.instruments
        )

    async def started(self, ago: timedelta = timedelta(hours=1), symbols: Sequence[str] = SYMBOLS) -> "Ledgers":
        at = datetime.now(UTC) - ago
        await self.database.run(lambda connection: start_desk(connection, self.desk, at, symbols))
        return self

    async def rounds(self, count: int = 1) -> BooksState:
        for _ in range(count):
            await self.keeper.round()
        return await self.state()

    async def state(self) -> BooksState:
        found = await self.database.run(lambda connection: books.find_books(connection, self.desk))
        return found.state if found else BooksState()

    async def fills(self) -> list[StoredFill]:
        """Oldest first."""
        page = await self.database.run(lambda c: books.fills_page(c, self.desk, PageFilter(limit=100_000)))
        return page[0][::-1]

    async def entries(self) -> list[StoredEntry]:
        page = await self.database.run(lambda c: books.entries_page(c, self.desk, PageFilter(limit=100_000)))
        return page[0][::-1]

    async def sql(self, statement: str, **values: Any) -> None:
        await self.database.run(lambda connection: connection.execute(text(statement), values).rowcount)

    async def close(self) -> None:
        """Of the connection to the server; the database is the test's."""
        await self.keeper._statements.close()
