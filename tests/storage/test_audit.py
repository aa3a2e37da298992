"""The audit chain on a real PostgreSQL: one row for each, no gap, no wait, and twelve ways to tamper that are found."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine.interfaces import CacheStats
from sqlalchemy.exc import DBAPIError

from domain.audit import AuditKind, FaultKind
from domain.trading.instructions import InstructionOutcome, Tool
from storage.audit import chain, checkpoints, verifying
from storage.audit.rebuilding import Rebuilding, RememberedRow
from storage.audit.verifying import Verification
from storage.cleaning import clean
from storage.database import make_engine, unavailable
from storage.decisions import insert_decisions
from storage.desks import ClearedKill, clear_latch, read_desk, write_desk
from storage.instructions import upsert_instructions
from tests.storage.builders import (
    Source,
    Undone,
    later,
    make_decision,
    make_desk_row,
    make_instruction,
    make_order_instruction,
)

# Of every size, and those whose spelling is special.
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 1.0, -7.0, 1e-4, 9.99e-5, 1e-7, 1e15, 1e16, 2.0**53, 1e20, 1e21, 1e22, 0.1, 123456.5]
)


@contextmanager
def fresh(new_database_url: Callable[[], str]) -> Iterator[Engine]:
    """A database as a worker has it, with its time-outs."""
    engine = make_engine(new_database_url(), 5, "ais-test")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def engine(new_database_url: Callable[[], str]) -> Iterator[Engine]:
    """For tests that keep to a desk of their own."""
    with fresh(new_database_url) as engine:
        yield engine


@pytest.fixture
def own(new_database_url: Callable[[], str]) -> Iterator[Engine]:
    """A database that a test may spoil."""
    with fresh(new_database_url) as engine:
        yield engine


def record(connection: Connection, decisions: list[Any], instructions: list[Any]) -> bool:
    """As the activity does."""
    rows, written = insert_decisions(connection, decisions), upsert_instructions(connection, instructions)
    entries = [*map(chain.decision_entry, rows), *map(chain.instruction_entry, written.stored)]
    return chain.append(connection, entries)


def decide(engine: Source, desk: str, count: int = 1) -> None:
    for _ in range(count):
        with engine.begin() as connection:
            record(connection, [make_decision(desk=desk, agent_votes={"a": 1e-7, "bé": 0.62, "c": 2.0})], [])


def fill(engine: Source, desk: str) -> None:
    """Ten rows: six decisions, two instructions, of which one is settled later, and a kill."""
    decide(engine, desk, 3)
    order = make_order_instruction(quantity=Decimal("0.1250"), price=Decimal("1E+2"))
    prepared = [
        make_instruction(desk=desk, instruction_id=f"{desk}:cancel"),
        make_instruction(desk=desk, instruction_id=f"{desk}:order", tool=Tool.CREATE_ORDER, order=order),
    ]
    settled = {"outcome": InstructionOutcome.CONFIRMED, "settled_at": later(1.5), "venue_order_id": "7"}
    with engine.begin() as connection:
        record(
            connection, [make_decision(desk=desk, risk_passed=False, risk_reasons=['"quoted": 1, 2', "b"])], prepared
        )
    with engine.begin() as connection:
        record(connection, [], [prepared[1].model_copy(update=settled)])
    with engine.begin() as connection:
        write_desk(connection, make_desk_row(desk, killed=True, number=1))
    decide(engine, desk, 2)


def verify(engine: Engine, desk: str) -> Verification:
    found = Verification()
    with verifying.snapshot(engine) as connection:
        verifying.verify_desk(connection, desk, None, found, lambda rows: None)
    return found


def kinds(engine: Source, desk: str) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT kind FROM audit WHERE desk = :desk ORDER BY seq"), {"desk": desk}))


def waiting(engine: Source, desk: str) -> int:
    with engine.connect() as connection:
        return int(
            connection.scalar(text("SELECT count(*) FROM audit_waiting WHERE desk = :desk"), {"desk": desk}) or 0
        )


# --- writing -----------------------------------------------------------------------------------------------------------


def test_everything_has_its_row_and_the_chain_is_whole(engine: Engine, desk: str) -> None:
    fill(engine, desk)
    assert kinds(engine, desk) == [
        *["decision"] * 4, "instruction_prepared", "instruction_prepared", "order_fate", "latch_set", "decision", "decision",
    ]  # fmt: skip
    found = verify(engine, desk)
    assert (found.faults, found.rows, found.desks[0].last) == ([], 10, 10)


def test_a_retried_activity_adds_nothing(engine: Engine, desk: str) -> None:
    row, instruction = make_decision(desk=desk), make_instruction(desk=desk)
    for _ in range(3):
        with engine.begin() as connection:
            assert record(connection, [row], [instruction])
        with engine.begin() as connection:
            write_desk(connection, make_desk_row(desk, killed=True, number=1))
    assert sorted(kinds(engine, desk)) == ["decision", "instruction_prepared", "latch_set"]


def test_what_is_rolled_back_leaves_no_row_and_no_gap(engine: Engine, desk: str) -> None:
    decide(engine, desk)
    with engine.connect() as connection, connection.begin() as transaction:
        record(connection, [make_decision(desk=desk)], [])
        transaction.rollback()
    decide(engine, desk)
    assert (verify(engine, desk).faults, len(kinds(engine, desk))) == ([], 2)


def test_a_restart_and_a_change_of_limits_have_rows_of_their_own(engine: Engine, desk: str) -> None:
    with engine.begin() as connection:
        write_desk(connection, make_desk_row(desk, killed=True, number=1))
    with engine.begin() as connection:
        assert clear_latch(connection, desk, ClearedKill(1, f"{desk}-1"), make_decision(desk=desk))
    with engine.begin() as connection:
        record(connection, [make_decision(desk=desk, command="set_limits", result="applied")], [])
    assert kinds(engine, desk) == ["latch_set", "decision", "latch_cleared", "limits_changed"]
    assert verify(engine, desk).faults == []


def test_a_failed_attempt_adds_no_row_and_changes_none(engine: Engine, desk: str) -> None:
    cancel = make_instruction(desk=desk)
    tries = [cancel.model_copy(update={"attempts": n, "detail": f"HTTP {500 + n}"}) for n in range(4)]
    settled = {"outcome": InstructionOutcome.CONFIRMED, "settled_at": later(9), "attempts": 5, "detail": None}
    for row in tries:
        with engine.begin() as connection:
            record(connection, [], [row])
    assert (kinds(engine, desk), verify(engine, desk).faults) == (["instruction_prepared"], [])
    with engine.begin() as connection:
        record(connection, [], [cancel.model_copy(update=settled)])
    assert (kinds(engine, desk), verify(engine, desk).faults) == (["instruction_prepared", "instruction_settled"], [])
    with engine.begin() as connection:
        connection.execute(text("UPDATE instructions SET attempts = 1 WHERE desk = :desk"), {"desk": desk})
    assert [each.first.kind for each in verify(engine, desk).faults] == [FaultKind.CHANGED]


def test_many_writers_of_two_desks_leave_one_row_each_and_no_gap(engine: Engine, desk: str) -> None:
    desks = [desk, f"{desk}-b"]

    def write(which: str) -> None:
        for _ in range(15):
            decide(engine, which)

    writers = [threading.Thread(target=write, args=(which,)) for which in desks * 3]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for which in desks:
        decide(engine, which)
        found = verify(engine, which)
        assert (found.faults, len(kinds(engine, which)), waiting(engine, which)) == ([], 46, 0)


def test_an_append_is_one_statement(engine: Engine, desk: str) -> None:
    calls = "SELECT pg_stat_get_xact_function_calls('audit_append'::regproc)"
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL track_functions = 'all'"))
        entries = [chain.decision_entry(make_decision(desk=desk)) for _ in range(100)]
        assert chain.append(connection, entries)
        assert connection.scalar(text(calls)) == 1


def test_an_append_that_is_the_first_statement_is_part_of_its_transaction(engine: Engine, desk: str) -> None:
    """The driver begins the transaction before its own statements alone."""
    with engine.connect() as connection:
        chain.append(connection, [chain.decision_entry(make_decision(desk=desk))])
        connection.rollback()
    assert kinds(engine, desk) == []


def test_an_append_on_a_lost_connection_says_so(engine: Engine, desk: str) -> None:
    with engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        with engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        entries = [chain.decision_entry(make_decision(desk=desk))]
        with pytest.raises(DBAPIError, match=r"server closed the connection|terminating") as raised:
            chain.append(connection, entries)
        assert raised.value.connection_invalidated
        assert unavailable(raised.value)


@pytest.mark.parametrize("size", [100, 100_000], ids=["the answer fails", "sending fails"])
def test_an_append_on_a_dead_socket_says_so(engine: Engine, desk: str, size: int) -> None:
    with engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        connection.execute(text("SELECT 1"))
        with socket.socket(fileno=os.dup(driver.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)
        with pytest.raises(DBAPIError) as raised:
            chain.append(connection, [chain.entry(desk, AuditKind.DECISION, "d", {"summary": "x" * size})])
        assert raised.value.connection_invalidated
        assert unavailable(raised.value)


def test_a_batch_of_another_size_is_not_compiled_anew(engine: Engine, desk: str) -> None:
    """Compiling took longer than PostgreSQL with the rows."""
    compiled: list[str] = []

    def note(*args: Any) -> None:
        if args[4].compiled and args[4].cache_hit is not CacheStats.CACHE_HIT:
            compiled.append(args[2])

    for count in (2, 3):
        compiled.clear()
        with engine.begin() as connection:
            event.listen(connection, "after_cursor_execute", note)
            rows = range(count)
            record(connection, [make_decision(desk=desk) for _ in rows], [make_instruction(desk=desk) for _ in rows])
    assert compiled == []


def test_a_body_is_canonical_json() -> None:
    body = {
        "b": Decimal("1E+2"),
        "a": None,
        "é": [1.0, True],
        "n": 2**60,
        "t": later(0),
        "k": AuditKind.EXPORT,
        "x": "\x00",
    }
    told = '{"b":"100","k":"export","n":"1152921504606846976","t":"2026-03-12T14:30:00.000000Z","x":"�","é":[1,true]}'
    assert chain.canonical(body) == told


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | FLOATS | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_a_body_is_spelt_as_the_library_of_the_standard_spells_it(body: dict[str, Any]) -> None:
    assert chain.canonical({"of": body}) == rfc8785.dumps({"of": without_none(body)}).decode()


def without_none(value: Any) -> Any:
    """What a body leaves out, and text that PostgreSQL refuses."""
    match value:
        case str():
            return clean(value)
        case list():
            return [without_none(each) for each in value]
        case dict():
            return {clean(name): without_none(each) for name, each in value.items() if each is not None}
    return value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_body_has_no_number_that_is_none(number: float) -> None:
    with pytest.raises(ValueError, match="JCS"):
        chain.canonical({"votes": {"a": number}})


def test_only_its_owner_may_append_unless_told_otherwise(engine: Engine) -> None:
    asked = "SELECT has_function_privilege('public', 'audit_append(text, text[], text[], text[])', 'EXECUTE')"
    with engine.connect() as connection:
        assert connection.scalar(text(asked)) is False


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DROP FUNCTION audit_append", "run `ais migrate`"),
        ("CREATE ROLE ais_other; GRANT INSERT, SELECT ON ALL TABLES IN SCHEMA public TO ais_other; SET ROLE ais_other",
         "permission denied for function audit_append .GRANT it"),
    ],
)  # fmt: skip
def test_an_operator_is_told_why_nothing_can_be_appended(undone: Undone, damage: str, told: str) -> None:
    with undone.connect() as connection:
        connection.execute(text(damage))
        with pytest.raises(DBAPIError) as refused:
            chain.append(connection, [chain.decision_entry(make_decision(desk="x"))])
        connection.rollback()
    assert re.search(told, str(unavailable(refused.value)))


# --- the kill waits for nothing (I5, I8) ---------------------------------------------------------------------------------


def latched_within(engine: Source, desk: str, seconds: float) -> None:
    """A kill's latch is written, whatever happens to the chain."""
    began = time.monotonic()
    with engine.begin() as connection:
        assert write_desk(connection, make_desk_row(desk, killed=True, number=1)).latch.killed
    assert time.monotonic() - began < seconds
    with engine.connect() as connection:
        row = read_desk(connection, desk)
    assert row is not None
    assert row.killed


