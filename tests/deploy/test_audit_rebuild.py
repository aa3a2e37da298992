"""`ais audit rebuild` over a real coordinator's histories and a real PostgreSQL: what is lost comes back as it was."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, NullPool, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from temporalio import activity
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.converter import PayloadCodec

from activities import calls
from activities.metrics import WorkerMetrics
from activities.record import RecordActivities
from cli import audit_rebuild
from cli.audit import Line
from cli.audit_rebuild import AskedRebuild, rebuilt
from domain.desk.states import State
from domain.trading.market import LatchRow
from storage.audit import chain, verifying
from storage.audit.verifying import Verification
from storage.database import Database, DatabaseUnavailable, WrongDatabase, make_engine
from storage.installation import read_id
from tests.postgres import Server
from tests.workflows.world import World, running_desk
from workflows import names, recorded


class WrittenWorld(World):
    """Whose log and latch are those of a real database."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.real = database

    def _record(self, scope: calls.Scope) -> RecordActivities:
        return RecordActivities(scope, self.real, WorkerMetrics(scope.desk))

    @activity.defn(name="record")
    async def record(self, call: calls.RecordCall) -> None:
        await self._record(call.scope).record(call)

    @activity.defn(name="write_desk")
    async def write_desk(self, call: calls.WriteDeskCall) -> LatchRow:
        self.database.latch = await self._record(call.scope).write_desk(call)
        return self.database.latch

    @activity.defn(name="clear_latch")
    async def clear_latch(self, call: calls.ClearLatchCall) -> bool:
        cleared = await self._record(call.scope).clear_latch(call)
        await super().clear_latch(call)
        return cleared


@dataclass
class Past:
    """A desk that traded, was killed, restarted and killed once more, in several runs; and the database that it wrote."""

    client: Client
    desk: str
    url: str
    runs: int = 0


@pytest.fixture(scope="module")
async def past(short_history_temporal: Client, new_database_url: Callable[[], str]) -> Past:
    url = new_database_url()
    database = Database(url, threads=2, application_name="ais-test")
    database_id = await database.run(read_id)
    world = WrittenWorld(database)
    world.agents.propose = True
    async with running_desk(short_history_temporal, world, database_id=database_id) as desk:
        await desk.until(lambda s: len(world.orders.sent) >= 3)
        await desk.signal("pause")
        world.cancels.stuck = {"BTCUSDT"}
        await desk.signal("kill", "flash crash")
        await desk.until(lambda s: s.open_instructions and s.open_instructions[0].attempts >= 2)
        world.cancels.stuck = set()
        status = await desk.until(lambda s: s.kill and s.kill.latched and s.kill.row_written and s.kill.verified_at)
        first = status.run_id
        await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "r"})
        await desk.until(lambda s: s.state is State.RUNNING and s.run_id != first)
        await desk.signal("kill")
        await desk.until(
            lambda s: (
                s.kill and s.kill.verified_at and s.kill.latched and s.records_waiting == 0 and not s.open_instructions
            )
        )
    # On a busy machine the chain may have been locked: what waits for it, the worker would have chained with its next row.
    await database.run(chain.append_waiting)
    database.close()
    runs = await recorded.listed_runs(short_history_temporal, desk.desk)
    return Past(short_history_temporal, desk.desk, url, len(runs))


