"""Orders on a desk's account that are no row of the desk's: told by their ids, and no longer than they are there."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from activities.venues.aster.venue import AsterVenue
from domain.trading.orders import Fate
from storage.instructions import upsert_instructions
from tests.storage.builders import make_instruction, make_order_instruction
from tests.venues.aster.bookkeeping import Ledgers
from tests.venues.aster.fake_server import FakeServer
from tests.venues.builders import make_order


async def write_order(ledgers: Ledgers, **changes: Any) -> None:
    now = datetime.now(UTC)
    facts = {
        "instruction_id": f"ord_{now.timestamp()}", "desk": ledgers.desk, "tool": "create_order", "outcome": "confirmed",
        "prepared_at": now - timedelta(seconds=2), "settled_at": now, "order": make_order_instruction(),
    }  # fmt: skip
    row = make_instruction(**(facts | changes))
    await ledgers.database.run(partial(upsert_instructions, rows=[row]))


async def told(ledgers: Ledgers, rounds: int = 2) -> list[str]:
    return [stranger.text for stranger in (await ledgers.rounds(rounds)).strangers]


async def test_a_foreign_order_is_reported_for_as_long_as_it_rests(fake: FakeServer, ledgers: Ledgers) -> None:
    order = fake.exchange.rest("ETHUSDT")
    assert await told(ledgers, 1) == []
    assert await told(ledgers, 1) == [f"open order {order.order_id} ETHUSDT"]
    fake.exchange.cancel_all("ETHUSDT")
    assert await told(ledgers, 1) == []


async def test_a_foreign_fill_is_reported_for_a_day(fake: FakeServer, ledgers: Ledgers) -> None:
    order = fake.exchange.stranger("BTCUSDT", "BUY", "0.01")
    assert await told(ledgers) == [f"fill of order {order.order_id} BTCUSDT"]
    await ledgers.sql(
        "UPDATE live.fills SET filled_at = filled_at - interval '25 hours' WHERE desk = :d", d=ledgers.desk
    )
    fake.exchange.trades[0]["time"] -= 25 * 3_600_000
    assert await told(ledgers) == []


async def test_an_order_of_the_desk_is_not_foreign(fake: FakeServer, ledgers: Ledgers, venue: AsterVenue) -> None:
    report = await venue.create_order(make_order(quantity="0.1"))
    (order,) = fake.exchange.orders
    assert (report.fate, report.venue_order_id) == (Fate.FILLED, str(order.order_id))
    await write_order(ledgers, instruction_id="ord_mine", venue_order_id=report.venue_order_id)
    assert await told(ledgers) == []
    (fill,) = await ledgers.fills()
    assert fill.order_id == "ord_mine", "the fill is named by the instruction that sent it"


async def test_an_order_of_another_symbol_with_the_id_of_one_of_the_desk_is_foreign(
    fake: FakeServer, ledgers: Ledgers
) -> None:
    order = fake.exchange.rest("ETHUSDT")
    await write_order(ledgers, venue_order_id=str(order.order_id))
    assert await told(ledgers) == [f"open order {order.order_id} ETHUSDT"]


async def test_an_order_whose_id_was_never_reported_is_known_by_what_it_was(fake: FakeServer, ledgers: Ledgers) -> None:
    """Settled by the position alone, or still in flight: it may be this one, and an innocent is not accused."""
    fake.exchange.stranger("BTCUSDT", "BUY", "0.125")
    await write_order(ledgers, outcome="unknown", settled_at=None)
    assert await told(ledgers) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "failed"},
        {"order": make_order_instruction(side="SELL")},
        {"symbol": "ETHUSDT", "order": make_order_instruction(symbol="ETHUSDT")},
        {"venue_order_id": "999999"},
        {"desk": "another"},
        {"settled_at": datetime.now(UTC) - timedelta(hours=1), "prepared_at": datetime.now(UTC) - timedelta(hours=2)},
    ],
)
async def test_a_row_of_something_else_hides_no_stranger(
    fake: FakeServer, ledgers: Ledgers, changes: dict[str, Any]
) -> None:
    fake.exchange.stranger("BTCUSDT", "BUY", "0.125")
    await write_order(ledgers, **changes)
    assert len(await told(ledgers)) == 1
