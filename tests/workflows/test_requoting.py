"""Orders that rest, on a running coordinator: shown, kept by a pause, replaced one at a time, and gone with a kill."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from temporalio.client import Client

from domain.desk import ordering
from domain.desk.open_cancels import OpenCancels
from domain.desk.states import State
from domain.trading.instructions import InstructionOutcome, OpenCancel, Tool
from domain.trading.orders import Fate
from tests.workflows.quoting import AGENT, QuotingWorld, RestingOrders, SingleCancels, a_quote
from tests.workflows.world import BTC, Desk, running_desk
from workflows.lanes import MAX_CANCELS_AT_ONCE

CONFIRMED, FAILED = InstructionOutcome.CONFIRMED, InstructionOutcome.FAILED


def prices(status: Any) -> list[Decimal]:
    return [order.price for order in status.resting_orders]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that a busy machine does not send in time is told as failed, and the agent quotes again."""
    monkeypatch.setattr(ordering, "SHORTEST_ORDER_SECONDS", 60.0)


def rows(desk: Desk, tool: Tool) -> list[Any]:
    return [row for _, row in sorted(desk.world.database.instructions.items()) if row.tool is tool]


async def test_an_order_that_rests_is_confirmed_shown_and_kept_by_a_pause(temporal: Client) -> None:
    world = QuotingWorld(a_quote("99"))
    async with running_desk(temporal, world) as desk:
        status = await desk.until(lambda s: s.resting_orders and s.records_waiting == 0)
        (order,) = status.resting_orders
        assert (order.order_id, order.agent_id, order.symbol, order.side) == (world.orders.sent[0], AGENT, BTC, "BUY")
        assert (order.price, order.quantity, order.filled) == (Decimal(99), Decimal("0.5"), Decimal(0))
        assert status.unknown_orders == []
        await desk.signal("pause")
        cycle = status.cycle_number
        status = await desk.until(lambda s: s.state is State.PAUSED and s.cycle_number > cycle + 2)
        assert prices(status) == [Decimal(99)]
        assert (world.maker.events, world.cancels.done) == (["sent 99"], [])
        await desk.until(lambda s: [row.outcome for row in rows(desk, Tool.CREATE_ORDER)] == [CONFIRMED])


# Cheaper: tests/domain/test_quotes.py: test_a_quote_that_stands_is_left_alone.
@pytest.mark.thorough
async def test_a_quote_that_stands_is_left_alone(temporal: Client) -> None:
    world = QuotingWorld(a_quote("99"))
    async with running_desk(temporal, world) as desk:
        first = await desk.until(lambda s: s.resting_orders)
        await desk.until(lambda s: s.cycle_number > first.cycle_number + 4)
        assert world.maker.events == ["sent 99"]


async def test_a_new_quote_goes_out_once_the_cancel_of_the_old_one_is_confirmed(temporal: Client) -> None:
    world = QuotingWorld(a_quote("99"))
    async with running_desk(temporal, world) as desk:
        for price in ("99", "98", "97"):
            world.maker.quote = a_quote(price)
            await desk.until(lambda s, wanted=price: prices(s) == [Decimal(wanted)])
        assert world.maker.events == ["sent 99", "canceled 99", "sent 98", "canceled 98", "sent 97"]
        assert world.resting.most == 1
        await desk.until(lambda s: [r.outcome for r in world.database.instructions.values()] == [CONFIRMED] * 5)
        cancels = rows(desk, Tool.CANCEL_ORDER)
        decisions = [
            d.decision_id for d in world.database.decisions.values() if d.selected_order_id in world.orders.sent[1:]
        ]
        assert {row.instruction_id for row in cancels} == {f"{id_}:1:cancel_order:{BTC}" for id_ in decisions}
        assert {row.venue_order_id for row in cancels} == set(world.orders.sent[:2])


# Cheaper: tests/domain/test_resting.py: test_a_new_order_replaces_what_rests_of_its_agent_on_its_symbol_alone.
@pytest.mark.thorough
async def test_without_a_confirmed_cancel_no_new_order_is_sent(temporal: Client) -> None:
    world = QuotingWorld(a_quote("99"))
    async with running_desk(temporal, world) as desk:
        await desk.until(lambda s: s.resting_orders)
        world.singles.get_through, world.maker.quote = False, a_quote("98")
        await desk.until(lambda s: world.singles.asked >= 2)
        await desk.until(lambda s: [row.outcome for row in rows(desk, Tool.CREATE_ORDER)] == [CONFIRMED, FAILED])
        assert "is not confirmed: it may still fill" in rows(desk, Tool.CREATE_ORDER)[1].detail
        status = await desk.until(lambda s: "cancel_open" in s.last_decision.summary)
        assert prices(status) == [Decimal(99)]
        assert len(rows(desk, Tool.CANCEL_ORDER)) == 1, "one cancel, repeated"
        world.singles.get_through = True
        await desk.until(lambda s: prices(s) == [Decimal(98)])
        assert world.maker.events == ["sent 99", "canceled 99", "sent 98"]


