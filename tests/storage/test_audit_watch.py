"""The running verification on a real PostgreSQL: what it finds and when, what it costs, and that nobody waits for it."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import structlog
from prometheus_client import generate_latest
from sqlalchemy import Connection, Engine, event, text

from activities.audit_watch import ChainWatcher
from activities.metrics import WorkerMetrics
from domain.audit import AuditKind, FaultKind
from domain.trading.instructions import InstructionOutcome
from storage.audit import chain, checkpoints, stretches, unproved, watching
from storage.audit.checkpoints import Checkpoint, SignedHead
from storage.audit.watching import Pace
from storage.database import Database, DatabaseUnavailable, make_engine
from storage.decisions import insert_decisions
from storage.desks import write_desk
from storage.instructions import upsert_instructions
from tests.postgres import Server
from tests.storage.builders import Source, Undone, later, make_decision, make_desk_row, make_instruction
from tests.storage.test_audit import begun, decide, fill, record, waiting

# As fast as the tests: no pause between rounds and laps.
HASTY = Pace(work=5.0, tables=5.0, between_rounds=0.0, between_laps=0.0)
CHANNELS = {"critical-json-1": True}


@pytest.fixture
def own(undone: Undone) -> Undone:
    """A database that a test may spoil."""
    return undone


@pytest.fixture
def shared(new_database_url: Callable[[], str]) -> Iterator[Engine]:
    """One of the test's own, for several connections."""
    engine = make_engine(new_database_url(), 5, "ais-test")
    yield engine
    engine.dispose()


def rounds(engine: Source, times: int = 1, signed: Checkpoint | None = None, pace: Pace = HASTY) -> list[int]:
    """Rows that each round has checked."""
    rows = []
    for _ in range(times):
        with engine.begin() as connection:
            rows.append(watching.watch(connection, signed, pace).rows)
    return rows


def change(engine: Source, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        assert connection.execute(text(statement), values).rowcount


def standing(engine: Source) -> list[tuple[str, FaultKind, int | None]]:
    with engine.connect() as connection:
        return [(each.fault.desk, each.fault.kind, each.fault.seq) for each in watching.faults(connection)]


def told(engine: Source, times: int = 2) -> list[tuple[FaultKind, int | None]]:
    """What is told after so many looks."""
    rounds(engine, times)
    return [(kind, seq) for _, kind, seq in standing(engine)]


# --- what it finds -------------------------------------------------------------------------------------------------------


def test_a_chain_that_is_whole_is_never_told_as_broken_whatever_the_cut(own: Undone) -> None:
    for rows in (2, 3, 1000):
        for desk in ("a", "b"):
            fill(own, desk + str(rows))
        for _ in range(2):
            rounds(own, 3, pace=HASTY._replace(rows=rows))
            assert standing(own) == []
    with own.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit_watch WHERE fault_kind IS NOT NULL")) == 0
        ended = "SELECT count(*) FROM audit_watch WHERE at_end AND ended_at IS NOT NULL"
        assert connection.scalar(text(ended)) == connection.scalar(text("SELECT count(*) FROM audit_watch")) == 12


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE decisions SET summary = 'x' WHERE decision_id = (SELECT subject FROM audit WHERE seq = 2)", ("CHANGED", 2)),
        ("DELETE FROM decisions WHERE decision_id = (SELECT subject FROM audit WHERE seq = 2)", ("MISSING", 2)),
        ("UPDATE instructions SET detail = 'x' WHERE instruction_id = 'main:order'", ("CHANGED", 7)),
        ("UPDATE instructions SET symbol = 'X' WHERE instruction_id = 'main:cancel'", ("CHANGED", 5)),
        ("DELETE FROM instructions WHERE instruction_id = 'main:order'", ("MISSING", 7)),
        ("UPDATE desks SET killed = false", ("CHANGED", None)),
        ("UPDATE audit SET body = replace(body, 'main', 'mainx') WHERE seq = 3", ("EDITED", 3)),
        ("DELETE FROM audit WHERE seq = 4", ("REMOVED", 4)),
        ("DELETE FROM audit WHERE seq = 1", ("REMOVED", 1)),
        ("DELETE FROM audit WHERE seq > 8", ("CUT_OFF", 9)),
        ("DELETE FROM audit", ("CUT_OFF", 1)),
        ("DELETE FROM audit_heads", ("CUT_OFF", 10)),
        ("UPDATE audit_heads SET hash = 'x'", ("EDITED", 10)),
        # Each of these ended the verification of every desk, and nobody was told of anything.
        ("UPDATE audit SET at = 'infinity' WHERE seq = 3", ("EDITED", 3)),
        ("UPDATE audit SET body = repeat('[', 100000) WHERE seq = 3", ("EDITED", 3)),
        ("UPDATE decisions SET risk_reasons = '5' WHERE decision_id = (SELECT subject FROM audit WHERE seq = 2)", ("CHANGED", 2)),
    ],
)  # fmt: skip
def test_what_is_changed_after_it_was_verified_is_found(
    own: Undone, statement: str, found: tuple[str, int | None]
) -> None:
    fill(own, "main")
    rounds(own, 3)
    change(own, statement)
    rounds(own, 3, pace=HASTY._replace(rows=3))
    kind, seq = found
    assert standing(own)[0] == ("main", FaultKind[kind], seq)
    # A row of the tables whose link is gone is told besides.
    assert {other for _, other, _ in standing(own)[1:]} <= {FaultKind.EXTRA}


