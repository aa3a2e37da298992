"""The desk's row: a latch that only a restart of the very kill clears."""

import asyncio
from functools import partial

import pytest
from sqlalchemy import text

from domain.desk.states import Mode
from storage import decisions
from storage.database import Database
from storage.desks import (
    ClearedKill,
    DeskRecord,
    NewDesk,
    begin_start,
    clear_latch,
    finish_start,
    read_desk,
    write_desk,
)
from tests.storage.builders import NOW, later, make_decision, make_desk_row


async def read(database: Database, desk: str) -> DeskRecord:
    record = await database.run(partial(read_desk, desk=desk))
    assert record is not None
    return record


async def write(database: Database, desk: str, *, killed: bool, number: int, **changes: object) -> bool:
    row = make_desk_row(desk, killed=killed, number=number, **changes)
    return (await database.run(partial(write_desk, row=row))).newly_quiet


async def clear(database: Database, desk: str, number: int, decision_id: str) -> bool:
    control = make_decision(decision_id=f"{desk}-{decision_id}", decision_type="control", desk=desk)
    cleared = ClearedKill(number, f"{desk}-{number}")
    return await database.run(partial(clear_latch, desk=desk, cleared=cleared, control=control))


async def controls(database: Database, desk: str) -> int:
    rows, _ = await database.run(partial(decisions.page, wanted=decisions.DecisionFilter(desk=desk)))
    return len(rows)


async def test_a_desk_that_was_never_started_has_no_row(database: Database, desk: str) -> None:
    assert await database.run(partial(read_desk, desk=desk)) is None


async def test_a_start_that_broke_off_is_seen_and_goes_on(database: Database, desk: str) -> None:
    facts = NewDesk(desk=desk, mode=Mode.PAPER, symbols=["BTCUSDT", "ETHUSDT"], now=NOW)
    assert await database.run(partial(begin_start, facts=facts))
    assert not await database.run(partial(begin_start, facts=facts))
    assert (await read(database, desk)).started_at is None
    await database.run(partial(finish_start, desk=desk, now=later(1)))
    await database.run(partial(finish_start, desk=desk, now=later(2)))
    record = await read(database, desk)
    assert (record.started_at, record.symbols, record.mode) == (later(1), ["BTCUSDT", "ETHUSDT"], Mode.PAPER)


async def test_the_workflow_writes_a_row_that_is_missing(database: Database, desk: str) -> None:
    await write(database, desk, killed=True, number=3)
    record = await read(database, desk)
    assert (record.killed, record.kill_number, record.reason, record.actor) == (True, 3, "flash crash", "http")
    assert record.latch.killed
    assert record.started_at == NOW


async def test_the_workflow_cannot_take_a_kill_back(database: Database, desk: str) -> None:
    await write(database, desk, killed=True, number=1)
    await write(database, desk, killed=False, number=1)
    await write(database, desk, killed=False, number=7)
    record = await read(database, desk)
    assert (record.killed, record.kill_number, record.killed_at) == (True, 7, NOW)


async def test_the_first_reason_of_a_kill_stands_and_the_number_rises(database: Database, desk: str) -> None:
    await write(database, desk, killed=True, number=1)
    second = make_desk_row(desk, killed=True, number=2)
    second = second.model_copy(update={"latch": second.latch.model_copy(update={"reason": "another"})})
    await database.run(partial(write_desk, row=second))
    record = await read(database, desk)
    assert (record.reason, record.kill_number) == ("flash crash", 2)


async def test_quiet_is_reported_once(database: Database, desk: str) -> None:
    assert not await write(database, desk, killed=True, number=1)
    assert await write(database, desk, killed=True, number=1, quiet_at=later(1))
    assert not await write(database, desk, killed=True, number=1, quiet_at=later(2))
    assert (await read(database, desk)).quiet_at == later(1)


async def test_a_restart_clears_the_kill_that_it_names_and_writes_who_did_it(database: Database, desk: str) -> None:
    await write(database, desk, killed=True, number=2, quiet_at=later(1))
    assert await clear(database, desk, 2, "restart")
    record = await read(database, desk)
    assert (record.killed, record.cleared_number, record.killed_at, record.quiet_at) == (False, 2, None, None)
    assert await controls(database, desk) == 1


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_a_restart_that_names_another_kill_changes_nothing(database: Database, desk: str, number: int) -> None:
    await write(database, desk, killed=True, number=2)
    assert not await clear(database, desk, number, "restart")
    assert (await read(database, desk)).killed
    assert await controls(database, desk) == 0


async def test_a_restart_of_a_desk_without_a_row_changes_nothing(database: Database, desk: str) -> None:
    assert not await clear(database, desk, 0, "restart")
    assert await controls(database, desk) == 0


async def test_a_restart_of_a_kill_that_the_row_lost_is_done_and_settles_that_kill(
    database: Database, desk: str
) -> None:
    await write(database, desk, killed=False, number=0)
    assert await clear(database, desk, 1, "restart")
    assert (await read(database, desk)).cleared_number == 1
    await write(database, desk, killed=True, number=2)
    assert (await read(database, desk)).killed


