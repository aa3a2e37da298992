"""Scenes: moments that a fault at a random time hardly ever meets, waited for and then played out.

Of an order's whole way, a second or two, the part between its decision and its send takes some hundredths. A kill that lands
there, or an answer that is lost there, is what half of the code between `activities/act.py` and the venue exists for. So a scene
does not look at the clock: it waits until the database says that the moment has come, and holds everybody still in it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import product
from typing import Any

import httpx
import psycopg

from tests.chaos import recorder as r
from tests.chaos.clients import over_http, run_step
from tests.chaos.desk import KEY, Desk
from tests.chaos.faults import AT_ONCE, FLOOD, a_signal, lasting
from tests.chaos.recorder import Recorder
from tests.chaos.schedule import APIS, BY_HAND_IN_THE_DATABASE, SYMBOLS, WORKERS, Fault, Step
from tests.postgres import plain_url

# As in servers.HOLDS.
AT_THE_INSERT, AT_THE_COMMIT, AT_A_CANCEL, AT_A_REDUCTION = 1, 2, 3, 4
# So long a scene waits for an order. Without one there is no scene, and the round goes on.
PATIENCE_SECONDS = 6.0
# A cycle of a scene takes three seconds, and a proposal is decided in the next one.
PROPOSALS, PROPOSE_AGAIN_SECONDS = 4, 2.0
# Longer than a permission to send is good for, and short enough that the order's own time is not over.
GROWS_OLD_SECONDS = 0.8
# While the latch of the kill is not in the database yet.
LATCH_SECONDS = 1.5
# Longer than an API and a desk may take for a kill (invariants/i8_right_of_way.py).
TOO_LONG_SECONDS = 7.5
# Longer than a signal is tried for (workflows/gateway.py).
AWAY_SECONDS = 5.0
SIGNALS_AT_ONCE = 100
# Of commands that nobody has confirmed (api/coordinator.py).
ADMITTED = 100
WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted AND database = %s"
THIS_DATABASE = "(SELECT oid FROM pg_database WHERE datname = current_database())"
WAITS_HERE = f"locktype = 'advisory' AND objid = %s AND NOT granted AND database = {THIS_DATABASE}"
END_WHO_WAITS = f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE {WAITS_HERE}"
UNCOMMITTED = "SELECT 1 FROM instructions WHERE detail LIKE 'its decision could not be committed%'"
KILL_BY_HAND = "UPDATE desks SET killed = true, reason = %s, actor = 'sql', killed_at = clock_timestamp()"
# A record that hangs is ended within a moment of its beginning, long before the order's own time is over.
RECORD_FAILS = Fault(0.0, 0.7, "fail", "activity", "record")
RECORDS_THAT_FAIL = 8
# Each piece of a query, each way: there are two of them or more. Other readers' queries may be under way, too, so that not
# every command meets one on its way back.
SLOW_SECONDS = 0.5
WHILE_A_QUERY_IS_SLOW = (
    ("pause", 2.4),
    ("resume", 2.4),
    ("pause", 1.4),
    ("resume", 2.4),
    ("pause", 1.4),
    ("kill", 2.4),
)
LATCH = Fault(0.0, LATCH_SECONDS, "unwritable", "database", "desks")


async def run_scene(desk: Desk, recorder: Recorder) -> None:
    """The round's own, if it has one."""
    if scene := desk.plan.scene:
        await asyncio.sleep(scene.at)
        played = await SCENES[scene.kind](desk, recorder)
        recorder.note(f"scene {scene.kind}: {'played' if played else 'its moment did not come'}")


# --- a kill on an order's way out --------------------------------------------------------------------------------------


async def kill_before_the_send(desk: Desk, recorder: Recorder) -> bool:
    """The decision is committed and the order not out yet: nobody runs while the kill is recorded, and the latch is late."""
    return await _before_the_send(desk, recorder, "kill")


async def pause_before_the_send(desk: Desk, recorder: Recorder) -> bool:
    """The same with a pause."""
    return await _before_the_send(desk, recorder, "pause")


async def limits_before_the_send(desk: Desk, recorder: Recorder) -> bool:
    """The same with limits: what goes out was decided under others."""
    return await _before_the_send(desk, recorder, "set_limits", {"limits": {"max_leverage": "1.6"}})