def test_a_fault_is_reported_at_the_second_look_and_is_over_when_the_rows_are_whole_again(own: Undone) -> None:
    fill(own, "main")
    rounds(own, 2)
    change(own, "UPDATE decisions SET cycles = cycles + 1")
    assert told(own, 1) == []
    assert told(own, 1) == [(FaultKind.CHANGED, 1)]
    change(own, "UPDATE decisions SET cycles = cycles - 1")
    assert told(own, 1) == []


def test_a_clock_that_was_ahead_ends_no_verification(own: Undone) -> None:
    """Found to be false: until the day that it said, no row was looked at, and the age of the last look was negative."""
    fill(own, "main")
    rounds(own, 2)
    change(
        own, "UPDATE audit_watch SET looked_at = looked_at + interval '1 day', ended_at = ended_at + interval '1 day'"
    )
    change(
        own, "UPDATE audit_tables SET looked_at = looked_at + interval '1 day', ended_at = ended_at + interval '1 day'"
    )
    change(own, "UPDATE decisions SET cycles = 7")
    put_in(own, "of nobody", desk="another")
    pace = Pace(work=5.0, between_rounds=0.0, between_laps=3600.0)
    rounds(own, 2, pace=pace)
    assert {kind for _, kind, _ in standing(own)} == {FaultKind.CHANGED, FaultKind.EXTRA}
    with own.connect() as connection:
        assert watching.ages(connection, ["main"])["main"] >= 0


def test_a_fault_that_passes_by_itself_is_not_reported(own: Undone) -> None:
    fill(own, "main")
    rounds(own, 2)
    for _ in range(3):
        change(own, "UPDATE decisions SET cycles = cycles + 1")
        assert told(own, 1) == []
        change(own, "UPDATE decisions SET cycles = cycles - 1")
        assert told(own, 1) == []


def test_a_fault_of_one_desk_holds_up_no_other(own: Undone) -> None:
    for desk in ("a", "b"):
        fill(own, desk)
    rounds(own, 2)
    change(own, "UPDATE decisions SET cycles = 7 WHERE desk = 'a'")
    assert told(own) == [(FaultKind.CHANGED, 1)]
    change(own, "UPDATE decisions SET cycles = 7 WHERE desk = 'b'")
    rounds(own, 2)
    assert [desk for desk, _, _ in standing(own)] == ["a", "b"]


def test_instructions_under_way_are_no_fault_and_are_compared_once_they_are_settled(own: Undone) -> None:
    cancels = [make_instruction(desk="main", instruction_id=f"i{n}") for n in range(4)]
    with own.begin() as connection:
        record(connection, [], cancels)
    decide(own, "main", 3)
    settled = {"outcome": InstructionOutcome.CONFIRMED, "settled_at": later(1)}
    with own.begin() as connection:
        record(connection, [], [cancel.model_copy(update=settled) for cancel in cancels])
    # A row a round: a whole lap, and the beginning of the next one.
    for _ in range(14):
        rounds(own, 1, pace=Pace(work=0, between_rounds=0, between_laps=0, rows=2))
        assert standing(own) == []
    change(own, "UPDATE instructions SET venue_order_id = 'x' WHERE instruction_id = 'i3'")
    for _ in range(60):
        rounds(own, 1, pace=Pace(work=0, between_rounds=0, between_laps=0, rows=2))
        if standing(own):
            break
    assert standing(own) == [("main", FaultKind.CHANGED, 11)]


