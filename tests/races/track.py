"""The desk on which kills race: real servers, two APIs, two workers, and a record of all that anybody was told."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import psycopg
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

import settings
from cli.lifecycle import Lifecycle, RestartAsked
from cli.refusals import Refused
from cli.terms import plan
from storage.database import Database
from tests.chaos import recorder as r
from tests.chaos.clients import over_http
from tests.chaos.desk import Desk
from tests.chaos.recorder import Call, Recorder
from tests.chaos.schedule import SYMBOLS, Step
from tests.postgres import plain_url

PATIENCE = 180.0
PROPOSE_AGAIN_SECONDS = 3.0
LOOK_SECONDS = 0.05
SYMBOL = SYMBOLS[0]
# Those of `Lifecycle.restart` and of the coordinator that a later kill explains; nothing else may keep a restart away.
BEFORE_IT_WAS_SENT = ("came after you asked", "not killed; there is nothing to restart")


class Track:
    """One desk. Every trial has a number, by which the record names its commands: `kill-12`, `pause-12`."""

    def __init__(self, desk: Desk, recorder: Recorder) -> None:
        self.desk, self.recorder = desk, recorder
        self.number = 0
        self.restarted: dict[int, bool] = {}
        # Those that are no trial's have numbers that no trial has.
        self._restarts, self._proposals, self._resumes = count(), count(), count(50_000)

    async def open(self) -> None:
        """Until it trades."""
        await self.desk.open()
        os.environ.update(self.desk.environment("person"))
        self._database = Database(settings.DatabaseSettings.load().url, threads=1, application_name="races")
        terms = plan(settings.DeskSettings.load(), settings.LimitSettings.load())
        assert self.desk.client
        self._lifecycle = Lifecycle(self.desk.client, self._database, terms, lambda told: None)
        # Past every proxy: the tests look on.
        url = plain_url(self.desk.postgres.url_of(self.desk.database))
        self._connection = await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=10)

    async def close(self) -> None:
        """Nothing of it goes on."""
        await self._connection.close()
        self._database.close()
        await self.desk.close()

    # --- what people do ------------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        """Through one API after the other; what it races with comes through the other one."""
        await self.command("kill", self.number % 2)

    async def other(self, kind: str, **args: Any) -> None:
        """The command that the kill races with."""
        await self.command(kind, 1 - self.number % 2, **args)

    async def command(self, kind: str, api: int, number: int | None = None, **args: Any) -> None:
        """Over HTTP, under an id that says which trial's it is."""
        name = self.number if number is None else number
        step = Step(float(name), "race", "http", kind, args, api, f"{kind}-{name}")
        await over_http(self.desk, step, self.recorder, api)

    async def restart(self) -> bool:
        """What `ais restart` does, without the time that its process takes to start; whether it was carried out."""
        token = f"race-restart-{next(self._restarts)}"
        call = self.recorder.begin("operator", "ais", "restart", token=token)
        try:
            await self._lifecycle.restart(token, "cli:races", RestartAsked(datetime.now(UTC)))
        except Refused as error:
            self._refused(call, str(error))
            return False
        self.recorder.end(call, r.DONE)
        return True

    def _refused(self, call: Call, why: str) -> None:
        unsent = any(text in why for text in BEFORE_IT_WAS_SENT)
        self.recorder.end(call, r.NOT_RECORDED if unsent else r.UNKNOWN, told=why)

    # --- what a trial begins with --------------------------------------------------------------------------------------

    async def running(self) -> None:
        """Whatever the trial before has left; the run that a restart begins is there as well."""
        while True:
            status = await self.status()
            under_way = status["restart_pending"] or status["run_ending"]
            if status["state"] == "running" and not under_way:
                return
            if status["state"] == "killed" and not under_way:
                await self.restart()
            elif status["state"] == "paused":
                await self.command("resume", 0, next(self._resumes))
            # A look costs the server a query, and several desks look at the same time.
            await asyncio.sleep(LOOK_SECONDS)

    async def killed(self) -> None:
        """As the trial before leaves it; the first one has none before it."""
        if (await self.status())["state"] != "killed":
            await self.command("kill", 0, -1)

    async def paused(self) -> None:
        """Running, and then paused."""
        await self.running()
        await self.command("pause", 0)

    async def at_rest(self) -> None:
        """Running, with an order at the venue that there is something to cancel of."""
        await self.running()
        await self._proposed(self.rests, {"offset": -0.01})

    async def held(self) -> None:
        """Running, with a position that can be reduced."""
        await self.running()
        await self._proposed(self._holds, {})

    async def _proposed(self, came: Callable[[], Awaitable[bool]], args: dict[str, Any]) -> None:
        """Again and again: a proposal lasts for a cycle, and the order beside the market wants the price of now."""
        proposal = {"symbol": SYMBOL, "side": "BUY", "agent_id": "race", **args}
        until = time.monotonic() + PATIENCE
        while not await came():
            assert time.monotonic() < until, f"no order in {PATIENCE} s"
            marks = ((await self.status())["observation"] or {}).get("marks", {})
            self.desk.marks |= {symbol: float(mark) for symbol, mark in marks.items()}
            await self.command("propose", 0, next(self._proposals), **proposal)
            await self.comes(came, PROPOSE_AGAIN_SECONDS, LOOK_SECONDS)

    # --- what is so ----------------------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """What the coordinator says as soon as it answers."""
        until = time.monotonic() + PATIENCE
        while (status := await self.desk.status()) is None:
            assert time.monotonic() < until, f"no answer in {PATIENCE} s"
            await asyncio.sleep(0.05)
        return status

    async def comes(
        self, condition: Callable[[], Awaitable[bool]], seconds: float = PATIENCE, every: float = 0.005
    ) -> bool:
        """Waits for it; whether it came."""
        until = time.monotonic() + seconds
        while not await condition():
            if time.monotonic() > until:
                return False
            await asyncio.sleep(every)
        return True

    async def rests(self) -> bool:
        """Whether an order is open at the venue."""
        return bool(await self._first("SELECT count(*) FROM paper.orders WHERE status = 'open'"))

    async def reductions(self) -> int:
        """How many orders that only reduce have come to the venue."""
        return int(await self._first("SELECT count(*) FROM paper.orders WHERE reduce_only"))

    async def position(self) -> float:
        """Of the symbol, in units of the base asset."""
        return float(
            await self._first(f"SELECT coalesce(sum(quantity), 0) FROM paper.positions WHERE symbol = '{SYMBOL}'")
        )

    async def _holds(self) -> bool:
        # Twenty lots, of which a trial takes two.
        return await self.position() >= 0.02

    async def _first(self, statement: str) -> Any:
        row = await (await self._connection.execute(statement.encode())).fetchone()
        return row[0] if row else 0

    async def run_id(self) -> str:
        """Of the run that is open."""
        assert self.desk.client
        described = await self.desk.client.get_workflow_handle(self.desk.workflow_id).describe()
        return described.run_id or ""

    async def polls(self, pid: int) -> bool:
        """Whether a worker takes work by now: Temporal names each by its process."""
        assert self.desk.client
        queue = TaskQueue(name=self.desk.queue)
        kind = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
        request = DescribeTaskQueueRequest(namespace="default", task_queue=queue, task_queue_type=kind)
        answer = await self.desk.client.workflow_service.describe_task_queue(request, retry=True)
        return any(poller.identity.startswith(f"{pid}@") for poller in answer.pollers)
