"""A live desk's books: what the exchange lists, each once, and whether it adds up to the exchange's own balance."""

import asyncio
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from activities.venues.aster import statements
from activities.venues.aster.transports import session_for
from domain.accounting import LedgerKind
from domain.books import EXCHANGE, Opening, folded
from domain.trading.instructions import Side
from storage import books, totals
from storage.claims import AccountKey, take
from storage.database import Database
from tests.venues.aster.bookkeeping import KEY, Ledgers
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import PATIENT
from tests.venues.variants import THOROUGH

D = Decimal


def trade(fake: FakeServer, side: str, quantity: str, price: int, symbol: str = "BTCUSDT", **changes: Any) -> None:
    """A fill of an order that nobody here sent."""
    exchange = fake.exchange
    exchange.trade(symbol, side, D(quantity), D(price), next(exchange._ids), **changes)
    moved = D(quantity) if side == "BUY" else -D(quantity)
    exchange.positions[symbol] = exchange.position(symbol) + moved


async def test_nothing_is_known_until_two_readings_agree(fake: FakeServer, ledgers: Ledgers) -> None:
    state = await ledgers.rounds()
    assert (state.opening, bool(state.candidate)) == (None, True)
    # Money that moved in between: the exchange's ledger is a moment behind its balance.
    fake.exchange.wallet += 7
    assert (await ledgers.rounds()).opening is None
    opened = (await ledgers.rounds()).opening
    assert opened
    assert opened.balances == {"USDT": D("10007.5")}


async def test_fills_fees_funding_and_profit_are_kept_each_once(fake: FakeServer, ledgers: Ledgers) -> None:
    await ledgers.rounds(2)
    trade(fake, "BUY", "0.5", 60_000)
    trade(fake, "SELL", "0.2", 61_000, maker=True)
    fake.exchange.book("FUNDING_FEE", D("-1.25"), symbol="BTCUSDT")
    fake.exchange.book("TRANSFER", D(500))
    fake.exchange.book("WELCOME_BONUS", D(3))
    fake.exchange.book("INSURANCE_CLEAR", D(-2), symbol="ETHUSDT")
    state = await ledgers.rounds(3)
    bought, sold = await ledgers.fills()
    assert (bought.quantity, bought.price, bought.fee, bought.realised_profit) == (D("0.5"), D(60_000), D(12), D(0))
    assert (sold.side, sold.fee, sold.realised_profit, sold.maker) == (Side.SELL, D("4.88"), D(200), True)
    assert sorted((entry.kind, entry.symbol, entry.amount) for entry in await ledgers.entries()) == [
        (LedgerKind.FUNDING, "BTCUSDT", D("-1.25")),
        (LedgerKind.LIQUIDATION_FEE, "ETHUSDT", D(-2)),
        (LedgerKind.OTHER, "USDT", D(3)),
        (LedgerKind.TRANSFER, "USDT", D(500)),
    ]
    assert (state.differences, state.facts) == ([], [])


async def test_the_account_by_its_records_is_the_exchanges_to_the_last_digit(
    fake: FakeServer, ledgers: Ledgers
) -> None:
    trade(fake, "BUY", "0.3", 60_001)
    await ledgers.rounds(2)
    trade(fake, "BUY", "0.7", 60_013)
    trade(fake, "SELL", "0.9", 60_500)
    fake.exchange.book("FUNDING_FEE", D("0.123456789"), symbol="BTCUSDT")
    state = await ledgers.rounds(2)
    assert state.opening
    opening = state.opening
    records = await ledgers.database.run(lambda c: books.list_records(c, ledgers.desk))
    found = folded(ledgers.desk, opening, records)
    assert found.balance == fake.exchange.wallet
    assert (found.opening_balance, opening.held) == (D("10000.5"), {})
    (line,) = found.lines()
    assert (line.quantity, line.realised_profit) == (D("0.1"), found.realised_profit)
    assert abs(line.entry_price - fake.exchange.entries["BTCUSDT"]) < D("1e-9")


async def test_a_position_from_before_the_books_is_part_of_the_opening(fake: FakeServer, ledgers: Ledgers) -> None:
    fake.exchange.positions["ETHUSDT"], fake.exchange.entries["ETHUSDT"] = D(4), D(2_900)
    await ledgers.rounds(2)
    trade(fake, "SELL", "4", 3_000, "ETHUSDT")
    state = await ledgers.rounds(2)
    assert state.opening
    assert state.facts == []
    records = await ledgers.database.run(lambda c: books.list_records(c, ledgers.desk))
    found = folded(ledgers.desk, state.opening, records)
    (line,) = found.lines()
    assert (line.quantity, line.realised_profit, found.balance) == (D(0), D(400), fake.exchange.wallet)


