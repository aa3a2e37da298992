"""A kill that was latched while the chain could not be written is chained once it can be, exactly once, and nobody waits."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text

from activities.auditing import Auditor
from domain.audit import AuditKind
from storage.audit import chain, verifying
from storage.audit.late_kills import chain_late_kills
from storage.audit.verifying import Verification
from storage.database import Database, make_engine
from storage.decisions import insert_decisions
from storage.desks import ClearedKill, clear_latch, write_desk
from tests.storage.builders import NOW, later, make_decision, make_desk_row


@pytest.fixture(scope="module")
def url(new_database_url: Callable[[], str]) -> str:
    return new_database_url()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = make_engine(url, 5, "ais-test")
    yield engine
    engine.dispose()


def kill(engine: Engine, desk: str, number: int, *, chained: bool) -> None:
    with engine.begin() as connection:
        if not chained:
            connection.execute(text("ALTER FUNCTION audit_append RENAME TO away"))
        assert write_desk(connection, make_desk_row(desk, killed=True, number=number)).latch.killed
        if not chained:
            connection.execute(text("ALTER FUNCTION away RENAME TO audit_append"))


def restart(engine: Engine, desk: str, number: int) -> None:
    with engine.begin() as connection:
        assert clear_latch(connection, desk, ClearedKill(number, f"{desk}-{number}"), make_decision(desk=desk))


def look(engine: Engine, desk: str, known: set[str] | None = None) -> set[str]:
    with engine.begin() as connection:
        return chain_late_kills(connection, desk, known or set())


def latches(engine: Engine, desk: str) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        query = (
            "SELECT kind, body::jsonb ->> 'kill_id' FROM audit WHERE desk = :desk AND kind LIKE 'latch%' ORDER BY seq"
        )
        return [(row[0], row[1].removeprefix(f"{desk}-")) for row in connection.execute(text(query), {"desk": desk})]


def faults(engine: Engine, desk: str) -> list[str]:
    found = Verification()
    with verifying.snapshot(engine) as connection:
        verifying.verify_desk(connection, desk, None, found, lambda rows: None)
    return [each.first.what for each in found.faults]


async def test_the_worker_chains_it_with_what_the_table_says_and_when_it_was_found(
    engine: Engine, url: str, desk: str
) -> None:
    with engine.begin() as connection:
        chain.append(connection, map(chain.decision_entry, insert_decisions(connection, [make_decision(desk=desk)])))
    kill(engine, desk, 1, chained=False)
    assert faults(engine, desk) == ["the desk's row says killed, but the chain does not"]
    database = Database(url, application_name="ais-test")
    auditor = Auditor(desk, None, {}, database)
    for _ in range(3):
        await auditor.round()
    await Auditor(desk, None, {}, database).round()
    database.close()
    assert (latches(engine, desk), faults(engine, desk)) == ([("latch_set", "1")], [])
    with engine.connect() as connection:
        body = connection.scalar(
            text("SELECT body::jsonb FROM audit WHERE desk = :desk AND kind = 'latch_set'"), {"desk": desk}
        )
        assert body.pop("found_at") > "2026-03-12"
    assert body == {
        "kill_number": 1, "kill_id": f"{desk}-1", "reason": "flash crash", "actor": "http",
        "killed_at": chain.moment_text(NOW),
    }  # fmt: skip


def test_a_kill_that_is_chained_or_waits_gets_no_second_row_and_is_not_looked_for_again(
    engine: Engine, desk: str
) -> None:
    kill(engine, desk, 1, chained=True)
    known = look(engine, desk)
    assert known == {f"{desk}-1"}
    assert look(engine, desk, known) == set()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit WHERE desk = :desk"), {"desk": desk})
        connection.execute(text("DELETE FROM audit_heads WHERE desk = :desk"), {"desk": desk})
        wait = "INSERT INTO audit_waiting (desk, at, kind, subject, body, why) VALUES (:desk, now(), 'latch_set', :id, '{}', '')"
        connection.execute(text(wait), {"desk": desk, "id": f"{desk}-1"})
    look(engine, desk)
    assert latches(engine, desk) == []


def test_earlier_kills_that_hold_and_those_that_a_restart_cleared_leave_the_last_row_as_the_latch_is(
    engine: Engine, desk: str
) -> None:
    kill(engine, desk, 1, chained=False)
    kill(engine, desk, 2, chained=True)
    look(engine, desk)
    assert (latches(engine, desk), faults(engine, desk)) == ([("latch_set", "2"), ("latch_set", "1")], [])
    restart(engine, desk, 2)
    kill(engine, desk, 3, chained=False)
    restart(engine, desk, 3)
    kill(engine, desk, 4, chained=True)
    before = latches(engine, desk)
    # The third one was cleared, and the fourth holds.
    look(engine, desk)
    assert (latches(engine, desk), faults(engine, desk)) == (before, [])
    restart(engine, desk, 4)
    look(engine, desk)
    assert latches(engine, desk)[-2:] == [("latch_set", "3"), ("latch_cleared", "3")]
    assert faults(engine, desk) == []


def test_nobody_waits_for_it_and_a_restart_meanwhile_comes_after_it(engine: Engine, desk: str) -> None:
    kill(engine, desk, 1, chained=False)
    with engine.connect() as connection, connection.begin() as transaction:
        chain_late_kills(connection, desk, set())
        restart(engine, desk, 1)
        assert look(engine, desk) == set()
        transaction.commit()
    with engine.begin() as connection:
        chain.append_waiting(connection)
    assert (latches(engine, desk), faults(engine, desk)) == ([("latch_set", "1"), ("latch_cleared", "1")], [])


@pytest.mark.parametrize("body", ["no json", "{}", '{"until":"never"}', "[" * 100_000])
def test_a_first_row_that_was_edited_keeps_no_kill_out_of_the_chain(engine: Engine, desk: str, body: str) -> None:
    """Found to be false: from then on no kill was chained late, and the worker signed no checkpoint any more."""
    begun = {"decisions": 0, "instructions": 0, "until": later(-3600)}
    with engine.begin() as connection:
        chain.append(connection, [chain.entry(desk, AuditKind.CHAIN_BEGUN, desk, begun)])
        edit = text("UPDATE audit SET body = :body WHERE desk = :desk AND seq = 1")
        connection.execute(edit, {"desk": desk, "body": body})
    kill(engine, desk, 1, chained=False)
    assert look(engine, desk) == {f"{desk}-1"}
    assert latches(engine, desk) == [("latch_set", "1")]


def test_a_kill_of_a_time_that_nobody_can_read_is_chained_without_it(engine: Engine, desk: str) -> None:
    kill(engine, desk, 1, chained=False)
    with engine.begin() as connection:
        connection.execute(text("UPDATE desks SET killed_at = 'infinity' WHERE desk = :desk"), {"desk": desk})
    look(engine, desk)
    assert latches(engine, desk) == [("latch_set", "1")]


def test_kills_from_before_the_chain_need_no_row(engine: Engine, desk: str) -> None:
    begun = {"decisions": 0, "instructions": 0, "until": later(3600)}
    kill(engine, desk, 1, chained=False)
    with engine.begin() as connection:
        chain.append(connection, [chain.entry(desk, AuditKind.CHAIN_BEGUN, desk, begun)])
    assert look(engine, desk) == {f"{desk}-1"}
    assert latches(engine, desk) == []