async def _before_the_send(desk: Desk, recorder: Recorder, kind: str, args: dict[str, Any] | None = None) -> bool:
    async with _connection(desk) as connection, AsyncExitStack() as stops:
        if not await _decided(connection):
            return False
        for worker in WORKERS:
            await stops.enter_async_context(lasting(desk, Fault(0.0, 0.3, "stop", worker), recorder))
        async with lasting(desk, LATCH, recorder):
            await run_step(desk, Step(0.0, "scene", "temporal", kind, args or {}, 0, f"scene-{kind}"), recorder)
            await asyncio.sleep(0.2)
            await stops.aclose()
            await asyncio.sleep(LATCH_SECONDS)
    return True


async def kill_in_the_transaction(desk: Desk, recorder: Recorder) -> bool:
    """The order is written and not committed yet, and its permission grows old: the kill is recorded, and the latch is late."""
    async with _connection(desk) as connection:
        async with _held(connection, AT_THE_INSERT) as came:
            if not await came():
                return False
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(lasting(desk, LATCH, recorder))
                await _kill(desk, recorder, "temporal")
                await asyncio.sleep(GROWS_OLD_SECONDS)
                latch = stack.pop_all()
        async with latch:
            await asyncio.sleep(LATCH_SECONDS)
    return True


async def an_order_is_in_flight_at_a_kill(desk: Desk, recorder: Recorder) -> bool:
    """Nothing keeps the order from the venue any more, and it is not there yet: the kill's first cancels may miss it."""
    async with _connection(desk) as connection, _held(connection, AT_THE_COMMIT) as came:
        if not await came():
            return False
        await _kill(desk, recorder, "temporal")
        await asyncio.sleep(0.5)
    return True


async def a_kill_meets_a_restart(desk: Desk, recorder: Recorder) -> bool:
    """The restart of a killed desk waits for the latch, which cannot be written, while the next kill comes."""
    await _kill(desk, recorder, "http")
    if not await _says(desk, lambda status: bool(status["kill"] and status["kill"]["latched"])):
        return False
    async with asyncio.TaskGroup() as group, lasting(desk, LATCH, recorder):
        restart = Step(0.0, "scene", "ais", "restart")
        group.create_task(run_step(desk, restart, recorder))
        under_way = await _says(desk, lambda status: bool(status["restart_pending"]))
        await run_step(desk, Step(0.0, "scene", "http", "look"), recorder)
        await run_step(desk, Step(0.0, "scene", "temporal", "kill", {}, 0, "scene-next"), recorder)
        await asyncio.sleep(0.3)
    return under_way


async def a_kill_comes_again_after_a_restart(desk: Desk, recorder: Recorder) -> bool:
    """Under the id that it had before: it means the desk that runs again."""
    kill = Step(0.0, "scene", "http", "kill", {}, 0, "scene-again")
    await run_step(desk, kill, recorder)
    if not await _says(desk, lambda status: bool(status["kill"] and status["kill"]["latched"])):
        return False
    await run_step(desk, Step(0.0, "scene", "ais", "restart"), recorder)
    runs = await _says(desk, lambda status: bool(status["state"] == "running"))
    await over_http(desk, kill, recorder, 1)
    return runs


async def workers_die_with_a_restart(desk: Desk, recorder: Recorder) -> bool:
    """A restart waits for the latch when both workers die. It comes there once more after the next kill, which it never named."""
    await _kill(desk, recorder, "http")
    if not await _says(desk, lambda status: bool(status["kill"] and status["kill"]["latched"])):
        return False
    async with asyncio.TaskGroup() as group, lasting(desk, LATCH, recorder):
        group.create_task(run_step(desk, Step(0.0, "scene", "ais", "restart"), recorder))
        under_way = await _says(desk, lambda status: bool(status["restart_pending"]))
        # Until a worker has begun it.
        await asyncio.sleep(0.5)
        async with AsyncExitStack() as dead:
            for worker in WORKERS:
                await dead.enter_async_context(lasting(desk, Fault(0.0, 0.0, "kill_9", worker), recorder))
            await run_step(desk, Step(0.0, "scene", "temporal", "kill", {}, 0, "scene-next"), recorder)
    return under_way