@pytest.mark.parametrize("negative", [False, True])
async def test_a_fee_is_what_the_ledger_says_however_the_list_of_trades_signs_it(
    fake: FakeServer, ledgers: Ledgers, negative: bool
) -> None:
    fake.exchange.habits.fees_are_negative = negative
    trade(fake, "BUY", "1", 60_000)
    # A rebate: the maker is paid.
    fake.exchange.habits.fee_rate = "-0.0001"
    trade(fake, "SELL", "1", 60_000, maker=True)
    await ledgers.rounds(2)
    assert [fill.fee for fill in await ledgers.fills()] == [24, -6]
    assert (await ledgers.state()).facts == []


# --- whole, and each once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest", [False, True])
async def test_what_does_not_fit_on_a_page_is_read_whichever_end_is_listed(
    fake: FakeServer, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch, newest: bool
) -> None:
    monkeypatch.setattr(statements, "PAGE_ROWS", 5)
    fake.exchange.habits.page_rows, fake.exchange.habits.lists_newest = 5, newest
    now = int(time.time() * 1000)
    for number in range(16):
        trade(fake, "BUY", "0.001", 60_000, time=now - 3_000_000 + number * 175_001)
    await ledgers.rounds(2)
    assert len({fill.fill_id for fill in await ledgers.fills()}) == 16
    assert (await ledgers.state()).facts == []


async def test_more_rows_in_one_millisecond_than_a_page_holds_are_a_gap_that_is_reported(
    fake: FakeServer, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "PAGE_ROWS", 5)
    fake.exchange.habits.page_rows = 5
    now = int(time.time() * 1000)
    for _ in range(7):
        trade(fake, "BUY", "0.001", 60_000, time=now - 60_000)
    state = await ledgers.rounds()
    assert {gap.source for gap in state.gaps} == {"income", "BTCUSDT"}
    assert "more rows at one moment than the exchange lists" in state.facts[0]


async def test_an_exchange_that_does_not_look_at_the_time_is_not_halved_for_ever(
    fake: FakeServer, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "PAGE_ROWS", 2)
    trade(fake, "BUY", "0.001", 60_000)
    row = fake.exchange.trades[0]
    fake.faults.answers = {"get_my_trades": [row, {**row, "id": 7, "time": 1}]}
    state = await ledgers.rounds(2)
    assert fake.calls["get_my_trades"] <= 4
    assert "may be truncated" in state.failing["BTCUSDT"].why


async def test_a_desk_of_weeks_ago_is_read_in_weeks(fake: FakeServer, database: Database, address: str) -> None:
    made = await Ledgers(database, session_for(address, PATIENT), "old-desk", key=AccountKey(EXCHANGE, "old")).started(
        timedelta(days=20)
    )
    long_ago = int((time.time() - 19 * 86_400) * 1000)
    trade(fake, "BUY", "0.5", 50_000, time=long_ago)
    state = await made.rounds(2)
    assert [fill.price for fill in await made.fills()] == [50_000]
    assert state.facts == []
    spans = [asked["end_time"] - asked["start_time"] for asked in fake.sent("get_my_trades")]
    assert max(spans) <= 7 * 86_400_000
    await made.close()


async def test_who_takes_over_reads_on_where_the_last_one_stood(
    fake: FakeServer, ledgers: Ledgers, address: str
) -> None:
    trade(fake, "BUY", "0.5", 60_000)
    fake.faults.errors = {"get_account_v4": 503}
    await ledgers.rounds()
    until = (await ledgers.state()).until
    assert set(until) == {"income", "BTCUSDT", "ETHUSDT"}
    fake.faults.errors = {}
    heir = Ledgers(ledgers.database, session_for(address, PATIENT), ledgers.desk, key=ledgers.keeper._reader.key)
    before = fake.calls["get_income"]
    await heir.rounds()
    assert fake.calls["get_income"] == before, "the lease of the one before has not ended"
    await ledgers.sql("UPDATE live.books SET leased_until = now() WHERE desk = :desk", desk=ledgers.desk)
    await heir.rounds(2)
    assert fake.sent("get_income")[-1]["start_time"] >= int(until["income"].timestamp() * 1000) - 600_001
    assert len(await ledgers.fills()) == 1
    assert (await ledgers.state()).opening
    await heir.close()


