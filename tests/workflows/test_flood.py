"""A full signal queue: the server takes 10,000 signals a run, and the kill still kills."""

import asyncio

import pytest
from temporalio.client import Client

from domain.states import State
from tests.workflows.world import Desk, World

SIGNALS = 9_990


@pytest.mark.long
async def test_a_kill_behind_ten_thousand_signals_kills(temporal: Client) -> None:
    desk = Desk(temporal, World())
    await desk.start()
    names = ("pause", "resume", "cancel_all", "kil")
    for start in range(0, SIGNALS, 100):
        await asyncio.gather(*(desk.signal(names[i % 4]) for i in range(start, min(start + 100, SIGNALS))))
    await desk.signal("kill", {"reason": "behind the flood"})
    async with desk.worker(cached=100):
        await desk.until(lambda s: s.state is State.KILLED and s.kill is not None and s.kill.quiet_at is not None)
        await desk.assert_healthy_history()
    await desk.handle.terminate()