def test_a_transaction_that_hangs_with_the_chain_holds_up_no_kill(engine: Engine, desk: str) -> None:
    with engine.connect() as hanging, hanging.begin() as transaction:
        record(hanging, [make_decision(desk=desk)], [])
        latched_within(engine, desk, 1.5)
        assert waiting(engine, desk) == 1
        transaction.rollback()
    # What waits is not missing, and the next append chains it first.
    assert verify(engine, desk).faults == []
    decide(engine, desk)
    assert kinds(engine, desk) == ["latch_set", "decision"]
    assert (verify(engine, desk).faults, waiting(engine, desk)) == ([], 0)


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE audit",
        "DROP TABLE audit_heads CASCADE",
        "ALTER TABLE audit ADD CHECK (seq < 0) NOT VALID",
        "CREATE RULE readonly AS ON INSERT TO audit DO INSTEAD SELECT 1 / 0",
        "INSERT INTO audit VALUES ('x', 9223372036854775807, now(), '', '', '', '', '')",
    ],
)
def test_a_chain_that_cannot_be_written_stops_no_kill_and_no_record(undone: Undone, damage: str) -> None:
    with undone.begin() as connection:
        connection.execute(text(damage))
    latched_within(undone, "x", 1.5)
    decide(undone, "x")
    assert waiting(undone, "x") == 2
    with undone.connect() as connection:
        assert connection.scalar(text("SELECT why FROM audit_waiting LIMIT 1"))