async def test_a_lease_of_a_clock_that_was_ahead_is_over(fake: FakeServer, ledgers: Ledgers) -> None:
    await ledgers.rounds()
    ahead = "UPDATE live.books SET leased_by = 'another', leased_until = now() + interval '1 day' WHERE desk = :desk"
    await ledgers.sql(ahead, desk=ledgers.desk)
    before = fake.calls["get_income"]
    await ledgers.rounds()
    assert fake.calls["get_income"] > before


async def test_a_symbol_that_the_exchange_refuses_holds_up_no_other(fake: FakeServer, ledgers: Ledgers) -> None:
    fake.faults.errors, fake.faults.symbols = {"get_my_trades": 400}, ["ETHUSDT"]
    trade(fake, "BUY", "0.5", 60_000)
    state = await ledgers.rounds(2)
    assert state.opening
    assert len(await ledgers.fills()) == 1
    assert "ETHUSDT: get_my_trades ETHUSDT: HTTP 400" in state.facts[0]
    fake.faults.errors = {}
    assert (await ledgers.rounds()).facts == []


async def test_a_symbol_that_only_the_ledger_names_is_read_too(fake: FakeServer, ledgers: Ledgers) -> None:
    trade(fake, "BUY", "100", 1, "DOGEUSDT")
    await ledgers.rounds(2)
    assert [fill.symbol for fill in await ledgers.fills()] == ["DOGEUSDT"]


# --- nothing is a fact because one reading says so -------------------------------------------------------------------------


async def test_a_balance_that_the_records_do_not_explain_is_reported_with_both_numbers(
    fake: FakeServer, ledgers: Ledgers
) -> None:
    await ledgers.rounds(2)
    fake.exchange.wallet -= D("1.5")
    assert (await ledgers.rounds()).facts == []
    state = await ledgers.rounds()
    assert state.facts == ["balance USDT: 9999 at the exchange, 10000.5 by its records"]
    fake.exchange.wallet += D("1.5")
    assert (await ledgers.rounds()).facts == []


async def test_a_position_that_the_fills_do_not_explain_is_reported_with_both_numbers(
    fake: FakeServer, ledgers: Ledgers
) -> None:
    await ledgers.rounds(2)
    fake.exchange.positions["ETHUSDT"] = D("-2.5")
    state = await ledgers.rounds(2)
    assert state.facts == ["ETHUSDT futures quantity: -2.5 at the exchange, 0 by its records"]


@pytest.mark.parametrize(
    ("tool", "answer"),
    [("get_my_trades", []), ("get_income", None), THOROUGH("get_my_trades", None), THOROUGH("get_income", [])],
)
async def test_what_one_short_answer_left_out_is_found_again(
    fake: FakeServer, ledgers: Ledgers, tool: str, answer: Any
) -> None:
    await ledgers.rounds(2)
    trade(fake, "BUY", "0.5", 60_000, time=int(time.time() * 1000) - 1_800_000)
    fake.faults.answers = {tool: answer}
    await ledgers.rounds(2)
    fake.faults.answers = {}
    state = await ledgers.rounds(3)
    assert len(await ledgers.fills()) == 1
    assert state.facts == []


async def test_a_later_answer_corrects_a_wrong_one(fake: FakeServer, ledgers: Ledgers) -> None:
    await ledgers.rounds(2)
    trade(fake, "BUY", "0.5", 60_000)
    (row,), (fee,) = fake.exchange.trades, fake.exchange.ledger
    wrong = {**row, "qty": "0.7", "price": "1", "realizedPnl": "3"}
    fake.faults.answers = {"get_my_trades": [wrong, wrong], "get_income": [{**fee, "income": "-9"}]}
    await ledgers.rounds(2)
    fake.faults.answers = {}
    state = await ledgers.rounds(2)
    (fill,) = await ledgers.fills()
    assert (fill.quantity, fill.price, fill.fee, fill.realised_profit) == (D("0.5"), D(60_000), D(12), D(0))
    assert state.facts == []


