"""Symbols are added to a paused desk: at a real Temporal server, with an outcome, a row, and what comes meanwhile."""

import asyncio
from typing import Any

from temporalio.client import Client

from domain.desk.carried import Outcome
from domain.desk.states import State
from tests.workflows.parts import Readings
from tests.workflows.world import Desk, World, running_desk


async def ask(desk: Desk, *symbols: str, name: str = "add") -> None:
    await desk.signal(
        "add_symbols", {"command_id": name, "actor": "cli:anna", "reason": "listed", "symbols": [*symbols]}
    )


async def outcome(desk: Desk, name: str = "add") -> Any:
    await desk.until(lambda s: s.commands_pending == 0)
    return (await desk.outcomes(name)).outcomes[name]


async def test_a_paused_desk_goes_on_with_the_symbols_that_were_added(temporal: Client) -> None:
    async with running_desk(temporal, World(Readings(also_listed=["SOLUSDT"]))) as desk:
        await ask(desk, "SOLUSDT", name="early")
        assert (await outcome(desk, "early")).outcome is Outcome.REFUSED
        await desk.signal("pause", {"reason": "new symbols"})
        await ask(desk, "SOLUSDT")
        assert (await outcome(desk)).detail == "symbols BTCUSDT -> BTCUSDT,SOLUSDT"
        await ask(desk, "NOPEUSDT", name="strange")
        assert "no rules for NOPEUSDT" in (await outcome(desk, "strange")).detail
        await desk.signal("resume")
        begun = (await desk.until(lambda s: s.state is State.RUNNING)).cycle_number
        status = await desk.until(lambda s: s.cycle_number > begun + 1 and s.records_waiting == 0)
        assert status.symbols == ["BTCUSDT", "SOLUSDT"]
        assert desk.world.readings.symbols == {"BTCUSDT", "SOLUSDT"}
        told = "add_symbols applied by cli:anna: symbols BTCUSDT -> BTCUSDT,SOLUSDT (listed)"
        assert told in desk.world.summaries()
        await desk.signal("kill")
        await desk.until(lambda s: s.kill is not None and s.kill.verified_at)
        assert {call.split()[1] for call in desk.world.cancels.done} == {"BTCUSDT", "SOLUSDT"}


async def test_a_kill_meanwhile_wins_and_a_crash_loses_nothing(temporal: Client) -> None:
    world = World(Readings(also_listed=["SOLUSDT"]))
    desk = Desk(temporal, world)
    await desk.start()
    async with desk.worker():
        await desk.signal("pause")
        await desk.until(lambda s: s.state is State.PAUSED and s.cycle_number >= 1)
        gate = world.readings.gate = asyncio.Event()
        await ask(desk, "SOLUSDT")
        await desk.until(lambda s: s.commands_pending == 1)
    # The worker is gone with its reading; the next one reads anew.
    gate.set()
    async with desk.worker():
        assert (await outcome(desk)).outcome is Outcome.APPLIED
        gate = world.readings.gate = asyncio.Event()
        world.readings.also_listed.append("XRPUSDT")
        await ask(desk, "XRPUSDT", name="late")
        await desk.until(lambda s: s.commands_pending == 1)
        await desk.signal("kill", "stop")
        await desk.until(lambda s: s.state is State.KILLED)
        gate.set()
        assert "no longer paused: it is killed" in (await outcome(desk, "late")).detail
        assert (await desk.status()).symbols == ["BTCUSDT", "SOLUSDT"]
        await desk.assert_healthy_history()
    await desk.handle.terminate("the test is over")
