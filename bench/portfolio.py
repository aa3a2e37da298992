"""`/reports/portfolio` of a paper desk with many fills, against one with few."""

import time
from contextlib import ExitStack

from sqlalchemy import Connection, Engine, text

from api.reporting import read_books
from bench.database import Backend, server
from bench.subject import Pair, Remark, Sample, Steps, Subject
from storage import migrate, totals

SAMPLES = 300
FEW = 100

FILL = """
INSERT INTO paper.fills (fill_id, order_id, desk, market, symbol, side, quantity, price, fee, realised_profit, maker, filled_at,
    bar_no, market_time)
SELECT CAST(:desk AS text) || n, CAST(:desk AS text), :desk, 'futures', (ARRAY['BTCUSDT', 'ETHUSDT', 'SOLUSDT'])[1 + n % 3],
    CASE WHEN (n / 3) % 2 = 0 THEN 'BUY' ELSE 'SELL' END, (1 + n % 7) * 0.001, 100 + n % 1000 * 0.1, 0.01, 0, false,
    timestamptz '2026-01-01' + n * interval '10 seconds', n / 2, timestamptz '2026-01-01' + n * interval '10 seconds'
FROM generate_series(1, :rows) n
"""
ORDER = """
INSERT INTO paper.orders (order_id, desk, market, symbol, side, order_type, quantity, reduce_only, status, filled_quantity,
    filled_value, fills, reason, created_at, bar_no)
VALUES (CAST(:desk AS text), :desk, 'futures', 'BTCUSDT', 'BUY', 'MARKET', 1, false, 'rejected', 0, 0, 0, '', now(), 0)
"""


def fill(engine: Engine, desk: str, rows: int) -> None:
    """An account with so many fills."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO paper.accounts VALUES (:desk, 100000, 100000)"), {"desk": desk})
        connection.execute(text(ORDER), {"desk": desk})
        connection.execute(text(FILL), {"desk": desk, "rows": rows})


def report_of(backend: Backend, desk: str) -> Sample:
    """Seconds of the processor that one report takes."""
    return lambda: backend.seconds_of(lambda connection: read_books(connection, desk))


def check(connection: Connection) -> str:
    """The kept totals against every record."""
    found = [totals.check(connection, account) for account in totals.accounts(connection)]
    return "; ".join(
        f"{each.kept:,} of {each.records:,} records kept, {each.differences or 'they agree'}" for each in found
    )


def pairs(many: int) -> Steps:
    """Both reports, and how long totals take to make."""
    with ExitStack() as stack:
        url = stack.enter_context(server())
        backend = Backend(url)
        engine = backend.engine
        stack.callback(engine.dispose)
        for desk, count in (("few", FEW), ("many", many)):
            fill(engine, desk, count)
        began = time.perf_counter()
        migrate.add_up(url)
        yield Remark(f"totals of {many:,} fills made in {time.perf_counter() - began:.1f} s")
        with engine.begin() as connection:
            connection.execute(text("ANALYZE"))
        yield Pair(f"of {many:,} fills", report_of(backend, "many"), report_of(backend, "few"), SAMPLES)
        with engine.begin() as connection:
            yield Remark(check(connection))


SUBJECT = Subject(
    "portfolio",
    "the report of a portfolio with many fills, CPU time",
    f"of one with {FEW} fills",
    pairs,
    100_000,
    "fills",
)