def test_an_entry_that_waits_to_be_chained_is_no_fault(shared: Engine) -> None:
    fill(shared, "main")
    with shared.connect() as holder, holder.begin():
        holder.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('audit:main', 0))"))
        cancel = make_instruction(desk="main", instruction_id="main:cancel")
        with shared.begin() as connection:
            settled = {"outcome": InstructionOutcome.CONFIRMED, "settled_at": later(1)}
            assert not record(connection, [], [cancel.model_copy(update=settled)])
            write_desk(connection, make_desk_row("main", killed=True, number=2))
        assert told(shared, 4) == []


def test_a_kill_that_the_chain_does_not_have_is_reported(own: Undone) -> None:
    decide(own, "main", 2)
    with own.begin() as connection:
        write_desk(connection, make_desk_row("main"))
    rounds(own, 3)
    change(own, "UPDATE desks SET killed = true")
    assert told(own, 3) == [(FaultKind.EXTRA, None)]


# --- rows without a link ---------------------------------------------------------------------------------------------------


def put_in(engine: Source, *decisions: str, desk: str = "main", instruction: str | None = None) -> None:
    """As somebody does who writes the tables past AIS."""
    with engine.begin() as connection:
        insert_decisions(connection, [make_decision(desk=desk, decision_id=each) for each in decisions])
        if instruction:
            upsert_instructions(connection, [make_instruction(desk=desk, instruction_id=instruction)])


def why(engine: Source) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return [(each.fault.desk, each.fault.what) for each in watching.faults(connection)]


def test_rows_that_were_put_into_the_tables_are_reported_at_the_second_look_until_they_are_gone(own: Undone) -> None:
    fill(own, "main")
    put_in(own, "a forged", "z forged", instruction="forged too")
    assert told(own, 1) == []
    assert told(own, 1) == [(FaultKind.EXTRA, None)]
    assert why(own) == [("main", "decisions: a forged")]
    change(own, "DELETE FROM decisions WHERE decision_id LIKE '%forged'")
    rounds(own, 3)
    assert why(own) == [("main", "instructions: forged too")]
    change(own, "DELETE FROM instructions WHERE instruction_id = 'forged too'")
    assert told(own, 1) == []


def test_a_row_of_a_desk_that_never_was_is_reported(own: Undone) -> None:
    fill(own, "main")
    put_in(own, "forged", desk="ghost")
    rounds(own, 2)
    assert standing(own) == [("ghost", FaultKind.EXTRA, None)]


def test_a_link_of_another_desk_or_of_another_kind_proves_no_row(own: Undone) -> None:
    fill(own, "other")
    with own.begin() as connection:
        chain.append(connection, [chain.entry("main", AuditKind.EXPORT, "forged", {})])
    put_in(own, "forged")
    put_in(own, "copied", desk="third")
    with own.begin() as connection:
        chain.append(connection, [chain.decision_entry(make_decision(desk="other", decision_id="copied"))])
    rounds(own, 3)
    assert {desk for desk, kind, _ in standing(own) if kind is FaultKind.EXTRA} == {"main", "third"}


def test_every_row_is_looked_at_whatever_the_size_of_a_look(own: Undone) -> None:
    for desk in ("a", "b", "c"):
        decide(own, desk, 4)
    put_in(own, "0 first", desk="a")
    put_in(own, "decision_zzz last", desk="b")
    put_in(own, "without a name", desk="c")
    change(own, "UPDATE decisions SET decision_id = '' WHERE decision_id = 'without a name'")
    slow = Pace(work=0, tables=0, between_rounds=0, between_laps=0, rows=2)
    rounds(own, 2, pace=slow)
    with own.connect() as connection:
        assert connection.scalar(text("SELECT count(looked_at) FROM audit_tables")) == 2, "each in its turn"
    rounds(own, 20, pace=slow)
    assert why(own) == [("a", "decisions: 0 first"), ("b", "decisions: decision_zzz last"), ("c", "decisions: ")]