async def _says(desk: Desk, condition: Callable[[dict[str, Any]], bool], patience: float = PATIENCE_SECONDS) -> bool:
    """Whether the coordinator's status comes to that within the scene's patience."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if (status := await desk.status()) and condition(status):
            return True
        await asyncio.sleep(0.02)
    return False


# --- an order whose answer is lost -------------------------------------------------------------------------------------


async def answer_is_lost(desk: Desk, recorder: Recorder) -> bool:
    """The venue has the order, and whoever sent it never hears so."""
    return await (_late_answer if desk.plan.live else _lost_commit)(desk, recorder)


async def a_reduction_is_in_doubt(desk: Desk, recorder: Recorder) -> bool:
    """The same with an order that only reduces."""
    async with _connection(desk) as connection:
        if not await _proposed(desk, recorder, connection, AT_MARKET, lambda had: "filled" in had):
            return False
    if not desk.plan.live:
        return await _lost_commit(desk, recorder, AT_A_REDUCTION, lambda: _reduces(desk, recorder))
    async with lasting(desk, Fault(0.0, PATIENCE_SECONDS, "late", "venue"), recorder):
        await _reduces(desk, recorder)
        await asyncio.sleep(5.0)
    return True


async def _lost_commit(
    desk: Desk,
    recorder: Recorder,
    where: int = AT_THE_COMMIT,
    first: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> bool:
    async with _connection(desk) as connection, AsyncExitStack() as cuts, asyncio.TaskGroup() as group:
        async with _held(connection, where) as came:
            if first:
                group.create_task(first())
            if not await came():
                return False
            for worker in WORKERS:
                await cuts.enter_async_context(lasting(desk, Fault(0.0, 0.5, "reset", f"{worker}>database"), recorder))
        await asyncio.sleep(0.5)
    return True


async def _late_answer(desk: Desk, recorder: Recorder) -> bool:
    late = Fault(0.0, PATIENCE_SECONDS, "late", "venue")
    async with _connection(desk) as connection, lasting(desk, late, recorder):
        played = await _decided(connection)
        # Longer than a call of the venue may take.
        await asyncio.sleep(5.0 if played else 0.0)
    return played


async def an_order_arrives_late(desk: Desk, recorder: Recorder) -> bool:
    """Its sender has given up and asks the venue, which does not have it yet."""
    late = Fault(0.0, PATIENCE_SECONDS, "begins_late", "venue")
    async with _connection(desk) as connection, lasting(desk, late, recorder):
        return await _decided(connection) and await _comes(desk, connection, lambda had: len(had) > 0, PATIENCE_SECONDS)


async def workers_die_with_an_order(desk: Desk, recorder: Recorder) -> bool:
    """The order is on its way into the venue's book, and nobody is left who could say so: its time runs out."""
    async with _connection(desk) as connection, AsyncExitStack() as dead:
        async with _held(connection, AT_THE_COMMIT) as came:
            if not await came():
                return False
            for worker in WORKERS:
                await dead.enter_async_context(lasting(desk, Fault(0.0, 0.0, "kill_9", worker), recorder))
        # PostgreSQL carries out the commit that it was sent, whoever has gone.
        await asyncio.sleep(0.2)
    return True


async def a_run_ends_with_an_unknown_order(desk: Desk, recorder: Recorder) -> bool:
    """The order's transaction is ended from outside. It may still come for a while, and meanwhile the next run has to ask."""
    async with _connection(desk) as connection:
        async with _held(connection, AT_THE_INSERT) as came:
            if not await came():
                return False
            await connection.execute(END_WHO_WAITS, (AT_THE_INSERT,))
            if not await _says(desk, lambda status: bool(status["unknown_orders"])):
                return False
        return await _next_run(desk)


async def a_decision_cannot_be_written(desk: Desk, recorder: Recorder) -> bool:
    """Whoever writes into the log hangs, and a person ends each try: so the desk knows in time that a decision is not there."""
    log = Fault(0.0, PATIENCE_SECONDS, "unwritable", "database", "decisions")
    async with lasting(desk, log, recorder):
        for _ in range(RECORDS_THAT_FAIL):
            async with lasting(desk, RECORD_FAILS, recorder):
                pass
    async with _connection(desk) as connection:
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            if await (await connection.execute(UNCOMMITTED)).fetchone():
                return True
            await asyncio.sleep(0.05)
    return False