async def test_a_retried_restart_is_done_and_undoes_no_later_kill(database: Database, desk: str) -> None:
    await write(database, desk, killed=True, number=1)
    assert await clear(database, desk, 1, "restart")
    assert await clear(database, desk, 1, "restart")
    await write(database, desk, killed=True, number=2)
    assert not await clear(database, desk, 1, "restart"), (
        "a coordinator from before the answer would run, and know of no kill"
    )
    assert (await read(database, desk)).killed
    assert await controls(database, desk) == 1


async def test_a_second_restart_after_a_crash_finishes_the_first(database: Database, desk: str) -> None:
    await write(database, desk, killed=True, number=1)
    assert await clear(database, desk, 1, "first")
    assert await clear(database, desk, 1, "second")
    assert await controls(database, desk) == 2


async def test_a_write_from_before_a_restart_does_not_kill_again(database: Database, desk: str) -> None:
    await write(database, desk, killed=True, number=1)
    await clear(database, desk, 1, "restart")
    assert not await write(database, desk, killed=True, number=1, quiet_at=later(1))
    assert not (await read(database, desk)).killed
    await write(database, desk, killed=True, number=2)
    assert (await read(database, desk)).killed


async def test_another_kill_of_the_same_number_kills_and_only_that_very_one_does_not(
    database: Database, desk: str
) -> None:
    await write(database, desk, killed=True, number=3)
    await clear(database, desk, 3, "restart")
    first, another = make_desk_row(desk, killed=True, number=3), make_desk_row(desk, killed=True, number=1, kill_id="x")
    answer = await database.run(partial(write_desk, row=first))
    assert (answer.latch.killed, answer.latch.cleared_by) == (False, f"{desk}-restart")
    answer = await database.run(partial(write_desk, row=another))
    assert (answer.latch.killed, answer.latch.kill_number, answer.latch.kill_id) == (True, 3, "x")
    assert (await read(database, desk)).latch == answer.latch


async def test_every_kill_that_a_restart_cleared_is_known_when_its_write_comes_late(
    database: Database, desk: str
) -> None:
    for number in (1, 2):
        await write(database, desk, killed=True, number=number)
    await clear(database, desk, 2, "restart")
    for number in (1, 2):
        await write(database, desk, killed=True, number=number)
    assert not (await read(database, desk)).killed


async def test_a_late_write_of_an_older_kill_does_not_take_the_place_of_the_newest(
    database: Database, desk: str
) -> None:
    """A worker that was suspended lands the write of a kill after that of the next one."""
    first, second = (make_desk_row(desk, killed=True, number=number, kill_id=f"k{number}") for number in (1, 2))
    await database.run(partial(write_desk, row=second))
    answer = await database.run(partial(write_desk, row=first))
    assert (answer.latch.killed, answer.latch.kill_number, answer.latch.kill_id) == (True, 2, "k2")
    cleared, control = ClearedKill(2, "k2"), make_decision(desk=desk)
    assert await database.run(partial(clear_latch, desk=desk, cleared=cleared, control=control))
    for late in (first, second):
        assert not (await database.run(partial(write_desk, row=late))).latch.killed


async def test_a_retried_restart_of_a_desk_whose_row_is_gone_is_not_done(database: Database, desk: str) -> None:
    await write(database, desk, killed=True, number=1)
    assert await clear(database, desk, 1, "restart")
    remove = text("DELETE FROM desks WHERE desk = :desk")
    await database.run(lambda connection: connection.execute(remove, {"desk": desk}).rowcount)
    assert not await clear(database, desk, 1, "restart")


async def test_a_restart_of_another_kill_with_the_same_number_changes_nothing(database: Database, desk: str) -> None:
    await database.run(partial(write_desk, row=make_desk_row(desk, killed=True, number=1, kill_id="another")))
    assert not await clear(database, desk, 1, "restart")
    assert (await read(database, desk)).killed


async def test_a_kill_of_a_worker_that_knows_no_ids_goes_by_its_number(database: Database, desk: str) -> None:
    old, cleared = make_desk_row(desk, killed=True, number=1, kill_id=None), ClearedKill(1, None)
    await database.run(partial(write_desk, row=old))
    assert await database.run(partial(clear_latch, desk=desk, cleared=cleared, control=make_decision(desk=desk)))
    assert not (await database.run(partial(write_desk, row=old))).latch.killed


async def test_a_kill_that_races_a_restart_wins(database: Database, desk: str) -> None:
    for number in range(1, 31):
        await write(database, desk, killed=True, number=number)
        cleared, _ = await asyncio.gather(
            clear(database, desk, number, f"restart-{number}"),
            write(database, desk, killed=True, number=number + 1),
        )
        record = await read(database, desk)
        assert record.killed, f"kill {number + 1} was lost, restart {cleared}"
        assert record.kill_number == number + 1


async def test_two_restarts_at_once_write_one_row_each_and_clear_once(database: Database, desk: str) -> None:
    await write(database, desk, killed=True, number=1)
    same = [clear(database, desk, 1, "same") for _ in range(4)]
    assert all(await asyncio.gather(*same))
    assert await controls(database, desk) == 1
