"""A run that is dear for a long time is replayed within a workflow task's time-out: a new worker does nothing before it has."""

from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.worker import Replayer, _workflow_instance

from domain.desk.carried import OrderPhase, PendingOrder
from domain.trading.orders import Fate, Order
from tests.domain.builders import an_order
from tests.domain.queues import calls
from tests.workflows.parts import Orders, Venue
from tests.workflows.world import World, running_desk
from workflows.converter import DATA_CONVERTER
from workflows.coordinator import Coordinator
from workflows.outbox import OutboxTask
from workflows.patience import LONGEST_RUN_EVENTS

SYMBOLS = [f"S{number:03}USDT" for number in range(100)]
ROUNDS = 3
# A busy core takes 3 microseconds for a call with what it does, and half of a workflow task's 8 s is allowed.
ALLOWED_CALLS = 1_300_000


async def test_a_run_whose_cancels_the_venue_refuses_is_replayed_in_half_of_a_tasks_time_out(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three kills of 100 symbols: each call fails, and is tried again after a pause of its own."""
    async with running_desk(temporal, World(Venue(up=False)), symbols=SYMBOLS, cycle_seconds=600) as desk:
        for number in range(ROUNDS):
            await desk.signal("kill", {"command_id": f"k{number}"})
            await desk.until(lambda s, most=number: s.kill is not None and s.kill.cancels == 200 * (most + 1))
        await desk.until(lambda s: min(i.attempts for i in s.open_instructions) >= 2)
        history = await desk.handle.fetch_history()
    counted = calls_of_activations(monkeypatch)
    # Without the SDK's limit of 2 s: calls are counted here, and the machine may be busy.
    replayer = Replayer(workflows=[Coordinator], data_converter=DATA_CONVERTER, debug_mode=True)
    assert not (await replayer.replay_workflow(history)).replay_failure
    assert sum(counted) * LONGEST_RUN_EVENTS / len(history.events) < ALLOWED_CALLS


async def test_orders_of_unknown_fate_are_not_compared_with_each_other(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lane looked for its order among all, field by field: a tenth of a second each time 200 of them were asked about."""
    compared: list[object] = []
    monkeypatch.setattr(PendingOrder, "__eq__", lambda one, _: bool(compared.append(one)))  # type: ignore[func-returns-value]
    async with running_desk(temporal, World(Orders(settled_as=Fate.FILLED)), orders=unknown_orders(5)) as desk:
        await desk.until(lambda s: s.open_instructions_total == 0)
    assert not compared


class Unsearched(dict[str, Any]):
    """Nothing may go through all of it."""

    def items(self) -> Any:
        raise AssertionError("all lanes were gone through")

    __iter__ = keys = values = items


async def test_no_lane_that_has_ended_is_looked_for_among_all(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That was asked of 800 lanes up to five times after every event.

    Seen where the history is replayed at the end: in the sandbox nothing of ours can be replaced.
    """
    begin = OutboxTask.__init__

    def begin_unsearched(task: OutboxTask, *given: Any) -> None:
        begin(task, *given)
        task._lanes = Unsearched()

    monkeypatch.setattr(OutboxTask, "__init__", begin_unsearched)
    async with running_desk(temporal, World(Orders(settled_as=Fate.FILLED)), orders=unknown_orders(2)) as desk:
        await desk.until(lambda s: s.open_instructions_total == 0)


def unknown_orders(count: int) -> list[PendingOrder]:
    now = datetime.now(UTC)
    orders = [
        Order(
            order_id=f"ord_{number}",
            command_id="c",
            desk="main",
            instruction=an_order(),
            not_after=now,
            prepared_at=now,
        )
        for number in range(count)
    ]
    return [PendingOrder(order=order, phase=OrderPhase.UNKNOWN, since=now) for order in orders]


def calls_of_activations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Functions that each activation enters from now on, by whatever thread it runs in."""
    counted: list[int] = []
    activate = _workflow_instance._WorkflowInstanceImpl.activate

    def counting(self: Any, activation: Any) -> Any:
        done: list[Any] = []
        counted.append(calls(lambda: done.append(activate(self, activation))))
        return done[0]

    monkeypatch.setattr(_workflow_instance._WorkflowInstanceImpl, "activate", counting)
    return counted
