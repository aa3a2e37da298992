"""A run that is dear for a long time is replayed within a workflow task's time-out: a new worker does nothing before it has."""

import time
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, _workflow_instance

from tests.domain.test_prices import slowness
from tests.workflows.world import World, running_desk
from workflows.coordinator import Coordinator
from workflows.patience import TASK_TIMEOUT

SYMBOLS = [f"S{number:03}USDT" for number in range(100)]
ROUNDS = 3
# A server suggests to continue as new after 4,096.
LONGEST = 4_096


async def test_a_run_whose_cancels_the_venue_refuses_is_replayed_in_half_of_a_tasks_time_out(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three kills of 100 symbols: each call fails, and is tried again after a pause of its own."""
    async with running_desk(temporal, World(venue_up=False), cached=10, symbols=SYMBOLS, cycle_seconds=600) as desk:
        for number in range(ROUNDS):
            await desk.signal("kill", {"command_id": f"k{number}"})
            await desk.until(lambda s, most=number: s.kill is not None and s.kill.cancels == 200 * (most + 1))
        await desk.until(lambda s: min(i.attempts for i in s.open_instructions) >= 2)
        history = await desk.handle.fetch_history()
    spent = cpu_seconds_of_activations(monkeypatch)
    replayer = Replayer(workflows=[Coordinator], data_converter=pydantic_data_converter)
    assert not (await replayer.replay_workflow(history)).replay_failure
    assert sum(spent) * LONGEST / len(history.events) < TASK_TIMEOUT.total_seconds() / 2 * slowness()


def cpu_seconds_of_activations(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What each activation costs from now on, in CPU time of its thread."""
    spent: list[float] = []
    activate = _workflow_instance._WorkflowInstanceImpl.activate

    def timed(self: Any, activation: Any) -> Any:
        start = time.thread_time()
        try:
            return activate(self, activation)
        finally:
            spent.append(time.thread_time() - start)

    monkeypatch.setattr(_workflow_instance._WorkflowInstanceImpl, "activate", timed)
    return spent