async def test_a_trade_whose_money_is_booked_and_whose_fill_is_not_listed_is_reported(
    fake: FakeServer, ledgers: Ledgers
) -> None:
    await ledgers.rounds(2)
    trade(fake, "BUY", "0.5", 60_000, time=int(time.time() * 1000) - 200_000)
    (row,) = fake.exchange.trades
    fake.exchange.trades.clear()
    state = await ledgers.rounds(2)
    assert f"not listed: trade {row['id']} of BTCUSDT" in state.facts
    fake.exchange.trades.append(row)
    assert (await ledgers.rounds(2)).facts == []


async def test_positions_that_contradict_the_account_are_no_reading(fake: FakeServer, ledgers: Ledgers) -> None:
    listed = [{"symbol": "BTCUSDT", "positionAmt": "0.123"}]
    fake.faults.answers = {"get_account_v4": fake.exchange.account_row() | {"positions": listed}, "get_positions": []}
    state = await ledgers.rounds(3)
    assert (state.opening, state.candidate) == (None, None)
    assert "get_account_v4 disagrees about BTCUSDT" in state.failing["account"].why


# --- outside the way of everything else ------------------------------------------------------------------------------------


async def test_while_a_kill_has_cancels_to_send_nothing_is_asked(fake: FakeServer, ledgers: Ledgers) -> None:
    await ledgers.sql("UPDATE desks SET killed = true WHERE desk = :desk", desk=ledgers.desk)
    await ledgers.rounds()
    assert not fake.calls
    await ledgers.sql("UPDATE desks SET quiet_at = now() WHERE desk = :desk", desk=ledgers.desk)
    assert (await ledgers.rounds(2)).opening


async def test_a_kill_in_the_middle_of_a_round_ends_it(fake: FakeServer, ledgers: Ledgers) -> None:
    fake.faults.held = {"get_my_trades"}
    running = asyncio.create_task(ledgers.rounds())
    while not fake.calls["get_my_trades"]:
        await asyncio.sleep(0.01)
    await ledgers.sql("UPDATE desks SET killed = true WHERE desk = :desk", desk=ledgers.desk)
    fake.faults.held = set()
    await running
    assert (fake.calls["get_my_trades"], fake.calls["get_account_v4"]) == (1, 0)


async def test_failures_are_followed_by_growing_pauses_and_a_rate_limit_by_its_own(
    fake: FakeServer, ledgers: Ledgers
) -> None:
    fake.faults.errors = {"*": 503}
    pauses = [await ledgers.keeper.round() for _ in range(6)]
    assert pauses == [60, 120, 240, 480, 600, 600]
    assert (await ledgers.state()).failing["account"].why == "get_order_book BTCUSDT: HTTP 503"
    fake.faults.errors = {}
    assert await ledgers.keeper.round() < 60, "the second reading, which opens the books, comes soon"
    assert await ledgers.keeper.round() == 60
    fake.faults.errors = {"*": 418}
    assert await ledgers.keeper.round() > 100


async def test_an_account_of_another_desk_is_not_read(fake: FakeServer, ledgers: Ledgers) -> None:
    key = ledgers.keeper._reader.key
    await ledgers.database.run(lambda connection: take(connection, key, "another"))
    await ledgers.rounds()
    assert not fake.calls


async def test_a_database_that_is_away_is_waited_for(fake: FakeServer, address: str) -> None:
    nowhere = Database("postgresql://nobody:nothing@127.0.0.1:1/none", timeout_seconds=1, application_name="ais-test")
    away = Ledgers(nowhere, session_for(address, PATIENT), "away")
    assert [await away.keeper.round() for _ in range(2)] == [60, 120]
    assert not fake.calls
    await away.close()
    nowhere.close()


async def test_a_desk_that_was_never_started_has_no_books(fake: FakeServer, database: Database, address: str) -> None:
    made = Ledgers(database, session_for(address, PATIENT), "never-started", key=KEY)
    await made.rounds()
    assert not fake.calls
    await made.close()


def test_an_empty_account_folds_to_its_opening() -> None:
    found = folded("main", Opening(balances={"USDT": D(5)}), [])
    assert (found.balance, found.equity, len(found.lines())) == (D(5), D(5), 0)


async def test_totals_that_fail_lose_no_round(
    fake: FakeServer, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bool:
        raise ValueError("of a newer version")

    monkeypatch.setattr(totals, "extend", fails)
    trade(fake, "BUY", "0.5", 60_000)
    state = await ledgers.rounds(3)
    assert (state.facts, state.failing) == ([], {})