def test_a_row_without_a_link_hides_no_fault_of_the_chain_and_both_are_accepted_by_name(own: Undone) -> None:
    fill(own, "main")
    put_in(own, "forged")
    assert told(own, 3) == [(FaultKind.EXTRA, None)]
    change(own, "UPDATE decisions SET cycles = 7 WHERE decision_id = (SELECT subject FROM audit WHERE seq = 9)")
    assert told(own, 3) == [(FaultKind.CHANGED, 9), (FaultKind.EXTRA, None)]
    with own.begin() as connection:
        accepted = watching.accept(connection, "main", "cli:ann", "a restored backup")
        body = connection.scalar(text("SELECT body FROM audit WHERE seq = :seq"), {"seq": accepted})
    assert [(each["fault"], each.get("seq")) for each in json.loads(body)["faults"]] == [
        (FaultKind.CHANGED, 9),
        (FaultKind.EXTRA, None),
    ]
    assert told(own, 4) == []


def test_rows_that_wait_and_rows_from_before_the_chain_are_no_fault(shared: Engine) -> None:
    put_in(shared, "older", desk="x")
    with shared.begin() as connection:
        chain.append(connection, [begun(1, 0)])
    rounds(shared, 2)
    decide(shared, "x", 2)
    with shared.connect() as holder, holder.begin():
        holder.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('audit:x', 0))"))
        decide(shared, "x")
        assert waiting(shared, "x") == 1
        assert told(shared, 3) == []
    put_in(shared, "newer", desk="x")
    change(shared, "UPDATE decisions SET timestamp = now() WHERE decision_id = 'newer'")
    assert told(shared, 3) == [(FaultKind.EXTRA, None)]


def test_a_row_without_a_link_that_a_person_accepts_is_over_and_the_next_one_is_reported(own: Undone) -> None:
    fill(own, "main")
    put_in(own, "forged")
    assert told(own, 3)
    with own.begin() as connection:
        assert watching.accept(connection, "main", "cli:ann", "a test of the backup")
    assert told(own, 4) == []
    put_in(own, "forged again")
    change(own, "UPDATE decisions SET timestamp = clock_timestamp() WHERE decision_id = 'forged again'")
    rounds(own, 2)
    assert why(own) == [("main", "decisions: forged again")]


def test_so_many_rows_without_a_link_are_kept_and_no_more(own: Undone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unproved, "MOST_FOUND", 3)
    for number in range(6):
        put_in(own, f"forged {number}", desk=f"ghost {number}")
    rounds(own, 3)
    assert len(standing(own)) == 3


# --- checkpoints, and a person's word --------------------------------------------------------------------------------------


def signed_now(engine: Source) -> Checkpoint:
    with engine.connect() as connection:
        return checkpoints.take(connection)


def test_a_lap_compares_with_what_was_signed(own: Undone) -> None:
    fill(own, "main")
    signed = signed_now(own)
    rewritten = signed.model_copy(update={"chains": {"main": SignedHead(seq=8, hash="00" * 32, count=8)}})
    rounds(own, 3, signed)
    assert standing(own) == []
    rounds(own, 3, rewritten)
    assert standing(own) == [("main", FaultKind.REWRITTEN, 8)]


def test_a_lap_that_took_longer_than_a_day_is_followed_by_one_from_the_checkpoint_on(own: Undone) -> None:
    fill(own, "main")
    signed = signed_now(own)
    decide(own, "main", 3)
    rounds(own, 2, signed)
    assert rounds(own, 1, signed) == [13]
    change(own, "UPDATE audit_watch SET began_at = now() - interval '25 hours'")
    assert rounds(own, 2, signed) == [4, 13]


def test_a_fault_that_a_person_accepts_is_over_and_the_rows_after_it_are_watched(own: Undone) -> None:
    fill(own, "main")
    rounds(own, 2)
    change(own, "DELETE FROM audit WHERE seq = 10")
    change(own, "UPDATE decisions SET cycles = 7 WHERE decision_id = (SELECT subject FROM audit WHERE seq = 9)")
    old = signed_now(own)
    assert told(own, 3)
    with own.begin() as connection:
        accepted = watching.accept(connection, "main", "cli:ann", "restored from a backup")
    assert accepted == 11
    rounds(own, 4, old)
    assert standing(own) == []
    decide(own, "main", 2)
    change(own, "UPDATE decisions SET cycles = 9 WHERE decision_id = (SELECT subject FROM audit WHERE seq = 12)")
    assert told(own, 3) == [(FaultKind.CHANGED, 12)]