async def test_a_kill_waits_for_no_cancel_of_a_single_order(temporal: Client) -> None:
    world = QuotingWorld(a_quote("99"))
    async with running_desk(temporal, world) as desk:
        await desk.until(lambda s: s.resting_orders)
        world.singles.get_through, world.maker.quote = False, a_quote("98")
        await desk.until(lambda s: world.singles.asked >= 1)
        await desk.signal("kill", "drill")
        status = await desk.until(lambda s: s.kill and s.kill.verified_at and s.kill.row_written and s.kill.latched)
        assert status.kill
        assert (status.kill.cancels, status.kill.confirmed, status.kill.residue) == (2, 2, [])
        assert (world.maker.events, prices(status)) == (["sent 99"], [])
        await desk.until(lambda s: {row.outcome for row in rows(desk, Tool.CANCEL_ORDER)} == {CONFIRMED})


def a_single_cancel(symbol: str) -> OpenCancel:
    return OpenCancel(
        instruction_id=f"d:1:cancel_order:{symbol}",
        command_id="d",
        round=1,
        tool=Tool.CANCEL_ORDER,
        symbol=symbol,
        prepared_at=datetime.now(UTC),
        order_id=f"ord_{symbol}",
        venue_order_id=f"ord_{symbol}",
    )


async def test_a_kill_needs_no_room_that_cancels_of_single_orders_have_taken(temporal: Client) -> None:
    symbols = [f"S{number:02}USDT" for number in range(MAX_CANCELS_AT_ONCE + 1)]
    waiting = OpenCancels(map(a_single_cancel, symbols))
    world = QuotingWorld(singles=SingleCancels(gate=asyncio.Event()))
    async with running_desk(temporal, world, symbols=symbols, cancels=waiting, cycle_seconds=60) as desk:
        await desk.until(
            lambda s: world.singles.asked == len(symbols) and not any(i.attempts for i in s.open_instructions)
        )
        await desk.signal("kill", "drill")
        status = await desk.until(lambda s: s.kill and s.kill.verified_at)
        await desk.until(lambda s: {row.outcome for row in world.database.instructions.values()} == {CONFIRMED})
        of_the_kill = [row for row in world.database.instructions.values() if row.tool is not Tool.CANCEL_ORDER]
        assert {row.attempts for row in of_the_kill} == {1}, "none of them had to fail first"
        assert status.kill
        assert status.kill.confirmed == 2 * len(symbols)


async def test_a_kill_cancels_what_rests_and_shows_that_it_is_gone(temporal: Client) -> None:
    world = QuotingWorld(a_quote("99"))
    async with running_desk(temporal, world) as desk:
        await desk.until(lambda s: s.resting_orders)
        await desk.signal("kill", "drill")
        status = await desk.until(lambda s: s.kill and s.kill.verified_at)
        assert (status.resting_orders, world.venue.open_orders) == ([], [])


async def test_an_order_that_was_unknown_and_rests_is_replaced_like_any_other(temporal: Client) -> None:
    world = QuotingWorld(a_quote("99"), RestingOrders(fate=Fate.UNKNOWN))
    async with running_desk(temporal, world) as desk:
        await desk.until(lambda s: any(order.agent_id == AGENT for order in s.resting_orders))
        world.orders.fate, world.maker.quote = Fate.OPEN, a_quote("98")
        await desk.until(lambda s: prices(s) == [Decimal(98)])
        assert world.maker.events == ["sent 99", "canceled 99", "sent 98"]


# Cheaper: tests/domain/test_quotes.py: test_what_may_still_fill_is_compared_and_not_what_was_sent.
@pytest.mark.thorough
async def test_what_filled_meanwhile_is_quoted_anew(temporal: Client) -> None:
    world = QuotingWorld(a_quote("99"))
    async with running_desk(temporal, world) as desk:
        await desk.until(lambda s: s.resting_orders)
        world.venue.open_orders = [world.venue.open_orders[0].model_copy(update={"filled_quantity": Decimal("0.2")})]
        status = await desk.until(lambda s: len(world.orders.sent) == 2)
        world.maker.quote = None
        status = await desk.until(lambda s: s.resting_orders and s.resting_orders[0].order_id == world.orders.sent[1])
        assert world.maker.events == ["sent 99", "canceled 99", "sent 99"]
        world.venue.open_orders = []
        await desk.until(lambda s: not s.resting_orders)
        assert status.resting_orders_total == 1
