"""The coordinator on a real development server, replayed at every workflow task."""

import asyncio
import uuid
from decimal import Decimal

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import Client

from activities import calls
from cli.tables import table
from domain.desk import applying
from domain.desk.states import Mode, State
from domain.trading.market import LatchRow
from domain.trading.orders import Fate
from tests.workflows.parts import Agents, Database, Orders, Venue
from tests.workflows.world import BTC, Desk, World, running_desk

KILLED = State.KILLED


def latched(world: World) -> bool:
    return world.database.latch is not None and world.database.latch.killed


async def test_cycles_go_on_and_are_logged(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.until(lambda s: s.cycle_number >= 3)
        await desk.until(lambda s: len(desk.world.database.decisions) >= 2)
        assert await desk.state() is State.RUNNING


# `test_a_kill_of_every_input_kills` (test_hostile.py) sends all of them, and more, to one desk.
@pytest.mark.parametrize(
    "payloads",
    [
        [],
        ["a", "b"],
        *(
            pytest.param(payloads, marks=pytest.mark.thorough)
            for payloads in ([None], ["flash crash"], [{"reason": "flash crash"}], [[1]], [{"symbols": 3}])
        ),
    ],
)
async def test_a_kill_kills_whatever_its_payload(temporal: Client, payloads: list[object]) -> None:
    async with running_desk(temporal) as desk:
        await desk.signal("kill", *payloads)
        status = await desk.until(lambda s: s.kill is not None and s.kill.quiet_at is not None)
        assert status.state is KILLED
        assert sorted(desk.world.cancels.done) == ["cancel_all_orders BTCUSDT", "cancel_spot_all_orders BTCUSDT"]


async def test_names_match_after_trimming_and_case_folding(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.signal(" KILL ")
        await desk.until(lambda s: s.state is KILLED)


async def test_an_unknown_signal_is_refused_in_the_log_and_names_the_nearest(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.signal("kil")
        await desk.until(lambda s: s.warnings)
        await desk.until(lambda s: not s.records_waiting)
        assert any("did you mean 'kill'" in text for text in desk.world.summaries())
        assert await desk.state() is State.RUNNING


async def test_cancelling_the_workflow_kills_and_again_after_a_restart(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        for _ in range(2):
            before = await desk.until(lambda s: s.state is State.RUNNING)
            await desk.handle.cancel()
            # In the next run: what is told of one that ends may be told of a task that the server then refuses, and a signal
            # that came meanwhile finds the state of before.
            status = await desk.until(
                lambda s: s.state is KILLED and s.kill.row_written and s.kill.latched and s.run_id != before.run_id  # noqa: B023
            )
            assert status.actor == "cancel"
            await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "again"})
            await desk.until(lambda s: s.state is State.RUNNING)


async def test_a_second_cancel_of_a_killed_desk_is_not_swallowed(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.handle.cancel()
        first = await desk.until(lambda s: s.state is KILLED)
        await desk.until(lambda s: s.run_id != first.run_id)
        await desk.handle.cancel()
        await desk.until(lambda s: s.kill_number == first.kill_number + 1)


async def test_pause_after_kill_is_refused_and_stays_killed(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.signal("kill")
        await desk.signal("pause", {"command_id": "p"})
        await desk.signal("resume", {"command_id": "r"})
        answer = await desk.outcomes("p", "r")
        assert answer.status.state is KILLED
        assert {o.outcome for o in answer.outcomes.values()} == {"refused"}


async def test_an_id_acts_once_and_a_kill_under_a_used_id_still_kills(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.signal("cancel_all", {"command_id": "x"})
        await desk.signal("cancel_all", {"command_id": "x"})
        # A kill overtakes what came before it in the same workflow task.
        await desk.until(lambda s: len(desk.world.cancels.done) >= 2)
        await desk.signal("kill", {"command_id": "x"})
        status = await desk.until(
            lambda s: s.kill is not None and s.kill.quiet_at is not None and not s.records_waiting
        )
        assert status.state is KILLED
        assert (await desk.outcomes("x")).outcomes["x"].reused_id
        async with asyncio.timeout(180):
            while len(desk.world.database.instructions) < 4:
                await asyncio.sleep(0.02)
        assert sorted(desk.world.database.instructions) == sorted(
            f"x:{round_}:{tool}:BTCUSDT"
            for round_ in (1, 2)
            for tool in ("cancel_all_orders", "cancel_spot_all_orders")
        )


async def test_with_the_database_hanging_the_cancels_go_out_and_the_record_follows(temporal: Client) -> None:
    async with running_desk(temporal, World(Database(hangs=True))) as desk:
        await desk.until(lambda s: s.cycle_number >= 1)
        await desk.signal("kill")
        await desk.until(lambda s: s.kill is not None and s.kill.quiet_at is not None)
        desk.world.database.hangs = False
        await desk.until(lambda s: s.kill.row_written and s.kill.latched)
        held = desk.world.database.latch
        assert held
        assert (held.killed, held.kill_number, held.reason, held.actor) == (True, 1, "manual kill switch", "temporal")
        assert held.kill_id in desk.world.database.decisions
        assert len([t for t in desk.world.summaries() if t.startswith("kill applied")]) == 1


async def test_cancels_are_repeated_until_the_venue_confirms(temporal: Client) -> None:
    async with running_desk(temporal, World(Venue(up=False))) as desk:
        await desk.signal("kill")
        status = await desk.until(lambda s: s.open_instructions and s.open_instructions[0].attempts >= 2)
        assert status.open_instructions[0].last_error == "the venue does not answer"
        desk.world.venue.up = True
        await desk.until(lambda s: s.kill.quiet_at is not None)


async def test_the_databases_latch_kills_a_running_coordinator(temporal: Client) -> None:
    async with running_desk(
        temporal, World(Database(latch=LatchRow(killed=True, kill_number=7, reason="r", actor="a")))
    ) as desk:
        status = await desk.until(lambda s: s.state is KILLED)
        assert status.kill_number == 8
        assert status.kill is not None
        assert status.kill.source == "database"


async def test_a_database_that_came_back_empty_is_latched_again(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.signal("kill")
        await desk.until(lambda s: s.kill is not None and s.kill.latched)
        desk.world.database.latch = None
        await desk.until(lambda s: latched(desk.world))


async def test_an_order_goes_out_after_its_decision_and_once(temporal: Client) -> None:
    async with running_desk(temporal, World(Agents(propose=True))) as desk:
        await desk.until(lambda s: len(desk.world.orders.sent) >= 2)
        written = {row.selected_order_id for row in desk.world.database.decisions.values()}
        assert set(desk.world.orders.sent) <= written
        assert len(set(desk.world.orders.sent)) == len(desk.world.orders.sent)


async def test_no_order_goes_out_while_the_database_is_away(temporal: Client) -> None:
    async with running_desk(temporal, World(Agents(propose=True), Database(up=False))) as desk:
        await desk.until(lambda s: s.cycle_number >= 3)
        assert desk.world.orders.sent == []
        desk.world.database.up = True
        await desk.until(lambda s: desk.world.orders.sent)
        # The rows of the outage come by their own queue, which may still be backing off when the first order goes out.
        await desk.until(
            lambda s: any(row.decision_type == "no_action" for row in desk.world.database.decisions.values())
        )
        reasons = [row.summary for row in desk.world.database.decisions.values() if row.decision_type == "no_action"]
        assert any("the database cannot be reached" in reason for reason in reasons)


async def test_a_kill_after_an_order_was_sent_cancels_at_once_and_again_after_its_fate(temporal: Client) -> None:
    gate = asyncio.Event()
    world = World(Agents(propose=True), Orders(gate=gate))
    async with running_desk(temporal, world) as desk:
        await asyncio.wait_for(world.orders.begun.wait(), 20)
        await desk.signal("kill")
        await desk.until(lambda s: len(world.cancels.done) == 2)
        gate.set()
        status = await desk.until(lambda s: s.kill.quiet_at is not None)
        assert len(world.cancels.done) == 4
        assert status.state is KILLED
        assert len(world.orders.sent) == 1


async def test_an_order_scheduled_while_its_worker_was_away_is_not_sent_after_a_kill(temporal: Client) -> None:
    gate = asyncio.Event()
    world = World(Agents(propose=True), Database(commit_gate=gate))
    desk = Desk(temporal, world)
    await desk.start(cycle_seconds=60.0)
    async with desk.worker(activities=False):
        leaving = desk.activity_worker()
        running = asyncio.create_task(leaving.run())
        await asyncio.wait_for(world.database.commit_begun.wait(), 20)
        stopping = asyncio.create_task(leaving.shutdown())
        gate.set()
        await asyncio.gather(running, stopping)
        await desk.until(lambda s: any(i.tool == "create_order" for i in s.open_instructions))
        await desk.signal("kill")
        await desk.until(lambda s: s.state is KILLED)
        async with desk.activity_worker():
            await desk.until(lambda s: s.kill is not None and s.kill.quiet_at is not None and not s.records_waiting)
        assert world.orders.sent == []
        await desk.assert_healthy_history()
    await desk.handle.terminate()


async def test_an_order_that_a_worker_of_another_desk_refused_counts_as_not_sent(temporal: Client) -> None:
    world = World(Agents(propose=True), Orders(scope=calls.Scope(desk="another", mode=Mode.PAPER)))
    async with running_desk(temporal, world) as desk:
        await desk.until(lambda s: any(row.outcome == "failed" for row in world.database.instructions.values()))
        assert (await desk.status()).unknown_orders == []
        assert world.orders.sent == []


async def test_an_unknown_order_blocks_its_symbol_and_is_settled_by_asking(temporal: Client) -> None:
    world = World(Agents(propose=True), Orders(fate=Fate.UNKNOWN))
    async with running_desk(temporal, world) as desk:
        status = await desk.until(lambda s: s.unknown_orders)
        await desk.until(lambda s: s.cycle_number >= status.cycle_number + 2)
        assert len(world.orders.sent) == 1
        world.orders.fate, world.orders.settled_as = Fate.FILLED, Fate.FILLED
        await desk.until(lambda s: not s.unknown_orders)
        await desk.until(lambda s: len(world.orders.sent) >= 2)


async def test_a_pause_that_stops_a_decided_order_tells_it_in_its_row(temporal: Client) -> None:
    gate = asyncio.Event()
    world = World(Agents(propose=True), Orders(gate=gate, fate=Fate.NOT_SENT))
    async with running_desk(temporal, world) as desk:
        await asyncio.wait_for(world.orders.begun.wait(), 20)
        await desk.signal("pause", {"reason": "lunch"})
        await desk.until(lambda s: s.state is State.PAUSED)
        gate.set()
        await desk.until(lambda s: any("it stopped order ord_" in text for text in world.summaries()))


async def test_two_deleverages_of_a_half_leave_a_quarter(temporal: Client) -> None:
    world = World(Venue(position=Decimal(1)))
    async with running_desk(temporal, world) as desk:
        for name in ("a", "b"):
            await desk.signal("deleverage", {"command_id": name, "symbol": "btc/usdt", "reduce_pct": 0.5})
        await desk.until(lambda s: s.commands_pending == 0)
        answer = await desk.outcomes("a", "b")
        assert [answer.outcomes[n].outcome for n in "ab"] == ["applied", "applied"]
        assert world.venue.position == Decimal("0.25")
        assert len(world.orders.sent) == 2


# Cheaper: tests/domain/test_desk.py: test_restart_is_refused_for_another_number_and_while_anything_is_unwritten_or_unknown.
@pytest.mark.thorough
async def test_restart_refuses_another_kill_number(temporal: Client) -> None:
    async with running_desk(temporal) as desk:
        await desk.signal("kill")
        await desk.signal("kill")
        await desk.until(lambda s: s.kill.row_written and s.kill.latched)
        await desk.signal("restart", {"command_id": "r", "kill_number": 1, "actor": "t"})
        outcome = (await desk.outcomes("r")).outcomes["r"]
        assert outcome.outcome == "refused"
        assert "a kill came since you looked" in (outcome.detail or "")


async def test_a_kill_during_a_restart_wins_and_latches_again(temporal: Client) -> None:
    gate = asyncio.Event()
    world = World(Database(clear_gate=gate))
    async with running_desk(temporal, world) as desk:
        await desk.signal("kill")
        status = await desk.until(lambda s: s.kill is not None and s.kill.row_written and s.kill.latched)
        await desk.signal("restart", {"command_id": "r", "kill_number": status.kill_number, "actor": "t"})
        pending = await desk.until(lambda s: s.restart_pending)
        # What is on its way is not told as done (I6), in the status and to the operator who reads it.
        assert pending.last_decision is not None
        assert "restart" not in pending.last_decision.summary
        assert "restart            pending" in table(pending, pending.since)
        await desk.signal("kill", {"reason": "second"})
        gate.set()
        await desk.until(lambda s: not s.restart_pending)
        after = await desk.until(lambda s: s.kill.latched)
        assert (after.state, after.warnings) == (KILLED, [])
        assert world.database.latch is not None
        assert world.database.latch.killed


async def test_mixed_signals_during_continue_as_new_are_each_applied_once(short_history_temporal: Client) -> None:
    async with running_desk(short_history_temporal, cycle_seconds=0.1) as desk:
        first = await desk.status()
        ids = [uuid.uuid4().hex for _ in range(150)]
        names = ("pause", "resume", "cancel_all")

        async def send(index: int, command_id: str) -> None:
            await desk.signal(names[index % 3], {"command_id": command_id})

        for start in range(0, 150, 15):
            await asyncio.gather(*(send(i, ids[i]) for i in range(start, start + 15)))
        await desk.until(lambda s: s.records_waiting == 0 and s.run_id != first.run_id)
        answer = await desk.outcomes(*ids)
        assert len(answer.outcomes) == 150
        rows = [row.command_id for row in desk.world.database.decisions.values() if row.command_id in set(ids)]
        assert sorted(rows) == sorted(ids)


async def test_many_continuations_lose_no_cycle_and_keep_what_the_web_ui_shows(short_history_temporal: Client) -> None:
    async with running_desk(short_history_temporal, cycle_seconds=0.05) as desk:
        for _ in range(3):
            run_id = (await desk.status()).run_id
            await desk.until(lambda s, run_id=run_id: s.run_id != run_id)
        await desk.signal("pause")
        paused = await desk.until(lambda s: s.state is State.PAUSED)
        await desk.until(lambda s: not s.records_waiting)
        # The cycle under way when the pause came leaves no row, nor does one that began before the status was read.
        written = sum(row.cycles for row in desk.world.database.decisions.values() if row.decision_type == "no_action")
        assert paused.cycle_number - written in (0, 1, 2)
        metadata = await desk.handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
        assert "PAUSED" in metadata.current_details


async def test_a_bug_in_a_commands_handling_refuses_it_and_a_kill_still_kills(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that raises fails the workflow task, and every later one with it: the kill would wait for a new version."""

    def broken(**_: object) -> None:
        raise OverflowError

    monkeypatch.setattr(applying, "PendingDeleverage", broken)
    async with running_desk(temporal) as desk:
        await desk.signal("deleverage", {"symbol": BTC, "reduce_pct": 1, "command_id": "d"})
        await desk.signal("kill")
        status = await desk.until(lambda s: s.state is KILLED and s.kill.verified_at)
        outcome = (await desk.outcomes("d")).outcomes["d"]
        assert (outcome.outcome, "OverflowError" in str(outcome.detail)) == ("refused", True)
        assert any("deleverage: it failed with" in warning for warning in status.warnings)