# --- what it costs ---------------------------------------------------------------------------------------------------------


def test_one_process_works_and_the_others_are_told_so_by_one_look(shared: Engine) -> None:
    fill(shared, "main")
    with shared.begin() as one, shared.begin() as other:
        assert watching.watch(one, None, HASTY).rows
        began = time.monotonic()
        assert watching.watch(other, None, HASTY).rows == 0
        assert time.monotonic() - began < 1
    statements: list[str] = []
    with shared.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        assert watching.watch(connection, None, Pace()).rows == 0
    assert len(statements) == 1


def test_whoever_has_looked_at_the_tables_alone_has_had_its_turn_too(own: Undone) -> None:
    fill(own, "main")
    rounds(own, 3)
    change(own, "UPDATE audit_watch SET looked_at = now() - interval '1 minute', at_end = true")
    statements: list[str] = []
    with own.connect() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        assert watching.watch(connection, None, Pace()).rows == 0
    assert len(statements) == 1


def test_a_round_is_bounded_and_what_is_left_comes_later(own: Undone) -> None:
    decide(own, "main", 30)
    lazy = Pace(work=0, between_rounds=0, between_laps=0, rows=10)
    found = rounds(own, 5, pace=lazy)
    assert max(found) <= 20
    assert sum(found) >= 30


def test_with_nothing_new_and_a_lap_done_nothing_is_read(own: Undone) -> None:
    fill(own, "main")
    resting = HASTY._replace(between_laps=60.0)
    assert rounds(own, 4, pace=resting)[-2:] == [0, 0]


def small_chains(engine: Source, desks: int) -> None:
    """Two rows each."""
    append = "SELECT audit_append('d' || n, ARRAY['export', 'export'], ARRAY['a', 'b'], ARRAY['{}', '{}'])"
    with engine.begin() as connection:
        connection.execute(text(f"{append} FROM generate_series(1, :desks) AS n"), {"desks": desks})


def test_desks_that_rest_share_their_statements(own: Undone) -> None:
    small_chains(own, 150)
    rounds(own)
    statements: list[str] = []
    with own.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        assert watching.watch(connection, None, HASTY).rows == 300
    assert len([each for each in statements if "audit_heads" in each and "LATERAL" in each]) <= 3
    assert len(statements) < 25
    # A fault of some of them is theirs alone.
    change(own, "UPDATE audit SET body = '[]' WHERE desk IN ('d7', 'd70') AND seq = 2")
    change(own, "DELETE FROM audit WHERE desk = 'd100'")
    rounds(own, 2)
    faults = {("d7", FaultKind.EDITED, 2), ("d70", FaultKind.EDITED, 2), ("d100", FaultKind.CUT_OFF, 1)}
    assert set(standing(own)) == faults


def test_a_statement_has_no_more_rows_than_it_may_however_many_chains_are_due(own: Undone) -> None:
    small_chains(own, 30)
    decide(own, "long", 40)
    read: list[int] = []
    real = stretches.check

    def counted(connection: Connection, due: Any, most: int) -> Any:
        found = real(connection, due, most)
        read.append(sum(each.rows for each in found))
        assert len(due) * most <= 25
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "check", counted)
        rounds(own, 2, pace=HASTY._replace(rows=25))
    assert max(read) <= 25
    assert standing(own) == []
    with own.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit_watch WHERE NOT at_end")) == 0


# --- the worker's task -----------------------------------------------------------------------------------------------------


@pytest.fixture
def database(shared: Engine) -> Iterator[Database]:
    database = Database(
        shared.url.render_as_string(hide_password=False), threads=1, timeout_seconds=5, application_name="ais-test"
    )
    yield database
    database.close()


def watcher(database: Database, metrics: WorkerMetrics, desk: str = "main") -> ChainWatcher:
    return ChainWatcher(desk, database, metrics, CHANNELS, lambda: None, HASTY)


def shown(metrics: WorkerMetrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.startswith("ais_audit")}


