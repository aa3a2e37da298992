"""A real account's books on a real PostgreSQL, with a long past."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from storage.books import foreign_orders
from tests.storage.builders import NOW, later
from tests.storage.test_decisions import flatten

CANCELS, ORDERS = 20_000, 200
_CANCELS = """
INSERT INTO instructions (instruction_id, desk, command_id, round, tool, symbol, outcome, prepared_at, settled_at, attempts)
SELECT 'cancel_' || n, 'main', 'kill', 1, 'cancel_all_orders', 'BTCUSDT', 'confirmed', :now, :now, 1
FROM generate_series(1, :count) AS n
"""
_ORDERS = """
INSERT INTO instructions (instruction_id, desk, command_id, round, tool, symbol, outcome, prepared_at, settled_at, attempts, side,
    order_type, quantity, reduce_only, venue_order_id)
SELECT 'ord_' || n, 'main', 'd', 1, 'create_order', 'BTCUSDT', 'confirmed', :now, :now, 1, 'BUY', 'MARKET', 1, false, n::text
FROM generate_series(1, :count) AS n
"""
_FILLS = """
INSERT INTO live.fills (exchange, account, market, symbol, trade_id, fill_id, desk, order_id, side, quantity, price, fee,
    fee_asset, realised_profit, maker, filled_at)
SELECT 'aster', 'a', 'futures', 'BTCUSDT', n::text, n::text, 'main', n::text, 'BUY', 1, 1, 0, 'USDT', 0, false, :now
FROM generate_series(1, :count) AS n
"""


@pytest.fixture
def traded(migrated: Connection) -> Iterator[Connection]:
    """A desk with many cancels, whose every fill is of an order of its own but the last one's."""
    with migrated.begin_nested() as undone:
        for statement, count in ((_CANCELS, CANCELS), (_ORDERS, ORDERS), (_FILLS, ORDERS + 1)):
            migrated.execute(text(statement), {"now": NOW, "count": count})
        migrated.execute(text("ANALYZE instructions, live.fills"))
        yield migrated
        undone.rollback()


def test_whose_a_fill_is_is_found_without_reading_every_cancel(traded: Connection) -> None:
    """Counted in rows that the plan touched. With a few hundred thousand cancels the books were never compared any more."""
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        asked.append((statement, values))

    event.listen(traded.engine, "before_cursor_execute", note)
    found = foreign_orders(traded, "main", later(60), [])
    event.remove(traded.engine, "before_cursor_execute", note)
    assert [order.order_id for order in found] == [str(ORDERS + 1)]
    ((statement, values),) = asked
    explain = traded.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
    nodes = list(flatten(explain.scalar_one()[0]["Plan"]))
    assert foreign_orders(traded, "main", NOW + timedelta(days=2), []) == []
    # Every cancel a few times, for the one fill that is nobody's; not for each of 200.
    assert (
        sum((n["Actual Rows"] + n.get("Rows Removed by Filter", 0)) * n["Actual Loops"] for n in nodes) < 10 * CANCELS
    )