@pytest.fixture
def copy(past: Past, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator["Copy"]:
    """A copy of its database, with the same id, that a test may spoil."""
    url = postgres.create_database(template=make_url(past.url).database or "")
    made = Copy(past, url, make_engine(url, 5, "ais-test", poolclass=NullPool))

    async def connect() -> Client:
        return made.client

    monkeypatch.setattr(audit_rebuild, "connect_lazily", connect)
    yield made
    made.engine.dispose()


class Copy:
    """What a test does with it."""

    def __init__(self, past: Past, url: str, engine: Engine) -> None:
        self.client, self.desk, self.url, self.engine = past.client, past.desk, url, engine

    def execute(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def rows(self) -> dict[str, list[Any]]:
        """What the tables hold, but for the order in which the decisions were written."""
        with self.engine.connect() as connection:
            return {
                "decisions": _rows(
                    connection, "SELECT to_jsonb(t) - 'written' FROM decisions AS t ORDER BY decision_id"
                ),
                "instructions": _rows(connection, "SELECT to_jsonb(t) FROM instructions AS t ORDER BY instruction_id"),
                "voters": _rows(connection, "SELECT to_jsonb(t) FROM decision_voters AS t ORDER BY decision_group"),
            }

    def scalar(self, query: str) -> Any:
        with self.engine.connect() as connection:
            return connection.scalar(text(query))

    async def rebuild(self, *, writes: bool = False) -> list[Line]:
        return [line async for line in rebuilt(self.url, AskedRebuild(self.desk, writes), lambda told: None)]

    def faults(self) -> list[Any]:
        found = Verification()
        with verifying.snapshot(self.engine) as connection:
            verifying.verify_desk(connection, self.desk, None, found, lambda rows: None)
        return found.faults


def _rows(connection: Connection, query: str) -> list[Any]:
    return list(connection.scalars(text(query)))


def agree(lines: list[Line]) -> bool:
    return all(line.agrees for line in lines)


def told(lines: list[Line]) -> str:
    return "\n".join(line.text for line in lines)


# As a database is that came up empty.
EMPTY = [f"DELETE FROM {table}" for table in ("audit", "audit_heads", "decisions", "instructions")]


async def test_whole_tables_come_back_from_the_chain_as_they_were(copy: Copy, past: Past) -> None:
    before = copy.rows()
    assert past.runs > 1
    assert len(before["decisions"]) >= 6
    assert len(before["instructions"]) >= 7
    copy.execute("DELETE FROM decisions", "DELETE FROM instructions")
    counted = await copy.rebuild()
    lost = len(before["decisions"]) + len(before["instructions"])
    assert (agree(counted), copy.scalar("SELECT count(*) FROM decisions")) == (False, 0)
    assert counted[-1].text == f"{lost:,} rows can be put back: `ais audit rebuild --yes` does so."
    written = await copy.rebuild(writes=True)
    assert (agree(written), written[-1].text) == (True, f"{lost:,} rows were put back."), told(written)
    assert f"put back: {lost:,} from the chain." in told(written)
    assert (copy.rows(), copy.faults()) == (before, [])
    again = await copy.rebuild(writes=True)
    assert (agree(again), again[-1].text) == (True, "Nothing to put back."), told(again)


async def test_what_the_chain_lost_too_comes_back_from_the_histories_and_names_its_run(copy: Copy) -> None:
    before, seqs = copy.rows(), copy.scalar("SELECT max(seq) FROM audit")
    copy.execute(*EMPTY)
    assert copy.faults() == []
    counted = await copy.rebuild()
    written = await copy.rebuild(writes=True)
    assert (agree(counted), agree(written), copy.faults()) == (False, True, []), told(written)
    # The same rows are counted as are put back, however many states of an instruction the histories tell.
    assert counted[-1].text.split()[0] == written[-1].text.split()[0]
    assert copy.rows() == before
    # The latch in the desk's row is chained anew.
    assert copy.scalar("SELECT count(*) FROM audit WHERE kind = 'latch_set'") > 0
    bodies = _all(copy, "SELECT body::jsonb -> 'source' FROM audit WHERE kind = 'rebuilt'")
    assert 0 < len(bodies) < seqs
    runs = {run.run_id for run in await recorded.listed_runs(copy.client, copy.desk)}
    assert {body["run"] for body in bodies} <= runs
    assert agree(await copy.rebuild())


def _all(copy: Copy, query: str) -> list[Any]:
    with copy.engine.connect() as connection:
        return _rows(connection, query)


async def test_a_broken_chain_is_not_believed_and_the_histories_are(copy: Copy) -> None:
    before = copy.rows()
    copy.execute(
        "UPDATE audit SET body = replace(body, '\"cycles\":1', '\"cycles\":7') WHERE kind = 'decision'",
        "DELETE FROM decisions",
    )
    written = await copy.rebuild(writes=True)
    assert not agree(written)
    assert "the chain is broken" in told(written)
    assert copy.rows() == before


async def test_a_row_that_differs_is_named_and_never_changed(copy: Copy) -> None:
    copy.execute(
        "UPDATE decisions SET summary = 'all is well' WHERE decision_id = (SELECT min(decision_id) FROM decisions)",
        "UPDATE instructions SET quantity = 7 WHERE tool = 'create_order'",
        # As if the database had come back with an earlier state of it.
        "UPDATE instructions SET outcome = 'prepared', settled_at = NULL WHERE tool <> 'create_order'",
    )
    spoilt = copy.rows()
    written = await copy.rebuild(writes=True)
    assert (agree(written), copy.rows()) == (False, spoilt)
    assert written[-1].text == "Nothing to put back."
    for what in ("DIFFERS: decision decision_", "differ in summary", "differ in quantity", "differ in outcome"):
        assert what in told(written)


async def test_what_cannot_be_reached_is_reported(copy: Copy, past: Past) -> None:
    copy.execute("DELETE FROM decisions", "DELETE FROM audit", "DELETE FROM audit_heads")

    class Sealed(PayloadCodec):
        async def encode(self, payloads: Any) -> list[Payload]:
            return list(payloads)

        async def decode(self, payloads: Any) -> list[Payload]:
            raise ValueError("no key for this payload")

    converter = replace(past.client.data_converter, payload_codec=Sealed())
    configured: Any = past.client.config() | {"data_converter": converter}
    copy.client = Client(**configured)
    lines = await copy.rebuild(writes=True)
    assert "payload that cannot be decoded; the first is run" in told(lines)
    assert "no key for this payload" in told(lines)
    assert copy.scalar("SELECT count(*) FROM decisions") == 0


async def test_rows_of_another_database_never_come_into_this_one(copy: Copy) -> None:
    copy.execute("UPDATE installation SET database_id = gen_random_uuid()", "DELETE FROM decisions")
    with pytest.raises(WrongDatabase, match="writes to database"):
        await copy.rebuild(writes=True)
    assert copy.scalar("SELECT count(*) FROM decisions") == 0


async def test_rows_that_are_put_back_cause_no_second_notification(copy: Copy) -> None:
    copy.execute("DELETE FROM decisions")
    await copy.rebuild(writes=True)
    assert copy.scalar("SELECT count(written) FROM decisions") == 0


async def test_a_run_past_retention_is_named(copy: Copy, past: Past) -> None:
    """The last of this file: the run is gone for the others."""
    runs = await recorded.listed_runs(past.client, past.desk)
    gone = runs[-1].run_id
    execution = WorkflowExecution(workflow_id=names.workflow_id(past.desk), run_id=gone)
    request = DeleteWorkflowExecutionRequest(namespace=past.client.namespace, workflow_execution=execution)
    await past.client.workflow_service.delete_workflow_execution(request)
    async with asyncio.timeout(180):
        # Temporal takes half a minute, and each look costs it and this process something.
        while gone in {run.run_id for run in await recorded.listed_runs(past.client, past.desk)}:
            await asyncio.sleep(0.5)
    copy.execute("DELETE FROM decisions")
    lines = await copy.rebuild(writes=True)
    assert f"runs past retention; the first is run {gone}" in told(lines)
    assert (agree(lines), copy.faults()) == (True, [])


async def test_without_the_database_nothing_is_reported_to_be_whole(copy: Copy) -> None:
    copy.url = "postgresql://nobody@127.0.0.1:1/none"
    for writes in (False, True):
        with pytest.raises(DatabaseUnavailable):
            await copy.rebuild(writes=writes)


async def test_rows_that_were_not_put_back_when_the_database_died_are_put_back_by_the_next_run(
    copy: Copy, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = copy.rows()
    copy.execute("DELETE FROM decisions", "DELETE FROM instructions")
    with monkeypatch.context() as patched:

        def dies(*_: object) -> bool:
            postgres.kill()
            raise OperationalError("append", None, Exception("the connection is lost"))

        patched.setattr(chain, "append", dies)
        try:
            with pytest.raises((DatabaseUnavailable, DBAPIError)):
                await copy.rebuild(writes=True)
        finally:
            postgres.start_again()
    assert copy.scalar("SELECT count(*) FROM decisions") == 0
    written = await copy.rebuild(writes=True)
    assert agree(written), told(written)
    assert (copy.rows(), copy.faults()) == (before, [])