async def test_a_fault_is_in_the_metrics_the_log_and_the_notices_once(shared: Engine, database: Database) -> None:
    fill(shared, "main")
    metrics = WorkerMetrics("main")
    watching_ = watcher(database, metrics)
    await watching_.round()
    assert shown(metrics)['ais_audit_broken{desk="main"}'] == 0
    assert shown(metrics)['ais_audit_verified_age_seconds{desk="main"}'] < 5
    assert shown(metrics)['ais_audit_verified_rows_total{desk="main"}'] == 11
    change(shared, "UPDATE decisions SET cycles = 7")
    with structlog.testing.capture_logs() as lines:
        for _ in range(4):
            await watching_._guarded_round()
            await watcher(database, WorkerMetrics("main"))._guarded_round()
    assert next(line["event"] for line in lines if line["event"].endswith("BROKEN")) == "the audit chain is BROKEN"
    assert shown(metrics)['ais_audit_broken{desk="main"}'] == 1
    with shared.connect() as connection:
        rows = connection.execute(text("SELECT kind, channel, text FROM notices")).all()
    assert [(row.kind, row.channel) for row in rows] == [("audit_broken", "critical-json-1")]
    assert "main: changed in its table: row 1: decision" in rows[0].text
    change(shared, "UPDATE decisions SET cycles = 42")
    change(shared, "UPDATE audit_watch SET fault_kind = NULL, fault_times = 0")


async def test_a_fault_of_the_keys_is_reported_by_whoever_finds_it(shared: Engine, database: Database) -> None:
    append = "SELECT audit_append('-', ARRAY['key_made', 'key_made'], ARRAY['k', 'l'], ARRAY['{}', '{}'])"
    with shared.begin() as connection:
        connection.execute(text(append))
    metrics = WorkerMetrics("main")
    one = watcher(database, metrics)
    await one.round()
    change(shared, "UPDATE audit SET body = '[]' WHERE seq = 1")
    for _ in range(3):
        await one._guarded_round()
    assert shown(metrics)['ais_audit_broken{desk="-"}'] == 1
    with shared.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM notices")) == 1


async def test_a_database_that_is_away_breaks_nothing_and_hides_nothing(shared: Engine, database: Database) -> None:
    fill(shared, "main")
    metrics = WorkerMetrics("main")
    watching_ = watcher(database, metrics)
    await watching_._guarded_round()
    change(shared, "UPDATE decisions SET cycles = 7")
    await watching_._guarded_round()
    await watching_._guarded_round()

    async def away(*_: object) -> None:
        raise DatabaseUnavailable("away")

    database.run = away  # type: ignore[method-assign, assignment]
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            await watching_._guarded_round()
    assert [line["log_level"] for line in lines] == ["warning"]
    assert shown(metrics)['ais_audit_broken{desk="main"}'] == 1


async def test_a_kill_is_latched_at_once_while_a_chain_is_verified(
    shared: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher is held in the middle of its transaction, after everything that it locks."""
    fill(shared, "main")
    real, held = stretches.check, asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Connection, *args: Any) -> Any:
        found = real(connection, *args)
        loop.call_soon_threadsafe(held.set)
        connection.execute(text("SELECT pg_sleep(3)"))
        return found

    monkeypatch.setattr(stretches, "check", slow)
    running = asyncio.create_task(watcher(database, WorkerMetrics("main")).round())
    await asyncio.wait_for(held.wait(), 60)
    began = time.monotonic()
    with shared.begin() as connection:
        write_desk(connection, make_desk_row("main", killed=True, number=2))
    assert time.monotonic() - began < 1
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_server_that_hangs_holds_up_neither_the_loop_nor_the_end(
    shared: Engine, database: Database, postgres: Server
) -> None:
    fill(shared, "main")
    running = asyncio.create_task(watcher(database, WorkerMetrics("main")).run())
    await asyncio.sleep(0)
    with postgres.hung():
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=1)
    assert done


# --- checkpoints look first ------------------------------------------------------------------------------------------------


def test_a_look_for_a_due_checkpoint_takes_no_lock_and_reads_no_document(own: Undone, tmp_path: Any) -> None:
    fill(own, "main")
    checkpoints.make_key(tmp_path / "key.pem")
    key, lookout = checkpoints.read_key(tmp_path / "key.pem"), checkpoints.CheckpointLookout("main")
    with own.begin() as connection:
        made = checkpoints.make_if_due(connection, key, lookout)
        assert made
        lookout.made(made.checkpoint)
    statements: list[str] = []
    with own.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        assert checkpoints.make_if_due(connection, key, lookout) is None
    assert not [each for each in statements if "pg_try_advisory" in each or "SELECT text" in each]
