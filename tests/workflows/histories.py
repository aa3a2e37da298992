"""Records histories for the replay tests: `python -m tests.workflows.histories`.

They are kept by the version of what a coordinator carries. Old ones stay for as long as such runs exist.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from temporalio.client import Client

from domain.desk.outbox import MAX_OPEN_CANCELS_PER_LANE
from domain.desk.states import Mode, State
from domain.desk.versions import SCHEMA_VERSION
from domain.trading.orders import Fate
from tests.domain.builders import an_open_order
from tests.temporal import SHORT_HISTORY, has_begun, serve
from tests.workflows.pausing import pause
from tests.workflows.quoting import QuotingWorld, a_quote
from tests.workflows.world import PROPOSAL, TIGHT, Desk, World, running_desk

RECORDED = Path(__file__).parent / "recorded"
FOLDER = RECORDED / str(SCHEMA_VERSION)


async def fresh(desk: Desk) -> None:
    """A few cycles that chose nothing."""
    await desk.until(lambda s: s.cycle_number >= 3)


async def ordering(desk: Desk) -> None:
    """Orders that were filled, then one of unknown fate that was settled."""
    desk.world.agents.propose = True
    await desk.until(lambda s: len(desk.world.orders.sent) >= 2)
    desk.world.orders.fate = Fate.UNKNOWN
    await desk.until(lambda s: s.unknown_orders)
    desk.world.orders.settled_as = Fate.FILLED
    await desk.until(lambda s: not s.unknown_orders)


async def commanded(desk: Desk) -> None:
    """Every command, known and unknown, applied and refused."""
    desk.world.venue.position = Decimal(1)
    for name in ("pause", "resume", "cancel_all", "kil"):
        await desk.signal(name)
    await desk.signal("deleverage", {"symbol": "BTCUSDT", "reduce_pct": 0.5})
    await desk.until(lambda s: s.commands_pending == 0)


async def killed(desk: Desk) -> None:
    """Killed while the venue and the database were away, which then came back."""
    desk.world.venue.up = desk.world.database.up = False
    await desk.signal("kill", "flash crash")
    await desk.until(lambda s: s.open_instructions and s.open_instructions[0].attempts >= 2)
    desk.world.venue.up = desk.world.database.up = True
    await desk.until(lambda s: s.kill.quiet_at and s.kill.latched)


async def restarted(desk: Desk) -> None:
    """Cancelled, which kills and continues as new, and restarted."""
    await desk.handle.cancel()
    status = await desk.until(lambda s: s.kill and s.kill.latched and s.kill.row_written and not s.run_ending)
    await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "r"})
    await desk.until(lambda s: s.state is State.RUNNING)


async def continued(desk: Desk) -> None:
    """Long enough to be continued as new."""
    first = await desk.status()
    await desk.until(lambda s: s.run_id != first.run_id)


async def limited(desk: Desk) -> None:
    """Warned, reduced in two steps, told tighter limits and refused looser ones, and killed by risk."""
    world = desk.world
    world.venue.position, world.orders.fill_at_most = Decimal(2), Decimal("0.8")
    await desk.until(lambda s: world.venue.position < 1)
    await desk.signal("set_limits", {"max_leverage": 1})
    await desk.signal("set_limits", {"max_leverage": 3})
    world.venue.position = Decimal(4)
    await desk.until(lambda s: s.state is State.KILLED and s.kill.latched and world.venue.position < 1)


async def flattened(desk: Desk) -> None:
    """Killed, and every position closed and seen to be closed."""
    desk.world.venue.position, desk.world.orders.fill_at_most = Decimal(2), Decimal("1.5")
    await desk.signal("kill", "enough")
    await desk.until(lambda s: s.kill is not None and s.kill.flat_at is not None and s.kill.latched)


async def proposed(desk: Desk) -> None:
    """A proposal from outside that a cycle took up, beside an agent that failed."""
    desk.world.agents.fail = True
    await desk.until(lambda s: s.failing_agents)
    await desk.signal("propose", PROPOSAL | {"ttl_seconds": 60})
    await desk.until(lambda s: any(row.agent_votes == {"mine": 0.8} for row in desk.world.database.decisions.values()))


async def overtaken(desk: Desk) -> None:
    """A proposal that came while the venue was read: the choice beside that reading was dropped."""
    readings = desk.world.readings
    readings.gate = asyncio.Event()
    await readings.begun.wait()
    await desk.signal("propose", PROPOSAL | {"command_id": "p", "ttl_seconds": 60})
    await desk.until(lambda s: s.proposals_waiting == 1)
    readings.gate.set()
    await desk.until(lambda s: any(row.agent_votes == {"mine": 0.8} for row in desk.world.database.decisions.values()))


async def verified(desk: Desk) -> None:
    """Killed with more symbols than are cancelled at once, and an order that only the verification found."""
    await desk.until(lambda s: s.cycle_number >= 1)
    desk.world.venue.open_orders = [an_open_order("DOGEUSDT")]
    desk.world.cancels.seconds = 0.1
    await desk.signal("kill")
    await desk.until(lambda s: s.kill is not None and s.kill.verified_at and s.kill.latched)


async def shadowed(desk: Desk) -> None:
    """Orders, a deleverage and a kill of a desk that sends nothing."""
    desk.world.agents.propose, desk.world.venue.position = True, Decimal(1)
    await desk.until(lambda s: len(desk.world.database.decisions) >= 2)
    await desk.signal("deleverage", {"symbol": "BTCUSDT", "reduce_pct": 0.5})
    await desk.until(lambda s: s.commands_pending == 0)
    await desk.signal("kill")
    await desk.until(lambda s: s.kill is not None and s.kill.latched and s.kill.row_written)


async def crowded(desk: Desk) -> None:
    """Killed while each lane was full of cancels that had failed and waited for their next attempt."""
    desk.world.venue.up = False
    for number in range(MAX_OPEN_CANCELS_PER_LANE):
        await desk.signal("cancel_all", {"command_id": f"c{number}"})
    await desk.until(
        lambda s: len(s.open_instructions) >= 20 and all(each.attempts >= 2 for each in s.open_instructions)
    )
    await desk.signal("kill", {"command_id": "k"})
    await desk.until(lambda s: s.state is State.KILLED)
    desk.world.venue.up = True
    await desk.until(lambda s: s.kill is not None and s.kill.quiet_at and s.kill.latched and s.kill.row_written)


async def paused(desk: Desk) -> None:
    """Killed while a person had paused the write of a row, which was given up."""
    await desk.until(lambda s: s.cycle_number >= 1)
    desk.world.database.up = False
    await desk.signal("pause")
    await pause(desk, "record")
    desk.world.database.up = True
    await desk.signal("kill", {"command_id": "k"})
    await desk.until(lambda s: s.kill is not None and s.kill.verified_at and s.kill.latched and s.kill.row_written)


async def backlog(desk: Desk) -> None:
    """More signals than a run is long, the cancellation and a kill, all for the first workflow task."""
    for _ in range(150):
        await desk.signal("pause")
    await desk.gateway.request_cancel(json.dumps({"command_id": "cancelled", "actor": "http", "reason": "flood"}))
    await desk.gateway.request_cancel("a second, which the server swallows")
    await desk.signal("kill", {"command_id": "signalled"})


async def flooded(desk: Desk) -> None:
    """A run that ends as soon as it begins, with a cancellation in the same task; and the one after it."""
    first = desk.handle.first_execution_run_id or (await desk.handle.describe()).run_id
    await desk.until(lambda s: s.kill is not None and s.kill.latched and s.kill.row_written and bool(s.kill.quiet_at))
    await desk.until(lambda s: s.run_id != first and s.commands_pending == 0 and s.records_waiting == 0)


async def cancelled_twice(desk: Desk) -> None:
    """A cancellation in a later task, one while the run winds down, and one of the run after a restart."""
    await desk.until(lambda s: s.cycle_number >= 1)
    desk.world.cancels.seconds = 0.3
    await desk.signal("kill")
    await desk.handle.cancel()
    status = await desk.until(
        lambda s: s.kill_number == 2 and s.kill.latched and s.kill.row_written and not s.run_ending
    )
    await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "r"})
    await desk.until(lambda s: s.state is State.RUNNING)
    await desk.handle.cancel()
    await desk.until(lambda s: s.state is State.KILLED and s.kill.latched and s.kill.row_written)


async def quoted(desk: Desk) -> None:
    """A quote that rested, one that took its place, one whose cancel the venue refused for a while, and a kill."""
    world = desk.world
    assert isinstance(world, QuotingWorld)
    for price in ("99", "98"):
        world.maker.quote = a_quote(price)
        await desk.until(lambda s: [order.price for order in s.resting_orders] == [world.maker.quote.price])
    world.singles.get_through, world.maker.quote = False, a_quote("97")
    await desk.until(lambda s: world.singles.asked >= 3)
    await desk.signal("kill", "drill")
    await desk.until(lambda s: s.kill is not None and s.kill.verified_at and s.kill.latched and s.kill.row_written)


Story = Callable[[Desk], Awaitable[None]]
# Each with what its coordinator is started with.
STORIES: dict[Story, dict[str, Any]] = {
    fresh: {},
    ordering: {},
    commanded: {},
    killed: {},
    restarted: {},
    continued: {},
    limited: {"limits": TIGHT},
    flattened: {"kill_flattens": True},
    proposed: {},
    overtaken: {},
    verified: {"symbols": [f"S{number:02}USDT" for number in range(20)]},
    shadowed: {"mode": Mode.SHADOW},
    crowded: {},
    paused: {},
    flooded: {"before": backlog},
    cancelled_twice: {},
    quoted: {},
}


async def record(client: Client, story: Story) -> None:
    """Plays one story and keeps the history of each of its runs."""
    world = QuotingWorld() if story is quoted else World()
    async with running_desk(client, world, **STORIES[story]) as desk:
        await story(desk)
        runs = [run async for run in client.list_workflows(f'WorkflowId="{desk.handle.id}"')]
        for number, run in enumerate(sorted(runs, key=lambda run: run.start_time)):
            history = await client.get_workflow_handle(desk.handle.id, run_id=run.run_id).fetch_history()
            if has_begun(history):
                (FOLDER / f"{story.__name__}_{number}.json").write_text(
                    json.dumps(scrubbed(json.loads(history.to_json())))
                )


def scrubbed(value: Any) -> Any:
    """Without stack traces, which hold the paths of the machine that recorded them."""
    if isinstance(value, dict):
        return {name: scrubbed(inner) for name, inner in value.items() if name != "stackTrace"}
    return [scrubbed(inner) for inner in value] if isinstance(value, list) else value


async def main() -> None:
    FOLDER.mkdir(exist_ok=True, parents=True)
    async with await serve(*SHORT_HISTORY) as env:
        for story in STORIES:
            await record(env.client, story)


if __name__ == "__main__":
    asyncio.run(main())
