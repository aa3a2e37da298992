"""Reports of a live desk: not "none" where nobody knows, and then what the exchange listed."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

from api.coordinator import CoordinatorClient
from api.desk_database import DeskDatabase
from api.errors import OtherAccount, ReportsUnavailable
from api.reporting import PostgresReports
from domain.books import EXCHANGE, BooksState, Difference, Failing, Gap, Income, LiveFill, Opening
from domain.desk.states import Mode
from domain.trading.market import Market
from storage import books
from storage.books import BooksReader
from storage.claims import AccountKey
from storage.database import Database
from storage.instructions import upsert_instructions
from storage.paging import PageFilter
from tests.api.world import FakeGateway, World, make_carried
from tests.storage.builders import make_instruction, make_order_instruction
from tests.venues.aster.bookkeeping import start_desk
from workflows.gateway import CoordinatorSilent

D = Decimal
NOON = datetime(2026, 3, 12, 12, tzinfo=UTC)
READER = BooksReader("main", AccountKey(EXCHANGE, "0123456789abcdef"), "reader")
OPENED = BooksState(opening=Opening(balances={"USDT": D(1_000)}))


@pytest.fixture
async def database(world: World, new_database_url: Callable[[], str]) -> AsyncIterator[Database]:
    """A database of the test's own, which the world's reports read as those of a live desk."""
    url = new_database_url()
    writer = Database(url, threads=1, application_name="test")
    world.reports.log = PostgresReports(url, live=True)
    await writer.run(lambda connection: start_desk(connection, "main", NOON))
    yield writer
    world.reports.log.close()
    writer.close()


@pytest.mark.parametrize(("live", "mode"), [(False, Mode.LIVE), (True, Mode.PAPER)])
async def test_fills_and_money_of_another_account_than_the_desks_are_never_shown(live: bool, mode: Mode) -> None:
    """After `ais restart --mode live`, an API that nobody restarted showed the paper account as that of the live desk."""
    gateway = FakeGateway()
    gateway.carried = make_carried(mode=mode)
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    reports = PostgresReports(nowhere, DeskDatabase(CoordinatorClient(gateway, 1.0)), live=live)
    for asked in (
        lambda: reports.fills("main", PageFilter(), str),
        lambda: reports.ledger("main", PageFilter(), str),
        lambda: reports.books("main"),
    ):
        with pytest.raises(OtherAccount, match=f"AIS_MODE={mode.value}"):
            await asked()
    gateway.carried = make_carried(mode=Mode.LIVE if live else Mode.SHADOW)
    with pytest.raises(ReportsUnavailable):
        await reports.books("main")
    reports.close()


def a_trade(number: int, side: str, quantity: str, price: int, profit: int = 0, **changes: Any) -> LiveFill:
    at = NOON + timedelta(minutes=number)
    facts = {
        "fill_id": f"0123456789abcdef:futures:BTCUSDT:{number}", "trade_id": str(number), "order_id": str(900 + number),
        "desk": "main", "market": Market.FUTURES, "symbol": "BTCUSDT", "side": side, "quantity": quantity, "price": price,
        "fee": 1, "fee_asset": "USDT", "realised_profit": profit, "filled_at": at, "market_time": at,
    }  # fmt: skip
    return LiveFill.model_validate(facts | changes)


def paid(kind: str, amount: str, number: int = 1, **changes: Any) -> Income:
    facts = {
        "entry_id": f"{kind}:{number}", "income_type": kind, "symbol": "BTCUSDT", "asset": "USDT", "amount": amount,
        "trade_id": None, "at": NOON + timedelta(minutes=10 + number),
    }  # fmt: skip
    return Income.model_validate(facts | changes)


def write(connection: Connection, state: BooksState, *rows: LiveFill | Income) -> None:
    assert books.lease(connection, READER, 60)
    fills = [row for row in rows if isinstance(row, LiveFill)]
    assert books.write_page(connection, READER, state, fills, [row for row in rows if isinstance(row, Income)])


TRADED = (a_trade(1, "BUY", "1", 100), a_trade(2, "SELL", "0.4", 110, 4, maker=True), paid("FUNDING_FEE", "-2"))


@pytest.mark.parametrize("path", ["fills", "ledger", "portfolio"])
async def test_until_the_books_were_read_nobody_says_none(world: World, database: Database, path: str) -> None:
    response = await world.client.get(f"/reports/{path}")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "10")
    assert response.json()["detail"].startswith("The books of desk 'main' are not known yet: a live worker reads them")
    failing = BooksState(failing={"account": Failing(since=NOON, why="get_account_v4: HTTP 401")})
    await database.run(partial(write, state=failing))
    response = await world.client.get(f"/reports/{path}")
    assert "The last attempt failed: get_account_v4: HTTP 401." in response.json()["detail"]


async def test_known_and_empty_is_none(world: World, database: Database) -> None:
    await database.run(lambda connection: write(connection, OPENED))
    for path in ("fills", "ledger"):
        assert (await world.client.get(f"/reports/{path}")).json() == []


async def test_fills_and_ledger_are_those_of_the_exchange_in_papers_form(world: World, database: Database) -> None:
    order = make_instruction(
        instruction_id="ord_mine", desk="main", tool="create_order", outcome="confirmed", venue_order_id="902",
        order=make_order_instruction(),
    )  # fmt: skip
    await database.run(partial(upsert_instructions, rows=[order]))
    await database.run(lambda connection: write(connection, OPENED, *TRADED))
    response = await world.client.get("/reports/fills?limit=1")
    (newest,) = response.json()
    assert newest == {
        "fill_id": "0123456789abcdef:futures:BTCUSDT:2", "order_id": "ord_mine", "filled_at": "2026-03-12T12:02:00Z",
        "market_time": "2026-03-12T12:02:00Z", "market": "futures", "symbol": "BTCUSDT", "side": "SELL",
        "quantity": "0.4", "price": "110", "fee": "1", "realised_profit": "4", "maker": True,
    }  # fmt: skip
    (first,) = (await world.client.get(response.links["next"]["url"])).json()
    assert first["order_id"] == "901", "the exchange's own id, where no instruction names it"
    (entry,) = (await world.client.get("/reports/ledger")).json()
    assert (entry["kind"], entry["amount"], entry["price"], entry["rate"]) == ("funding", "-2", None, None)
    assert (await world.client.get("/reports/fills?symbol=ETHUSDT")).json() == []
    (row,) = (await world.client.get("/reports/instructions")).json()
    assert row["venue_order_id"] == "902"


async def test_amounts_are_written_without_an_exponent(world: World, database: Database) -> None:
    """The exchange writes a fill that realised nothing as `0.00000000`, which Decimal calls `0E-8`."""
    fill = a_trade(1, "BUY", "0.10000000", 60_000, realised_profit="0.00000000", fee="0.00000040")
    await database.run(lambda connection: write(connection, OPENED, fill, paid("FUNDING_FEE", "-0.00000010")))
    (shown,) = (await world.client.get("/reports/fills")).json()
    told = [shown[name] for name in ("quantity", "price", "fee", "realised_profit")]
    assert told == ["0.1", "60000", "0.0000004", "0"]
    (entry,) = (await world.client.get("/reports/ledger")).json()
    assert entry["amount"] == "-0.0000001"


async def test_a_portfolio_is_its_records_at_the_coordinators_prices(world: World, database: Database) -> None:
    await database.run(lambda connection: write(connection, OPENED, *TRADED))
    reading = make_carried().observation
    assert reading
    world.gateway.carried.observation = reading.model_copy(update={"marks": {"BTCUSDT": D(120)}})
    found = (await world.client.get("/reports/portfolio")).json()
    expected = {
        "differences": [], "opening_balance": "1000", "balance": "1000", "realised_profit": "4", "fees": "2",
        "funding": "-2", "unrealised_profit": "12", "equity": "1012",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    (line,) = found["lines"]
    assert (line["quantity"], line["entry_price"], line["mark_price"]) == ("0.6", "100", "120")
    world.gateway.query_error = CoordinatorSilent("nobody")
    found = (await world.client.get("/reports/portfolio")).json()
    assert (found["valued_at"], found["lines"][0]["mark_price"]) == (None, "110")


async def test_whatever_is_wrong_with_the_books_stands_in_the_differences(world: World, database: Database) -> None:
    state = OPENED.model_copy(
        update={
            "differences": [Difference(what="balance USDT", exchange=D("999.5"), records=D(1_000))],
            "gaps": [Gap(source="income", since=NOON, until=NOON, why="more rows than are listed")],
            "failing": {"ETHUSDT": Failing(since=NOON, why="HTTP 400")},
            "unlisted": ["trade 7 of BTCUSDT"],
        }
    )
    await database.run(lambda connection: write(connection, state))
    assert (await world.client.get("/reports/portfolio")).json()["differences"] == [
        "balance USDT: 999.5 at the exchange, 1000 by its records",
        "not whole: income from 2026-03-12T12:00:00+00:00 to 2026-03-12T12:00:00+00:00: more rows than are listed",
        "not listed: trade 7 of BTCUSDT",
        "not read since 2026-03-12T12:00:00+00:00: ETHUSDT: HTTP 400",
    ]


async def test_the_rows_of_a_page_stand_once_however_often_they_come(world: World, database: Database) -> None:
    for _ in range(3):
        await database.run(lambda connection: write(connection, OPENED, *TRADED))
    assert len((await world.client.get("/reports/fills")).json()) == 2
    assert len((await world.client.get("/reports/ledger")).json()) == 1
