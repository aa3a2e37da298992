"""What the audit chain adds to a recorded cycle, and what it takes to verify it.

A cycle is all that a desk does in its database for one order (`bench.recorded`), with the append and without it. Verifying is
measured in the processor's time of both programs, the bench's and PostgreSQL's.
"""

import itertools
import os
from collections.abc import Callable
from contextlib import ExitStack

from sqlalchemy import Connection, Engine, NullPool, create_engine, text

from bench.database import server
from bench.machine import cpu_seconds
from bench.recorded import CycleSeconds, RecordedDesk, decided
from bench.subject import Pair, Remark, Sample, Steps, Subject
from storage.audit import chain, verifying
from storage.decisions import insert_decisions

CYCLES, WALKS, WARM_UP = 500, 5, 5
# The chain may take a tenth of the time that a cycle needs in the database.
ALLOWED = 1.10
ROWS_A_BATCH = 1_000
_numbers = itertools.count()
LINKS = text("SELECT seq, at, kind, subject, body, previous, hash FROM audit WHERE desk = 'bench' ORDER BY seq")


class Cycles:
    """What cycles with the chain, or without it, have spent: measured once, and told in several ways."""

    def __init__(self, desk: RecordedDesk, *, chained: bool) -> None:
        self._desk, self._chained = desk, chained
        self._spent: list[CycleSeconds] = []

    def clock(self) -> float:
        """Seconds of the clock of a new cycle."""
        self._spent.append(self._desk.cycle(chained=self._chained))
        return self._spent[-1].whole.clock

    def again(self, told: Callable[[CycleSeconds], float]) -> Sample:
        """Another figure of the same cycles, one after the other."""
        found = map(told, self._spent[WARM_UP:])
        return lambda: next(found)


def recording(desk: RecordedDesk, samples: int) -> Steps:
    """Cycles with the chain and without it take turns."""
    ours, floor = Cycles(desk, chained=True), Cycles(desk, chained=False)
    what = "a cycle that sends an order, its seconds in the database"
    yield Pair(what, ours.clock, floor.clock, samples, warm_up=WARM_UP, allowed=ALLOWED)
    figures: dict[str, Callable[[CycleSeconds], float]] = {
        "the same cycles, CPU time of both sides": lambda spent: spent.whole.processor,
        "of these, the two transactions that record": lambda spent: spent.recording.clock,
        "the two that record, CPU time of both sides": lambda spent: spent.recording.processor,
    }
    for name, told in figures.items():
        allowed = ALLOWED if "cycles" in name else None
        yield Pair(name, ours.again(told), floor.again(told), samples, warm_up=0, allowed=allowed)


def fill(engine: Engine, rows: int) -> None:
    """A chain of a desk of its own."""
    for _ in range(0, rows, ROWS_A_BATCH):
        with engine.begin() as connection:
            decisions = [decided(next(_numbers))[0].model_copy(update={"desk": "bench"}) for _ in range(ROWS_A_BATCH)]
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
        alone = create_engine(url, poolclass=NullPool)
        yield from recording(RecordedDesk(url, stack), CYCLES)
        fill(alone, rows)
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