# --- a kill that nobody must hold up -----------------------------------------------------------------------------------


async def database_hangs_at_a_kill(desk: Desk, recorder: Recorder) -> bool:
    """Rows and latch hang, and the cancels go out all the same; so do the answers of APIs whose connections stand."""
    for api in range(len(APIS)):
        with suppress(httpx.HTTPError):
            await desk.http.get(
                desk.url(api) + "/reports/decisions?limit=1", headers={"Authorization": f"Bearer {KEY}"}
            )
    async with lasting(desk, Fault(0.0, TOO_LONG_SECONDS, "stop", "database"), recorder):
        began = time.monotonic()
        await asyncio.gather(_kill(desk, recorder, "http"), _kill(desk, recorder, "temporal"))
        await asyncio.sleep(max(0.0, began + TOO_LONG_SECONDS - time.monotonic()))
    return True


async def workers_hang_at_a_kill(desk: Desk, recorder: Recorder) -> bool:
    """As many commands as an API admits, and some more, wait for a worker, and the kill comes after them."""
    async with AsyncExitStack() as stops:
        for worker in WORKERS:
            await stops.enter_async_context(lasting(desk, Fault(0.0, TOO_LONG_SECONDS, "stop", worker), recorder))
        before = [Step(0.0, "scene", "http", "cancel_all", {}, 0, f"before-{n}") for n in range(ADMITTED + 10)]
        async with asyncio.TaskGroup() as group:
            for step in before:
                group.create_task(over_http(desk, step, recorder, 0))
            await asyncio.sleep(1.0)
            group.create_task(_kill(desk, recorder, "http"))
            # Whether Temporal itself is slow.
            group.create_task(run_step(desk, Step(0.3, "scene", "temporal", "cancel_all", {}, 0, "beside"), recorder))
            await asyncio.sleep(TOO_LONG_SECONDS)
    return True


async def the_database_says_killed(desk: Desk, recorder: Recorder) -> bool:
    """Somebody kills the desk in the second place of the latch, by SQL."""
    async with _connection(desk) as connection:
        await connection.execute(KILL_BY_HAND, (BY_HAND_IN_THE_DATABASE,))
    return await _says(desk, lambda status: bool(status["state"] == "killed"))


async def the_database_says_killed_before_the_send(desk: Desk, recorder: Recorder) -> bool:
    """The one worker that is left has sent an order. The next is decided, and then the second place of the latch says killed, and
    it alone."""
    other = Fault(0.0, 0.0, "replace", WORKERS[1], desk.releases[WORKERS[1]])
    async with _connection(desk) as connection, AsyncExitStack() as stops:
        await stops.enter_async_context(lasting(desk, other, recorder))
        if not await _decided(connection) or not await _decided(connection):
            return False
        await stops.enter_async_context(lasting(desk, Fault(0.0, 0.3, "stop", WORKERS[0]), recorder))
        await connection.execute(KILL_BY_HAND, (BY_HAND_IN_THE_DATABASE,))
    return await _says(desk, lambda status: bool(status["state"] == "killed"))


async def queries_are_slow_at_commands(desk: Desk, recorder: Recorder) -> bool:
    """A query of one API has the state of before, and its answer is still on the way, when the state changes through the other
    one and somebody reads it again."""
    slow = Fault(0.0, SLOW_SECONDS, "slow", f"{APIS[0]}>temporal", str(SLOW_SECONDS))
    read = Step(0.0, "scene", "http", "status", {}, 0)
    for number, (kind, pieces) in enumerate(WHILE_A_QUERY_IS_SLOW):
        async with asyncio.TaskGroup() as group, lasting(desk, slow, recorder):
            group.create_task(run_step(desk, read, recorder))
            # The query has got there, and its answer has not come back: it depends on the number of pieces.
            await asyncio.sleep(pieces * SLOW_SECONDS)
            await run_step(desk, Step(0.0, "scene", "http", kind, {}, 1, f"scene-{kind}-{number}"), recorder)
            group.create_task(run_step(desk, read, recorder))
            await asyncio.sleep(0.1)
    return True


# --- what the venue has, and what becomes of it ------------------------------------------------------------------------