@pytest.mark.parametrize("damage", ["DROP TABLE audit, audit_waiting", "DROP FUNCTION audit_append"])
def test_where_nothing_of_the_chain_is_left_the_kill_is_latched_and_no_order_is_recorded(
    undone: Undone, damage: str
) -> None:
    with undone.begin() as connection:
        connection.execute(text(damage))
    latched_within(undone, "x", 1.5)
    with pytest.raises(Exception, match="audit"):
        decide(undone, "x")


def test_tables_that_somebody_has_locked_hold_up_no_kill(own: Engine) -> None:
    decide(own, "x")
    with own.connect() as other, other.begin() as transaction:
        other.execute(text("LOCK TABLE audit, audit_waiting IN ACCESS EXCLUSIVE MODE"))
        latched_within(own, "x", 3)
        transaction.rollback()
    # The row is nowhere: the chain does not know of the kill, and says so.
    assert [fault.first.kind for fault in verify(own, "x").faults] == [FaultKind.EXTRA]


def test_a_long_queue_of_entries_is_chained_in_parts_and_in_order(undone: Undone) -> None:
    with undone.begin() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO hidden"))
    with undone.begin() as connection:
        chain.append(connection, [chain.entry("x", AuditKind.EXPORT, str(n), {}) for n in range(1_200)])
    with undone.begin() as connection:
        connection.execute(text("ALTER TABLE hidden RENAME TO audit"))
    for number in range(3):
        with undone.begin() as connection:
            chain.append(connection, [chain.entry("x", AuditKind.EXPORT, str(1_200 + number), {})])
    with undone.connect() as connection:
        subjects = list(connection.scalars(text("SELECT subject FROM audit ORDER BY seq")))
    assert subjects == [str(n) for n in range(1_203)]
    assert waiting(undone, "x") == 0


