"""Instructions: a row stands once and its outcome only moves forward."""

import asyncio
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from api.requests import PageQuery
from domain.desk.facts import MAX_COMMAND_ID_CHARS
from domain.trading.instructions import InstructionOutcome, InstructionRow, Tool, instruction_id
from domain.trading.symbols import MAX_SYMBOL_CHARS
from storage.database import Database
from storage.instructions import InstructionFilter, page, upsert_instructions
from tests.storage.builders import later, make_instruction, make_order_instruction

PREPARED, CONFIRMED = InstructionOutcome.PREPARED, InstructionOutcome.CONFIRMED
UNKNOWN, FAILED = InstructionOutcome.UNKNOWN, InstructionOutcome.FAILED


async def upsert(database: Database, *rows: InstructionRow) -> list[InstructionRow]:
    return (await database.run(partial(upsert_instructions, rows=rows))).changed


async def listed(database: Database, desk: str, **wanted: Any) -> list[InstructionRow]:
    rows, _ = await database.run(partial(page, desk=desk, wanted=InstructionFilter(**wanted)))
    return rows


async def test_an_order_comes_back_to_the_last_digit(database: Database, desk: str) -> None:
    order = make_order_instruction(quantity=Decimal("0.12500000000000000001"), price=Decimal("41677.10"))
    row = make_instruction(desk=desk, tool=Tool.CREATE_ORDER, order=order, outcome=UNKNOWN, detail="no answer")
    assert await upsert(database, row) == [row]
    (read_back,) = await listed(database, desk)
    assert read_back == row
    assert str(read_back.order and read_back.order.price) == "41677.10"


async def test_a_row_is_reported_once_when_new_and_once_when_it_changes(database: Database, desk: str) -> None:
    row = make_instruction(desk=desk)
    done = row.model_copy(update={"outcome": CONFIRMED, "settled_at": later(1), "attempts": 2})
    assert await upsert(database, row) == [row]
    assert await upsert(database, row) == []
    assert await upsert(database, done) == [done]
    assert await upsert(database, done) == []
    assert await listed(database, desk) == [done]


@pytest.mark.parametrize(
    ("first", "then", "stands"),
    [
        (PREPARED, UNKNOWN, UNKNOWN),
        (UNKNOWN, PREPARED, UNKNOWN),
        (UNKNOWN, FAILED, FAILED),
        (CONFIRMED, PREPARED, CONFIRMED),
        (CONFIRMED, UNKNOWN, CONFIRMED),
        (CONFIRMED, FAILED, CONFIRMED),
        (FAILED, CONFIRMED, FAILED),
    ],
)
async def test_an_outcome_never_goes_back(
    database: Database, desk: str, first: InstructionOutcome, then: InstructionOutcome, stands: InstructionOutcome
) -> None:
    row = make_instruction(desk=desk, outcome=first)
    await upsert(database, row)
    changed = await upsert(database, row.model_copy(update={"outcome": then}))
    assert [r.outcome for r in await listed(database, desk)] == [stands]
    assert [r.outcome for r in changed] == ([then] if then is stands else [])


async def test_a_further_attempt_is_kept_without_being_told(database: Database, desk: str) -> None:
    row = make_instruction(desk=desk, attempts=1, detail="timed out")
    await upsert(database, row)
    again = row.model_copy(update={"attempts": 5, "detail": "still"})
    assert await upsert(database, again) == []
    assert await upsert(database, row) == []
    assert await listed(database, desk) == [again]


async def test_writers_at_once_tell_each_change_once(database: Database, desk: str) -> None:
    rows = [make_instruction(desk=desk) for _ in range(20)]
    done = [row.model_copy(update={"outcome": CONFIRMED}) for row in reversed(rows)]
    new = await asyncio.gather(*(upsert(database, *rows) for _ in range(4)))
    assert sum(map(len, new)) == 20
    changed = await asyncio.gather(*(upsert(database, *done) for _ in range(4)))
    assert sum(map(len, changed)) == 20


async def test_two_desks_that_got_one_command_id_have_a_row_each(database: Database, desk: str) -> None:
    """Found to be false: the second desk's row was not written, and its confirmation confirmed the first desk's cancel."""
    first = make_instruction(desk=desk, instruction_id=f"{desk}:1:cancel_all_orders:BTCUSDT")
    second = first.model_copy(update={"desk": f"{desk}-2"})
    done = second.model_copy(update={"outcome": CONFIRMED, "settled_at": later(1), "attempts": 1})
    assert await upsert(database, first) == [first]
    for row in (second, done):
        (written,) = await upsert(database, row)
        assert written.instruction_id != first.instruction_id
        assert written == row.model_copy(update={"instruction_id": written.instruction_id})
        assert await upsert(database, row) == []
        assert await listed(database, second.desk) == [written]
    assert await listed(database, desk) == [first]


async def test_desks_that_write_one_command_id_at_once_lose_no_row(database: Database, desk: str) -> None:
    ids = [f"{desk}:1:cancel_all_orders:{number}" for number in range(20)]
    rows = [[make_instruction(desk=f"{desk}-{n}", instruction_id=id_) for id_ in ids] for n in range(4)]
    written = await asyncio.gather(*(upsert(database, *of_desk) for of_desk in rows for _ in range(2)))
    assert sum(map(len, written)) == 80
    for of_desk in rows:
        assert len(await listed(database, of_desk[0].desk)) == 20
        done = [row.model_copy(update={"outcome": CONFIRMED}) for row in of_desk]
        assert len(await upsert(database, *done)) == 20


async def test_the_api_takes_the_cursor_of_every_page(database: Database, desk: str) -> None:
    """Found to be false: a command id of a signal, in another script, ended the pages at its row with a 422."""
    name = f"{desk}{'x' * 63}"[:63]
    command_id = "\U0001f600" * MAX_COMMAND_ID_CHARS
    longest = instruction_id(command_id, 10**9, Tool.CANCEL_SPOT_ALL_ORDERS, "X" * MAX_SYMBOL_CHARS)
    await upsert(database, make_instruction(desk=desk, instruction_id=longest))
    await upsert(database, make_instruction(desk=name, prepared_at=later(-1)))
    await upsert(database, make_instruction(desk=name, instruction_id=longest, prepared_at=later(0.5)))
    (newest,), cursor = await database.run(partial(page, desk=name, wanted=InstructionFilter(limit=1)))
    assert newest.instruction_id == f"{longest}:{name}"
    assert PageQuery(cursor=cursor).cursor == cursor


async def test_instructions_are_listed_newest_first_by_what_is_asked(database: Database, desk: str) -> None:
    old = make_instruction(desk=desk, prepared_at=later(0), outcome=CONFIRMED, command_id=f"{desk}-1")
    new = make_instruction(desk=desk, prepared_at=later(1), command_id=f"{desk}-2")
    await upsert(database, old, new)
    assert await listed(database, desk) == [new, old]
    assert await listed(database, desk, limit=1) == [new]
    assert await listed(database, desk, outcome=CONFIRMED) == [old]
    assert await listed(database, desk, command_id=f"{desk}-2") == [new]
    assert await upsert(database) == []