async def an_order_rests_at_a_kill(desk: Desk, recorder: Recorder) -> bool:
    """There is something to cancel, and a kill has to."""
    return await _with_an_order_at_rest(desk, recorder, "kill")


async def an_order_rests_at_a_cancel_all(desk: Desk, recorder: Recorder) -> bool:
    """The same with a cancel_all: nobody reads the account afterwards to see what is left."""
    return await _with_an_order_at_rest(desk, recorder, "cancel_all")


async def _with_an_order_at_rest(desk: Desk, recorder: Recorder, kind: str) -> bool:
    async with _connection(desk) as connection:
        rests = await _proposed(desk, recorder, connection, AT_REST, lambda had: "open" in had)
    if rests:
        await over_http(desk, Step(0.0, "scene", "http", kind, {}, 0, f"scene-{kind}"), recorder, 0)
    return rests


async def an_order_is_replaced(desk: Desk, recorder: Recorder) -> bool:
    """An agent changes its mind about the price while its order rests."""
    async with _connection(desk) as connection:
        if not await _proposed(desk, recorder, connection, AT_REST, lambda had: "open" in had):
            return False
        return await _replaced(desk, recorder, connection)


async def an_order_is_replaced_in_the_next_run(desk: Desk, recorder: Recorder) -> bool:
    """The same, and the run has continued as new in between."""
    async with _connection(desk) as connection:
        rests = await _proposed(desk, recorder, connection, AT_REST, lambda had: "open" in had)
        return rests and await _next_run(desk) and await _replaced(desk, recorder, connection)


async def _replaced(desk: Desk, recorder: Recorder, connection: psycopg.AsyncConnection) -> bool:
    before = len(await _statuses(desk, connection))
    lower = AT_REST | {"offset": 2 * AT_REST["offset"]}
    return await _proposed(desk, recorder, connection, lower, lambda had: len(had) > before)


async def _next_run(desk: Desk) -> bool:
    """Sends so many signals that the run continues as new: cancels of the symbol that no scene trades. Whether it did."""
    if not (before := await desk.status()):
        return False
    for _ in range(0, FLOOD, AT_ONCE):
        sent = (a_signal(desk, {"symbols": [SYMBOLS[1]]}) for _ in range(AT_ONCE))
        await asyncio.gather(*sent, return_exceptions=True)
    return await _says(desk, lambda status: status["run_id"] != before["run_id"])


async def a_position_is_reduced(desk: Desk, recorder: Recorder) -> bool:
    """Random rounds hold a position when a deleverage comes about as seldom as they have an order at rest at a kill."""
    async with _connection(desk) as connection:
        if not await _proposed(desk, recorder, connection, AT_MARKET, lambda had: "filled" in had):
            return False
        before = len(await _statuses(desk, connection))
        await _reduces(desk, recorder)
        return await _comes(desk, connection, lambda had: len(had) > before)


async def _reduces(desk: Desk, recorder: Recorder) -> None:
    # The real venue's account is small: of one lot there is no half.
    part = {"symbol": SYMBOLS[0], "reduce_pct": 1.0 if desk.plan.live else 0.5}
    await over_http(desk, Step(0.0, "scene", "http", "deleverage", part, 0, "scene-reduces"), recorder, 0)


async def a_position_is_full(desk: Desk, recorder: Recorder) -> bool:
    """An agent wants more of a symbol than the desk may hold, and says so again."""
    async with _connection(desk) as connection:
        if not await _proposed(desk, recorder, connection, AT_MARKET, lambda had: "filled" in had):
            return False
        return not await _proposed(
            desk, recorder, connection, AT_MARKET, lambda had: had.count("filled") > 1, "once-more", 3
        )


async def a_position_passes_a_soft_limit(desk: Desk, recorder: Recorder) -> bool:
    """Somebody tightens the limits below what is held: the desk reduces by itself."""
    async with _connection(desk) as connection:
        if not await _proposed(desk, recorder, connection, AT_MARKET, lambda had: "filled" in had):
            return False
        before = len(await _statuses(desk, connection))
        await over_http(desk, Step(0.0, "scene", "http", "set_limits", TIGHT, 0, "scene-tight"), recorder, 0)
        # In the next cycle.
        came = [await _comes(desk, connection, lambda had: len(had) > before) for _ in range(2)]
    return any(came)