def test_one_command_id_on_two_desks_is_proved_on_each_and_rebuilt_on_each(own: Engine) -> None:
    """Found to be false: the second desk's confirmation changed the first one's row, and stood in the first one's chain."""
    first = make_instruction(desk="x", instruction_id="incident-42:1:cancel_all_orders:BTCUSDT")
    second = first.model_copy(update={"desk": "y", "outcome": InstructionOutcome.CONFIRMED, "settled_at": later(1)})
    for row in (first, second):
        with own.begin() as connection:
            record(connection, [], [row])
    assert (kinds(own, "x"), kinds(own, "y")) == (["instruction_prepared"], ["instruction_settled"])
    assert (verify(own, "x").faults, verify(own, "y").faults) == ([], [])

    def rebuilt() -> tuple[int, int]:
        """How many rows are missing and how many differ, by what Temporal remembers."""
        with own.connect() as connection:
            found = Rebuilding(connection, writes=True).take(
                RememberedRow(row, {"run": "r"}) for row in (second, first)
            )
        return len(found.missing), len(found.differing)

    assert rebuilt() == (0, 0)
    with own.begin() as connection:
        connection.execute(text("DELETE FROM instructions WHERE desk = 'y'"))
    assert rebuilt() == (1, 0)
    assert (verify(own, "x").faults, verify(own, "y").faults) == ([], [])


