"""Pages of a long decision log against the same pages of one of 50,000 rows, and what a row costs in bytes and to write."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, make_url, text

from bench.database import Backend, server
from bench.subject import Pair, Remark, Sample, Steps, Subject
from domain.trading.decisions import Decision, DecisionType, time_ordered_id
from storage import migrate
from storage.decisions import DecisionFilter, insert_decisions, page

FEW = 50_000
SAMPLES, WRITES = 40, 300
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

# A desk of 40 symbols and four agents, of which one or two vote, and one seldom; 1 row in 40 is a command or a limit's.
ROWS = """
INSERT INTO decisions (decision_id, timestamp, decision_type, summary, agent_votes, selected_signal_id, selected_order_id,
    risk_passed, risk_reasons, desk, symbol, command_id, cycles)
SELECT 'decision_' || lpad(to_hex(n), 32, '0'), timestamptz '2026-01-01' + n * interval '5 seconds',
    CASE WHEN n % 80 = 0 THEN 'control' WHEN n % 80 = 40 THEN 'risk_action' WHEN n % 4 = 1 THEN 'order_intent'
        ELSE 'no_action' END,
    'Selected S' || n % 40 || 'USDT from momentum: BUY 0.125 at confidence 0.62, expected return 12.5 bps after costs',
    CASE WHEN n % 40 = 0 THEN '{}' WHEN n % 3001 = 1 THEN '{"momentum": 0.62, "rare": -0.5}'
        WHEN n % 3 = 0 THEN '{"momentum": 0.62, "mean_reversion": -0.125, "funding_rate": 0.3}'
        ELSE '{"momentum": 0.62, "mean_reversion": -0.125}' END::jsonb,
    CASE WHEN n % 4 = 1 THEN 'signal_' || lpad(to_hex(n), 32, '0') END,
    CASE WHEN n % 4 = 1 THEN 'order_' || lpad(to_hex(n), 32, '0') END,
    CASE WHEN n % 80 <> 40 AND n % 4 = 1 THEN n % 36 <> 1 END,
    CASE WHEN n % 36 = 1 THEN '["position_too_large: 0.31 > 0.25"]' ELSE '[]' END::jsonb, 'main',
    CASE WHEN n % 40 = 0 THEN NULL WHEN n % 20011 = 1 THEN 'RAREUSDT' ELSE 'S' || n % 40 || 'USDT' END,
    CASE WHEN n % 80 = 0 THEN 'command' || n END, 1
FROM generate_series(1, :rows) n
"""
SIZES = """
SELECT relname, pg_relation_size(oid) AS bytes FROM pg_class
WHERE relname LIKE 'decision%' AND relkind IN ('r', 'i') ORDER BY bytes DESC
"""
VALUES: dict[str, list[Any]] = {
    "agent_id": ["momentum", "rare", "never"],
    "decision_type": ["order_intent", "risk_action"],
    "risk_passed": [False],
    "symbol": ["S1USDT", "RAREUSDT"],
}


def queries() -> Iterator[dict[str, Any]]:
    """No filter, and every combination of filters with values that are common and rare."""
    for count in range(len(VALUES) + 1):
        for names in combinations(VALUES, count):
            yield from _of(names)
    yield {"command_id": "command80"}


def _of(names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    if not names:
        yield {}
        return
    for rest in _of(names[1:]):
        for value in VALUES[names[0]]:
            yield {names[0]: value, **rest}


def page_of(backend: Backend, wanted: DecisionFilter) -> Sample:
    """Seconds of the processor that one page takes."""
    return lambda: backend.seconds_of(lambda connection: page(connection, wanted))


def fill(engine: Engine, rows: int) -> None:
    """The log."""
    with engine.begin() as connection:
        connection.execute(text(ROWS), {"rows": rows})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def sizes(connection: Connection, rows: int) -> str:
    """Bytes a row."""
    found = connection.execute(text(SIZES)).all()
    each = ", ".join(f"{name} {size / rows:.0f}" for name, size in found)
    return f"bytes a row: {sum(size for _, size in found) / rows:.0f} ({each})"


def written(engine: Engine) -> float:
    """Seconds of a row, as a worker writes it."""
    row = Decision(
        decision_id=time_ordered_id("decision", datetime.now(UTC), random.getrandbits(80)), timestamp=datetime.now(UTC),
        decision_type=DecisionType.ORDER_INTENT, summary="Selected S1USDT from momentum", risk_passed=True,
        agent_votes={"momentum": 0.62, "mean_reversion": -0.125}, symbol="S1USDT", command_id=f"c{random.getrandbits(64)}",
    )  # fmt: skip
    began = time.perf_counter()
    with engine.begin() as connection:
        insert_decisions(connection, [row])
    return time.perf_counter() - began


def pairs(rows: int) -> Steps:
    """Every query on the newest rows and on old ones, then writing."""
    with ExitStack() as stack:
        url = stack.enter_context(server())
        with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("CREATE DATABASE few"))
        other = make_url(url).set(database="few").render_as_string(hide_password=False)
        migrate.upgrade(other)
        few, many = Backend(other), Backend(url)
        for backend, count in ((few, FEW), (many, rows)):
            stack.callback(backend.engine.dispose)
            fill(backend.engine, count)
        with many.engine.begin() as connection:
            yield Remark(sizes(connection, rows))
        for query in queries():
            for until, deep in ((None, ""), (BEGIN + timedelta(days=1), " of the first day")):
                wanted = DecisionFilter(desk="main", until=until, **query)
                told = " ".join(f"{name}={value}" for name, value in query.items()) or "no filter"
                yield Pair(f"{told}{deep}", page_of(many, wanted), page_of(few, wanted), SAMPLES)
        yield Pair("a row written, by the clock", lambda: written(many.engine), lambda: written(few.engine), WRITES)


SUBJECT = Subject(
    "decisions", "pages of a long decision log, CPU time", f"the same of a log of {FEW:,} rows", pairs, 500_000, "rows"
)
