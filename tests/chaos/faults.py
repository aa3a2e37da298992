"""Faults: how each of them begins and ends."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest

from tests.chaos.desk import Desk
from tests.chaos.meddling import meddled
from tests.chaos.proxy import SLOW_SECONDS
from tests.chaos.recorder import Recorder
from tests.chaos.schedule import PAUSED, PROCESSES, SYMBOLS, VERSIONS, WORKERS, Fault
from tests.postgres import plain_url

FLOOD = 120
AS_NEW = 40
# More would keep Temporal itself busy for seconds, and then nobody's command is recorded in time.
AT_ONCE = 5


async def run_fault(desk: Desk, fault: Fault, recorder: Recorder) -> None:
    """Waits for its moment, lets it last, and ends it. What it broke works again when it is over."""
    await asyncio.sleep(fault.at)
    async with AsyncExitStack() as stack:
        # Of several parts, the first one comes back when the last one is broken.
        for target in WORKERS if fault.target == "workers" else (fault.target,):
            await stack.enter_async_context(lasting(desk, replace(fault, target=target), recorder))
        await asyncio.sleep(fault.seconds)


@asynccontextmanager
async def lasting(desk: Desk, fault: Fault, recorder: Recorder) -> AsyncIterator[None]:
    """The fault, for as long as the caller likes, with its notes in the record."""
    text = f"{fault.target}: {fault.kind}{f' {fault.detail}' if fault.detail else ''}"
    # One fault at a time of one part: who is dead cannot be stopped.
    async with desk.locks[fault.target]:
        note = recorder.note(f"{text} for {fault.seconds} s", fault.name, fault.target)
        try:
            async with _of(fault)(desk, fault):
                yield
        finally:
            note.until = recorder.note(f"{text} is over").at


Lasting = Callable[[Desk, Fault], AbstractAsyncContextManager[None]]


def _of(fault: Fault) -> Lasting:
    if ">" in fault.target:
        return cut_off
    if fault.target in PROCESSES:
        return {
            "kill_9": killed, "stop": stopped, "restart": restarted, "clock": clock_steps, "replace": replaced,
        }[fault.kind]  # fmt: skip
    by_target: dict[str, Lasting] = {
        "temporal": temporal_away, "venue": venue_fails, "coordinator": signals_wait, "activity": meddled, PAUSED: meddled,
    }  # fmt: skip
    by_kind: dict[str, Lasting] = {
        "read_only": read_only, "locked": locked, "unwritable": unwritable, "connection_limit": few_connections,
        "stop": database_stopped, "kill_9": database_killed, "disk_full": disk_full,
    }  # fmt: skip
    return by_target.get(fault.target) or by_kind[fault.kind]


# --- processes ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def killed(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """kill -9, and a new one afterwards."""
    await desk.processes[fault.target].end(signal.SIGKILL)
    yield
    await start_again(desk, fault.target)


@asynccontextmanager
async def restarted(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """SIGTERM, as an upgrade does it, and a new one."""
    await desk.processes[fault.target].end(signal.SIGTERM)
    await start_again(desk, fault.target)
    yield


@asynccontextmanager
async def replaced(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """SIGTERM, and afterwards one of another release."""
    await desk.processes[fault.target].end(signal.SIGTERM)
    yield
    desk.releases[fault.target] = fault.detail
    await start_again(desk, fault.target)
    if desk.plan.upgrade == VERSIONS:
        await desk.make_current(fault.detail)


async def start_again(desk: Desk, name: str) -> None:
    """Unless another fault was quicker."""
    if desk.processes[name].ended.done():
        await desk.start(name)


@asynccontextmanager
async def stopped(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """SIGSTOP and SIGCONT: it loses time and knows nothing of it."""
    process = desk.processes[fault.target]
    process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send(signal.SIGCONT)


@asynccontextmanager
async def clock_steps(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """Its clock steps by so many seconds, and back again."""
    desk.clock_of(fault.target).write_text(fault.detail)
    try:
        yield
    finally:
        desk.clock_of(fault.target).unlink(missing_ok=True)


# --- links -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def cut_off(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """A proxy fails in one of its ways."""
    proxy = desk.proxies[fault.target]
    proxy.pause = float(fault.detail or SLOW_SECONDS)
    await proxy.change(fault.kind)
    try:
        yield
    finally:
        await proxy.change("pass")


# --- the database ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def read_only(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """Every new transaction refuses writes, as a disk that is full or a standby does."""
    await _alter(desk, "SET default_transaction_read_only = on")
    try:
        yield
    finally:
        await _alter(desk, "RESET default_transaction_read_only")


@asynccontextmanager
async def few_connections(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """There is one connection for everybody."""
    await _alter(desk, "CONNECTION LIMIT 1")
    try:
        yield
    finally:
        await _alter(desk, "CONNECTION LIMIT -1")


async def _alter(desk: Desk, how: str) -> None:
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{desk.database}' AND pid <> pg_backend_pid()"
    )
    await asyncio.to_thread(desk.postgres.run, "postgres", f"ALTER DATABASE {desk.database} {how}", others)


@asynccontextmanager
async def locked(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """A table that somebody else holds: reads and writes of it hang."""
    async with _table_lock(desk, fault.detail, "ACCESS EXCLUSIVE"):
        yield


@asynccontextmanager
async def unwritable(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """A table that somebody else reads in peace: reads of it pass, also those FOR SHARE, and writes hang."""
    async with _table_lock(desk, fault.detail, "SHARE"):
        yield


@asynccontextmanager
async def _table_lock(desk: Desk, table: str, mode: str) -> AsyncIterator[None]:
    url = plain_url(desk.postgres.url_of(desk.database))
    connection = await psycopg.AsyncConnection.connect(url, connect_timeout=10)
    try:
        with contextlib.suppress(psycopg.Error):
            await connection.execute("SET lock_timeout = '1s'")
            await connection.execute(f"LOCK TABLE {table} IN {mode} MODE".encode())
        yield
    finally:
        await connection.close()


@asynccontextmanager
async def database_stopped(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """The whole server hangs."""
    desk.postgres.stop_all()
    try:
        yield
    finally:
        desk.postgres.resume_all()


@asynccontextmanager
async def database_killed(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """The whole server dies, and comes back."""
    await asyncio.to_thread(desk.postgres.kill)
    yield
    await asyncio.to_thread(desk.postgres.start_again)


@asynccontextmanager
async def disk_full(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """Nothing is left of the disk that the database has to itself: neither for rows nor for its own log."""
    await asyncio.to_thread(desk.postgres.fill_disk)
    try:
        yield
    finally:
        await asyncio.to_thread(desk.postgres.free_disk)


# --- Temporal, the venue, and the coordinator's queue ------------------------------------------------------------------


@asynccontextmanager
async def temporal_away(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """Temporal hangs, or dies and comes back with its file."""
    if fault.kind == "stop":
        desk.temporal.send(signal.SIGSTOP)
    else:
        await asyncio.to_thread(desk.temporal.kill)
    try:
        yield
    finally:
        desk.temporal.send(signal.SIGCONT) if fault.kind == "stop" else desk.temporal.start()


VENUE_SWITCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "errors": ({"errors": {"*": 503}}, {"errors": {}}),
    "slow": ({"slow": {"*": 0.5}}, {"slow": {}}),
    "late": ({"late": {"create_order": 4, "cancel_all_orders": 1}}, {"late": {}}),
    "begins_late": ({"slow": {"create_order": 4}}, {"slow": {}}),
    "account_unreadable": ({"errors": {"get_account_v4": 503}}, {"errors": {}}),
    "executes_and_fails": ({"errors": {"create_order": 503}, "executes": True}, {"errors": {}, "executes": False}),
}


@asynccontextmanager
async def venue_fails(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """The venue refuses, is slow, answers late, or carries out what it says it has not."""
    on, off = VENUE_SWITCHES[fault.kind]
    await desk.venue("faults", **on)
    try:
        yield
    finally:
        await desk.venue("faults", **off)


@asynccontextmanager
async def signals_wait(desk: Desk, fault: Fault) -> AsyncIterator[None]:
    """Signals without meaning: so many that kills have to overtake them, or that the run has to continue as new."""
    count = FLOOD if fault.kind == "flood" else AS_NEW
    for start in range(0, count, AT_ONCE):
        sent = (a_signal(desk, {"symbols": [SYMBOLS[0]]} if n % 25 else {}) for n in range(start, start + AT_ONCE))
        await asyncio.gather(*sent, return_exceptions=True)
    yield


async def a_signal(desk: Desk, said: dict[str, object]) -> None:
    """A cancel_all that nobody asks for again."""
    payload = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(said).encode())
    request = SignalWorkflowExecutionRequest(
        namespace="default",
        workflow_execution=WorkflowExecution(workflow_id=desk.workflow_id),
        signal_name="cancel_all",
        input=Payloads(payloads=[payload]),
        request_id=os.urandom(8).hex(),
    )
    assert desk.client
    await desk.client.workflow_service.signal_workflow_execution(request, retry=False, timeout=timedelta(seconds=3))