# --- tampering -------------------------------------------------------------------------------------------------------------

SWAP = """
UPDATE audit SET seq = 1000 WHERE desk = :desk AND seq = 3; UPDATE audit SET seq = 3 WHERE desk = :desk AND seq = 4;
UPDATE audit SET seq = 4 WHERE desk = :desk AND seq = 1000
"""
REMOVE = """
DELETE FROM audit WHERE desk = :desk AND seq = 3; UPDATE audit SET seq = -seq WHERE desk = :desk AND seq > 3;
UPDATE audit SET seq = -seq - 1 WHERE desk = :desk AND seq < 0; UPDATE audit_heads SET seq = seq - 1 WHERE desk = :desk
"""
INSERT = """
UPDATE audit SET seq = -seq WHERE desk = :desk AND seq > 2; UPDATE audit SET seq = -seq + 1 WHERE desk = :desk AND seq < 0;
INSERT INTO audit SELECT desk, 3, at, kind, 'forged', body, previous, hash FROM audit WHERE desk = :desk AND seq = 2;
INSERT INTO decisions SELECT 'forged', timestamp, decision_type, summary, agent_votes, selected_signal_id, selected_order_id,
    risk_passed, risk_reasons, desk, symbol, command_id, cycles FROM decisions WHERE desk = :desk LIMIT 1;
UPDATE audit_heads SET seq = seq + 1 WHERE desk = :desk
"""
# A row before the first, which would prove whatever it names.
VOUCH = """
INSERT INTO decisions (decision_id, timestamp, decision_type, summary, agent_votes, risk_reasons, desk, cycles)
    SELECT 'forged', timestamp, decision_type, 'x', agent_votes, risk_reasons, desk, cycles
    FROM decisions WHERE desk = :desk LIMIT 1;
INSERT INTO audit VALUES (:desk, 0, now(), 'decision', 'forged', '{}', '', '')
"""
CUT = "DELETE FROM audit WHERE desk = :desk AND seq > 9; DELETE FROM decisions WHERE desk = :desk AND decision_id = "
NEWEST = "(SELECT max(decision_id) FROM decisions WHERE desk = :desk)"


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        ("UPDATE audit SET body = replace(body, 'momentum', 'mOmentum') WHERE desk = :desk AND seq = 2", (FaultKind.EDITED, 2)),
        ("UPDATE audit SET at = at - interval '1 hour' WHERE desk = :desk AND seq = 2", (FaultKind.EDITED, 2)),
        ("UPDATE audit SET body = 'no json' WHERE desk = :desk AND seq = 2", (FaultKind.EDITED, 2)),
        ("DELETE FROM audit WHERE desk = :desk AND seq = 8", (FaultKind.REMOVED, 8)),
        (REMOVE, (FaultKind.REMOVED, 3)),
        (INSERT, (FaultKind.INSERTED, 3)),
        (SWAP, (FaultKind.REORDERED, 3)),
        (CUT + NEWEST, (FaultKind.CUT_OFF, 10)),
        (f"DELETE FROM decisions WHERE decision_id = {NEWEST}", (FaultKind.MISSING, 10)),
        ("DELETE FROM instructions WHERE desk = :desk AND tool = 'create_order'", (FaultKind.MISSING, 7)),
        (f"UPDATE decisions SET summary = 'all is well' WHERE decision_id = {NEWEST}", (FaultKind.CHANGED, 10)),
        (f"UPDATE decisions SET agent_votes = '{{\"a\": 5}}' WHERE decision_id = {NEWEST}", (FaultKind.CHANGED, 10)),
        ("UPDATE instructions SET quantity = 0.126 WHERE desk = :desk AND tool = 'create_order'", (FaultKind.CHANGED, 7)),
        ("UPDATE instructions SET outcome = 'confirmed' WHERE desk = :desk AND tool <> 'create_order'", (FaultKind.CHANGED, 5)),
        ("UPDATE desks SET killed = false WHERE desk = :desk", (FaultKind.CHANGED, 8)),
        ("DELETE FROM desks WHERE desk = :desk", (FaultKind.CHANGED, 8)),
        (VOUCH, (FaultKind.INSERTED, 0)),
        ("DELETE FROM audit WHERE desk = :desk; DELETE FROM audit_heads WHERE desk = :desk", (FaultKind.EXTRA, None)),
        ("DELETE FROM audit_heads WHERE desk = :desk", (FaultKind.CUT_OFF, 10)),
        # Each of these ended the verification of all chains with an error, and so hid itself and every other fault.
        ("UPDATE audit SET at = 'infinity' WHERE desk = :desk AND seq = 2", (FaultKind.EDITED, 2)),
        ("UPDATE audit SET at = '-infinity' WHERE desk = :desk AND seq = 1", (FaultKind.EDITED, 1)),
        ("UPDATE audit SET body = repeat('[', 100000) WHERE desk = :desk AND seq = 10", (FaultKind.EDITED, 10)),
        (f"UPDATE decisions SET risk_reasons = '\"x\"' WHERE decision_id = {NEWEST}", (FaultKind.CHANGED, 10)),
    ],
)  # fmt: skip
def test_tampering_is_named_with_its_first_row(engine: Engine, desk: str, tamper: str, expected: Any) -> None:
    fill(engine, desk)
    with engine.begin() as connection:
        for statement in tamper.split(";"):
            connection.execute(text(statement), {"desk": desk})
    try:
        found = [(each.first.kind, each.first.seq) for each in verify(engine, desk).faults]
        assert expected in found
        assert found[0] == expected, found
    finally:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM decisions WHERE decision_id = 'forged'"))