async def a_position_passes_a_hard_limit(desk: Desk, recorder: Recorder) -> bool:
    """The same with the limit at which the desk kills itself."""
    async with _connection(desk) as connection:
        if not await _proposed(desk, recorder, connection, AT_MARKET, lambda had: "filled" in had):
            return False
    tight = {"limits": TIGHT["limits"] | {"hard_position_fraction": "0.004"}}
    await over_http(desk, Step(0.0, "scene", "http", "set_limits", tight, 0, "scene-tight"), recorder, 0)
    return await _says(desk, lambda status: bool(status["state"] == "killed"))


async def a_run_ends_while_cancels_wait(desk: Desk, recorder: Recorder) -> bool:
    """The venue refuses to cancel what rests, and the next run inherits the cancels of a kill."""
    async with _connection(desk) as connection:
        rests = await _proposed(desk, recorder, connection, AT_REST, lambda had: "open" in had)
        if not rests or not (before := await desk.status()):
            return False
        async with _held(connection, AT_A_CANCEL):
            await _kill(desk, recorder, "temporal")
            async with lasting(desk, Fault(0.0, 0.1, "flood", "coordinator"), recorder):
                return await _says(desk, lambda status: status["run_id"] != before["run_id"])


TIGHT = {"limits": {"max_position_fraction": "0.002", "soft_position_fraction": "0.004"}}
AT_MARKET: dict[str, Any] = {"symbol": SYMBOLS[0], "side": "BUY", "agent_id": "scene"}
AT_REST = AT_MARKET | {"offset": -0.01}
Came = Callable[[list[str]], bool]


async def _proposed(
    desk: Desk,
    recorder: Recorder,
    connection: psycopg.AsyncConnection,
    args: dict[str, Any],
    came: Came,
    name: str = "",
    proposals: int = PROPOSALS,
) -> bool:
    """Until the venue has what was meant: a proposal lasts for a cycle, and a reading or a guard may make nothing of it."""
    for number in range(proposals):
        key = f"scene-{name or args.get('offset', 'market')}-{number}"
        await over_http(desk, Step(0.0, "scene", "http", "propose", args, 0, key), recorder, 0)
        if await _comes(desk, connection, came):
            return True
    return False


async def _comes(
    desk: Desk, connection: psycopg.AsyncConnection, came: Came, patience: float = PROPOSE_AGAIN_SECONDS
) -> bool:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if came(await _statuses(desk, connection)):
            return True
        await asyncio.sleep(0.05)
    return False


async def _statuses(desk: Desk, connection: psycopg.AsyncConnection) -> list[str]:
    """Of every order, by the venue's own record: the desk's next reading may be seconds away."""
    if desk.plan.live:
        return [order["status"].lower().replace("new", "open") for order in (await desk.venue("state"))["orders"]]
    found = await connection.execute("SELECT status FROM paper.orders")
    return [status for (status,) in await found.fetchall()]


async def a_list_is_empty_at_a_kill(desk: Desk, recorder: Recorder) -> bool:
    """Once a kill's cancels are confirmed somebody else's order rests. The venue's list of all orders leaves it out, and the
    money that it locks contradicts the list."""
    async with lasting(desk, Fault(0.0, PATIENCE_SECONDS, "account_unreadable", "venue"), recorder):
        await _kill(desk, recorder, "http")
        if not await _says(desk, lambda status: bool(status["kill"] and status["kill"]["quiet_at"])):
            return False
        await desk.venue("rest", symbol=SYMBOLS[1], spot=True)
        await desk.venue("faults", answers={"get_spot_open_orders": []}, of_all=True)
    call = recorder.begin("scene", "http", "verification")
    try:
        is_verified = await _says(desk, lambda status: bool(status["kill"] and status["kill"]["verified_at"]), 5.0)
        rests = [order for order in (await desk.venue("state"))["spot_orders"] if order["status"] == "NEW"]
    finally:
        await desk.venue("faults", answers={}, of_all=False)
    recorder.end(call, r.DONE, state="verified" if is_verified else None, args={"rests": len(rests)})
    return True


# --- a kill behind a flood ---------------------------------------------------------------------------------------------


