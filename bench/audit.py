"""What the audit chain adds to a recorded cycle, and what it takes to verify it.

The same batch (a decision and an order's instruction) is recorded with and without the append. Verifying is measured in
the processor's time of both programs, the bench's and PostgreSQL's.
"""

import itertools
import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine, NullPool, create_engine, text

from bench.database import Backend, server
from bench.machine import cpu_seconds
from bench.subject import Pair, Remark, Sample, Steps, Subject
from domain.trading.decisions import Decision, DecisionType, time_ordered_id
from domain.trading.instructions import InstructionOutcome, InstructionRow, OrderInstruction, OrderType, Side, Tool
from storage.audit import chain, verifying
from storage.decisions import insert_decisions
from storage.instructions import upsert_instructions

CYCLES, WALKS = 500, 5
ROWS_A_BATCH = 1_000
LINKS = text("SELECT seq, at, kind, subject, body, previous, hash FROM audit WHERE desk = 'bench' ORDER BY seq")
_numbers = itertools.count()


def batch() -> tuple[Decision, InstructionRow]:
    """What a cycle records that sends an order."""
    now, number = datetime.now(UTC), next(_numbers)
    decision = Decision(
        decision_id=time_ordered_id("decision", now, random.getrandbits(80)), timestamp=now,
        decision_type=DecisionType.ORDER_INTENT, summary="Selected S1USDT from momentum: BUY 0.125 at confidence 0.62",
        risk_passed=True, agent_votes={"momentum": 0.62, "mean_reversion": -0.125}, symbol="S1USDT",
    )  # fmt: skip
    order = OrderInstruction(
        symbol="S1USDT", side=Side.BUY, order_type=OrderType.MARKET, quantity=Decimal("0.125"), reduce_only=False
    )
    return decision, InstructionRow(
        instruction_id=f"{decision.decision_id}:{number}", desk="main", command_id=decision.decision_id, round=1,
        tool=Tool.CREATE_ORDER, symbol="S1USDT", outcome=InstructionOutcome.PREPARED, prepared_at=now, order=order,
    )  # fmt: skip


def writing(*, chained: bool) -> Callable[[Connection], None]:
    """Writes a batch of its own."""
    decision, instruction = batch()

    def write(connection: Connection) -> None:
        rows, written = insert_decisions(connection, [decision]), upsert_instructions(connection, [instruction])
        if chained:
            entries = [*map(chain.decision_entry, rows), *map(chain.instruction_entry, written.stored)]
            chain.append(connection, entries)

    return write


def record(engine: Engine, *, chained: bool) -> float:
    """Seconds of one recorded cycle, its commit included."""
    write = writing(chained=chained)
    began = time.perf_counter()
    with engine.begin() as connection:
        write(connection)
    return time.perf_counter() - began


def fill(engine: Engine, rows: int) -> None:
    """A chain of a desk of its own."""
    for _ in range(0, rows, ROWS_A_BATCH):
        with engine.begin() as connection:
            decisions = [batch()[0].model_copy(update={"desk": "bench"}) for _ in range(ROWS_A_BATCH)]
            chain.append(connection, map(chain.decision_entry, insert_decisions(connection, decisions)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def walk(engine: Engine, through: Callable[[Connection], object]) -> Sample:
    """Seconds of the processor, here and in PostgreSQL."""

    def sample() -> float:
        with verifying.snapshot(engine) as connection:
            both = (os.getpid(), connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
            before = cpu_seconds(*both)
            through(connection)
            return cpu_seconds(*both) - before

    return sample


def verify(connection: Connection) -> None:
    """As `ais audit verify` does."""
    found = verifying.Verification()
    verifying.verify_desk(connection, "bench", None, found, lambda rows: None)
    assert not found.faults, found.faults


def read(connection: Connection) -> None:
    """The same rows, in pieces of the same size, and nothing done with them."""
    rows = connection.execution_options(stream_results=True, max_row_buffer=verifying.ROWS_A_FETCH).execute(LINKS)
    for _ in rows.yield_per(verifying.ROWS_A_FETCH):
        pass


def pairs(rows: int) -> Steps:
    """Recording, then verifying."""
    with ExitStack() as stack:
        url = stack.enter_context(server())
        engine, alone, backend = create_engine(url), create_engine(url, poolclass=NullPool), Backend(url)
        stack.callback(engine.dispose)
        stack.callback(backend.engine.dispose)
        yield Pair(
            "a recorded cycle, chained",
            lambda: record(engine, chained=True),
            lambda: record(engine, chained=False),
            CYCLES,
            floor_name="the same, not chained",
        )
        yield Pair(
            "a recorded cycle, chained, CPU time of both sides",
            lambda: backend.seconds_of(writing(chained=True)),
            lambda: backend.seconds_of(writing(chained=False)),
            CYCLES,
            floor_name="the same, not chained",
        )
        fill(engine, rows)
        row = yield Pair(
            f"{rows:,} rows verified, CPU time",
            walk(alone, verify),
            walk(alone, read),
            WALKS,
            floor_name="the same rows read, and nothing done with them",
        )
        assert row
        yield Remark(f"{1e6 * min(row.ours) / rows:.1f} microseconds of the processor a row verified")


SUBJECT = Subject("audit", "the audit chain", "the same without the chain", pairs, 100_000, "rows")