def test_rows_that_were_put_into_the_tables_are_found(engine: Engine, desk: str) -> None:
    fill(engine, desk)
    with engine.begin() as connection:
        insert_decisions(connection, [make_decision(desk=desk, decision_id=f"{desk} forged")])
        upsert_instructions(connection, [make_instruction(desk=desk, instruction_id=f"{desk} forged too")])
    (found,) = verify(engine, desk).faults
    assert (found.first.kind, found.first.what, found.times) == (FaultKind.EXTRA, f"decisions: {desk} forged", 2)


def test_a_log_from_before_the_chain_is_counted_and_not_called_forged(own: Engine) -> None:
    with own.begin() as connection:
        insert_decisions(connection, [make_decision(desk="x") for _ in range(3)])
        chain.append(connection, [begun(3, 0)])
    assert (verify(own, "x").faults, verify(own, "x").desks[0].older) == ([], 3)
    decide(own, "x", 2)
    assert (verify(own, "x").faults, verify(own, "x").desks[0].older) == ([], 3)
    with own.begin() as connection:
        connection.execute(text("DELETE FROM decisions WHERE decision_id = (SELECT min(decision_id) FROM decisions)"))
    (found,) = verify(own, "x").faults
    assert (found.first.kind, found.times) == (FaultKind.MISSING, 1)