async def signals_wait_for_a_worker(desk: Desk, recorder: Recorder) -> bool:
    """No worker is up, thousands of signals wait, and the kill comes last; then the workers start."""
    assert desk.plan.scene
    async with AsyncExitStack() as dead:
        for worker in WORKERS:
            await dead.enter_async_context(lasting(desk, Fault(0.0, 0.0, "kill_9", worker), recorder))
        for number in range(0, desk.plan.scene.signals, SIGNALS_AT_ONCE):
            # One of them is recorded: how long Temporal takes for it, it takes for everybody.
            told = Step(0.0, "scene", "temporal", "resume", {}, 0, f"flood-{number}")
            others = (a_signal(desk, {}) for _ in range(SIGNALS_AT_ONCE - 1))
            await asyncio.gather(run_step(desk, told, recorder), *others, return_exceptions=True)
        await _kill(desk, recorder, "http")
    return True


# --- commands that nobody can record -----------------------------------------------------------------------------------


async def temporal_is_away_at_commands(desk: Desk, recorder: Recorder) -> bool:
    """From one API nothing leaves, from the other it leaves and is not answered, for longer than either tries."""
    async with AsyncExitStack() as cuts:
        for api, kind in zip(APIS, ("refused", "black_hole"), strict=True):
            fault = Fault(0.0, AWAY_SECONDS, kind, f"{api}>temporal")
            await cuts.enter_async_context(lasting(desk, fault, recorder))
        async with asyncio.TaskGroup() as group:
            for kind, number in product(("cancel_all", "resume", "kill"), range(len(APIS))):
                step = Step(number / 10, "scene", "http", kind, {}, number, f"away-{kind}-{number}")
                group.create_task(over_http(desk, step, recorder, number))
            await asyncio.sleep(AWAY_SECONDS)
    return True


SCENES: dict[str, Callable[[Desk, Recorder], Awaitable[bool]]] = {
    scene.__name__: scene
    for scene in (
        kill_before_the_send, pause_before_the_send, kill_in_the_transaction, answer_is_lost, database_hangs_at_a_kill,
        workers_hang_at_a_kill, an_order_rests_at_a_kill, temporal_is_away_at_commands, signals_wait_for_a_worker,
        an_order_rests_at_a_cancel_all, limits_before_the_send, a_kill_meets_a_restart,
        a_run_ends_while_cancels_wait, an_order_is_in_flight_at_a_kill,
        workers_die_with_an_order, workers_die_with_a_restart, the_database_says_killed,
        a_kill_comes_again_after_a_restart,
        an_order_is_replaced, a_position_is_reduced,
        a_decision_cannot_be_written, a_run_ends_with_an_unknown_order, an_order_is_replaced_in_the_next_run,
        queries_are_slow_at_commands, the_database_says_killed_before_the_send, a_reduction_is_in_doubt,
        an_order_arrives_late, a_position_is_full, a_position_passes_a_soft_limit, a_position_passes_a_hard_limit,
        a_list_is_empty_at_a_kill,
    )
}  # fmt: skip


async def _kill(desk: Desk, recorder: Recorder, channel: str) -> None:
    await run_step(desk, Step(0.0, "scene", channel, "kill", {}, 0, f"scene-{channel}"), recorder)


# --- moments -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _connection(desk: Desk) -> AsyncIterator[psycopg.AsyncConnection]:
    url = plain_url(desk.postgres.url_of(desk.database))
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


async def _decided(connection: psycopg.AsyncConnection) -> bool:
    """Whether a decision for an order was committed just now; False where none comes."""
    await connection.execute("LISTEN chaos_decided")
    async for _ in connection.notifies(timeout=PATIENCE_SECONDS, stop_after=1):
        return True
    return False


@asynccontextmanager
async def _held(connection: psycopg.AsyncConnection, where: int) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """No order that adds risk goes on from there. Yields what waits until one has come that far."""
    await connection.execute("SELECT pg_advisory_lock(%s)", (where,))
    try:
        yield lambda: _came(connection, where)
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", (where,))


async def _came(connection: psycopg.AsyncConnection, where: int) -> bool:
    until = time.monotonic() + PATIENCE_SECONDS
    found = await connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
    (database,) = await found.fetchone() or (0,)
    while time.monotonic() < until:
        if await (await connection.execute(WAITING, (where, database))).fetchone():
            return True
        await asyncio.sleep(0.005)
    return False