def begun(decisions: int, instructions: int) -> chain.AuditEntry:
    """As the migration writes it."""
    body = {"decisions": decisions, "instructions": instructions, "until": later(3600)}
    return chain.entry("x", AuditKind.CHAIN_BEGUN, "x", body)


def test_an_instruction_that_was_open_when_the_chain_began_may_be_settled(own: Engine) -> None:
    cancel, other = make_instruction(desk="x"), make_instruction(desk="x")
    with own.begin() as connection:
        upsert_instructions(connection, [cancel, other])
        chain.append(connection, [begun(0, 2)])
    settled = cancel.model_copy(update={"outcome": InstructionOutcome.CONFIRMED, "settled_at": later(1)})
    with own.begin() as connection:
        record(connection, [make_decision(desk="x")], [settled, make_instruction(desk="x")])
    assert (verify(own, "x").faults, verify(own, "x").desks[0].older) == ([], 1)
    with own.begin() as connection:
        connection.execute(text("DELETE FROM instructions WHERE instruction_id = :id"), {"id": other.instruction_id})
    (found,) = verify(own, "x").faults
    assert (found.first.kind, found.times) == (FaultKind.MISSING, 1)


def test_a_row_that_was_put_in_before_the_chain_began_is_one_too_many(own: Engine) -> None:
    with own.begin() as connection:
        insert_decisions(connection, [make_decision(desk="x"), make_decision(desk="x")])
        chain.append(connection, [begun(2, 0)])
    decide(own, "x")
    with own.begin() as connection:
        # What a worker of the version before wrote after the count is not.
        insert_decisions(connection, [make_decision(desk="x", timestamp=later(3601))])
    assert (verify(own, "x").faults, verify(own, "x").desks[0].older) == ([], 3)
    with own.begin() as connection:
        insert_decisions(connection, [make_decision(desk="x", decision_id="forged")])
    (found,) = verify(own, "x").faults
    assert (found.first.kind, found.times) == (FaultKind.EXTRA, 1)


@pytest.mark.parametrize(
    "body", ['{"decisions":1e999,"instructions":0,"until":"2026-03-12T14:30:00Z"}', "[" * 100_000, '{"until":"never"}']
)
def test_a_first_row_that_nobody_can_read_was_edited(own: Engine, body: str) -> None:
    with own.begin() as connection:
        chain.append(connection, [begun(0, 0)])
    decide(own, "x")
    with own.begin() as connection:
        connection.execute(text("UPDATE audit SET body = :body WHERE seq = 1"), {"body": body})
    assert [(each.first.kind, each.first.seq) for each in verify(own, "x").faults] == [(FaultKind.EDITED, 1)]


def test_the_order_of_writing_is_the_databases_own_and_not_proved(engine: Engine, desk: str) -> None:
    """It is numbered anew by a restore, and rows from before it was there have none."""
    fill(engine, desk)
    with engine.begin() as connection:
        connection.execute(text("UPDATE decisions SET written = NULL WHERE desk = :desk"), {"desk": desk})
    assert verify(engine, desk).faults == []


def test_a_desk_that_writes_meanwhile_disturbs_nothing(engine: Engine, desk: str) -> None:
    fill(engine, desk)
    found = Verification()
    with verifying.snapshot(engine) as connection:
        verifying.desks_of(connection)
        decide(engine, desk)
        verifying.verify_desk(connection, desk, None, found, lambda rows: None)
    assert (found.faults, found.rows) == ([], 10)


def test_a_part_can_be_verified_from_a_moment_on(engine: Engine, desk: str) -> None:
    fill(engine, desk)
    with engine.connect() as connection:
        moment = connection.scalar(text("SELECT at FROM audit WHERE desk = :desk AND seq = 8"), {"desk": desk})
    found = Verification()
    with verifying.snapshot(engine) as connection:
        verifying.verify_desk(connection, desk, moment, found, lambda rows: None)
    assert (found.faults, found.rows) == ([], 3)


# --- checkpoints ---------------------------------------------------------------------------------------------------------


def rewrite(engine: Engine, desk: str) -> None:
    """All from row 3 on anew, with every hash and the head: nothing inside the database tells."""
    with engine.begin() as connection:
        rows = connection.execute(
            text("SELECT * FROM audit WHERE desk = :d AND seq > 2 ORDER BY seq"), {"d": desk}
        ).all()
        connection.execute(text("DELETE FROM audit_waiting WHERE desk = :d"), {"d": desk})
        connection.execute(text("DELETE FROM audit WHERE desk = :d AND seq > 2"), {"d": desk})
        connection.execute(text("DELETE FROM audit_heads WHERE desk = :d"), {"d": desk})
        entries = [chain.AuditEntry(desk, AuditKind(row.kind), row.subject, row.body) for row in rows]
        assert chain.append(connection, entries)


def test_a_chain_that_was_written_anew_is_found_by_a_checkpoint_alone(
    engine: Engine, desk: str, tmp_path: Path
) -> None:
    fill(engine, desk)
    public_key = checkpoints.make_key(tmp_path / "key.pem")
    with engine.begin() as connection:
        document = checkpoints.make(connection, checkpoints.read_key(tmp_path / "key.pem")).document
    signed = checkpoints.read(document, public_key)
    decide(engine, desk, 2)
    with engine.connect() as connection:
        assert checkpoints.compare(connection, desk, signed) == []
    rewrite(engine, desk)
    assert verify(engine, desk).faults == []
    with engine.connect() as connection:
        (fault,) = checkpoints.compare(connection, desk, signed)
        assert (fault.kind, fault.seq, signed.chains[desk].count) == (FaultKind.REWRITTEN, 10, 10)
        connection.execute(text("DELETE FROM audit WHERE desk = :d AND seq > 5"), {"d": desk})
        (fault,) = checkpoints.compare(connection, desk, signed)
        assert fault.kind is FaultKind.CUT_OFF


def test_a_checkpoint_has_every_desk_in_one_look_even_without_its_head(undone: Undone) -> None:
    for desk, rows in (("a", 2), ("b", 3)):
        decide(undone, desk, rows)
    with undone.begin() as connection:
        connection.execute(text("DELETE FROM audit_heads WHERE desk = 'a'; DELETE FROM desks"))
    statements: list[str] = []
    with undone.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        chains = checkpoints.take(connection).chains
    assert {desk: (head.seq, head.count) for desk, head in chains.items()} == {"a": (2, 2), "b": (3, 3)}
    assert len([each for each in statements if "FROM audit" in each]) == 1


def test_a_checkpoint_is_believed_only_with_the_right_key_and_unchanged(
    engine: Engine, desk: str, tmp_path: Path
) -> None:
    decide(engine, desk)
    mine, other = checkpoints.make_key(tmp_path / "mine"), checkpoints.make_key(tmp_path / "other")
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600
    with engine.begin() as connection:
        document = checkpoints.make(connection, checkpoints.read_key(tmp_path / "mine")).document
    assert desk in checkpoints.read(document, mine).chains
    for wrong in (
        (document, other),
        (document.replace('"seq":1', '"seq":2'), mine),
        ("{}", mine),
        (document, "no key"),
    ):
        with pytest.raises(checkpoints.NotSigned):
            checkpoints.read(*wrong)
    with pytest.raises(checkpoints.NotSigned, match="cannot be written"):
        checkpoints.make_key(tmp_path / "mine")
